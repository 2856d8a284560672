"""AppHarness: an app in the real sandbox, child process and all, with no server and no network (docs/testing-apps.md)."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, Self

import orjson

from plugin_server.model.lineage import Lineage, parse_lineage
from plugin_server.model.loop_guard import carried_budget
from plugin_server.model.project import Limits, LoopPolicy, Project
from plugin_server.testing.apps import AppLike, make_installs
from plugin_server.testing.host import HarnessHost
from plugin_server.testing.run import Node, Run, RunError, Tree
from plugin_server.testing.runner import DELIVERIES, Runner, broken_run
from plugin_server.testing.settlement import Unsettled

_PROJECT_ID: Final = 1


class HookNotFound(LookupError):
    """No app of the harness has that hook."""


class AppHarness:
    """Runs hooks of an app, or of a chain of apps, as the server would. docs/testing-apps.md describes every argument.

    `apps` are folders or archives, or source text with a line break; one of them or a list, which is then a chain.
    `source` is source text, one or a list. `config`, `attachments`, `storage` and `cache` are those of each app; an attachment
    is bytes, text, a JSON value, or `{content_type, file_name, contents}`. `http` and `posthog_api` are mock answers, `geoip`
    the record of each ip. `now` (ISO 8601 text or a datetime) stops the clock. `limits` and `loop_policy` have the fields of
    the projects file. `lineage` is the header that events come with. `project` is the project's id, else each event's
    `team_id`, else 1. With `setup=False` setupPlugin is not called, with `jobs_inline=False` jobs are only listed.
    """

    def __init__(
        self,
        apps: AppLike | Sequence[AppLike] = (),
        *,
        source: str | Sequence[str] = (),
        config: Mapping[str, Any] | None = None,
        attachments: Mapping[str, Any] | None = None,
        storage: Mapping[str, Any] | None = None,
        cache: Mapping[str, Any] | None = None,
        http: Sequence[Mapping[str, Any]] = (),
        posthog_api: Sequence[Mapping[str, Any]] = (),
        geoip: Mapping[str, Any] | None = None,
        now: str | datetime | None = None,
        limits: Mapping[str, Any] | None = None,
        loop_policy: Mapping[str, Any] | None = None,
        lineage: Mapping[str, Any] | None = None,
        project: int | None = None,
        setup: bool = True,
        jobs_inline: bool = True,
        allow_unconfined: bool = False,
    ) -> None:
        """Raises ConfigurationError for an app that cannot be read, ValueError for other arguments. Blocks."""
        self._project = Project(
            project or _PROJECT_ID,
            "harness",
            "phc_harness",
            make_installs(_listed(apps), _listed(source), config or {}, attachments or {}),
            LoopPolicy.model_validate(dict(loop_policy or {})),
            Limits.model_validate(dict(limits or {})),
        )
        self._project_id = project
        self._lineage = None if lineage is None else _parse(lineage)
        self._now = None if now is None else _timestamp(now)
        self._host = HarnessHost(
            self._project.installs,
            storage=storage or {},
            cache=cache or {},
            http=http,
            posthog_api=posthog_api,
            geoip=geoip or {},
            clock=self._clock,
        )
        self._runner = Runner(
            self._project, self._host, self._clock, now=self._now, set_up=setup, jobs_inline=jobs_inline
        )
        self._allow_unconfined = allow_unconfined

    async def __aenter__(self) -> Self:
        await self._host.start()
        await self._runner.start(allow_unconfined=self._allow_unconfined)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._runner.stop()

    @property
    def setup_error(self) -> RunError | None:
        """Why the first app that does not run does not: it does not compile, or its body or setupPlugin failed."""
        return self._runner.setup_error

    @property
    def setup_logs(self) -> list[dict[str, Any]]:
        """What the apps logged while they were loaded and set up."""
        return self._runner.setup_logs

    @property
    def setup_requests(self) -> list[dict[str, Any]]:
        """The requests that setupPlugin made, as in `Run.requests`."""
        return self._runner.setup_requests

    @property
    def hooks(self) -> frozenset[str]:
        """The hooks that the apps have."""
        return self._runner.hooks

    @property
    def storage(self) -> dict[Any, Any]:
        """What the app has stored, as it stands now. Of a chain: `{install id: what that app has stored}`, from 1."""
        return self._per_install(lambda install: self._host.storage.of(install.id))

    @property
    def cache(self) -> dict[Any, Any]:
        """What is in the app's cache now. Of a chain: `{install id: what is in that app's}`, from 1."""
        return self._per_install(self._host.cache_of)

    @property
    def cache_ttl_seconds(self) -> dict[Any, Any]:
        """How many seconds those keys of the cache have left that do not stay for ever; by app as `cache`."""
        return self._per_install(self._host.cache_ttl_seconds)

    async def change_storage(self, values: Mapping[str, Any], *, clear: bool = False) -> None:
        """Set keys of every app's storage from outside, None deletes; with `clear`, delete all others first."""
        if clear:
            self._host.storage.clear()
        for install in self._project.installs:
            self._host.storage.write(install.id, values)

    async def change_cache(self, values: Mapping[str, Any], *, clear: bool = False) -> None:
        """Set keys of every app's cache from outside, None deletes; with `clear`, delete all others first."""
        if clear:
            await self._host.clear_cache()
        await self._host.write_cache(values)

    async def run(self, hook: str, *arguments: Any, lineage: Mapping[str, Any] | None = None) -> Run:
        """Call a hook: `("processEvent", event)`, `("jobs.name", payload)`, `("runEveryMinute")`, `("exportEvents", events)`.

        In a chain, processEvent runs through all apps and other hooks run in each app that has it; an app with only
        processEventBatch has a processEvent too. Raises HookNotFound if no app has it; whatever the app does wrong is in
        `Run.error`.
        """
        broken = self.setup_error
        known = self.hooks | ({"processEvent"} if "processEventBatch" in self.hooks else frozenset())
        if hook not in known:
            if broken is None:
                raise HookNotFound(f"no app has {hook}: they have {', '.join(sorted(self.hooks)) or 'no hook at all'}")
            return broken_run(hook, arguments, broken)
        parsed = self._lineage if lineage is None else _parse(lineage)
        start = time.perf_counter()
        if hook == "processEvent":
            (event,) = arguments
            run, _ = await self._runner.process_event(event, parsed, self._project_id_of(event))
        else:
            run = await self._runner.call(hook, arguments, parsed, self._project_id)
        run.duration_seconds = time.perf_counter() - start
        run.error = run.error or broken
        return run

    async def settle(self) -> Tree:
        """Run what was captured so far through the apps, and what that captures, until nothing comes any more.

        As on a server, an event goes through the chain, and what comes out is delivered to the apps that take deliveries.
        The loop guard ends it: every loop, and every tree at its budget.
        """
        tree = Tree()
        waiting = [(tree.roots, entry) for entry in self._runner.take_unsettled()]
        while waiting:
            siblings, entry = waiting.pop(0)
            node = await self._settle_one(entry)
            siblings.append(node)
            waiting += [(node.children, child) for child in self._runner.take_unsettled()]
        return tree

    async def _settle_one(self, entry: Unsettled) -> Node:
        event, lineage, project_id = entry
        run, admitted = await self._runner.process_event(event, lineage, project_id)
        node = Node(event, lineage.depth, run)
        receiving = [hook for hook in DELIVERIES if hook in self.hooks and _receives(hook, event)]
        if run.event is None or not receiving:
            return node
        budget = carried_budget(lineage.budget, admitted, has_delivery=True)
        carried = Lineage(lineage.root, lineage.depth, lineage.path, budget)
        for hook in receiving:
            argument = [run.event] if hook == "exportEvents" else run.event
            node.deliveries.append(await self._runner.call(hook, [argument], carried, project_id))
        return node

    def _project_id_of(self, event: Any) -> int:
        found = event.get("team_id") if isinstance(event, Mapping) else None
        return self._project_id or (found if type(found) is int else _PROJECT_ID)

    def _per_install(self, of: Any) -> dict[Any, Any]:
        installs = self._project.installs
        if len(installs) == 1:
            only: dict[Any, Any] = of(installs[0])
            return only
        return {install.id: of(install) for install in installs}

    def _clock(self) -> float:
        return time.time() if self._now is None else self._now


def _receives(hook: str, event: Mapping[str, Any]) -> bool:
    is_snapshot = event.get("event") == "$snapshot"
    return is_snapshot == (hook == "onSnapshot")


def _listed(value: Any) -> list[Any]:
    return [value] if isinstance(value, str) or not isinstance(value, Sequence) else list(value)


def _parse(lineage: Mapping[str, Any]) -> Lineage:
    return parse_lineage(orjson.dumps(dict(lineage)))


def _timestamp(now: str | datetime) -> float:
    moment = datetime.fromisoformat(now) if isinstance(now, str) else now
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()

"""AppHarness: an app in the real sandbox, child process and all, with no server and no network (DESIGN 8)."""

from __future__ import annotations

import asyncio
import copy
import time
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from types import TracebackType
from typing import Any, Final, Self

import orjson
import structlog

from plugin_server.host_api.calls import HostApi
from plugin_server.host_api.captures import AppliedCaptures, Captures, Parent
from plugin_server.model.lineage import LINEAGE_HEADER, Lineage, parse_lineage
from plugin_server.model.project import Limits, LoopPolicy, Project
from plugin_server.runtime.chain import DELIVERY_HOOKS, Chain
from plugin_server.runtime.fork_server import ForkServer
from plugin_server.runtime.replies import Capture, ChainResult, HookFailure, Loaded, LogLine, Notes
from plugin_server.runtime.sandbox import Sandbox, SandboxServices
from plugin_server.runtime.watchdog import watch
from plugin_server.runtime.work import Work
from plugin_server.testing.apps import AppLike, make_installs
from plugin_server.testing.run import Node, Run, RunError, Tree
from sandbox.event import STAMPS
from sandbox.wire import EventOutcome

_INGESTION: Final = "ingestion"
_RECORD_BYTES: Final = 1_000_000
_log = structlog.get_logger(__name__)


class HookNotFound(LookupError):
    """No app of the harness has that hook."""


class AppHarness:
    """Runs hooks of an app, or of a chain of apps, as the server would.

    `apps` are folders or archives, or source text with a line break; one of them or a list, which is then a chain.
    `source` is source text, one or a list. `config` and `attachments` go to each app; an attachment is bytes, text, a
    JSON value, or `{content_type, file_name, contents}`. `now` (ISO 8601 text or a datetime) stops the apps' clock.
    `limits` and `loop_policy` have the fields of the projects file. `lineage` is the header that events come with.
    `project` is the project's id, else each event's `team_id`, else 1. With `setup=False` setupPlugin is not called.

    `http`, `posthog_api`, `storage`, `cache`, `geoip` and `jobs_inline` are for the host API, whose parts that this
    version lacks do nothing.
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
        """Raises ConfigurationError for an app that cannot be read, ValueError for limits that there are not. Blocks."""
        del jobs_inline
        for name, given in {
            "http": http, "posthog_api": posthog_api, "storage": storage, "cache": cache, "geoip": geoip,
        }.items():  # fmt: skip
            if given:
                _log.warning("harness_argument_without_effect", argument=name)
        self._project = Project(
            project or 1,
            "harness",
            "phc_harness",
            make_installs(_listed(apps), _listed(source), config or {}, attachments or {}),
            LoopPolicy.model_validate(dict(loop_policy or {})),
            Limits.model_validate(dict(limits or {})),
        )
        self._project_id = project
        self._lineage = None if lineage is None else parse_lineage(orjson.dumps(dict(lineage)))
        self._now = None if now is None else _timestamp(now)
        self._set_up = setup
        self._allow_unconfined = allow_unconfined
        self._captures = Captures(_INGESTION, "dead_letters", _RECORD_BYTES, self._clock)
        self._loaded: Loaded | None = None
        self._runs = 0
        self._unsettled: list[tuple[dict[str, Any], Lineage]] = []
        self._fork_server: ForkServer
        self._sandbox: Sandbox
        self._chain: Chain
        self._watching: asyncio.Task[None]

    async def __aenter__(self) -> Self:
        self._fork_server = ForkServer(allow_unconfined=self._allow_unconfined)
        await self._fork_server.start()
        services = SandboxServices(
            self._fork_server.spawn, HostApi(), self, version("plugin-server"), _RECORD_BYTES, now=self._now
        )
        self._sandbox = Sandbox(self._project.limits.memory_bytes, services)
        self._chain = self._sandbox.add_chain(
            self._project, self._project.installs, opened=True, whole=True, set_up=self._set_up
        )
        self._watching = asyncio.get_running_loop().create_task(watch(lambda: (self._sandbox,)))
        await self._sandbox.loaded(self._chain)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watching.cancel()
        await asyncio.gather(self._watching, return_exceptions=True)
        await self._sandbox.close()
        await self._fork_server.stop()

    @property
    def setup_error(self) -> RunError | None:
        """Why the first app that does not run does not: it does not compile, or its body or setupPlugin failed."""
        assert self._loaded is not None, "AppHarness is used with `async with`"
        failures = {entry.install_id: entry.error for entry in self._loaded.installs}
        return next((_error(failure) for install in self._project.installs if (failure := failures[install.id])), None)

    @property
    def hooks(self) -> frozenset[str]:
        """The hooks that the apps have."""
        return frozenset().union(*(self._chain.hooks(install.id) for install in self._project.installs))

    @property
    def setup_logs(self) -> list[dict[str, Any]]:
        """What the apps logged while they were loaded and set up."""
        assert self._loaded is not None, "AppHarness is used with `async with`"
        return _logs(self._loaded.logs)

    async def run(self, hook: str, *arguments: Any, lineage: Mapping[str, Any] | None = None) -> Run:
        """Call a hook: `("processEvent", event)`, `("jobs.name", payload)`, `("runEveryMinute",)`, `("exportEvents", events)`.

        In a chain, processEvent runs through all apps and other hooks run in each app that has it. Raises HookNotFound
        if no app has it; whatever the app does wrong is in `Run.error`.
        """
        broken = self.setup_error
        if hook not in self.hooks:
            if broken is None:
                raise HookNotFound(f"no app has {hook}: they have {', '.join(sorted(self.hooks)) or 'no hook at all'}")
            event = copy.deepcopy(arguments[0]) if arguments and hook in ("processEvent", "processEventBatch") else None
            return Run(hook, event=event, error=broken)
        parsed = self._lineage if lineage is None else parse_lineage(orjson.dumps(dict(lineage)))
        start = time.perf_counter()
        if hook == "processEvent":
            (event,) = arguments
            run = await self._process_event(event, parsed)
        else:
            run = await self._invoke(hook, arguments, parsed)
        run.duration_seconds = time.perf_counter() - start
        run.error = run.error or broken
        return run

    async def settle(self) -> Tree:
        """Run what was captured so far through the chain, and what that captures, until nothing comes any more.

        The loop guard ends it: every loop, and every tree at its budget.
        """
        begun, self._unsettled = self._unsettled, []
        tree = Tree()
        waiting: list[tuple[list[Node], dict[str, Any], Lineage]] = [(tree.roots, *entry) for entry in begun]
        while waiting:
            siblings, event, lineage = waiting.pop(0)
            run = await self._process_event(event, lineage)
            node = Node(event, lineage.depth, run)
            siblings.append(node)
            children, self._unsettled = self._unsettled, []
            waiting += [(node.children, *entry) for entry in children]
        return tree

    # SandboxReport

    def loaded(self, project: Project, loaded: Loaded) -> None:
        """The sandbox has loaded the apps, again after it was replaced."""
        del project
        self._loaded = loaded

    def torn_down(self, project: Project, logs: Sequence[LogLine]) -> None:
        """Nothing to do: a harness ends without teardownPlugin."""

    def restarted(self, project: Project) -> None:
        """Nothing to do: the run that was to blame says so."""

    def moved(self, project: Project, install_id: int) -> None:
        """Does not happen here."""

    async def _process_event(self, event: Mapping[str, Any], lineage: Lineage | None) -> Run:
        given = dict(event)
        whole = self._completed(given)
        sink = _Sink()
        work = Work(None, orjson.dumps(whole), sink, whole["distinct_id"])
        self._sandbox.submit(self._chain, [work])
        result = await sink.result
        notes = result.notes or Notes()
        run = Run("processEvent", logs=_logs(notes.logs))
        if result.outcome is EventOutcome.WHOLE:
            run.event = _as_given(orjson.loads(result.properties), given)
        elif result.outcome is EventOutcome.INVALID:
            kind, message = notes.error or ("", "")
            run.error = RunError("protocol", f"not an event: {message or kind}")
        if notes.failures:
            run.error = _error(notes.failures[0])
        self._apply(run, notes.captures, self._parent(whole, lineage))
        return run

    async def _invoke(self, hook: str, arguments: Sequence[Any], lineage: Lineage | None) -> Run:
        values = [self._completed(value) if hook in _EVENT_HOOKS else copy.deepcopy(value) for value in arguments[:1]]
        batch: list[dict[str, Any]] = []
        if hook in _BATCH_HOOKS and values:
            batch = [self._completed(event) for event in values[0]]
            values = [batch]
        run = Run(hook)
        parent = self._parent(_first_event(hook, values), lineage)
        for install in self._project.installs:
            if hook not in self._chain.hooks(install.id):
                continue
            result = await self._sandbox.invoke(self._chain, install.id, hook, values)
            run.logs += _logs(result.logs)
            if result.failure is not None:
                run.error = run.error or _error(result.failure)
            elif hook == "processEventBatch":
                values = [result.value]  # checked by the sandbox's own rules; read as it is
            else:
                run.value = result.value
            self._apply(run, result.captures, parent)
        if hook == "processEventBatch" and run.error is None:
            given = {whole["uuid"]: event for whole, event in zip(batch, arguments[0], strict=True)}
            returned: Any = values[0]
            run.event = [_as_given(event, given.get(event.get("uuid"), {})) for event in returned]
        return run

    def _apply(self, run: Run, captures: Sequence[Capture], parent: Parent) -> None:
        """The loop guard's word over what a hook captured, as the server has it."""
        if not captures:
            return
        has_delivery = bool(self.hooks & DELIVERY_HOOKS)
        applied: AppliedCaptures = self._captures.apply(self._project, parent, captures, has_delivery=has_delivery)
        for record in applied.records:
            if record.topic != _INGESTION:
                continue
            data = orjson.loads(orjson.loads(record.value)["data"])
            run.captured.append({name: data[name] for name in _CAPTURED_FIELDS})
            self._unsettled.append((data, parse_lineage(dict(record.headers)[LINEAGE_HEADER])))
        run.logs += _logs(applied.logs)
        run.cuts += [
            {"reason": str(cut.reason), "install": cut.install_id, "count": cut.count, "chain": cut.chain}
            for cut in applied.cuts
            if cut.was_cut
        ]

    def _parent(self, event: Mapping[str, Any], lineage: Lineage | None) -> Parent:
        self._runs += 1
        root = lineage or Lineage(event["uuid"], budget=self._project.loop_policy.max_events_per_root)
        return Parent(event["uuid"], f"{_INGESTION}-0-{self._runs}", root, malformed_lineage=False)

    def _completed(self, event: Any) -> dict[str, Any]:
        """An event with what every event has when it comes to an app."""
        if not isinstance(event, Mapping):
            raise TypeError(f"an event is a dict, not {type(event).__name__}")
        now = datetime.fromtimestamp(self._clock(), UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        whole = {"uuid": _new_uuid(), "distinct_id": "distinct id", "event": "$event", "now": now, **event}
        whole["team_id"] = self._project_id or event.get("team_id", self._project.id)
        properties = event.get("properties") or {}
        whole["properties"] = {key: value for key, value in properties.items() if key not in STAMPS}
        return whole

    def _clock(self) -> float:
        return time.time() if self._now is None else self._now


_EVENT_HOOKS: Final = frozenset({"onEvent", "onSnapshot", "composeWebhook"})
_BATCH_HOOKS: Final = frozenset({"processEventBatch", "exportEvents"})
_CAPTURED_FIELDS: Final = ("uuid", "event", "distinct_id", "timestamp", "properties")


class _Sink:
    """Takes one event's result."""

    closed = False

    def __init__(self) -> None:
        self.result: asyncio.Future[ChainResult] = asyncio.get_running_loop().create_future()

    def deliver(self, results: Sequence[tuple[None, ChainResult]], *, has_delivery: bool) -> None:
        del has_delivery
        self.result.set_result(results[0][1])


def _as_given(event: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The event without what the harness put into it and no app touched."""
    kept = dict(event)
    for name in ("uuid", "now", "team_id"):
        if name not in given:
            kept.pop(name, None)
    for name, added in (("distinct_id", "distinct id"), ("event", "$event"), ("properties", {})):
        if name not in given and kept.get(name) == added:
            kept.pop(name, None)
    return kept


def _first_event(hook: str, values: Sequence[Any]) -> Mapping[str, Any]:
    if hook in _EVENT_HOOKS and values:
        event: Mapping[str, Any] = values[0]
        return event
    if hook in _BATCH_HOOKS and values and values[0]:
        first: Mapping[str, Any] = values[0][0]
        return first
    return {"uuid": _new_uuid()}


def _listed(value: Any) -> list[Any]:
    return [value] if isinstance(value, str) or not isinstance(value, Sequence) else list(value)


def _error(failure: HookFailure) -> RunError:
    return RunError(failure.kind, failure.message, failure.line)


def _logs(lines: Sequence[LogLine]) -> list[dict[str, Any]]:
    return [{"level": line.level, "message": line.message, "source": line.source} for line in lines]


def _timestamp(now: str | datetime) -> float:
    moment = datetime.fromisoformat(now) if isinstance(now, str) else now
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _new_uuid() -> str:
    return str(uuid.uuid4())

"""Calls hooks in a sandbox and takes what they leave, one run at a time, as a server's lanes and workers do."""

from __future__ import annotations

import asyncio
import copy
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from typing import Any, Final

import orjson

from plugin_server.delivery.webhook import COMPOSE_WEBHOOK, read_webhook
from plugin_server.host_api.captures import Parent, new_root
from plugin_server.model.errors import AppError, FetchFailed, FetchRefused
from plugin_server.model.lineage import Lineage
from plugin_server.model.loop_guard import split_budget
from plugin_server.model.origin import Origin
from plugin_server.model.project import Install, Project
from plugin_server.runtime.chain import DELIVERY_HOOKS, Chain
from plugin_server.runtime.fork_server import ForkServer
from plugin_server.runtime.replies import ChainResult, HookFailure, Loaded, LogLine, Notes
from plugin_server.runtime.sandbox import Sandbox, SandboxServices
from plugin_server.runtime.watchdog import watch
from plugin_server.runtime.work import InvocationResult, Work
from plugin_server.testing.events import as_given, completed, parent_uuid, project_of, values_of
from plugin_server.testing.host import HarnessEffects, HarnessHost
from plugin_server.testing.run import Run, RunError
from plugin_server.testing.settlement import (
    INGESTION,
    RECORD_BYTES,
    Settlement,
    StartedJob,
    Unsettled,
    log_lines,
    parent_of,
)
from sandbox.wire import JOB_PREFIX, EventOutcome

DELIVERIES: Final = ("onEvent", "onSnapshot", "composeWebhook", "exportEvents")
"""Hooks that an event is delivered to after its chain"""
_GIVEN_UP: Final = ": setupPlugin failed, it is not tried again"


class Runner:
    """The sandbox of one harness. It is its own SandboxReport."""

    def __init__(
        self,
        project: Project,
        host: HarnessHost,
        clock: Callable[[], float],
        *,
        now: float | None,
        set_up: bool,
        jobs_inline: bool,
    ) -> None:
        self._project = project
        self._host = host
        self._clock = clock
        self._now = now
        self._set_up = set_up
        self._jobs_inline = jobs_inline
        self._settlement = Settlement(host.storage, clock)
        self._loaded: Loaded | None = None
        self._set_ups: list[HarnessEffects] = []
        self._runs = 0
        self._fork_server: ForkServer
        self._sandbox: Sandbox
        self._chain: Chain
        self._watching: asyncio.Task[None]

    async def start(self, *, allow_unconfined: bool) -> None:
        """Start the sandbox, load the apps and set them up. Raises SandboxUnavailable, or ConfigurationError without seccomp."""
        self._fork_server = ForkServer(allow_unconfined=allow_unconfined)
        await self._fork_server.start()
        services = SandboxServices(
            self._fork_server.spawn,
            self._host,
            self._effects_of_set_up,
            self,
            version("plugin-server"),
            RECORD_BYTES,
            now=self._now,
            set_up_attempts=1,
        )
        self._sandbox = Sandbox(self._project.limits.memory_bytes, services)
        self._chain = self._sandbox.add_chain(
            self._project, self._project.installs, opened=True, whole=True, set_up=self._set_up
        )
        self._watching = asyncio.get_running_loop().create_task(watch(lambda: (self._sandbox,)))
        await self._sandbox.loaded(self._chain)

    async def stop(self) -> None:
        """End the sandbox."""
        self._watching.cancel()
        await asyncio.gather(self._watching, return_exceptions=True)
        await self._sandbox.close()
        await self._fork_server.stop()

    @property
    def setup_error(self) -> RunError | None:
        """See AppHarness."""
        failures = {entry.install_id: entry.error for entry in self._loads.installs}
        found = [_error(failure) for install in self._project.installs if (failure := failures[install.id])]
        return replace(found[0], message=found[0].message.removesuffix(_GIVEN_UP)) if found else None

    @property
    def setup_logs(self) -> list[dict[str, Any]]:
        """See AppHarness."""
        return log_lines(self._loads.logs)

    @property
    def setup_requests(self) -> list[dict[str, Any]]:
        """See AppHarness."""
        return [request for effects in self._set_ups for request in effects.requests]

    @property
    def hooks(self) -> frozenset[str]:
        """Of all apps."""
        return frozenset().union(*(self._chain.hooks(install.id) for install in self._project.installs))

    @property
    def _loads(self) -> Loaded:
        assert self._loaded is not None, "AppHarness is used with `async with`"
        return self._loaded

    def take_unsettled(self) -> list[Unsettled]:
        """What was captured since the last time."""
        return self._settlement.take_unsettled()

    # SandboxReport

    def loaded(self, project: Project, loaded: Loaded) -> None:
        """The sandbox has loaded the apps, again after it was replaced."""
        del project
        self._loaded = loaded

    def set_up(self, project: Project, install_id: int, result: InvocationResult, effects: Any) -> None:
        """A setupPlugin succeeded: keep what it did."""
        del install_id
        kept: HarnessEffects = effects
        kept.storage.look_at_increments(result.unheard)
        parent = new_root(kept.origin, project, link=None)
        self._settlement.settle(Run("setupPlugin"), parent, result.captures, kept)

    def torn_down(self, project: Project, logs: Sequence[LogLine]) -> None:
        """Nothing to do: a harness ends without teardownPlugin."""

    def restarted(self, project: Project) -> None:
        """Nothing to do: the run that was to blame says so."""

    def moved(self, project: Project, install_id: int) -> None:
        """Does not happen here."""

    # Runs

    async def process_event(
        self, event: Mapping[str, Any], lineage: Lineage | None, project_id: int
    ) -> tuple[Run, int]:
        """One event through the chain; the run, and how many captures and jobs it started."""
        whole = completed(event, project_id, self._clock())
        given = dict(event)
        project = replace(self._project, id=project_id)
        effects = HarnessEffects(project, Origin(self._next_source(), whole["uuid"], "processEvent"))
        result = await self._run_chain(whole, effects)
        while self._host.storage.ledger.is_stale(effects.storage):
            effects.storage.abandon()
            effects = effects.again()
            result = await self._run_chain(whole, effects)
        notes = result.notes or Notes()
        run = Run("processEvent", logs=log_lines(notes.logs))
        if result.outcome is EventOutcome.WHOLE:
            run.event = as_given(orjson.loads(result.properties), given)
        elif result.outcome is EventOutcome.INVALID:
            kind, message = notes.error or ("", "")
            run.error = RunError("protocol", f"not an event: {message or kind}")
        if notes.failures:
            run.error = _error(notes.failures[0])
        found = lineage or Lineage(whole["uuid"], budget=project.loop_policy.max_events_per_root)
        has_delivery = bool(self.hooks & DELIVERY_HOOKS)
        share = split_budget(found.budget, has_delivery=has_delivery).chain
        parent = parent_of(effects.origin, found, share)
        started = self._settlement.settle(run, parent, notes.captures, effects)
        admitted = len(run.captured) + len(started)
        await self._run_due(run, started, project)
        return run, admitted

    async def call(self, hook: str, arguments: Sequence[Any], lineage: Lineage | None, project_id: int | None) -> Run:
        """A hook other than processEvent, in each app that has it. `project_id` None: whichever the event names."""
        values = values_of(hook, arguments, project_id)
        project = replace(self._project, id=project_id or project_of(hook, values, self._project.id))
        run = Run(hook)
        event_uuid = parent_uuid(hook, values)
        for install in project.installs:
            if hook not in self._chain.hooks(install.id) or values == [None]:
                continue
            origin = Origin(self._next_source(), event_uuid or str(uuid.uuid4()), hook)
            parent = self._parent_of(origin, event_uuid, lineage, project)
            returned, failure, started = await self._invoke(run, project, install, values, parent)
            run.error = run.error or failure
            if failure is None and hook == "processEventBatch":
                values = [returned]
            elif failure is None:
                run.value = returned
            await self._run_due(run, started, project)
        if hook == "processEventBatch":
            run.event = values[0]
        return run

    def _parent_of(self, origin: Origin, event_uuid: str | None, lineage: Lineage | None, project: Project) -> Parent:
        hook = origin.hook
        if event_uuid is None:
            return new_root(origin, project, link=0 if hook.startswith(JOB_PREFIX) else None)
        has_delivery = bool(self.hooks & DELIVERY_HOOKS)
        if hook == "processEventBatch":
            found = lineage or Lineage(event_uuid, budget=project.loop_policy.max_events_per_root)
            return parent_of(origin, found, split_budget(found.budget, has_delivery=has_delivery).chain)
        shares = split_budget(project.loop_policy.max_events_per_root, has_delivery=has_delivery)
        found = lineage or Lineage(event_uuid, budget=shares.delivery)
        receiving = sum(1 for install in project.installs if self._chain.hooks(install.id) & DELIVERY_HOOKS)
        return parent_of(origin, found, found.budget // max(1, receiving))

    async def _run_due(self, run: Run, started: Sequence[StartedJob], project: Project) -> None:
        """Run the jobs that are due, and those that these start; what they do is part of the run."""
        if not self._jobs_inline:
            return
        waiting = [entry.job for entry in started if entry.is_due]
        while waiting:
            job = waiting.pop(0)
            install = next(install for install in project.installs if install.id == job.install_id)
            hook = f"{JOB_PREFIX}{job.name}"
            origin = Origin(f"job-{job.id}", job.id, hook)
            lineage = job.lineage or Lineage(job.id, budget=job.share)
            parent = replace(parent_of(origin, lineage, job.share), is_root=job.lineage is None, link=job.link)
            payload = [orjson.loads(job.payload)]
            _, failure, begun = await self._invoke(run, project, install, payload, parent)
            run.error = run.error or failure
            waiting += [entry.job for entry in begun if entry.is_due]

    async def _invoke(
        self, run: Run, project: Project, install: Install, values: Sequence[Any], parent: Parent
    ) -> tuple[Any, RunError | None, list[StartedJob]]:
        """One call in one app: what it returned, why it failed, the jobs it started. The rest is added to `run`."""
        encoded = orjson.dumps(list(values))
        effects = HarnessEffects(project, Origin(parent.source, parent.uuid, parent.hook))
        result = await self._run_hook(install, encoded, effects, parent)
        while result.failure is None and self._host.storage.ledger.is_stale(effects.storage):
            effects.storage.abandon()
            effects = effects.again()
            result = await self._run_hook(install, encoded, effects, parent)
        run.logs += log_lines(result.logs)
        failure = None if result.failure is None else _error(result.failure)
        if failure is None and parent.hook == COMPOSE_WEBHOOK:
            failure = await self._post(install, result.value, effects)
        if failure is not None:
            effects.forget([install.id])
        return result.value, failure, self._settlement.settle(run, parent, () if failure else result.captures, effects)

    async def _run_hook(
        self, install: Install, arguments: bytes, effects: HarnessEffects, parent: Parent
    ) -> InvocationResult:
        hook = parent.hook
        is_task = hook.startswith("runEvery") or (hook.startswith(JOB_PREFIX) and parent.is_root)
        allowed = self._project.limits.captures_per_run if is_task else None
        result = await self._sandbox.invoke(self._chain, install.id, hook, arguments, effects, max_captures=allowed)
        if result.failure is not None:
            effects.forget([install.id])
        effects.storage.look_at_increments(result.unheard)
        return result

    async def _run_chain(self, event: Mapping[str, Any], effects: HarnessEffects) -> ChainResult:
        sink = _Sink(effects)
        work = Work(None, orjson.dumps(event), sink, event["distinct_id"])
        self._sandbox.submit(self._chain, [work])
        result = await sink.result
        notes = result.notes or Notes()
        effects.forget([failure.install_id for failure in notes.failures])
        effects.storage.look_at_increments(notes.unheard)
        return result

    async def _post(self, install: Install, value: Any, effects: HarnessEffects) -> RunError | None:
        """Send what composeWebhook returned; why that failed, and whether a server would try again."""
        try:
            webhook = read_webhook(value)
            if webhook is None:
                return None
            status = await self._host.send_webhook(effects, install, webhook)
        except FetchFailed as error:
            return RunError("app" if isinstance(error, FetchRefused) else "retry", str(error))
        except AppError as error:
            return RunError("app", str(error))
        return None if 200 <= status < 300 else RunError("retry", f"{webhook.method} answered {status}")

    def _effects_of_set_up(self, project: Project, origin: Origin) -> HarnessEffects:
        effects = HarnessEffects(project, origin)
        self._set_ups.append(effects)
        return effects

    def _next_source(self) -> str:
        self._runs += 1
        return f"{INGESTION}-0-{self._runs}"


class _Sink:
    """Takes one event's result."""

    closed = False

    def __init__(self, effects: HarnessEffects) -> None:
        self.result: asyncio.Future[ChainResult] = asyncio.get_running_loop().create_future()
        self._effects = effects

    def deliver(self, results: Sequence[tuple[None, ChainResult]], *, has_delivery: bool) -> None:
        del has_delivery
        self.result.set_result(results[0][1])

    def effects_of(self, item: None) -> HarnessEffects:
        del item
        return self._effects


def broken_run(hook: str, arguments: Sequence[Any], error: RunError) -> Run:
    """Of a hook that nobody has since the app does not run: events pass it by."""
    passes = arguments and hook in ("processEvent", "processEventBatch")
    return Run(hook, event=copy.deepcopy(arguments[0]) if passes else None, error=error)


def _error(failure: HookFailure) -> RunError:
    return RunError(failure.kind, failure.message, failure.line)

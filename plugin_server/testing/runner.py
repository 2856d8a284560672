"""Calls hooks in a sandbox and takes what they leave, one run at a time, as a server's lanes and workers do."""

from __future__ import annotations

import asyncio
import copy
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, Final, NamedTuple

import orjson

from plugin_server.host_api.app_metrics import KINDS, combine
from plugin_server.host_api.captures import Captures, Parent, pace_ms
from plugin_server.host_api.effects import JobRequest
from plugin_server.model.errors import AppError
from plugin_server.model.ids import idempotency_key
from plugin_server.model.job import NewJob
from plugin_server.model.lineage import LINEAGE_HEADER, Lineage, parse_lineage
from plugin_server.model.loop_guard import split_budget
from plugin_server.model.origin import Origin
from plugin_server.model.project import Install, Project
from plugin_server.runtime.chain import DELIVERY_HOOKS, Chain
from plugin_server.runtime.fork_server import ForkServer
from plugin_server.runtime.replies import Capture, ChainResult, HookFailure, Loaded, LogLine, Notes
from plugin_server.runtime.sandbox import Sandbox, SandboxServices
from plugin_server.runtime.watchdog import watch
from plugin_server.runtime.work import InvocationResult, Work
from plugin_server.testing.host import HarnessEffects, HarnessHost
from plugin_server.testing.run import Run, RunError
from plugin_server.testing.webhook import webhook_request
from sandbox.event import STAMPS
from sandbox.wire import JOB_PREFIX, EventOutcome

DELIVERIES: Final = ("onEvent", "onSnapshot", "composeWebhook", "exportEvents")
"""Hooks that an event is delivered to after its chain"""
_INGESTION: Final = "events_plugin_ingestion"
_RECORD_BYTES: Final = 1_000_000
_EVENT_HOOKS: Final = frozenset({"onEvent", "onSnapshot", "composeWebhook"})
_BATCH_HOOKS: Final = frozenset({"processEventBatch", "exportEvents"})
_CAPTURED_FIELDS: Final = ("uuid", "event", "distinct_id", "timestamp", "properties")
_GIVEN_UP: Final = ": setupPlugin failed, it is not tried again"


class Unsettled(NamedTuple):
    """A captured event that has not run through the apps yet."""

    event: dict[str, Any]
    lineage: Lineage
    project_id: int


@dataclass(frozen=True, slots=True)
class _Started:
    """A job as it is stored, and whether it is to run at once."""

    job: NewJob
    request: JobRequest

    @property
    def is_due(self) -> bool:
        return self.request.run_at_ms is None and not pace_ms(self.job.link)


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
        self._captures = Captures(_INGESTION, "events_dead_letter_queue", _RECORD_BYTES, clock)
        self._loaded: Loaded | None = None
        self._set_ups: list[HarnessEffects] = []
        self._runs = 0
        self._unsettled: list[Unsettled] = []
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
            _RECORD_BYTES,
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
        return _logs(self._loads.logs)

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
        taken, self._unsettled = self._unsettled, []
        return taken

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
        parent = _new_root(kept.origin, project, link=None)
        self._settle(Run("setupPlugin"), parent, result.captures, kept)

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
        given = dict(_checked(event))
        whole = self._completed(given, project_id)
        project = replace(self._project, id=project_id)
        effects = HarnessEffects(project, Origin(self._next_source(), whole["uuid"], "processEvent"))
        result = await self._run_chain(whole, effects)
        while self._host.storage.ledger.is_stale(effects.storage):
            effects.storage.abandon()
            effects = effects.again()
            result = await self._run_chain(whole, effects)
        notes = result.notes or Notes()
        run = Run("processEvent", logs=_logs(notes.logs))
        if result.outcome is EventOutcome.WHOLE:
            run.event = _as_given(orjson.loads(result.properties), given)
        elif result.outcome is EventOutcome.INVALID:
            kind, message = notes.error or ("", "")
            run.error = RunError("protocol", f"not an event: {message or kind}")
        if notes.failures:
            run.error = _error(notes.failures[0])
        found = lineage or Lineage(whole["uuid"], budget=project.loop_policy.max_events_per_root)
        has_delivery = bool(self.hooks & DELIVERY_HOOKS)
        share = split_budget(found.budget, has_delivery=has_delivery).chain
        parent = _parent(effects.origin, found, share)
        started = self._settle(run, parent, notes.captures, effects)
        admitted = len(run.captured) + len(started)
        await self._run_due(run, started, project)
        return run, admitted

    async def call(self, hook: str, arguments: Sequence[Any], lineage: Lineage | None, project_id: int) -> Run:
        """A hook that is no part of the chain, in each app that has it."""
        values = self._values(hook, arguments, project_id)
        batch: list[dict[str, Any]] = values[0] if hook in _BATCH_HOOKS and values else []
        project = replace(self._project, id=project_id)
        run = Run(hook)
        having = [install for install in project.installs if hook in self._chain.hooks(install.id)]
        event_uuid = _first_uuid(hook, values)
        receiving = sum(1 for install in project.installs if self._chain.hooks(install.id) & DELIVERY_HOOKS)
        for install in having:
            origin = Origin(self._next_source(), event_uuid or str(uuid.uuid4()), hook)
            if event_uuid is not None:
                found = lineage or Lineage(event_uuid, budget=self._budget_of(hook, project))
                share = found.budget if hook == "processEventBatch" else found.budget // max(1, receiving)
                parent = _parent(origin, found, share)
            else:
                parent = _new_root(origin, project, link=0 if hook.startswith(JOB_PREFIX) else None)
            returned, failure, started = await self._invoke(run, project, install, values, parent)
            run.error = run.error or failure
            if failure is None and hook == "processEventBatch":
                values = [returned]  # checked by the sandbox's own rules; read as it is
            elif failure is None:
                run.value = returned
            await self._run_due(run, started, project)
        if hook == "processEventBatch" and run.error is None:
            given = {whole["uuid"]: event for whole, event in zip(batch, arguments[0], strict=True)}
            run.event = [_as_given(event, given.get(event.get("uuid"), {})) for event in values[0]]
        return run

    async def _run_due(self, run: Run, started: Sequence[_Started], project: Project) -> None:
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
            parent = replace(_parent(origin, lineage, job.share), is_root=job.lineage is None, link=job.link)
            payload = [orjson.loads(job.payload)]
            _, failure, begun = await self._invoke(run, project, install, payload, parent)
            run.error = run.error or failure
            waiting += [entry.job for entry in begun if entry.is_due]

    async def _invoke(
        self, run: Run, project: Project, install: Install, values: Sequence[Any], parent: Parent
    ) -> tuple[Any, RunError | None, list[_Started]]:
        """One call in one app: what it returned, why it failed, the jobs it started. The rest is added to `run`."""
        encoded = orjson.dumps(list(values))
        effects = HarnessEffects(project, Origin(parent.source, parent.uuid, parent.hook))
        result = await self._run_hook(install, encoded, effects, parent)
        while result.failure is None and self._host.storage.ledger.is_stale(effects.storage):
            effects.storage.abandon()
            effects = effects.again()
            result = await self._run_hook(install, encoded, effects, parent)
        run.logs += _logs(result.logs)
        failure = None if result.failure is None else _error(result.failure)
        if failure is None and parent.hook == "composeWebhook" and result.value is not None:
            failure = await self._post(install, result.value, effects)
        if failure is not None:
            effects.forget([install.id])
        return result.value, failure, self._settle(run, parent, () if failure else result.captures, effects)

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
        origin = effects.origin
        key = idempotency_key(effects.project.id, origin.parent_uuid, origin.source, install.id, origin.hook, 0)
        try:
            await self._host.send(effects, install, webhook_request(value, key))
        except AppError as error:
            return RunError("app", str(error))
        return None

    def _settle(self, run: Run, parent: Parent, captures: Sequence[Capture], effects: HarnessEffects) -> list[_Started]:
        """Keep what a run that is not stale did, as far as the loop guard lets it; the jobs that it started."""
        project = effects.project
        applied = self._captures.apply(project, parent, captures, effects)
        self._host.storage.commit(effects.storage)
        for record in applied.records:
            if record.topic != _INGESTION:
                continue
            data = orjson.loads(orjson.loads(record.value)["data"])
            run.captured.append({name: data[name] for name in _CAPTURED_FIELDS})
            lineage = parse_lineage(dict(record.headers)[LINEAGE_HEADER] or b"")
            self._unsettled.append(Unsettled(data, lineage, project.id))
        run.requests += effects.requests
        run.api_calls += effects.api_calls
        run.logs += _logs(applied.logs)
        run.cuts += [
            {
                "reason": str(cut.reason),
                "install": cut.install_id,
                "count": cut.count,
                "chain": cut.chain,
                "what": cut.what,
            }
            for cut in applied.cuts
            if cut.was_cut
        ]
        for own in effects.by_install.values():
            for name, verb, amount in own.metrics:
                before = run.metrics.get(name)
                run.metrics[name] = amount if before is None else combine(KINDS[verb], before, amount)
        requests = [request for own in effects.by_install.values() for request in own.jobs]
        started = [_Started(job, request) for job, request in zip(applied.jobs, requests, strict=False)]
        run.jobs += [_describe_job(entry) for entry in started]
        return started

    def _effects_of_set_up(self, project: Project, origin: Origin) -> HarnessEffects:
        effects = HarnessEffects(project, origin)
        self._set_ups.append(effects)
        return effects

    def _values(self, hook: str, arguments: Sequence[Any], project_id: int) -> list[Any]:
        if hook in _EVENT_HOOKS:
            return [self._completed(_checked(value), project_id) for value in arguments[:1]]
        if hook in _BATCH_HOOKS:
            return [[self._completed(_checked(event), project_id) for event in batch] for batch in arguments[:1]]
        return copy.deepcopy(list(arguments[:1]))

    def _budget_of(self, hook: str, project: Project) -> int:
        """Of a root event when it comes to this hook."""
        shares = split_budget(project.loop_policy.max_events_per_root, has_delivery=bool(self.hooks & DELIVERY_HOOKS))
        return shares.delivery if hook in DELIVERIES else shares.chain

    def _next_source(self) -> str:
        self._runs += 1
        return f"{_INGESTION}-0-{self._runs}"

    def _completed(self, event: Mapping[str, Any], project_id: int) -> dict[str, Any]:
        """An event with what every event has when it comes to an app."""
        now = datetime.fromtimestamp(self._clock(), UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        whole = {"uuid": str(uuid.uuid4()), "distinct_id": "distinct id", "event": "$event", "now": now, **event}
        whole["team_id"] = project_id
        properties = event.get("properties") or {}
        whole["properties"] = {key: value for key, value in properties.items() if key not in STAMPS}
        return whole


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


def _parent(origin: Origin, lineage: Lineage, share: int) -> Parent:
    return Parent(origin.parent_uuid, origin.source, lineage, malformed_lineage=False, share=share, hook=origin.hook)


def _new_root(origin: Origin, project: Project, link: int | None) -> Parent:
    """Of what no event is behind: each capture is a root of its own."""
    share = project.loop_policy.max_events_per_root
    parent = _parent(origin, Lineage(origin.parent_uuid, budget=share), share)
    return replace(parent, is_root=True, link=link)


def _describe_job(entry: _Started) -> dict[str, Any]:
    job, run_at = entry.job, None
    if not entry.is_due and job.run_at_ms is not None:
        moment = datetime.fromtimestamp(job.run_at_ms / 1000, UTC)
        run_at = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {"job": job.name, "payload": orjson.loads(job.payload), "run_at": run_at}


def _checked(event: Any) -> Mapping[str, Any]:
    if not isinstance(event, Mapping):
        raise TypeError(f"an event is a dict, not {type(event).__name__}")
    return event


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


def _first_uuid(hook: str, values: Sequence[Any]) -> str | None:
    """Of the event that the hook is called with, or the first of them."""
    if hook in _EVENT_HOOKS and values:
        return str(values[0]["uuid"])
    if hook in _BATCH_HOOKS and values and values[0]:
        return str(values[0][0]["uuid"])
    return None


def _error(failure: HookFailure) -> RunError:
    return RunError(failure.kind, failure.message, failure.line)


def _logs(lines: Sequence[LogLine]) -> list[dict[str, Any]]:
    return [{"level": line.level, "message": line.message, "source": line.source} for line in lines]

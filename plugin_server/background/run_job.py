"""Runs one claimed job to its end: call, judge, settle. What it did and that it is done are one transaction."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Final, Protocol

import structlog

from plugin_server.background.job_store import DEAD, WAITING, ClaimedJob, Done, Failed, JobStore
from plugin_server.background.retry import GiveUp, TryAgain, decide_retry, storable_error
from plugin_server.host_api.captures import Parent
from plugin_server.host_api.commit import Outcome
from plugin_server.host_api.effects import RunEffects
from plugin_server.host_api.invoke import Called, Invoker
from plugin_server.model.errors import HookMissing
from plugin_server.model.lineage import Lineage
from plugin_server.model.origin import Origin
from plugin_server.model.project import Install, Project
from plugin_server.runtime.replies import HookFailure, LogLine
from sandbox.wire import JOB_PREFIX

_log = structlog.get_logger(__name__)


class JobReport(Protocol):
    """Who counts what becomes of jobs. Must not raise."""

    def job_ran(self, install_id: int, late_ms: int) -> None: ...

    def job_failed(self, install_id: int, kind: str) -> None: ...

    def job_died(self, install_id: int) -> None: ...

    def job_lag(self, milliseconds: int) -> None: ...


class JobRunner:
    """One a worker. `clock` gives seconds since the epoch."""

    def __init__(self, store: JobStore, invoker: Invoker, report: JobReport, clock: Callable[[], float]) -> None:
        self._store = store
        self._invoker = invoker
        self._report = report
        self._clock = clock

    async def run(self, project: Project, job: ClaimedJob) -> None:
        """Returns when the job is done, put away, or somebody else's. Raises Transient: nothing of it counts."""
        hook = f"{JOB_PREFIX}{job.name}"
        origin = Origin(f"job-{job.id}", job.id, hook)
        parent = parent_of(project, job, origin)
        called: Called | None = None
        while True:
            called = await self._call(project, job, origin, called)
            if self._invoker.is_stale(called):
                continue
            token, called = self._judge(job, called)
            commitment = self._invoker.settle(called, parent, self._store, token)
            [outcome] = await self._invoker.store([commitment])
            match outcome:
                case Outcome.STORED:
                    self._count(job, called, token)
                    return
                case Outcome.LOST:
                    _log.info("job_taken_over", job_id=job.id, install_id=job.install_id)
                    return
                case Outcome.STALE:
                    continue

    async def tell_owner(self, project: Project, install_id: int, message: str) -> None:
        """A line in an install's log, for what no call of a hook says. Raises DatabaseUnavailable."""
        run_id = str(uuid.uuid4())
        origin = Origin(f"note-{run_id}", run_id, "jobs")
        called = failed_call(project, install_id, origin, message, retryable=False)
        parent = Parent(run_id, origin.source, Lineage(run_id), malformed_lineage=False, share=0, hook=origin.hook)
        await self._invoker.store([self._invoker.settle(called, parent)])

    async def _call(self, project: Project, job: ClaimedJob, origin: Origin, previous: Called | None) -> Called:
        install = next((each for each in project.installs if each.id == job.install_id), None)
        if install is None:
            return failed_call(project, job.install_id, origin, "install gone", retryable=False)
        max_captures = project.limits.captures_per_run if job.lineage is None else None
        arguments = b"[" + job.payload + b"]"
        try:
            return await self._invoker.call(
                project, job.install_id, origin.hook, arguments, origin, max_captures=max_captures, previous=previous
            )
        except HookMissing:
            hooks = (await self._invoker.hooks(project)).get(job.install_id)
        if hooks:
            return failed_call(project, job.install_id, origin, task_not_found(job.name, install), retryable=False)
        message = f"{origin.hook}: the app does not run, its logs say why"
        return failed_call(project, job.install_id, origin, message, retryable=True)

    def _judge(self, job: ClaimedJob, called: Called) -> tuple[Done | Failed, Called]:
        failure = called.failure
        if failure is None:
            return Done(job.id), called
        now_ms = int(self._clock() * 1000)
        error = storable_error(failure.message)
        decision = decide_retry(job.attempts, retryable=failure.retryable, now_ms=now_ms)
        if failure.kind == GONE:
            decision = GiveUp(job.attempts)
        token: Failed
        match decision:
            case TryAgain(run_at_ms, attempts, of):
                token = Failed(job.id, WAITING, run_at_ms, attempts, error)
                pause = (run_at_ms - now_ms) / 1000
                message = f"{JOB_PREFIX}{job.name}: attempt {attempts} of {of} failed, the next one is in {pause:g} s"
                level = "WARN"
            case GiveUp(attempts):
                token = Failed(job.id, DEAD, now_ms, attempts, error)
                message = f"{JOB_PREFIX}{job.name}: given up after {attempts} attempts; job {job.id} is kept as dead"
                level = "ERROR"
        line = LogLine(job.install_id, level, message, "SYSTEM")
        return token, called._replace(captures=(), logs=(*called.logs, line))

    def _count(self, job: ClaimedJob, called: Called, token: Done | Failed) -> None:
        if called.failure is None:
            self._report.job_ran(job.install_id, max(0, int(self._clock() * 1000) - job.run_at_ms))
            return
        self._report.job_failed(job.install_id, called.failure.kind)
        if isinstance(token, Failed) and token.state == DEAD:
            self._report.job_died(job.install_id)


GONE: Final = "gone"
"""Kind of a failure that no other attempt can mend; made here only"""


def failed_call(project: Project, install_id: int, origin: Origin, message: str, *, retryable: bool) -> Called:
    """A call that could not be made."""
    failure = HookFailure(install_id, "app" if retryable else GONE, message, None, retryable)
    line = LogLine(install_id, "ERROR", message, "PLUGIN")
    return Called(install_id, failure, None, (), (line,), RunEffects(project, origin))


def task_not_found(name: str, install: Install) -> str:
    """PostHog's words for a job or task that the app does not have."""
    return f'Task "{name}" not found for plugin "{install.app.name}" with config id {install.id}'


def parent_of(project: Project, job: ClaimedJob, origin: Origin) -> Parent:
    """What the captures and jobs of a job descend from: the event that its chain began with, or nothing."""
    lineage = job.lineage
    return Parent(
        uuid=job.id,
        source=origin.source,
        lineage=lineage or Lineage(root_uuid(job.id), 0, (), project.loop_policy.max_events_per_root),
        malformed_lineage=False,
        share=job.share,
        hook=origin.hook,
        is_root=lineage is None,
        link=job.link,
    )


def root_uuid(text: str) -> str:
    """A uuid that stands for it: itself, if it is one."""
    try:
        return str(uuid.UUID(text))
    except ValueError:
        return str(uuid.uuid5(uuid.NAMESPACE_OID, text))

"""Runs due jobs: claims them in batches, fairly between installs, and runs them side by side until it is told to stop."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog

from plugin_server.background.fair import Due, InFlight, JobBounds, share_places
from plugin_server.background.job_store import LEASE_MS, ClaimedJob, JobStore
from plugin_server.background.run_job import JobReport, JobRunner
from plugin_server.host_api.invoke import Invoker
from plugin_server.model.errors import Transient
from plugin_server.model.project import Project

_SPACING_SECONDS: Final = 0.01
"""Between two claims, so that each finds some places free"""
_LOOK_AGAIN_SECONDS: Final = 0.25
"""What was seen to be due is believed for so long"""
_SHORTEST_POLL_SECONDS: Final = 0.2
_LONGEST_POLL_SECONDS: Final = 1.0
_FIRST_PAUSE_SECONDS: Final = 1.0
_LONGEST_PAUSE_SECONDS: Final = 30.0
_RENEW_SECONDS: Final = LEASE_MS / 4000
_PRUNE_SECONDS: Final = 600.0
_GONE_AFTER_MS: Final = 600_000
"""A job waits so long for its install to be known here: another worker may have read the projects earlier"""
_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Pause:
    """A project whose jobs met something that is away."""

    until: float
    seconds: float


class JobWorker:
    """One a process. `run` is its life, `wake` says that jobs were stored, `drain` finishes what runs."""

    def __init__(
        self,
        store: JobStore,
        invoker: Invoker,
        find_project: Callable[[int], Project | None],
        report: JobReport,
        *,
        clock: Callable[[], float] = time.time,
        bounds: JobBounds | None = None,
    ) -> None:
        """`clock` gives seconds since the epoch."""
        self._store = store
        self._runner = JobRunner(store, invoker, report, clock)
        self._find_project = find_project
        self._report = report
        self._clock = clock
        self._bounds = bounds or JobBounds()
        self._running: dict[str, tuple[ClaimedJob, asyncio.Task[None]]] = {}
        self._by_install: Counter[int] = Counter()
        self._by_project: Counter[int] = Counter()
        self._payload_bytes = 0
        self._to_release: set[str] = set()
        self._pauses: dict[int, _Pause] = {}
        self._due: dict[int, Due] = {}
        self._looked_at = -_LOOK_AGAIN_SECONDS
        self._changed = asyncio.Event()
        self._draining = False

    def wake(self) -> None:
        """Jobs were stored that may be due. While others are known to be, they are found a little later."""
        self._changed.set()

    async def run(self) -> None:
        """Claim and run jobs until cancelled, or drained. What runs then is given back."""
        helpers = [
            asyncio.create_task(self._renew_forever(), name="jobs-renew"),
            asyncio.create_task(self._prune_forever(), name="jobs-prune"),
        ]
        try:
            await self._claim_forever()
            await self._finish()
        finally:
            for helper in helpers:
                helper.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)
            await self._give_back()

    async def drain(self) -> None:
        """Claim no more; returns when what runs has ended. For who cannot wait so long: cancel it, and then `run`."""
        self._draining = True
        self._changed.set()
        await self._finish()

    async def _finish(self) -> None:
        while self._running:
            await asyncio.wait([task for _, task in self._running.values()])

    @property
    def in_flight(self) -> int:
        """Jobs claimed and not finished."""
        return len(self._running)

    # Claiming

    async def _claim_forever(self) -> None:
        poll_seconds = _SHORTEST_POLL_SECONDS
        pause_seconds = _FIRST_PAUSE_SECONDS
        while not self._draining:
            self._changed.clear()
            try:
                await self._release_returned()
                claimed = await self.claim_some()
            except Transient as error:
                _log.warning("jobs_wait", error=str(error), retry_seconds=pause_seconds)
                await self._rest(pause_seconds)
                pause_seconds = min(pause_seconds * 2, _LONGEST_PAUSE_SECONDS)
                continue
            pause_seconds = _FIRST_PAUSE_SECONDS
            if claimed or self._due:
                # More may be due, for which there are places as soon as some of these have ended.
                poll_seconds = _SHORTEST_POLL_SECONDS
                await asyncio.sleep(_SPACING_SECONDS)
                if not claimed:
                    await self._rest(poll_seconds)
                continue
            await self._rest(poll_seconds)
            poll_seconds = min(poll_seconds * 1.5, _LONGEST_POLL_SECONDS)

    async def _rest(self, seconds: float) -> None:
        """Until something changes, at most so long."""
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            pass

    async def claim_some(self) -> int:
        """Claim what there are places for, and start it; how many. Raises DatabaseUnavailable."""
        now_ms = int(self._clock() * 1000)
        await self._look(now_ms)
        places = share_places(self._due.values(), self._in_flight(), self._bounds, self._paused())
        if not places:
            return 0
        claimed = await self._store.claim(places, now_ms)
        if self._draining:
            self._to_release.update(job.id for job in claimed)
            await self._release_returned()
            return 0
        found = Counter(job.install_id for job in claimed)
        for install_id, wanted in places.items():
            due = self._due.get(install_id)
            if due is None:
                continue
            left = due.count - wanted if found[install_id] == wanted else 0
            if left > 0:
                self._due[install_id] = Due(install_id, due.project_id, left, due.mean_bytes, due.oldest_ms)
            else:
                del self._due[install_id]
        for job in claimed:
            self._start(job)
        return len(claimed)

    async def _look(self, now_ms: int) -> None:
        if self._due and time.monotonic() - self._looked_at < _LOOK_AGAIN_SECONDS:
            return
        self._looked_at = time.monotonic()
        due = {each.install_id: each for each in await self._store.due(now_ms)}
        self._report.job_lag(max((now_ms - each.oldest_ms for each in due.values()), default=0))
        for each in list(due.values()):
            project = self._find_project(each.project_id)
            if project is None or all(install.id != each.install_id for install in project.installs):
                del due[each.install_id]
                if each.oldest_ms <= now_ms - _GONE_AFTER_MS:
                    await self._bury(each, project, now_ms)
        self._due = due

    async def _bury(self, due: Due, project: Project | None, now_ms: int) -> None:
        buried = await self._store.bury(
            due.install_id, "install gone", due_before_ms=now_ms - _GONE_AFTER_MS, now_ms=now_ms
        )
        _log.warning(
            "jobs_of_a_gone_install", install_id=due.install_id, project_id=due.project_id, jobs=buried, kept="dead"
        )
        if project is not None and buried:
            message = f"{buried} jobs were not run: the install is gone, or disabled. They are kept as dead"
            await self._runner.tell_owner(project, due.install_id, message)

    def _in_flight(self) -> InFlight:
        return InFlight(len(self._running), self._by_project, self._by_install, self._payload_bytes)

    def _paused(self) -> set[int]:
        now = time.monotonic()
        return {project_id for project_id, pause in self._pauses.items() if pause.until > now}

    # Running

    def _start(self, job: ClaimedJob) -> None:
        if job.id in self._running:
            return  # its lease had run out while it ran here; it is ours again
        task = asyncio.create_task(self._run(job), name=f"job-{job.id}")
        self._running[job.id] = job, task
        self._by_install[job.install_id] += 1
        self._by_project[job.project_id] += 1
        self._payload_bytes += len(job.payload)
        task.add_done_callback(lambda _task: self._ended(job))

    async def _run(self, job: ClaimedJob) -> None:
        project = self._find_project(job.project_id)
        if project is None:
            self._to_release.add(job.id)
            return
        try:
            await self._runner.run(project, job)
        except Transient as error:
            self._pause(job, error)
        except Exception:  # noqa: BLE001 - a job's boundary: logged, and tried again later
            _log.exception("job_not_run", job_id=job.id, install_id=job.install_id, name=job.name)
            self._pause(job, None)
        else:
            self._pauses.pop(job.project_id, None)

    def _pause(self, job: ClaimedJob, error: Transient | None) -> None:
        """Its project's jobs wait a while: what they need is away. It does not count as an attempt."""
        self._to_release.add(job.id)
        now = time.monotonic()
        pause = self._pauses.get(job.project_id)
        if pause is not None and pause.until > now:
            return
        seconds = _FIRST_PAUSE_SECONDS if pause is None else min(pause.seconds * 2, _LONGEST_PAUSE_SECONDS)
        self._pauses[job.project_id] = _Pause(now + seconds, seconds)
        if error is not None:
            _log.warning("jobs_of_project_wait", project_id=job.project_id, error=str(error), retry_seconds=seconds)

    def _ended(self, job: ClaimedJob) -> None:
        del self._running[job.id]
        self._payload_bytes -= len(job.payload)
        for counter, key in ((self._by_install, job.install_id), (self._by_project, job.project_id)):
            counter[key] -= 1
            if not counter[key]:
                del counter[key]
        self._changed.set()

    # Leases

    async def _release_returned(self) -> None:
        if self._to_release:
            job_ids = tuple(self._to_release)
            await self._store.release(job_ids)
            self._to_release.difference_update(job_ids)

    async def _give_back(self) -> None:
        """Nobody is to wait for the leases of what is not finished."""
        running = [(job, task) for job, task in self._running.values()]
        for _, task in running:
            task.cancel()
        await asyncio.gather(*(task for _, task in running), return_exceptions=True)
        try:
            await self._store.release([job.id for job, _ in running] + list(self._to_release))
        except Transient as error:
            _log.warning("leases_not_released", error=str(error), jobs=len(running), lease_seconds=LEASE_MS / 1000)

    async def _renew_forever(self) -> None:
        while True:
            await asyncio.sleep(_RENEW_SECONDS)
            try:
                await self._store.renew(list(self._running), int(self._clock() * 1000))
            except Transient as error:
                _log.warning("leases_not_renewed", error=str(error), retry_seconds=_RENEW_SECONDS)

    async def _prune_forever(self) -> None:
        while True:
            await asyncio.sleep(_PRUNE_SECONDS)
            try:
                pruned = await self._store.prune(int(self._clock() * 1000))
            except Transient as error:
                _log.warning("dead_jobs_not_pruned", error=str(error), retry_seconds=_PRUNE_SECONDS)
                continue
            if pruned:
                _log.warning("dead_jobs_pruned", jobs=pruned)

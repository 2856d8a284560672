"""Runs runEveryMinute, runEveryHour and runEveryDay: each tick once across all workers, those missed once and not many times."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol

import structlog

from plugin_server.background.run_job import failed_call, root_uuid
from plugin_server.background.schedule_store import LEASE_MS, DueTask, ScheduleStore, Ticked
from plugin_server.background.ticks import next_run_ms, retry_ms, tick_of
from plugin_server.host_api.captures import new_root
from plugin_server.host_api.commit import Outcome
from plugin_server.host_api.invoke import Called, Invoker
from plugin_server.model.errors import HookMissing, Transient
from plugin_server.model.origin import Origin
from plugin_server.model.project import Project
from plugin_server.runtime.replies import LogLine

INSTALLS_AT_ONCE: Final = 50
_POLL_SECONDS: Final = 1.0
_PAUSE_SECONDS: Final = 5.0
_RENEW_SECONDS: Final = LEASE_MS / 4000
_log = structlog.get_logger(__name__)


class ScheduleReport(Protocol):
    """Who counts ticks. Must not raise."""

    def tick_ran(self, install_id: int, task: str) -> None: ...

    def tick_failed(self, install_id: int, task: str, kind: str) -> None: ...


class ScheduleWorker:
    """One a process. `run` is its life; `sync` is called when the projects have changed, and by `run` at first."""

    def __init__(
        self,
        store: ScheduleStore,
        invoker: Invoker,
        projects: Callable[[], Iterable[Project]],
        report: ScheduleReport,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`projects` gives all of them as they are now; `clock` seconds since the epoch."""
        self._store = store
        self._invoker = invoker
        self._projects = projects
        self._report = report
        self._clock = clock
        self._known: dict[int, Project] = {}
        self._running: dict[int, asyncio.Task[None]] = {}
        self._draining = asyncio.Event()

    async def sync(self) -> None:
        """Make the schedules those of the projects as they are now. Raises DatabaseUnavailable."""
        projects = list(self._projects())
        await self._store.sync(projects, self._now_ms())
        self._known = {project.id: project for project in projects}

    async def run(self) -> None:
        """Run ticks until cancelled, or drained. What runs then is given back."""
        renewing = asyncio.create_task(self._renew_forever(), name="schedules-renew")
        is_synced = False
        try:
            while not self._draining.is_set():
                try:
                    if not is_synced:
                        await self.sync()
                        is_synced = True
                    await self.claim_some()
                except Transient as error:
                    _log.warning("schedules_wait", error=str(error), retry_seconds=_PAUSE_SECONDS)
                    await self._rest(_PAUSE_SECONDS)
                else:
                    await self._rest(_POLL_SECONDS)
            await self._finish()
        finally:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)
            await self._give_back()

    async def drain(self) -> None:
        """Start no more; returns when what runs has ended. For who cannot wait so long: cancel it, and then `run`."""
        self._draining.set()
        await self._finish()

    async def _finish(self) -> None:
        while self._running:
            await asyncio.wait(list(self._running.values()))

    async def claim_some(self) -> int:
        """Start the due tasks of installs that nobody else holds; how many installs. Raises DatabaseUnavailable."""
        places = INSTALLS_AT_ONCE - len(self._running)
        if places <= 0:
            return 0
        # One that is just being given back is free in the database, and nobody would run it once it is held again.
        held = await self._store.claim(self._known.keys(), places, self._now_ms(), self._running)
        if self._draining.is_set():
            await self._store.release(held.keys())
            return 0
        for install_id, tasks in held.items():
            task = asyncio.create_task(self._run_install(install_id, tasks), name=f"ticks-{install_id}")
            self._running[install_id] = task
        return len(held)

    async def _rest(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._draining.wait()
        except TimeoutError:
            pass

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)

    async def _run_install(self, install_id: int, tasks: Sequence[DueTask]) -> None:
        """One after another; then the install is given back."""
        try:
            for due in tasks:
                project = self._known.get(due.project_id)
                if project is not None:
                    await self._run_tick(project, due)
            await self._store.release([install_id])
        except Transient as error:
            # The lease goes on for a while, which is the pause before somebody tries again.
            _log.warning("ticks_wait", install_id=install_id, error=str(error), retry_seconds=LEASE_MS / 1000)
        except Exception:  # noqa: BLE001 - an install's boundary: logged, and tried again when the lease ends
            _log.exception("ticks_not_run", install_id=install_id)
        finally:
            self._running.pop(install_id, None)

    async def _run_tick(self, project: Project, due: DueTask) -> None:
        tick = f"tick-{due.install_id}-{due.task}-{tick_of(due.task, due.run_at_ms)}"
        origin = Origin(tick, root_uuid(tick), due.task)
        parent = new_root(origin, project)
        called: Called | None = None
        while True:
            called, there = await self._call(project, due, origin, called)
            if self._invoker.is_stale(called):
                continue
            token, called = self._judge(due, called, there=there)
            [outcome] = await self._invoker.store([self._invoker.settle(called, parent, self._store, token)])
            if outcome is Outcome.STALE:
                continue
            if outcome is Outcome.STORED and there:
                if called.failure is None:
                    self._report.tick_ran(due.install_id, due.task)
                else:
                    self._report.tick_failed(due.install_id, due.task, called.failure.kind)
            return

    async def _call(
        self, project: Project, due: DueTask, origin: Origin, previous: Called | None
    ) -> tuple[Called, bool]:
        """The call, and whether the app has such a task at all."""
        limit = project.limits.captures_per_run
        try:
            called = await self._invoker.call(
                project, due.install_id, due.task, b"[]", origin, max_captures=limit, previous=previous
            )
        except HookMissing:
            pass
        else:
            return called, True
        if any(install.id == due.install_id for install in project.installs):
            has_hooks = bool((await self._invoker.hooks(project)).get(due.install_id))
        else:
            has_hooks = True
        called = failed_call(project, due.install_id, origin, f"{due.task}: the app does not run", retryable=True)
        # An app that works and has no such task only speaks of it; for one that does not run, its own log says why.
        return called._replace(logs=()), not has_hooks

    def _judge(self, due: DueTask, called: Called, *, there: bool) -> tuple[Ticked, Called]:
        if not there:
            return Ticked(due.install_id, due.task, None), called
        now_ms = self._now_ms()
        next_ms = next_run_ms(due.task, due.install_id, now_ms)
        failure = called.failure
        if failure is None:
            return Ticked(due.install_id, due.task, next_ms), called
        again_ms = retry_ms(due.task, due.install_id, due.run_at_ms, now_ms) if failure.retryable else None
        logs = called.logs
        if again_ms is not None:
            pause = (again_ms - now_ms) / 1000
            line = LogLine(due.install_id, "WARN", f"{due.task} failed, the next try is in {pause:g} s", "SYSTEM")
            logs = (*logs, line)
        token = Ticked(due.install_id, due.task, next_ms if again_ms is None else again_ms)
        return token, called._replace(captures=(), logs=logs)

    async def _give_back(self) -> None:
        running = dict(self._running)
        for task in running.values():
            task.cancel()
        await asyncio.gather(*running.values(), return_exceptions=True)
        try:
            await self._store.release(running.keys())
        except Transient as error:
            _log.warning("leases_not_released", error=str(error), installs=len(running))

    async def _renew_forever(self) -> None:
        while True:
            await asyncio.sleep(_RENEW_SECONDS)
            try:
                await self._store.renew(tuple(self._running), self._now_ms())
            except Transient as error:
                _log.warning("leases_not_renewed", error=str(error), retry_seconds=_RENEW_SECONDS)

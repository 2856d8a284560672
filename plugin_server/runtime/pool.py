"""All sandboxes of this worker: one a project, started at its first event."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from plugin_server.model.project import Project
from plugin_server.runtime.fork_server import ForkServer
from plugin_server.runtime.project_sandbox import OnLoaded, ProjectSandbox
from plugin_server.runtime.work import HostCalls, Work

TICK_SECONDS: Final = 0.05


class SandboxPool:
    """Hands each project's events to its sandbox, and watches them all."""

    def __init__(
        self,
        host_calls: HostCalls,
        on_loaded: OnLoaded,
        library_version: str,
        record_bytes: int,
        *,
        on_restart: Callable[[int], None] = lambda _project_id: None,
        is_traced: Callable[[], bool] = lambda: False,
    ) -> None:
        self._fork_server = ForkServer()
        self._host_calls = host_calls
        self._on_loaded = on_loaded
        self._library_version = library_version
        self._record_bytes = record_bytes
        self._on_restart = on_restart
        self._is_traced = is_traced
        self._sandboxes: dict[int, ProjectSandbox] = {}
        self._watchdog: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start the fork server and the watchdog. Raises SandboxUnavailable."""
        await self._fork_server.start()
        self._watchdog = asyncio.get_running_loop().create_task(self._watch(), name="sandbox-watchdog")

    async def stop(self) -> None:
        """End all sandboxes."""
        if self._watchdog is not None:
            self._watchdog.cancel()
            await asyncio.gather(self._watchdog, return_exceptions=True)
        await asyncio.gather(*(sandbox.close() for sandbox in self._sandboxes.values()))
        await self._fork_server.stop()

    def submit(self, project: Project, works: Sequence[Work[Any]]) -> None:
        """Run a project's chain on these events; each sink is told of each event once, in any order."""
        sandbox = self._sandboxes.get(project.id)
        if sandbox is None:
            sandbox = self._sandboxes[project.id] = ProjectSandbox(
                project,
                self._fork_server.spawn,
                self._host_calls,
                self._on_loaded,
                self._library_version,
                self._record_bytes,
                on_restart=self._on_restart,
                is_traced=self._is_traced,
            )
        sandbox.submit(works)

    @property
    def sandboxes(self) -> tuple[ProjectSandbox, ...]:
        return tuple(self._sandboxes.values())

    async def _watch(self) -> None:
        last = time.monotonic()
        while True:
            await asyncio.sleep(TICK_SECONDS)
            now = time.monotonic()
            elapsed, last = min(now - last, 2 * TICK_SECONDS), now
            for sandbox in self.sandboxes:
                sandbox.tick(elapsed)

"""Starts the processes of one sandbox, one after another, later and later while that fails."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from plugin_server.model.errors import SandboxUnavailable
from plugin_server.runtime.fork_server import SandboxHandle
from plugin_server.runtime.process import FrameHandler, SandboxProcess

_FIRST_BACKOFF_SECONDS: Final = 0.1
_LAST_BACKOFF_SECONDS: Final = 10.0
_MAX_FAILURES: Final = 16
_log = structlog.get_logger(__name__)

Spawn = Callable[[int, Callable[[int | None], None]], Awaitable[SandboxHandle]]
OnEnded = Callable[[SandboxProcess, str], None]


class Starter:
    """One start at a time. `on_started(process)` is called with a process that reads frames."""

    def __init__(
        self,
        spawn: Spawn,
        memory_bytes: int,
        on_frame: FrameHandler,
        on_started: Callable[[SandboxProcess], None],
        on_ended: OnEnded,
    ) -> None:
        self._spawn = spawn
        self._memory_bytes = memory_bytes
        self._on_frame = on_frame
        self._on_started = on_started
        self._on_ended = on_ended
        self._failures = 0
        """Processes in a row that ended before they were of use, with nobody to blame"""
        self._task: asyncio.Task[None] | None = None

    @property
    def is_running(self) -> bool:
        """A start is under way."""
        return self._task is not None

    @property
    def failures(self) -> int:
        """Processes in a row that ended before they were of use."""
        return self._failures

    def start(self) -> None:
        """Begin, if no start is under way."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._start(), name="sandbox-start")
            self._task.add_done_callback(self._note_end)

    def was_of_no_use(self) -> None:
        """The last process has ended, and nobody is to blame: wait longer before the next."""
        self._failures = min(self._failures + 1, _MAX_FAILURES)

    def was_of_use(self) -> None:
        """The process has answered for events."""
        self._failures = 0

    async def close(self) -> None:
        """End a start that is under way."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _start(self) -> None:
        if self._failures:
            await asyncio.sleep(min(_FIRST_BACKOFF_SECONDS * 2 ** (self._failures - 1), _LAST_BACKOFF_SECONDS))
        delay = _FIRST_BACKOFF_SECONDS
        while (process := await self._open()) is None:
            await asyncio.sleep(delay)
            delay = min(delay * 2, _LAST_BACKOFF_SECONDS)
        self._task = None
        self._on_started(process)

    async def _open(self) -> SandboxProcess | None:
        process = SandboxProcess(self._on_frame, lambda reason: self._on_ended(process, reason))
        try:
            handle = await self._spawn(self._memory_bytes, process.exited)
            await process.open(handle)
        except (SandboxUnavailable, OSError) as error:
            _log.error("sandbox_unavailable", error=str(error))
            return None
        return process

    def _note_end(self, task: asyncio.Task[None]) -> None:
        """A start that failed for a reason that nobody foresaw is tried again, too."""
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("sandbox_start_failed", exc_info=error)
            self._task = None
            self.was_of_no_use()
            self.start()

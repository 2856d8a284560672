"""The host calls of one sandbox: answered by the host API, journaled for a replay, ended with the run that made them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from hashlib import blake2b
from typing import Any, Final

import orjson
import structlog

from plugin_server.model.errors import AppError, FetchFailed, LimitReached, ProtocolViolation, Transient
from plugin_server.runtime.replies import HostCallRequest
from plugin_server.runtime.work import Answered, HostCalls, Invocation, Work

RUN_CALLS: Final = 2_000
"""Of one event's chain; the child stops its apps at 1,000"""
PENDING_CALLS: Final = 10_000
"""Host calls of one sandbox that may be under way at a time"""
PENDING_BYTES: Final = 64 * 2**20
"""Of the frames of those calls: of one event's the child bounds it, but what it sends may be a lie"""
_log = structlog.get_logger(__name__)

Reply = Callable[[list[Any]], None]


class Waiting:
    """A run whose hook waits for the host."""

    __slots__ = ("calls", "cancelled", "install_id", "seconds", "tasks")

    def __init__(self, install_id: int, calls: int, tasks: set[asyncio.Task[None]]) -> None:
        self.install_id = install_id
        self.tasks = tasks
        """Of the host's that answer its calls"""
        self.calls = calls
        """That its run has made, of whatever install"""
        self.seconds = 0.0
        self.cancelled = False


class PendingCalls:
    """What the apps of one sandbox wait for. `reply` sends a REPLY frame to the process that there is now."""

    def __init__(self, host_calls: HostCalls, reply: Reply) -> None:
        self.waiting: dict[int, Waiting] = {}
        """By the run's sequence number"""
        self._host_calls = host_calls
        self._reply = reply
        self._tasks: set[asyncio.Task[None]] = set()
        self._pending_bytes = 0

    def start(self, request: HostCallRequest, run: Work[Any] | Invocation) -> None:
        """Begin what an app asked for. Raises ProtocolViolation past what an honest child would ask."""
        waiting = self.waiting.get(request.sequence)
        if waiting is None or waiting.install_id != request.install_id:
            calls, tasks = (waiting.calls, waiting.tasks) if waiting is not None else (0, set())
            waiting = self.waiting[request.sequence] = Waiting(request.install_id, calls, tasks)
        waiting.calls += 1
        if waiting.calls > RUN_CALLS:
            raise ProtocolViolation("more host calls for one event than the limits allow")
        run.called = True
        known = run.effects.journal.get((request.install_id, request.number))
        if known is not None and known.digest == _digest(request):
            self._reply([request.call_id, *known.answer])
            return
        refusal = self._why_not(request)
        if refusal is not None:
            self._reply([request.call_id, False, refusal, LimitReached.kind])
            return
        self._pending_bytes += request.size
        task = asyncio.get_running_loop().create_task(self._answer(request, run))
        task.add_done_callback(partial(self._let_go, request.size))
        for tasks in (self._tasks, waiting.tasks):
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    def _why_not(self, request: HostCallRequest) -> str | None:
        """Why there is no room for another call."""
        if len(self._tasks) >= PENDING_CALLS:
            return f"more than {PENDING_CALLS} calls of this project wait for the host: try again later"
        if self._pending_bytes + request.size > PENDING_BYTES:
            return (
                f"the calls of this project that wait for the host have more than {PENDING_BYTES} bytes together: "
                "try again later"
            )
        return None

    def _let_go(self, size: int, _task: asyncio.Task[None]) -> None:
        self._pending_bytes -= size

    def ended(self, sequence: int) -> None:
        """That run is over: nobody waits for its calls any more."""
        waiting = self.waiting.pop(sequence, None)
        if waiting is not None:
            for task in tuple(waiting.tasks):
                task.cancel()

    def drop_all(self) -> None:
        """The process is gone. Who is run again asks again, but for what was answered already."""
        self.waiting.clear()
        for task in tuple(self._tasks):
            task.cancel()

    async def close(self) -> None:
        """End all that is under way."""
        tasks = tuple(self._tasks)
        self.drop_all()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _answer(self, request: HostCallRequest, run: Work[Any] | Invocation) -> None:
        project, effects = run.chain.project, run.effects
        try:
            answer = [True, await self._host_calls.answer(project, effects, request)]
        except AppError as error:
            answer = [False, str(error), error.kind]
        except Transient as error:
            _log.warning("host_call_unavailable", project_id=project.id, call=request.name, error=str(error))
            effects.note_trouble(request.install_id, error)
            answer = [False, "the server cannot do this now: try again later", FetchFailed.kind]
        except Exception as error:  # noqa: BLE001 - a fault of ours must not leave the hook waiting
            _log.exception("host_call_failed", project_id=project.id, call=request.name, exc_info=error)
            answer = [False, "the server failed to do this; its operator has been told", AppError.kind]
        if self._host_calls.is_outside(request.name) and not _is_buffered(answer):
            effects.journal[request.install_id, request.number] = Answered(_digest(request), answer)
        self._reply([request.call_id, *answer])


def _is_buffered(answer: list[Any]) -> bool:
    """Did the call post events that joined the run's effects? A run that begins again must post them again."""
    return isinstance(answer[1], dict) and "captured" in answer[1]


def _digest(request: HostCallRequest) -> bytes:
    question = orjson.dumps([request.name, request.arguments])
    return blake2b(question, digest_size=16).digest()

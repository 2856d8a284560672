"""One project's sandbox: queues its events, sends them in batches, and runs them again when the process dies.

A batch is sized by measured cost to at most 20 ms (1–500 events); several are in the child at a time, so that it never
waits for the host. When it is killed or dies, its unfinished events are run again one by one in a new process, without
the install that was to blame, for the event that it was to blame for.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import orjson
import structlog

from plugin_server.model.errors import AppError, ProtocolViolation, SandboxUnavailable
from plugin_server.model.project import Project
from plugin_server.runtime.fork_server import SandboxHandle
from plugin_server.runtime.process import SandboxProcess
from plugin_server.runtime.replies import ChainResult, HookFailure, HostCallRequest, Loaded, ReplyReader, hook_name
from plugin_server.runtime.watch import WALL_GRACE_SECONDS, Kill, Watch
from plugin_server.runtime.work import HostCalls, Work
from sandbox.wire import FrameKind

BATCH_EVENTS: Final = 500
BATCH_BYTES: Final = 8 * 2**20
BATCH_SECONDS: Final = 0.02
BATCHES_IN_FLIGHT: Final = 4
HOST_CALLS: Final = 2_000
"""Of one event's chain; the child stops its apps at 1,000"""
PENDING_CALLS: Final = 10_000
"""Host calls of one sandbox that may be under way at a time"""
CRASHES: Final = 3
"""Unexplained deaths that one event may be part of before its project's apps are left out for it"""
_DELIVERY_HOOKS: Final = frozenset({"onEvent", "onSnapshot", "exportEvents", "composeWebhook"})
_LAST_SEQUENCE: Final = 2**31
"""Sequence numbers begin again here: the page holds 32 bits, and what is in flight is never that old"""
_FIRST_LOAD_BACKOFF_SECONDS: Final = 0.1
_LAST_LOAD_BACKOFF_SECONDS: Final = 10.0
_log = structlog.get_logger(__name__)

Spawn = Callable[[int, Callable[[int], None]], Awaitable[SandboxHandle]]
OnLoaded = Callable[[Project, Loaded], None]


def _cancel(tasks: set[asyncio.Task[None]]) -> None:
    for task in tuple(tasks):
        task.cancel()


class _Waiting:
    """An event whose hook waits for the host."""

    __slots__ = ("calls", "cancelled", "install_id", "seconds", "tasks")

    def __init__(self, install_id: int, calls: int, tasks: set[asyncio.Task[None]]) -> None:
        self.install_id = install_id
        self.tasks = tasks
        """Of the host's that answer its calls"""
        self.calls = calls
        """That its chain has made, of whatever install"""
        self.seconds = 0.0
        self.cancelled = False


class ProjectSandbox:
    """Runs one project's apps on its events. Its owner calls `tick` regularly."""

    def __init__(
        self,
        project: Project,
        spawn: Spawn,
        host_calls: HostCalls,
        on_loaded: OnLoaded,
        library_version: str,
        record_bytes: int,
        *,
        on_restart: Callable[[int], None],
        is_traced: Callable[[], bool],
    ) -> None:
        self.project = project
        self._spawn = spawn
        self._host_calls = host_calls
        self._on_loaded = on_loaded
        self._library_version = library_version
        self._record_bytes = record_bytes
        self._on_restart = on_restart
        self._is_traced = is_traced
        self._reader = ReplyReader(project, record_bytes)
        self._process: SandboxProcess | None = None
        self._loaded = False
        self._failed_loads = 0
        """Times in a row that it died before it had loaded, with nobody to blame"""
        self._closing = False
        self._starting: asyncio.Task[None] | None = None
        self._queue: deque[Work[Any]] = deque()
        self._replay: deque[Work[Any]] = deque()
        self._in_flight: dict[int, Work[Any]] = {}
        self._waiting: dict[int, _Waiting] = {}
        self._batches: deque[tuple[int, int, float]] = deque()
        """First sequence, number of events and start of each batch in the child"""
        self._next_sequence = 1
        self._batch_events = 50
        self._last_end = 0.0
        self._watch = Watch(project.limits)
        self._blamed: HookFailure | None = None
        self._broken: dict[int, HookFailure] = {}
        """Installs that killed a sandbox while loading"""
        self._has_delivery = False
        self._calls: set[asyncio.Task[None]] = set()

    def submit(self, works: Sequence[Work[Any]]) -> None:
        """Take events, to be run in this order per distinct_id. Each sink gets each of its events back once."""
        self._queue.extend(works)
        self._pump()

    @property
    def busy(self) -> bool:
        return bool(self._queue or self._replay or self._in_flight)

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    async def close(self) -> None:
        """End the process. Events in it are not answered any more."""
        self._closing = True
        tasks = [*self._calls, *([self._starting] if self._starting else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._process is not None:
            self._process.kill("the server is stopping")

    def tick(self, elapsed_seconds: float) -> None:
        """Judge what runs. `elapsed_seconds` is the time since the last tick, less what the host itself was stopped."""
        process = self._process
        if process is None:
            return
        if self._loaded and not self._in_flight:
            self._watch.rest()
            return
        running = process.running()
        if self._batches or not self._loaded or running.in_app or not self._waiting:
            verdict = self._watch.tick(running, process.cpu_seconds(), elapsed_seconds)
            if verdict is not None:
                self._kill(verdict)
                return
        else:
            self._watch.rest()
        self._tick_waiting(elapsed_seconds)

    def _tick_waiting(self, elapsed_seconds: float) -> None:
        limit = self.project.limits.hook_seconds
        for sequence, waiting in self._waiting.items():
            waiting.seconds += elapsed_seconds
            if waiting.seconds > limit and not waiting.cancelled:
                waiting.cancelled = True
                self._send(FrameKind.CANCEL, [sequence, f"ran longer than {limit:g} s (hook_seconds)"])
            elif waiting.seconds > limit + WALL_GRACE_SECONDS:
                message = f"ran longer than {limit:g} s and did not end when it was told to (hook_seconds)"
                self._blame(sequence, waiting.install_id, "timeout", message, None)
                assert self._process is not None
                self._process.kill(message)
                return

    # Sending

    def _pump(self) -> None:
        """Send batches while there is room in the child."""
        if not self._loaded:
            if self._process is None and self._starting is None and not self._closing:
                self._starting = asyncio.get_running_loop().create_task(self._start())
            return
        while self._replay and not self._batches:
            self._send_batch(self._replay, 1)
        if self._replay:
            return
        while self._queue and len(self._batches) < BATCHES_IN_FLIGHT:
            self._send_batch(self._queue, self._batch_events)

    def _send_batch(self, queue: deque[Work[Any]], limit: int) -> None:
        if self._next_sequence > _LAST_SEQUENCE:
            self._next_sequence = 1
        first = sequence = self._next_sequence
        values: list[bytes] = []
        size = 0
        failed: dict[str, dict[str, list[Any]]] = {}
        in_flight = self._in_flight
        while queue and len(values) < limit and size < BATCH_BYTES:
            work = queue.popleft()
            if work.sink.closed:
                continue
            if work.failed:
                failed[str(sequence)] = {str(install): list(why[1:]) for install, why in work.failed.items()}
            in_flight[sequence] = work
            values.append(work.raw)
            size += len(work.raw)
            sequence += 1
        if not values:
            return
        self._next_sequence = sequence
        self._batches.append((first, len(values), time.perf_counter()))
        head = {"first": first, "lengths": list(map(len, values)), "failed": failed, "trace": self._is_traced()}
        self._send(FrameKind.RUN, head, b"".join(values))

    def _send(self, kind: FrameKind, head: Any, blob: bytes = b"") -> None:
        if self._process is not None:
            self._process.send(kind, orjson.dumps(head), blob)

    # Receiving

    def _on_frame(self, kind: int, head: bytes, blob: bytes) -> None:
        match kind:
            case FrameKind.RESULTS if self._loaded:
                self._on_results(*self._reader.results(head, blob))
            case FrameKind.CALL:
                self._on_call(self._reader.call(head))
            case FrameKind.LOADED if not self._loaded:
                self._on_load(self._reader.loaded(head))
            case _:
                raise ProtocolViolation(f"a frame of kind {kind} that was not expected")

    def _on_load(self, loaded: Loaded) -> None:
        self._loaded = True
        self._failed_loads = 0
        self._has_delivery = any(entry.hooks & _DELIVERY_HOOKS for entry in loaded.installs)
        self._on_loaded(self.project, loaded)
        self._pump()

    def _on_results(self, batches_ended: int, results: list[tuple[int, ChainResult]]) -> None:
        in_flight, waiting = self._in_flight, self._waiting
        # All of the frame is judged before any of it counts: what is in flight when it is killed is run again.
        sequences = {sequence for sequence, _ in results}
        if len(sequences) != len(results) or not sequences <= in_flight.keys():
            raise ProtocolViolation("an answer for an event that it was not given, or a second one")
        if not results and not batches_ended:
            raise ProtocolViolation("a RESULTS frame with nothing in it")
        if batches_ended not in (0, 1) or batches_ended > len(self._batches):
            raise ProtocolViolation("it ended a batch that it was not given")
        by_sink: dict[int, tuple[Any, list[tuple[Any, ChainResult]]]] = {}
        for sequence, result in results:
            work = in_flight.pop(sequence)
            if waiting and (waited := waiting.pop(sequence, None)) is not None:
                _cancel(waited.tasks)
            sink = work.sink
            entry = by_sink.get(id(sink))
            if entry is None:
                by_sink[id(sink)] = entry = (sink, [])
            entry[1].append((work.item, result))
        if batches_ended:
            self._end_batch()
        for sink, delivered in by_sink.values():
            if not sink.closed:
                sink.deliver(delivered, has_delivery=self._has_delivery)
        self._pump()

    def _end_batch(self) -> None:
        _, events, start = self._batches.popleft()
        now = time.perf_counter()
        seconds_each = (now - max(start, self._last_end)) / events
        self._last_end = now
        if events > 1 or not self._replay:
            wanted = BATCH_SECONDS / max(seconds_each, 1e-9)
            self._batch_events = max(1, min(BATCH_EVENTS, int((self._batch_events + wanted) / 2) + 1))

    def _on_call(self, request: HostCallRequest) -> None:
        work = self._in_flight.get(request.sequence)
        if work is None:
            raise ProtocolViolation("a host call for an event that it was not given")
        waiting = self._waiting.get(request.sequence)
        if waiting is None or waiting.install_id != request.install_id:
            calls, tasks = (waiting.calls, waiting.tasks) if waiting is not None else (0, set())
            waiting = self._waiting[request.sequence] = _Waiting(request.install_id, calls, tasks)
        waiting.calls += 1
        if waiting.calls > HOST_CALLS:
            raise ProtocolViolation("more host calls for one event than the limits allow")
        key = (request.install_id, request.number)
        if work.journal is not None and key in work.journal:
            self._send(FrameKind.REPLY, [request.call_id, *work.journal[key]])
            return
        if len(self._calls) >= PENDING_CALLS:
            message = f"more than {PENDING_CALLS} calls of this project wait for the host: try again later"
            self._send(FrameKind.REPLY, [request.call_id, False, message])
            return
        task = asyncio.get_running_loop().create_task(self._answer(request, work))
        for tasks in (self._calls, waiting.tasks):
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    async def _answer(self, request: HostCallRequest, work: Work[Any]) -> None:
        process = self._process
        try:
            answer = [True, await self._host_calls.answer(self.project.id, request)]
        except AppError as error:
            answer = [False, str(error)]
        except Exception as error:  # noqa: BLE001 - a fault of ours must not leave the hook waiting
            _log.exception("host_call_failed", project_id=self.project.id, call=request.name, exc_info=error)
            answer = [False, "the server failed to do this; its operator has been told"]
        if work.journal is None:
            work.journal = {}
        work.journal[request.install_id, request.number] = answer
        if process is self._process:
            self._send(FrameKind.REPLY, [request.call_id, *answer])

    # Life and death

    async def _start(self) -> None:
        if self._failed_loads:
            wait = min(_FIRST_LOAD_BACKOFF_SECONDS * 2 ** (self._failed_loads - 1), _LAST_LOAD_BACKOFF_SECONDS)
            await asyncio.sleep(wait)
        delay = 0.1
        while True:
            try:
                handle = await self._spawn(self.project.limits.memory_bytes, self._on_exit)
                process = SandboxProcess(handle, self._on_frame, self._on_lost)
                self._process = process
                await process.open()
                break
            except (SandboxUnavailable, OSError) as error:
                self._process = None
                _log.error("sandbox_unavailable", project_id=self.project.id, error=str(error), retry_seconds=delay)
                await asyncio.sleep(delay)
                delay = min(delay * 2, 10.0)
        self._watch = Watch(self.project.limits)
        self._starting = None
        if self._process is not process:
            self._pump()  # it has died meanwhile
            return
        head, blob = self._load_frame()
        process.send(FrameKind.LOAD, head, blob)

    def _load_frame(self) -> tuple[bytes, bytes]:
        installs, parts, size = [], [], 0
        for install in self.project.installs:
            attachments = {}
            for name, attachment in install.attachments.items():
                stop = size + len(attachment.contents)
                attachments[name] = [attachment.content_type, attachment.file_name, size, stop]
                parts.append(attachment.contents)
                size = stop
            broken = self._broken.get(install.id)
            installs.append(
                {
                    "id": install.id,
                    "name": install.app.name,
                    "file_name": install.app.file_name,
                    "source": install.app.source,
                    "config": install.config,
                    "attachments": attachments,
                    "failed": None if broken is None else list(broken[1:]),
                },
            )
        limits = self.project.limits
        head = {
            "project_id": self.project.id,
            "installs": installs,
            "library_version": self._library_version,
            "limits": {
                "cpu_seconds": limits.cpu_seconds,
                "event_bytes": limits.event_bytes,
                "record_bytes": self._record_bytes,
                "captures_per_event": limits.captures_per_event,
            },
        }
        return orjson.dumps(head), b"".join(parts)

    def _kill(self, verdict: Kill) -> None:
        assert self._process is not None
        running = self._process.running()
        if verdict.blame:
            self._blame(running.sequence, running.install_id, "timeout", verdict.message, running.line or None)
        self._process.kill(verdict.message)

    def _blame(self, sequence: int, install_id: int, kind: str, message: str, line: int | None) -> None:
        """An install is left out of one event from now on, or altogether if it was loading."""
        if install_id not in {install.id for install in self.project.installs}:
            return
        failure = HookFailure(install_id, kind, message, line)
        work = self._in_flight.get(sequence)
        if not self._loaded:
            self._broken[install_id] = failure
        elif work is not None and install_id not in (work.failed or {}):
            work.failed = {**(work.failed or {}), install_id: failure}
        else:
            return  # it names what it was not given, so nobody can be blamed
        self._blamed = failure

    def _on_exit(self, status: int) -> None:
        if status != 0 and not self._closing:
            _log.debug("sandbox_exited", project_id=self.project.id, status=status)

    def _on_lost(self, reason: str) -> None:
        """Put its unfinished events back, first in line, and begin again."""
        process = self._process
        assert process is not None
        running = process.running()
        process.release()
        self._process = None
        if self._closing:
            return
        self._on_restart(self.project.id)
        if self._blamed is None and running.in_app:
            self._blame(running.sequence, running.install_id, "sandbox", "ended the sandbox", running.line or None)
        blamed = self._blamed
        if blamed is None and not self._loaded:
            self._failed_loads = min(self._failed_loads + 1, 16)
        elif blamed is None:
            self._count_crash()
        _log.warning(
            "sandbox_replaced",
            project_id=self.project.id,
            reason=reason,
            install_id=blamed.install_id if blamed else None,
            hook=hook_name(running.hook) if blamed else None,
            line=blamed.line if blamed else None,
            events_to_run_again=len(self._in_flight),
        )
        self._replay.extendleft(reversed(self._in_flight.values()))
        self._in_flight.clear()
        _cancel(self._calls)  # who is run again asks again, but for what was answered already
        self._waiting.clear()
        self._batches.clear()
        self._blamed = None
        self._loaded = False
        self._pump()

    def _count_crash(self) -> None:
        """It died with nobody to blame. An event that was alone in it, or waited in it, bears it up to a bound."""
        ran = [sequence for first, events, _ in self._batches for sequence in range(first, first + events)]
        suspects = ran if len(ran) == 1 else [] if ran else list(self._in_flight)
        for work in filter(None, map(self._in_flight.get, suspects)):
            work.crashes += 1
            if work.crashes >= CRASHES:
                message = f"the sandbox died {CRASHES} times while this event was in it"
                work.failed = {
                    install.id: HookFailure(install.id, "sandbox", message, None) for install in self.project.installs
                }

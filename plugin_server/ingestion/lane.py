"""One lane: reads a partition, runs its events through their projects' apps, commits outputs and position together.

    fetch → decode → guard_loop → sandbox (or normalise, without apps) → emit → flush

Two tasks: one takes, one flushes; results come back by `deliver`. No app runs inside an open transaction, and nothing
is awaited, logged or timed per event (DESIGN 3.3).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from plugin_server.eventlog.port import METADATA_LIMIT_BYTES, InputRecord, LaneLog, OutputRecord
from plugin_server.ingestion.decode import Decode
from plugin_server.ingestion.emit import Emitted, Emitter
from plugin_server.ingestion.guard_loop import guard_loop
from plugin_server.ingestion.normalise import invalid_event, normalise
from plugin_server.ingestion.pending import PendingEvent
from plugin_server.ingestion.position import PositionTracker
from plugin_server.ingestion.report import LaneReport
from plugin_server.model.outcome import DeadLetter, DeadLetterReason
from plugin_server.model.project import Project
from plugin_server.runtime.replies import ChainResult
from plugin_server.runtime.work import Work
from sandbox.wire import EventOutcome

FETCH_RECORDS: Final = 1_000
FETCH_SECONDS: Final = 0.5
MAX_RUNS: Final = METADATA_LIMIT_BYTES // 16
"""Finished ranges beyond `next`; each takes at most 16 bytes of the committed offset's metadata"""
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class LaneLimits:
    """How much a lane holds, and how often it commits."""

    commit_interval_seconds: float
    flush_max_results: int
    window_events: int
    window_bytes: int


class Apps(Protocol):
    """Who runs the chains."""

    def submit(self, project: Project, works: Sequence[Work[PendingEvent]]) -> None: ...


class IngestionLane:
    """The lane of one partition, from when it was acquired until it is lost. `run` is its life."""

    def __init__(
        self,
        log: LaneLog,
        decode: Decode,
        apps: Apps,
        emitter: Emitter,
        limits: LaneLimits,
        report: LaneReport,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.partition = log.partition
        self.closed = False
        self._log = log
        self._decode = decode
        self._apps = apps
        self._emitter = emitter
        self._limits = limits
        self._report = report
        self._clock = clock
        self._tracker = PositionTracker(log.position, MAX_RUNS)
        self._ready: list[tuple[int, int, list[OutputRecord]]] = []
        """Offset, bytes and outputs of the events that are finished and not committed"""
        self._held_bytes = 0
        self._has_ready = asyncio.Event()
        self._has_many = asyncio.Event()
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._may_run = asyncio.Event()
        self._may_run.set()
        self._taking = True
        self._idle = asyncio.Event()
        self._idle.set()
        self._not_flushing = asyncio.Event()
        self._not_flushing.set()
        self._last_flush = -limits.commit_interval_seconds
        self._last_progress = clock()

    async def run(self) -> None:
        """Process the partition until cancelled.

        Raises LaneFenced or Transient (in an exception group) when it has to be acquired again; nothing that was not
        committed has left then.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._take_forever(), name=f"lane-{self.partition}-take")
                tasks.create_task(self._flush_forever(), name=f"lane-{self.partition}-flush")
        finally:
            self.closed = True

    async def suspend(self) -> None:
        """Take no more and begin no flush; returns when the one under way has ended. What is in flight stays."""
        self._may_run.clear()
        await self._not_flushing.wait()

    async def resume(self) -> bool:
        """After a rebalance: go on if nobody else had the partition meanwhile. False: this lane is over."""
        if not await self._log.resume():
            return False
        self._may_run.set()
        return True

    async def drain(self) -> None:
        """Take no more; returns when all that was taken is committed."""
        self._taking = False
        await self._idle.wait()

    @property
    def stalled_seconds(self) -> float:
        """Time since an event was last committed, while some wait for it."""
        return self._clock() - self._last_progress if self._tracker.unfinished else 0.0

    @property
    def in_flight(self) -> int:
        """Events taken and not committed."""
        return self._tracker.unfinished

    def deliver(self, results: Sequence[tuple[PendingEvent, ChainResult]], *, has_delivery: bool) -> None:
        """Take what became of some events (ResultSink)."""
        report, emit = self._report, self._emit
        self._emitter.start_batch()
        for event, result in results:
            try:
                emitted = emit(event, result, has_delivery=has_delivery)
            except Exception as error:  # noqa: BLE001 - whatever is wrong with one event must not stop its lane
                emitted = self._internal_error(event, error)
            record = event.record
            self._ready.append((record.offset, len(record.value or b""), emitted.records))
            if result.notes is not None or emitted.ended is not None:
                report.event(event, result, emitted)
        self._wake()

    def _emit(self, event: PendingEvent, result: ChainResult, *, has_delivery: bool) -> Emitted:
        if result.outcome is EventOutcome.INVALID:
            assert result.notes is not None
            assert result.notes.error is not None
            return self._emitter.dead_letter(event, invalid_event(*result.notes.error, event.project.id))
        return self._emitter.emit(event, result, has_delivery=has_delivery)

    def _internal_error(self, event: PendingEvent, error: Exception) -> Emitted:
        """A fault of ours: the event is kept as a dead letter, and the operator told."""
        _log.exception("emit_failed", offset=event.record.offset, partition=self.partition, exc_info=error)
        letter = DeadLetter("emit", DeadLetterReason.INTERNAL, f"{type(error).__name__}: {error}", event.project.id)
        return self._emitter.dead_letter(event, letter)

    def _wake(self) -> None:
        self._has_ready.set()
        if len(self._ready) >= self._limits.flush_max_results:
            self._has_many.set()

    async def _take_forever(self) -> None:
        log = self._log
        while True:
            while not (self._may_run.is_set() and self._has_room.is_set()):
                await self._may_run.wait()
                await self._has_room.wait()
            if not self._taking:
                self._note_idle()
                await asyncio.Event().wait()
            records = await log.fetch(FETCH_RECORDS, FETCH_SECONDS)
            if records:
                self._take(records)

    def _take(self, records: Sequence[InputRecord]) -> None:
        """Decode a batch and hand each project's part of it to its sandbox."""
        tracker, decode = self._tracker, self._decode
        by_project: dict[int, tuple[Project, list[Work[PendingEvent]]]] = {}
        refused = False
        size = 0
        for record in records:
            if not tracker.take(record.offset):
                continue
            length = len(record.value or b"")
            size += length
            try:
                event = decode(record)
            except Exception as error:  # noqa: BLE001 - as in deliver: one record must not stop its lane
                event = self._undecodable(record, error)
            if isinstance(event, DeadLetter):
                self._refuse(record, length, event)
                refused = True
                continue
            if record.headers:
                guard_loop(event)
            project = event.project
            entry = by_project.get(project.id)
            if entry is None:
                by_project[project.id] = entry = (project, [])
            entry[1].append(Work(event, event.raw, self))
        if self._idle.is_set():
            self._last_progress = self._clock()
        self._held_bytes += size
        self._idle.clear()
        self._report.taken(len(records))
        if tracker.unfinished >= self._limits.window_events or self._held_bytes >= self._limits.window_bytes:
            self._has_room.clear()
        for project, works in by_project.values():
            if project.installs:
                self._apps.submit(project, works)
            else:
                self._pass_through(works)
        if refused or not by_project:
            self._wake()

    def _undecodable(self, record: InputRecord, error: Exception) -> DeadLetter:
        _log.exception("decode_failed", offset=record.offset, partition=self.partition, exc_info=error)
        return DeadLetter("decode", DeadLetterReason.INTERNAL, f"{type(error).__name__}: {error}")

    def _pass_through(self, works: Sequence[Work[PendingEvent]]) -> None:
        """Events of a project without apps."""
        results: list[tuple[PendingEvent, ChainResult]] = []
        for work in works:
            result = normalise(work.item)
            if isinstance(result, DeadLetter):
                self._refuse(work.item.record, len(work.item.record.value or b""), result)
            else:
                results.append((work.item, result))
        self.deliver(results, has_delivery=False)

    def _refuse(self, record: InputRecord, length: int, letter: DeadLetter) -> None:
        output = self._emitter.refuse(record.offset, record.key, record.value, record.headers, letter)
        self._report.refused(record, letter)
        self._ready.append((record.offset, length, [output]))

    async def _flush_forever(self) -> None:
        interval = self._limits.commit_interval_seconds
        while True:
            await self._has_ready.wait()
            delay = self._last_flush + interval - self._clock()
            if delay > 0 and self._taking:
                await _wait_at_most(self._has_many, delay)
            await self._may_run.wait()
            self._not_flushing.clear()
            try:
                await self._flush()
            finally:
                self._not_flushing.set()

    async def _flush(self) -> None:
        """Commit what is ready: its outputs and the position, or neither."""
        self._last_flush = self._clock()
        ready, self._ready = self._ready, []
        self._has_ready.clear()
        self._has_many.clear()
        position, waiting = self._tracker.propose([entry[0] for entry in ready])
        if waiting:
            held = set(waiting)
            self._ready.extend(entry for entry in ready if entry[0] in held)
            ready = [entry for entry in ready if entry[0] not in held]
            self._has_room.clear()
        records = [record for entry in ready for record in entry[2]]
        if not records and position == self._log.position:
            return
        await self._log.commit(records, position)
        self._last_progress = self._clock()
        self._held_bytes -= sum(entry[1] for entry in ready)
        self._report.flushed(records, self._clock() - self._last_flush)
        limits = self._limits
        has_room = self._tracker.unfinished < limits.window_events and self._held_bytes < limits.window_bytes
        if has_room and not waiting:
            self._has_room.set()
        self._note_idle()

    def _note_idle(self) -> None:
        if not self._tracker.unfinished and not self._ready:
            self._idle.set()


async def _wait_at_most(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass

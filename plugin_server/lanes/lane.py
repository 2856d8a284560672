"""One lane: reads a partition, hands its records to a stage, commits what comes of them together with its position.

    fetch → Processor (a stage: ingestion, delivery) → finished → store effects → flush

Two tasks: one takes, one flushes; what is finished comes back by `finished`, in any order. No app runs inside an open
transaction, and nothing is awaited, logged or timed per event (docs/architecture.md).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from plugin_server.eventlog.port import METADATA_LIMIT_BYTES, InputRecord, LaneLog, OutputRecord
from plugin_server.host_api.commit import Commitment, Committer, Outcome
from plugin_server.lanes.position import PositionTracker
from plugin_server.model.errors import LaneFenced, Transient

FETCH_RECORDS: Final = 1_000
FETCH_SECONDS: Final = 0.5
MAX_RUNS: Final = METADATA_LIMIT_BYTES // 16
"""Finished ranges beyond `next`; each takes at most 16 bytes of the committed offset's metadata"""


@dataclass(frozen=True, slots=True)
class LaneLimits:
    """How much a lane holds, and how often it commits."""

    commit_interval_seconds: float
    flush_max_results: int
    window_events: int
    window_bytes: int


class Finished(NamedTuple):
    """A record that a stage is through with, and what it left."""

    offset: int
    size: int
    """Of its value, in bytes"""
    records: list[OutputRecord]
    commitment: Commitment | None = None
    """What has to be in the database before these leave"""
    again: Callable[[], None] | None = None
    """Process it again: what it read had changed. Always there beside a commitment."""
    key: bytes | None = None
    """Of its record: those that share one leave in their order"""


class Processor(Protocol):
    """What a stage does with the records of one lane."""

    def take(self, records: Sequence[InputRecord]) -> None:
        """New records, in order. Each is to be reported to the lane's `finished` once. Must not block or raise."""
        ...

    async def close(self) -> None:
        """The lane is over: end what runs for it."""
        ...


class FinishedEvents(Protocol):
    """The lane, as a Processor sees it."""

    @property
    def closed(self) -> bool:
        """Nobody waits for what is not finished."""
        ...

    @property
    def is_full(self) -> bool:
        """It reads no more until something is finished and committed."""
        ...

    def finished(self, events: Sequence[Finished]) -> None:
        """These are done, each for the first time."""
        ...

    def fail(self, error: Transient) -> None:
        """Something that processing needs is away: give the lane up, and acquire it again after a while."""
        ...


class LaneReport(Protocol):
    """Who counts."""

    def taken(self, count: int) -> None: ...

    def flushed(self, records: Sequence[OutputRecord], seconds: float) -> None: ...


MakeProcessor = Callable[[FinishedEvents], Processor]


class Lane:
    """The lane of one partition, from when it was acquired until it is lost. `run` is its life."""

    def __init__(
        self,
        log: LaneLog,
        make_processor: MakeProcessor,
        committer: Committer,
        limits: LaneLimits,
        report: LaneReport,
        *,
        may_repeat: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`may_repeat`: what is finished may be finished again after a crash, rather than be held back (PositionTracker)."""
        self.partition = log.partition
        self.closed = False
        self._log = log
        self._committer = committer
        self._limits = limits
        self._report = report
        self._clock = clock
        self._tracker = PositionTracker(log.position, MAX_RUNS, may_repeat=may_repeat)
        self._ready: list[Finished] = []
        """Finished and not committed"""
        self._again: dict[int, bytes | None] = {}
        """Offset and key of those that were ready, and are processed again because they were stale"""
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
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._last_flush = -limits.commit_interval_seconds
        self._last_progress = clock()
        self._processor = make_processor(self)

    async def run(self) -> None:
        """Process the partition until cancelled.

        Raises LaneFenced or Transient (in an exception group) when it has to be acquired again; nothing that was not
        committed has left then.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._take_forever(), name=f"lane-{self.partition}-take")
                tasks.create_task(self._flush_forever(), name=f"lane-{self.partition}-flush")
                tasks.create_task(self._wait_for_failure(), name=f"lane-{self.partition}-failure")
        finally:
            self.closed = True
            self._committer.withdraw([each.commitment for each in self._ready if each.commitment is not None])
            await self._processor.close()

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

    @property
    def is_full(self) -> bool:
        """Reading is paused (FinishedEvents), or ends."""
        return not self._has_room.is_set() or not self._taking

    def finished(self, events: Sequence[Finished]) -> None:
        """See FinishedEvents."""
        self._ready += events
        self._has_ready.set()
        if len(self._ready) >= self._limits.flush_max_results:
            self._has_many.set()

    def fail(self, error: Transient) -> None:
        """See FinishedEvents."""
        if not self._failed.done():
            self._failed.set_exception(error)
            self._failed.exception()  # it may be over by now

    async def _wait_for_failure(self) -> None:
        await self._failed

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
        tracker = self._tracker
        new = [record for record in records if tracker.take(record.offset)]
        if self._idle.is_set():
            self._last_progress = self._clock()
        self._held_bytes += sum([len(record.value or b"") for record in new])
        self._idle.clear()
        self._report.taken(len(records))
        if tracker.unfinished >= self._limits.window_events or self._held_bytes >= self._limits.window_bytes:
            self._has_room.clear()
        self._processor.take(new)
        if not new:
            self._has_ready.set()

    async def _flush_forever(self) -> None:
        interval = self._limits.commit_interval_seconds
        while True:
            await self._has_ready.wait()
            delay = self._last_flush + interval - self._clock()
            # What was stale is stored as soon as it can be, else a worker that flushes a little earlier wins each time.
            if delay > 0 and self._taking and not self._again:
                await _wait_at_most(self._has_many, delay)
            await self._may_run.wait()
            self._not_flushing.clear()
            try:
                await self._flush()
            finally:
                self._not_flushing.set()

    async def _flush(self) -> None:
        """Commit what is ready: its effects first, then its outputs and the position, or neither."""
        self._last_flush = self._clock()
        ready = await self._store_effects()
        if self._failed.done():
            # Nothing more leaves: what did may have waited, by its key, for an event that will not.
            await asyncio.Event().wait()
        position, waiting = self._tracker.propose([each.offset for each in ready])
        if waiting:
            held = set(waiting)
            self._ready.extend(each for each in ready if each.offset in held)
            ready = [each for each in ready if each.offset not in held]
            self._has_room.clear()
        records = [record for each in ready for record in each.records]
        if not records and position == self._log.position:
            return
        await self._log.commit(records, position)
        self._last_progress = self._clock()
        self._held_bytes -= sum([each.size for each in ready])
        self._report.flushed(records, self._clock() - self._last_flush)
        limits = self._limits
        has_room = self._tracker.unfinished < limits.window_events and self._held_bytes < limits.window_bytes
        if has_room and not waiting:
            self._has_room.set()
        self._note_idle()

    async def _store_effects(self) -> list[Finished]:
        """Have the database take what is ready; returns what can leave now, the rest stays. What is stale is processed again."""
        stored = [each.commitment for each in self._ready if each.commitment is not None]
        if stored:
            await self._committer.store(stored)
        leaving: list[Finished] = []
        staying: list[Finished] = []
        stale: list[Finished] = []
        for each in self._ready:
            commitment = each.commitment
            if staying or (commitment is not None and not commitment.decided.done()):
                staying.append(each)  # it, or one before it, finished while the others were stored
            elif commitment is None:
                leaving.append(each)
            else:
                match commitment.decided.result():
                    case Outcome.LOST:
                        raise LaneFenced
                    case Outcome.STALE:
                        stale.append(each)
                    case Outcome.STORED:
                        leaving.append(each)
        if stale or self._again:
            leaving, behind = self._keep_order(leaving, stale)
            staying = behind + staying
        self._ready = staying
        self._has_ready.clear()
        self._has_many.clear()
        if any(each.commitment is not None and not each.commitment.decided.done() for each in staying):
            self._has_ready.set()
        for each in stale:
            assert each.again is not None
            each.again()
        return leaving

    def _keep_order(
        self, leaving: Sequence[Finished], stale: Sequence[Finished]
    ) -> tuple[list[Finished], list[Finished]]:
        """Of what could leave: what does, and what stays behind an earlier record of its key that is processed again."""
        for each in leaving:
            self._again.pop(each.offset, None)
        self._again |= {each.offset: each.key for each in stale}
        first: dict[bytes | None, int] = {}
        for offset, key in self._again.items():
            first[key] = min(offset, first.get(key, offset))
        behind = [each for each in leaving if first.get(each.key, each.offset) < each.offset]
        kept = set(map(id, behind))
        return sorted([each for each in leaving if id(each) not in kept], key=lambda each: each.offset), behind

    def _note_idle(self) -> None:
        if not self._tracker.unfinished and not self._ready:
            self._idle.set()


async def _wait_at_most(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass

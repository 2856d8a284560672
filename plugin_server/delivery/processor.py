"""What delivery does with a lane's records:

    decode → receivers → queue of each install (exportEvents: buffer → queue) → finished

An event is finished when each hook of each receiving install had it, failed for good, or has it in the database.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import structlog

from plugin_server.delivery.batch import ExportBuffer
from plugin_server.delivery.event import STEP, Decode, DeliveryEvent
from plugin_server.delivery.letters import DeadLetters
from plugin_server.delivery.marks import DeliveredMarks, Mark
from plugin_server.delivery.parcel import EXPORT_EVENTS, Member, Parcel
from plugin_server.delivery.queue import InstallQueue
from plugin_server.delivery.receivers import Receiver, Receivers
from plugin_server.eventlog.port import InputRecord, OutputRecord
from plugin_server.host_api.commit import Completion
from plugin_server.lanes.lane import Finished, FinishedEvents
from plugin_server.metrics import Metrics
from plugin_server.model.outcome import DeadLetter, DeadLetterReason
from plugin_server.model.project import Project

_HURRY_SECONDS: Final = 0.2
"""How long a batch may wait for more while its lane reads nothing"""
_ACTIVE_SECONDS: Final = 5.0
"""An install that had an event of the lane so lately waits for more of them"""
_log = structlog.get_logger(__name__)

QueueOf = Callable[[int], InstallQueue]


@dataclass(eq=False, slots=True)
class _Open:
    """An event that is not finished."""

    offset: int
    size: int
    left: int = 0
    """Deliveries of it that are not done"""
    records: list[OutputRecord] = field(default_factory=list)


@dataclass(slots=True)
class _Active:
    """An install that the lane has events for."""

    under_way: int = 0
    at: float = 0.0


class DeliveryProcessor:
    """The Processor of one delivery lane, and the owner of its deliveries. Its maker calls `tick` some ten times a second."""

    def __init__(
        self,
        lane: FinishedEvents,
        decode: Decode,
        receivers: Receivers,
        queue_of: QueueOf,
        marks: DeliveredMarks,
        letters: DeadLetters,
        metrics: Metrics,
        *,
        place: str,
        on_close: Callable[[DeliveryProcessor], None] = lambda _processor: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`place` is the lane's `topic-partition`; `marks` are loaded."""
        self._lane = lane
        self._decode = decode
        self._receivers = receivers
        self._queue_of = queue_of
        self._marks = marks
        self._letters = letters
        self._metrics = metrics
        self._place = place
        self._on_close = on_close
        self._clock = clock
        self._unknown: dict[int, list[tuple[DeliveryEvent, _Open]]] = {}
        """Events of projects whose apps are being loaded"""
        self._parcels: dict[Parcel, list[_Open]] = {}
        self._buffers: dict[int, tuple[Receiver, Project, ExportBuffer[tuple[Member, _Open]]]] = {}
        self._active: dict[int, _Active] = {}

    def take(self, records: Sequence[InputRecord]) -> None:
        """Decode a batch and hand each event to the installs that receive it (Processor)."""
        done: list[Finished] = []
        for record in records:
            size = len(record.value or b"")
            try:
                event = self._decode(record)
            except Exception as error:  # noqa: BLE001 - whatever is wrong with one record must not stop its lane
                _log.exception("decode_failed", place=self._place, offset=record.offset)
                event = DeadLetter(STEP, DeadLetterReason.INTERNAL, f"{type(error).__name__}: {error}")
            if isinstance(event, DeadLetter):
                self._metrics.dead_letters.labels(event.step, event.reason).inc()
                letter = self._letters.refused(record, event, f"{self._place}-{record.offset}")
                done.append(Finished(record.offset, size, [letter]))
            elif event is None or not event.project.installs:
                done.append(Finished(record.offset, size, []))
            else:
                self._route(event, _Open(record.offset, size), done)
        if done:
            self._lane.finished(done)

    async def close(self) -> None:
        """What is under way for the lane ends, but for what the database has by now (Processor)."""
        for install_id in self._active:
            self._queue_of(install_id).forget(self)
        self._on_close(self)

    def tick(self) -> None:
        """Send off the batches that have waited long enough."""
        now = self._clock()
        is_full = self._lane.is_full
        for install_id, (_, _, buffer) in list(self._buffers.items()):
            if buffer.is_due(now) or (is_full and buffer.waited_seconds(now) > _HURRY_SECONDS):
                self._send_batch(install_id, buffer.take())

    # The owner of deliveries

    @property
    def closed(self) -> bool:
        """Nobody waits for its deliveries any more."""
        return self._lane.closed

    @property
    def is_lost(self) -> bool:
        """See Owner."""
        return self._marks.is_lost

    def holds_up_others(self, install_id: int) -> bool:
        """See Owner."""
        if not self._lane.is_full:
            return False
        since = self._clock() - _ACTIVE_SECONDS
        return any(
            active.at > since and not active.under_way for other, active in self._active.items() if other != install_id
        )

    def completion(self, parcel: Parcel) -> tuple[Completion, Any]:
        """See Owner."""
        offsets = tuple([event.offset for event in self._parcels[parcel]])
        return self._marks, Mark(offsets, parcel.install.id, parcel.hook)

    def done(self, parcel: Parcel, records: Sequence[OutputRecord]) -> None:
        """See Owner."""
        opened = self._parcels.pop(parcel, None)
        if opened is None or self._lane.closed:
            return
        self._active[parcel.install.id].under_way -= 1
        opened[0].records += records
        finished: list[Finished] = []
        for event in opened:
            event.left -= 1
            if not event.left:
                finished.append(Finished(event.offset, event.size, event.records))
        if finished:
            self._lane.finished(finished)

    # To the installs

    def _route(self, event: DeliveryEvent, opened: _Open, done: list[Finished]) -> None:
        receivers = self._receivers.known(event.project)
        waiting = self._unknown.get(event.project.id)
        if receivers is not None and waiting is None:
            self._deliver(event, opened, receivers, done)
        elif waiting is not None:
            waiting.append((event, opened))
        else:
            self._unknown[event.project.id] = [(event, opened)]
            self._receivers.ask(event.project, lambda: self._became_known(event.project))

    def _became_known(self, project: Project) -> None:
        waiting = self._unknown.pop(project.id, [])
        if self._lane.closed:
            return
        done: list[Finished] = []
        for event, opened in waiting:
            self._route(event, opened, done)
        if done:
            self._lane.finished(done)

    def _deliver(
        self, event: DeliveryEvent, opened: _Open, receivers: Sequence[Receiver], done: list[Finished]
    ) -> None:
        """Hand the event to each hook that gets it, with its even part of the budget (docs/loop-guard.md, rule 3)."""
        wanted = [(receiver, hooks) for receiver in receivers if (hooks := receiver.hooks_for(event.name))]
        created_ms = time.time_ns() // 1_000_000
        now = self._clock()
        opened.left = 1  # held until all are handed over: some may be done at once
        for receiver, hooks in wanted:
            install = receiver.install
            share = event.lineage.budget // len(wanted) // len(hooks)
            for hook in hooks:
                if self._marks.has(opened.offset, install.id, hook):
                    continue
                opened.left += 1
                member = Member(event, share)
                if hook == EXPORT_EVENTS:
                    self._buffer(receiver, event, member, opened, now)
                else:
                    self._offer(Parcel(event.project, install, hook, (member,), created_ms), [opened], now)
        opened.left -= 1
        if not opened.left:
            done.append(Finished(opened.offset, opened.size, opened.records))

    def _offer(self, parcel: Parcel, opened: list[_Open], now: float) -> None:
        install_id = parcel.install.id
        self._parcels[parcel] = opened
        active = self._active.get(install_id)
        if active is None:
            active = self._active[install_id] = _Active()
        active.under_way += 1
        active.at = now
        self._queue_of(install_id).offer(parcel, self)

    def _buffer(self, receiver: Receiver, event: DeliveryEvent, member: Member, opened: _Open, now: float) -> None:
        install_id = receiver.install.id
        entry = self._buffers.get(install_id)
        if entry is not None and (entry[0].install is not receiver.install or entry[0].export != receiver.export):
            self._send_batch(install_id, entry[2].take())
            entry = None
        if entry is None:
            entry = self._buffers[install_id] = (receiver, event.project, ExportBuffer(receiver.export))
        for batch in entry[2].add((member, opened), len(event.json), now):
            self._send_batch(install_id, batch)

    def _send_batch(self, install_id: int, batch: Sequence[tuple[Member, _Open]]) -> None:
        if not batch:
            return
        receiver, project, _ = self._buffers[install_id]
        members = tuple([member for member, _ in batch])
        parcel = Parcel(project, receiver.install, EXPORT_EVENTS, members, time.time_ns() // 1_000_000)
        self._offer(parcel, [opened for _, opened in batch], self._clock())

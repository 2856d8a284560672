"""What ingestion does with a lane's records:

    decode → guard_loop → sandbox (or normalise, without apps) → judge effects → emit

An event whose apps read what another has changed meanwhile runs again. One that left effects in the database is
recorded with them, and after a crash emitted as it was recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import structlog

from plugin_server.eventlog.port import InputRecord, OutputRecord
from plugin_server.host_api.commit import Commitment, Committer
from plugin_server.host_api.effects import RunEffects
from plugin_server.ingestion.decode import Decode
from plugin_server.ingestion.emit import Emitted, Emitter
from plugin_server.ingestion.guard_loop import guard_loop
from plugin_server.ingestion.normalise import invalid_event, normalise
from plugin_server.ingestion.pending import PendingEvent
from plugin_server.ingestion.recorded import RecordedResult, RecordedResults, encode_records
from plugin_server.ingestion.replay import Replay
from plugin_server.ingestion.report import IngestionReport
from plugin_server.ingestion.run_again import RunsAgain
from plugin_server.lanes.lane import Finished, FinishedEvents
from plugin_server.model.origin import Origin
from plugin_server.model.outcome import DeadLetter, DeadLetterReason
from plugin_server.model.project import Project
from plugin_server.runtime.replies import ChainResult
from plugin_server.runtime.work import Work
from sandbox.wire import EventOutcome

HOOK = "processEvent"
_log = structlog.get_logger(__name__)


class Apps(Protocol):
    """Who runs the chains."""

    def submit(self, project: Project, works: Sequence[Work[PendingEvent]]) -> None: ...


class CountMetrics(Protocol):
    """Who adds up what apps count by `meta.metrics`."""

    def add(self, project: Project, install_id: int, metrics: Sequence[tuple[str, str, float]]) -> None: ...


class IngestionProcessor:
    """The Processor of one ingestion lane, and the sink of its events."""

    def __init__(
        self,
        lane: FinishedEvents,
        decode: Decode,
        apps: Apps,
        emitter: Emitter,
        committer: Committer,
        results: RecordedResults,
        recorded: Mapping[int, list[OutputRecord]],
        metrics: CountMetrics,
        report: IngestionReport,
        *,
        source_of: Callable[[int], str],
    ) -> None:
        """`recorded` is what `results` loaded when the lane was acquired; `source_of(offset)` names a record in ids."""
        self._lane = lane
        self._decode = decode
        self._apps = apps
        self._emitter = emitter
        self._committer = committer
        self._results = results
        self._replay = Replay(recorded)
        self._metrics = metrics
        self._report = report
        self._source_of = source_of
        self._calling: set[PendingEvent] = set()
        """Events in sandboxes that have called the host"""
        self._runs_again = RunsAgain(self._submit)

    def take(self, records: Sequence[InputRecord]) -> None:
        """Decode a batch and hand each project's part of it to its sandbox (Processor)."""
        decode, replay, waiting = self._decode, self._replay, self._runs_again.by_key
        by_project: dict[int, tuple[Project, list[Work[PendingEvent]]]] = {}
        done: list[Finished] = []
        for record in records:
            if replay.recorded and record.offset in replay.recorded:
                done += replay.take(record)
                continue
            try:
                event = decode(record)
            except Exception as error:  # noqa: BLE001 - whatever is wrong with one record must not stop its lane
                event = self._undecodable(record, error)
            if isinstance(event, DeadLetter):
                done.append(self._refuse(record, event))
                continue
            if record.headers:
                guard_loop(event)
            if replay.recorded:
                replay.runs(record)
            project = event.project
            if waiting and record.key in waiting:
                self._runs_again.add(event)
                continue
            entry = by_project.get(project.id)
            if entry is None:
                by_project[project.id] = entry = (project, [])
            entry[1].append(Work(event, event.raw, self, record.key))
        for project, works in by_project.values():
            if project.installs:
                self._apps.submit(project, works)
            else:
                self._pass_through(works)
        if done:
            self._lane.finished(done)

    async def close(self) -> None:
        """What runs for the lane runs in sandboxes, which see that it is closed (Processor). Nobody waits for its effects."""
        for event in self._calling:
            if event.effects is not None:
                event.effects.storage.abandon()
        self._calling.clear()

    @property
    def closed(self) -> bool:
        """See ResultSink."""
        return self._lane.closed

    def effects_of(self, item: PendingEvent) -> RunEffects:
        """See ResultSink."""
        effects = item.effects
        if effects is None:
            origin = Origin(self._source_of(item.record.offset), item.uuid, HOOK)
            effects = item.effects = RunEffects(item.project, origin)
        if self._lane.closed:
            effects.storage.abandon()
        else:
            self._calling.add(item)
        return effects

    def deliver(self, results: Sequence[tuple[PendingEvent, ChainResult]], *, has_delivery: bool) -> None:
        """Take what became of some events (ResultSink)."""
        report, emit, waiting, replay = self._report, self._emit, self._runs_again.by_key, self._replay
        self._emitter.start_batch()
        done: list[Finished] = []
        for event, result in results:
            effects = event.effects
            if effects is not None:
                self._calling.discard(event)
            if waiting and self._runs_again.is_behind(event):
                self._again(event)
                continue
            if effects is not None and not self._counts(event, effects, result):
                continue
            if waiting:
                self._runs_again.is_through(event)
            try:
                emitted = emit(event, result, has_delivery=has_delivery)
            except Exception as error:  # noqa: BLE001 - as in take
                emitted = self._internal_error(event, error)
            record = event.record
            size = len(record.value or b"")
            if effects is None:
                done.append(Finished(record.offset, size, emitted.records, key=record.key))
                if result.notes is not None or emitted.ended is not None:
                    report.event(event, result, emitted)
            else:
                commitment = self._commit(event, effects, emitted)
                again = partial(self._again, event)
                done.append(Finished(record.offset, size, emitted.records, commitment, again, record.key))
                if commitment is None:
                    self._count(event, effects, result, emitted)
                else:
                    commitment.when_stored(partial(self._count, event, effects, result, emitted))
            if replay.recorded or replay.held:
                done += replay.finished(record)
        self._lane.finished(done)

    def _counts(self, event: PendingEvent, effects: RunEffects, result: ChainResult) -> bool:
        """Is what its apps made of the event valid? If not, it runs again, or the lane is given up."""
        if effects.trouble is not None:
            effects.storage.abandon()
            self._lane.fail(effects.trouble)
            return False
        if result.notes is not None:
            effects.forget([failure.install_id for failure in result.notes.failures])
            effects.storage.look_at_increments(result.notes.unheard)
        else:
            effects.storage.look_at_increments(())
        if self._committer.ledger.is_stale(effects.storage):
            self._again(event)
            return False
        return True

    def _commit(self, event: PendingEvent, effects: RunEffects, emitted: Emitted) -> Commitment | None:
        if not (effects.storage.writes or emitted.jobs):
            return self._committer.add(effects.storage)
        result = RecordedResult(event.record.offset, encode_records(emitted.records))
        return self._committer.add(effects.storage, jobs=emitted.jobs, completion=self._results, token=result)

    def _count(self, event: PendingEvent, effects: RunEffects, result: ChainResult, emitted: Emitted) -> None:
        """Its run counts: it will not run again, but after a crash."""
        for install_id, own in effects.by_install.items():
            if own.metrics:
                self._metrics.add(event.project, install_id, own.metrics)
        if result.notes is not None or emitted.ended is not None:
            self._report.event(event, result, emitted)

    def _again(self, event: PendingEvent) -> None:
        """Run an event again: its reads are stale. What its apps were answered from outside they are answered again."""
        if event.effects is not None:
            event.effects = event.effects.again()
        self._report.ran_again()
        self._runs_again.add(event)

    def _submit(self, event: PendingEvent) -> None:
        if not self._lane.closed:
            left_out = None if event.effects is None else event.effects.left_out
            self._apps.submit(event.project, [Work(event, event.raw, self, event.record.key, left_out or None)])

    def _emit(self, event: PendingEvent, result: ChainResult, *, has_delivery: bool) -> Emitted:
        if result.outcome is EventOutcome.INVALID:
            assert result.notes is not None
            assert result.notes.error is not None
            return self._emitter.dead_letter(event, invalid_event(*result.notes.error, event.project.id))
        return self._emitter.emit(event, result, has_delivery=has_delivery)

    def _internal_error(self, event: PendingEvent, error: Exception) -> Emitted:
        """A fault of ours: the event is kept as a dead letter, and the operator told."""
        _log.exception("emit_failed", source=self._source_of(event.record.offset), exc_info=error)
        letter = DeadLetter("emit", DeadLetterReason.INTERNAL, f"{type(error).__name__}: {error}", event.project.id)
        return self._emitter.dead_letter(event, letter)

    def _undecodable(self, record: InputRecord, error: Exception) -> DeadLetter:
        _log.exception("decode_failed", source=self._source_of(record.offset), exc_info=error)
        return DeadLetter("decode", DeadLetterReason.INTERNAL, f"{type(error).__name__}: {error}")

    def _pass_through(self, works: Sequence[Work[Any]]) -> None:
        """Events of a project without apps."""
        results: list[tuple[PendingEvent, ChainResult]] = []
        for work in works:
            result = normalise(work.item)
            if isinstance(result, DeadLetter):
                record = work.item.record
                self._lane.finished([self._refuse(record, result), *self._replay.finished(record)])
            else:
                results.append((work.item, result))
        self.deliver(results, has_delivery=False)

    def _refuse(self, record: InputRecord, letter: DeadLetter) -> Finished:
        output = self._emitter.refuse(record.offset, record.key, record.value, record.headers, letter)
        self._report.refused(record, letter)
        return Finished(record.offset, len(record.value or b""), [output])

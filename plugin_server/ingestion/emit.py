"""Last step: what an event leaves behind. The only place that makes a lane's output records."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple

from plugin_server.eventlog.port import Headers, OutputRecord
from plugin_server.host_api.captures import AppliedCaptures, Captures, CutNotice, Parent
from plugin_server.host_api.logs import LogEntries
from plugin_server.ingestion.pending import PendingEvent
from plugin_server.model.job import NewJob
from plugin_server.model.lineage import LINEAGE_HEADER, Lineage
from plugin_server.model.loop_guard import carried_budget, split_budget
from plugin_server.model.origin import SOURCE_HEADER
from plugin_server.model.outcome import DeadLetter, DeadLetterReason, Drop, DropReason
from plugin_server.outputs.dead_letters import dead_letter_record
from plugin_server.outputs.events import clickhouse_time, compose_event
from plugin_server.outputs.topics import Topics
from plugin_server.runtime.replies import ChainResult, Notes
from sandbox.wire import EventOutcome

STEP: Final = "emit"
_RECORD_OVERHEAD_BYTES: Final = 512
"""Framing of an output record and its headers but for the lineage, as a bound"""
_NO_NOTES: Final = Notes()


class Emitted(NamedTuple):
    """An event's output records, and what became of it: None if it went on."""

    records: list[OutputRecord]
    ended: Drop | DeadLetter | None
    captured: int = 0
    cuts: tuple[CutNotice, ...] = ()
    jobs: Sequence[NewJob] = ()


class Emitter:
    """Makes the output records of one lane. `source_partition` also says where its events go: to it, modulo the count."""

    def __init__(
        self,
        topics: Topics,
        captures: Captures,
        logs: LogEntries,
        *,
        source_partition: int,
        output_partitions: int,
        record_bytes: int,
        clock: Callable[[], float],
    ) -> None:
        self._topics = topics
        self._captures = captures
        self._logs = logs
        self._partition = source_partition % output_partitions
        self._source_prefix = f"{topics.ingestion}-{source_partition}-"
        self._record_bytes = record_bytes
        self._clock = clock
        self._now = datetime.fromtimestamp(clock(), UTC)
        self._created_at = clickhouse_time(self._now)

    def start_batch(self) -> None:
        """Read the clock, once for all results that are emitted now."""
        self._now = datetime.fromtimestamp(self._clock(), UTC)
        self._created_at = clickhouse_time(self._now)

    def emit(self, event: PendingEvent, result: ChainResult, *, has_delivery: bool) -> Emitted:
        """The records of an event that its chain let through or dropped."""
        if result.notes is None and event.effects is None:
            if event.lineage is None and not has_delivery:
                lineage = _root_header(event)
            else:
                lineage = self._lineage(event, None, has_delivery=has_delivery)
            record = self._record(event, result, lineage)
            if record is None:
                return self._too_large(event)
            return Emitted([record], None)
        return self._emit_with_notes(event, result, has_delivery=has_delivery)

    def dead_letter(self, event: PendingEvent, letter: DeadLetter) -> Emitted:
        """The record of an event that ends as a dead letter."""
        record = event.record
        return Emitted([self.refuse(record.offset, record.key, record.value, record.headers, letter)], letter)

    def refuse(
        self,
        offset: int,
        key: bytes | None,
        value: bytes | None,
        headers: Headers,
        letter: DeadLetter,
    ) -> OutputRecord:
        """The dead letter of a message."""
        return dead_letter_record(
            self._topics.dead_letters,
            letter,
            key=key,
            value=value or b"",
            headers=headers,
            source=f"{self._source_prefix}{offset}",
            record_bytes=self._record_bytes,
        )

    def _emit_with_notes(self, event: PendingEvent, result: ChainResult, *, has_delivery: bool) -> Emitted:
        notes = result.notes if result.notes is not None else _NO_NOTES
        records: list[OutputRecord] = []
        logs = list(notes.logs)
        applied: AppliedCaptures | None = None
        if notes.captures or (event.effects is not None and event.effects.by_install):
            own = _own_lineage(event)
            share = split_budget(own.budget, has_delivery=has_delivery).chain
            parent = Parent(event.uuid, self._source(event), own, event.malformed_lineage, share)
            applied = self._captures.apply(event.project, parent, notes.captures, event.effects)
            records += applied.records
            logs += applied.logs
        ended: Drop | DeadLetter | None = None
        if result.outcome is EventOutcome.DROP:
            assert notes.dropped_by is not None
            ended = Drop(DropReason.APP, notes.dropped_by)
        else:
            record = self._record(event, result, self._lineage(event, applied, has_delivery=has_delivery))
            if record is None:
                too_large = self._too_large(event)
                ended = too_large.ended
                records += too_large.records
            else:
                records.append(record)
        if logs:
            records += self._logs.records(event.project, logs, self._now)
        if applied is None:
            return Emitted(records, ended)
        return Emitted(records, ended, applied.admitted, tuple(applied.cuts), applied.jobs)

    def _record(self, event: PendingEvent, result: ChainResult, lineage: bytes) -> OutputRecord | None:
        """The output record, or None if it is too large."""
        project = event.project
        _, name, distinct_id, timestamp, elements_chain, properties, _ = result
        value = compose_event(
            name,
            distinct_id,
            timestamp,
            elements_chain,
            properties,
            uuid=event.uuid,
            project_id=project.id,
            created_at=self._created_at,
            captured_at=event.now,
            historical_migration=event.historical_migration,
        )
        key = f"{project.token}:{distinct_id}".encode()
        if len(value) + len(key) + len(lineage) + _RECORD_OVERHEAD_BYTES > self._record_bytes:
            return None
        headers = [(LINEAGE_HEADER, lineage), (SOURCE_HEADER, self._source(event).encode())]
        return OutputRecord(self._topics.events, self._partition, key, value, headers)

    def _lineage(self, event: PendingEvent, applied: AppliedCaptures | None, *, has_delivery: bool) -> bytes:
        own = _own_lineage(event)
        budget = carried_budget(own.budget, applied.admitted if applied else 0, has_delivery=has_delivery)
        return Lineage(own.root, own.depth, own.path, budget).encode()

    def _source(self, event: PendingEvent) -> str:
        return f"{self._source_prefix}{event.record.offset}"

    def _too_large(self, event: PendingEvent) -> Emitted:
        error = f"the event makes an output record of more than {self._record_bytes} bytes (RECORD_BYTES)"
        return self.dead_letter(event, DeadLetter(STEP, DeadLetterReason.TOO_LARGE, error, event.project.id))


def _own_lineage(event: PendingEvent) -> Lineage:
    if event.lineage is not None:
        return event.lineage
    return Lineage(event.uuid, 0, (), event.project.loop_policy.max_events_per_root)


def _root_header(event: PendingEvent) -> bytes:
    budget = event.project.loop_policy.max_events_per_root
    return b'{"v":1,"root":"%b","depth":0,"path":[],"budget":%d}' % (event.uuid.encode(), budget)

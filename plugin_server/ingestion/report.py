"""What a lane tells people: metrics, the operator's log, and whoever follows the output (`plugin-server tail`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Protocol

import structlog

from plugin_server.eventlog.port import InputRecord, OutputRecord
from plugin_server.ingestion.emit import Emitted
from plugin_server.ingestion.pending import PendingEvent
from plugin_server.metrics import Metrics
from plugin_server.model.outcome import DeadLetter, Drop
from plugin_server.runtime.replies import ChainResult

_log = structlog.get_logger(__name__)


class Follower(Protocol):
    """Who wants to see each event. `publish` takes a JSON object and must not block."""

    @property
    def following(self) -> bool: ...
    def publish(self, entry: dict[str, Any]) -> None: ...


class IngestionReport:
    """One for all lanes of ingestion (LaneReport). Called once a batch, and for the events that are not ordinary."""

    def __init__(self, metrics: Metrics, events_topic: str, follower: Follower) -> None:
        self._metrics = metrics
        self._events_topic = events_topic
        self._follower = follower

    def taken(self, count: int) -> None:
        self._metrics.events_taken.inc(count)

    def flushed(self, records: Sequence[OutputRecord], seconds: float) -> None:
        topic = self._events_topic
        self._metrics.events_emitted.inc(sum(1 for record in records if record.topic == topic))
        self._metrics.flush_seconds.observe(seconds)

    def ran_again(self) -> None:
        """What an event had read has changed."""
        self._metrics.events_run_again.inc()

    def refused(self, record: InputRecord, letter: DeadLetter) -> None:
        """A message that could not be decoded."""
        self._metrics.dead_letters.labels(letter.step, letter.reason).inc()
        _log.info("dead_letter", step=letter.step, reason=letter.reason, error=letter.error, offset=record.offset)
        if self._follower.following:
            raw = (record.value or b"")[:2_000].decode(errors="replace")
            self._follower.publish(
                {"kind": "dead_letter", "step": letter.step, "reason": letter.reason, "error": letter.error, "raw": raw}
            )

    def event(self, event: PendingEvent, result: ChainResult, emitted: Emitted) -> None:
        """An event that captured, logged, failed, was dropped, refused or followed."""
        metrics, notes, ended = self._metrics, result.notes, emitted.ended
        if isinstance(ended, Drop):
            metrics.events_dropped.labels(ended.install_id).inc()
        elif isinstance(ended, DeadLetter):
            metrics.dead_letters.labels(ended.step, ended.reason).inc()
            _log.info(
                "dead_letter",
                step=ended.step,
                reason=ended.reason,
                error=ended.error,
                offset=event.record.offset,
                project_id=event.project.id,
            )
        if notes is not None:
            for failure in notes.failures:
                metrics.app_failures.labels(failure.install_id, failure.kind).inc()
        if emitted.captured:
            metrics.captures.inc(emitted.captured)
        for cut in emitted.cuts:
            if cut.was_cut:
                metrics.captures_cut.labels(cut.reason, cut.install_id).inc(cut.count)
        if emitted.cuts:
            totals = Counter({(cut.install_id, cut.reason): cut.count for cut in emitted.cuts})
            for (install_id, reason), count in totals.items():
                _log.info(
                    "captures_cut", project_id=event.project.id, install_id=install_id, reason=reason, count=count
                )
        if self._follower.following:
            self._follower.publish(describe_event(event, result, emitted))


def describe_event(event: PendingEvent, result: ChainResult, emitted: Emitted) -> dict[str, Any]:
    """One event for a person who follows the output: before, after each app, and how it ended."""
    notes, ended = result.notes, emitted.ended
    labels = {install.id: install.label for install in event.project.installs}
    lineage = event.lineage
    entry: dict[str, Any] = {
        "kind": "event",
        "project": event.project.name,
        "uuid": event.uuid,
        "depth": lineage.depth if lineage else 0,
        "path": [labels.get(install, str(install)) for install in lineage.path] if lineage else [],
        "steps": [],
        "captured": [],
        "logs": [],
        "failed": [],
        "cuts": [
            {
                "app": labels.get(cut.install_id),
                "reason": cut.reason,
                "count": cut.count,
                "chain": cut.chain,
                "cut": cut.was_cut,
            }
            for cut in emitted.cuts
        ],
    }
    if notes is not None:
        entry["steps"] = [{"app": labels.get(install), "event": after} for install, after in notes.trace]
        entry["captured"] = [
            {"app": labels.get(capture.install_id), "event": capture.event, "distinct_id": capture.distinct_id}
            for capture in notes.captures
        ]
        entry["logs"] = [
            {"app": labels.get(line.install_id), "level": line.level, "message": line.message} for line in notes.logs
        ]
        entry["failed"] = [
            {
                "app": labels.get(failure.install_id),
                "kind": failure.kind,
                "message": failure.message,
                "line": failure.line,
            }
            for failure in notes.failures
        ]
    if isinstance(ended, Drop):
        entry["dropped_by"] = labels.get(ended.install_id)
    elif isinstance(ended, DeadLetter):
        entry["dead_letter"] = {"step": ended.step, "reason": ended.reason, "error": ended.error}
    else:
        entry["output"] = {
            "event": result.event,
            "distinct_id": result.distinct_id,
            "timestamp": result.timestamp,
            "properties": result.properties,
        }
    return entry

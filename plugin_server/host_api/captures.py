"""What apps captured: judged by the loop guard, then put back into ingestion with its lineage stamped, or cut and kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from plugin_server.eventlog.port import OutputRecord
from plugin_server.model.ids import capture_uuid
from plugin_server.model.lineage import LINEAGE_HEADER, Lineage
from plugin_server.model.loop_guard import CutReason, judge_captures, split_budget
from plugin_server.model.outcome import DeadLetter, DeadLetterReason
from plugin_server.model.project import Project
from plugin_server.model.token_bucket import TokenBucket
from plugin_server.outputs.dead_letters import dead_letter_record
from plugin_server.runtime.replies import Capture, LogLine

HOOK: Final = "processEvent"
STEP: Final = "guard_loop"
SHOWN_CAPTURES: Final = 10
_SHOWN_BYTES: Final = 16 * 1024


@dataclass(frozen=True, slots=True)
class Parent:
    """The event whose apps captured. `source` is its record's `topic-partition-offset`."""

    uuid: str
    source: str
    lineage: Lineage
    malformed_lineage: bool


@dataclass(frozen=True, slots=True)
class CutNotice:
    """Captures of one install that one rule cut (or, in mode `warn`, would have cut)."""

    install_id: int
    reason: CutReason
    count: int
    chain: str
    was_cut: bool


@dataclass(frozen=True, slots=True)
class AppliedCaptures:
    """Records to be produced, lines for the owners, and what was cut."""

    records: list[OutputRecord]
    logs: list[LogLine]
    cuts: list[CutNotice]
    admitted: int


class Captures:
    """Applies captures. One a worker: it holds the token buckets of rule 4."""

    def __init__(
        self, ingestion_topic: str, dead_letter_topic: str, record_bytes: int, clock: Callable[[], float]
    ) -> None:
        self._ingestion_topic = ingestion_topic
        self._dead_letter_topic = dead_letter_topic
        self._record_bytes = record_bytes
        self._clock = clock
        self._buckets: dict[int, TokenBucket] = {}

    def apply(
        self, project: Project, parent: Parent, captures: Sequence[Capture], *, has_delivery: bool
    ) -> AppliedCaptures:
        """Judge the captures of one event's chain and make their records."""
        shares = split_budget(parent.lineage.budget, has_delivery=has_delivery)
        verdict = judge_captures(
            parent.lineage,
            shares.chain,
            [capture.install_id for capture in captures],
            project.loop_policy,
            lambda install: self._take_token(project, install),
            malformed=parent.malformed_lineage,
        )
        now = datetime.fromtimestamp(self._clock(), UTC).isoformat(timespec="milliseconds")
        records: list[OutputRecord] = []
        logs: list[LogLine] = []
        for number, lineage in verdict.admitted.items():
            capture = captures[number]
            record = self._record(project, parent, capture, lineage, now)
            if len(record.value) + len(record.key or b"") + 1024 > self._record_bytes:
                logs.append(_too_large(capture, self._record_bytes))
                records.append(self._too_large(project, parent, capture, record))
            else:
                records.append(record)
        cuts = [
            *_notices(project, parent, captures, verdict.cut, was_cut=True),
            *_notices(project, parent, captures, verdict.warned, was_cut=False),
        ]
        for notice in cuts:
            logs.append(_cut_line(project, notice))
            if notice.was_cut:
                members = [
                    captures[number]
                    for number, reason in verdict.cut.items()
                    if reason is notice.reason and captures[number].install_id == notice.install_id
                ]
                records.append(self._cut_letter(project, parent, notice, members))
        return AppliedCaptures(records, logs, cuts, len(verdict.admitted))

    def _take_token(self, project: Project, install: int) -> bool:
        bucket = self._buckets.get(install)
        policy = project.loop_policy
        if (
            bucket is None
            or bucket.capacity != policy.captures_burst
            or bucket.per_second != policy.captures_per_second
        ):
            bucket = self._buckets[install] = TokenBucket(policy.captures_burst, policy.captures_per_second)
        return bucket.take(self._clock())

    def _record(self, project: Project, parent: Parent, capture: Capture, lineage: Lineage, now: str) -> OutputRecord:
        uuid = capture_uuid(project.id, parent.uuid, parent.source, capture.install_id, HOOK, capture.number)
        data = {
            "event": capture.event,
            "distinct_id": capture.distinct_id,
            "properties": capture.properties,
            "timestamp": capture.timestamp or now,
            "uuid": uuid,
        }
        envelope = {
            "uuid": uuid,
            "distinct_id": capture.distinct_id,
            "ip": None,
            "site_url": "",
            "data": orjson.dumps(data).decode(),
            "team_id": project.id,
            "token": project.token,
            "now": now,
        }
        key = f"{project.token}:{capture.distinct_id}".encode()
        headers = [(LINEAGE_HEADER, lineage.encode())]
        return OutputRecord(self._ingestion_topic, None, key, orjson.dumps(envelope), headers)

    def _too_large(self, project: Project, parent: Parent, capture: Capture, record: OutputRecord) -> OutputRecord:
        error = f"a capture of {len(record.value)} bytes, more than the {self._record_bytes} that are allowed"
        version = _version(project, capture.install_id)
        letter = DeadLetter("capture", DeadLetterReason.TOO_LARGE, error, project.id, capture.install_id, version)
        return dead_letter_record(
            self._dead_letter_topic,
            letter,
            key=record.key,
            value=record.value,
            headers=record.headers,
            source=parent.source,
            record_bytes=self._record_bytes,
        )

    def _cut_letter(self, project: Project, parent: Parent, notice: CutNotice, members: list[Capture]) -> OutputRecord:
        shown: list[dict[str, Any]] = []
        room = _SHOWN_BYTES
        for capture in members[:SHOWN_CAPTURES]:
            entry = {"event": capture.event, "distinct_id": capture.distinct_id, "properties": capture.properties}
            room -= len(orjson.dumps(entry))
            if room < 0:
                entry = {"event": capture.event, "distinct_id": capture.distinct_id[:200]}
            shown.append(entry)
        value = {
            "reason": notice.reason,
            "count": notice.count,
            "chain": notice.chain,
            "parent": parent.uuid,
            "root": parent.lineage.root,
            "captures": shown,
        }
        letter = DeadLetter(
            STEP,
            DeadLetterReason.LOOP,
            f"{notice.count} captures cut by {notice.reason}: {notice.chain}",
            project.id,
            notice.install_id,
            _version(project, notice.install_id),
        )
        return dead_letter_record(
            self._dead_letter_topic,
            letter,
            key=None,
            value=orjson.dumps(value),
            headers=[(LINEAGE_HEADER, parent.lineage.encode())],
            source=parent.source,
            record_bytes=self._record_bytes,
        )


def _notices(
    project: Project, parent: Parent, captures: Sequence[Capture], reasons: dict[int, CutReason], *, was_cut: bool
) -> list[CutNotice]:
    """Once per install and reason."""
    counts: dict[tuple[int, CutReason], int] = {}
    for number, reason in reasons.items():
        key = (captures[number].install_id, reason)
        counts[key] = counts.get(key, 0) + 1
    return [
        CutNotice(install, reason, count, chain_text(project, parent.lineage, install), was_cut)
        for (install, reason), count in counts.items()
    ]


def chain_text(project: Project, lineage: Lineage, install_id: int) -> str:
    """The way to a capture, as its owner knows the apps: `Ping (1) → Pong (2) → Ping (1)`."""
    labels = {install.id: install.label for install in project.installs}
    ids = [*lineage.path, install_id]
    more = "… → " if lineage.depth > len(lineage.path) else ""
    return more + " → ".join(labels.get(install, f"install {install}") for install in ids)


def _cut_line(project: Project, notice: CutNotice) -> LogLine:
    policy = project.loop_policy
    bound = {
        CutReason.DEPTH: f"max_depth {policy.max_depth}",
        CutReason.VISITS: f"max_visits {policy.max_visits}",
        CutReason.BUDGET: f"max_events_per_root {policy.max_events_per_root}",
        CutReason.RATE: f"captures_per_second {policy.captures_per_second:g}",
        CutReason.MALFORMED_LINEAGE: "the event's lineage header is malformed",
    }[notice.reason]
    verb = "were cut" if notice.was_cut else "would have been cut (mode warn)"
    message = f"loop guard: {notice.count} captures {verb} by {notice.reason} ({bound}): {notice.chain}"
    return LogLine(notice.install_id, "WARN", message, "SYSTEM")


def _too_large(capture: Capture, record_bytes: int) -> LogLine:
    message = f"posthog.capture({capture.event!r}) was refused: it makes a record of more than {record_bytes} bytes"
    return LogLine(capture.install_id, "ERROR", message, "SYSTEM")


def _version(project: Project, install_id: int) -> str | None:
    return next((install.app.version for install in project.installs if install.id == install_id), None)

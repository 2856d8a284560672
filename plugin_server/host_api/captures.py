"""What a run captured and which jobs it started: judged by the loop guard, then put on their way with their lineage, or cut and kept."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import orjson

from plugin_server.eventlog.port import OutputRecord
from plugin_server.host_api.effects import JobRequest, RunEffects
from plugin_server.model.ids import capture_uuid, job_id
from plugin_server.model.job import NewJob
from plugin_server.model.lineage import LINEAGE_HEADER, Lineage
from plugin_server.model.loop_guard import CutReason, LoopVerdict, judge_captures
from plugin_server.model.origin import Origin
from plugin_server.model.outcome import DeadLetter, DeadLetterReason
from plugin_server.model.project import Project
from plugin_server.model.token_bucket import TokenBucket
from plugin_server.outputs.dead_letters import dead_letter_record
from plugin_server.runtime.replies import Capture, LogLine

STEP: Final = "guard_loop"
SHOWN_CAPTURES: Final = 10
_SHOWN_BYTES: Final = 16 * 1024
_POSTED: Final = "http"
"""Marks the uuids of captures that came by posthog.api or fetch, which count on their own"""
_PACED_AFTER: Final = 100
"""Links of a chain of tail jobs that do not wait"""
_LONGEST_PACE_MS: Final = 60_000


@dataclass(frozen=True, slots=True)
class Parent:
    """What captures and jobs descend from: an event, or what else a hook ran for.

    `source` is its record's `topic-partition-offset`, or as Origin has it. `share` is what may be spent on it. With
    `is_root` each capture is a root of its own, at depth 1. `link` is the place of a job in its chain of tail jobs; None
    for what is no job.
    """

    uuid: str
    source: str
    lineage: Lineage
    malformed_lineage: bool
    share: int
    hook: str = "processEvent"
    is_root: bool = False
    link: int | None = None


def new_root(origin: Origin, project: Project, link: int | None = None) -> Parent:
    """Of a run that no event is behind: a tick, a setupPlugin, a job that a person started. Each capture is a root."""
    share = project.loop_policy.max_events_per_root
    return Parent(
        origin.parent_uuid,
        origin.source,
        Lineage(origin.parent_uuid, budget=share),
        malformed_lineage=False,
        share=share,
        hook=origin.hook,
        is_root=True,
        link=link,
    )


@dataclass(frozen=True, slots=True)
class CutNotice:
    """Captures or jobs of one install that one rule cut (or, in mode `warn`, would have cut)."""

    install_id: int
    reason: CutReason
    count: int
    chain: str
    was_cut: bool
    what: str = "captures"


@dataclass(frozen=True, slots=True)
class AppliedCaptures:
    """Records to be produced, jobs to be stored, lines for the owners, and what was cut."""

    records: list[OutputRecord]
    logs: list[LogLine]
    cuts: list[CutNotice]
    admitted: int
    """Captures and jobs that are on their way"""
    jobs: list[NewJob] = field(default_factory=list)


class _Made(NamedTuple):
    """A capture, and the hook that its uuid names."""

    capture: Capture
    hook: str


class Captures:
    """Applies captures and jobs. One a worker: it holds the token buckets of rule 4."""

    def __init__(
        self, ingestion_topic: str, dead_letter_topic: str, record_bytes: int, clock: Callable[[], float]
    ) -> None:
        self._ingestion_topic = ingestion_topic
        self._dead_letter_topic = dead_letter_topic
        self._record_bytes = record_bytes
        self._clock = clock
        self._buckets: dict[int, TokenBucket] = {}

    def apply(
        self, project: Project, parent: Parent, captures: Sequence[Capture], effects: RunEffects | None = None
    ) -> AppliedCaptures:
        """Judge what one run captured and started, and make its records and jobs."""
        made = [_Made(capture, parent.hook) for capture in captures]
        started: list[tuple[int, int, JobRequest]] = []
        if effects is not None:
            for install_id, own in effects.by_install.items():
                made += [
                    _Made(Capture(install_id, number, *posted), f"{parent.hook}+{_POSTED}")
                    for number, posted in enumerate(own.posted_in_order)
                ]
                started += [(install_id, number, job) for number, job in enumerate(own.jobs)]
        verdict = self._judge(project, parent, made, len(started))
        now = datetime.fromtimestamp(self._clock(), UTC).isoformat(timespec="milliseconds")
        records: list[OutputRecord] = []
        logs: list[LogLine] = []
        for number, lineage in verdict.admitted.items():
            capture, hook = made[number]
            record = self._record(project, parent, capture, hook, lineage, now)
            if len(record.value) + len(record.key or b"") + 1024 > self._record_bytes:
                logs.append(_too_large(capture, self._record_bytes))
                records.append(self._too_large(project, parent, capture, record))
            else:
                records.append(record)
        cuts = [
            *_notices(project, parent, made, verdict.cut, was_cut=True),
            *_notices(project, parent, made, verdict.warned, was_cut=False),
            *_cut_jobs(project, parent, started[verdict.jobs :]),
        ]
        for notice in cuts:
            logs.append(_cut_line(project, notice))
            if notice.was_cut:
                records.append(self._cut_letter(project, parent, notice, _shown(made, started, verdict, notice)))
        jobs = self._jobs(project, parent, started[: verdict.jobs], verdict.job_share)
        return AppliedCaptures(records, logs, cuts, len(verdict.admitted) + len(jobs), jobs)

    def _judge(self, project: Project, parent: Parent, made: Sequence[_Made], jobs: int) -> LoopVerdict:
        is_tail = parent.link is not None and jobs == 1
        installs = [capture.install_id for capture, _ in made]

        def take_token(install: int) -> bool:
            return self._take_token(project, install)

        policy = project.loop_policy
        if not parent.is_root:
            return judge_captures(
                parent.lineage,
                parent.share,
                installs,
                policy,
                take_token,
                jobs=jobs,
                is_tail=is_tail,
                malformed=parent.malformed_lineage,
            )
        # New roots cost nothing of what the jobs may spend; their number is bounded by the run's limit, and by the rate.
        own = judge_captures(parent.lineage, sys.maxsize, installs, policy, take_token)
        others = judge_captures(parent.lineage, parent.share, (), policy, take_token, jobs=jobs, is_tail=is_tail)
        return LoopVerdict(own.admitted, own.cut, own.warned, others.jobs, others.job_share)

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

    def _record(
        self, project: Project, parent: Parent, capture: Capture, hook: str, lineage: Lineage, now: str
    ) -> OutputRecord:
        uuid = capture_uuid(project.id, parent.uuid, parent.source, capture.install_id, hook, capture.number)
        if parent.is_root:
            lineage = Lineage(uuid, 1, (capture.install_id,), project.loop_policy.max_events_per_root)
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

    def _jobs(
        self, project: Project, parent: Parent, started: Sequence[tuple[int, int, JobRequest]], share: int
    ) -> list[NewJob]:
        is_tail = parent.link is not None and len(started) == 1
        link = (parent.link or 0) + 1 if is_tail else 0
        not_before_ms = int(self._clock() * 1000) + pace_ms(link)
        jobs = []
        for install_id, number, (name, payload, run_at_ms) in started:
            jobs.append(
                NewJob(
                    id=job_id(project.id, parent.uuid, parent.source, install_id, parent.hook, number),
                    project_id=project.id,
                    install_id=install_id,
                    name=name,
                    payload=payload,
                    run_at_ms=max(run_at_ms or 0, not_before_ms),
                    lineage=None if parent.is_root else parent.lineage,
                    share=share,
                    link=link,
                )
            )
        return jobs

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

    def _cut_letter(
        self, project: Project, parent: Parent, notice: CutNotice, shown: Sequence[dict[str, Any]]
    ) -> OutputRecord:
        value = {
            "reason": notice.reason,
            "count": notice.count,
            "chain": notice.chain,
            "parent": parent.uuid,
            "root": parent.lineage.root,
            notice.what: shown,
        }
        letter = DeadLetter(
            STEP,
            DeadLetterReason.LOOP,
            f"{notice.count} {notice.what} cut by {notice.reason}: {notice.chain}",
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


def pace_ms(link: int) -> int:
    """How long a link of a chain of tail jobs waits, so that an endless chain is bounded in rate (docs/loop-guard.md)."""
    if link <= _PACED_AFTER:
        return 0
    return min(1_000 << min(link - _PACED_AFTER, 10), _LONGEST_PACE_MS)


def _shown(
    made: Sequence[_Made], started: Sequence[tuple[int, int, JobRequest]], verdict: LoopVerdict, notice: CutNotice
) -> list[dict[str, Any]]:
    """The first of what was cut, for a person."""
    if notice.what == "jobs":
        cut = [job for install, _, job in started[verdict.jobs :] if install == notice.install_id]
        return [{"job": job.name, "bytes": len(job.payload)} for job in cut[:SHOWN_CAPTURES]]
    shown: list[dict[str, Any]] = []
    room = _SHOWN_BYTES
    members = [
        made[number].capture
        for number, reason in verdict.cut.items()
        if reason is notice.reason and made[number].capture.install_id == notice.install_id
    ]
    for capture in members[:SHOWN_CAPTURES]:
        entry = {"event": capture.event, "distinct_id": capture.distinct_id, "properties": capture.properties}
        room -= len(orjson.dumps(entry))
        if room < 0:
            entry = {"event": capture.event, "distinct_id": capture.distinct_id[:200]}
        shown.append(entry)
    return shown


def _cut_jobs(project: Project, parent: Parent, cut: Sequence[tuple[int, int, JobRequest]]) -> list[CutNotice]:
    counts: dict[int, int] = {}
    for install, _, _ in cut:
        counts[install] = counts.get(install, 0) + 1
    reason = CutReason.MALFORMED_LINEAGE if parent.malformed_lineage else CutReason.BUDGET
    return [
        CutNotice(install, reason, count, chain_text(project, parent.lineage, install), was_cut=True, what="jobs")
        for install, count in counts.items()
    ]


def _notices(
    project: Project, parent: Parent, made: Sequence[_Made], reasons: dict[int, CutReason], *, was_cut: bool
) -> list[CutNotice]:
    """Once per install and reason."""
    counts: dict[tuple[int, CutReason], int] = {}
    for number, reason in reasons.items():
        key = (made[number].capture.install_id, reason)
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
    message = f"loop guard: {notice.count} {notice.what} {verb} by {notice.reason} ({bound}): {notice.chain}"
    return LogLine(notice.install_id, "WARN", message, "SYSTEM")


def _too_large(capture: Capture, record_bytes: int) -> LogLine:
    message = f"posthog.capture({capture.event!r}) was refused: it makes a record of more than {record_bytes} bytes"
    return LogLine(capture.install_id, "ERROR", message, "SYSTEM")


def _version(project: Project, install_id: int) -> str | None:
    return next((install.app.version for install in project.installs if install.id == install_id), None)

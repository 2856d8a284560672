"""What a run leaves: judged by the loop guard, kept where a server would store it, and shown to the test."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import orjson

from plugin_server.host_api.app_metrics import KINDS, combine
from plugin_server.host_api.captures import Captures, Parent, pace_ms
from plugin_server.host_api.effects import JobRequest
from plugin_server.model.job import NewJob
from plugin_server.model.lineage import LINEAGE_HEADER, Lineage, parse_lineage
from plugin_server.model.origin import Origin
from plugin_server.runtime.replies import Capture, LogLine
from plugin_server.testing.host import HarnessEffects
from plugin_server.testing.memory import MemoryStorage
from plugin_server.testing.run import Run

INGESTION: Final = "events_plugin_ingestion"
RECORD_BYTES: Final = 1_000_000
_CAPTURED_FIELDS: Final = ("uuid", "event", "distinct_id", "timestamp", "properties")


class Unsettled(NamedTuple):
    """A captured event that has not run through the apps yet."""

    event: dict[str, Any]
    lineage: Lineage
    project_id: int


@dataclass(frozen=True, slots=True)
class StartedJob:
    """A job as it is stored, and whether it is to run at once."""

    job: NewJob
    request: JobRequest

    @property
    def is_due(self) -> bool:
        return self.request.run_at_ms is None and not pace_ms(self.job.link)


class Settlement:
    """Of one harness."""

    def __init__(self, storage: MemoryStorage, clock: Callable[[], float]) -> None:
        self._storage = storage
        self._captures = Captures(INGESTION, "events_dead_letter_queue", RECORD_BYTES, clock)
        self.unsettled: list[Unsettled] = []

    def take_unsettled(self) -> list[Unsettled]:
        """What was captured since the last time."""
        taken, self.unsettled = self.unsettled, []
        return taken

    def settle(
        self, run: Run, parent: Parent, captures: Sequence[Capture], effects: HarnessEffects
    ) -> list[StartedJob]:
        """Keep what a run that is not stale did, as far as the loop guard lets it; the jobs that it started."""
        project = effects.project
        applied = self._captures.apply(project, parent, captures, effects)
        self._storage.commit(effects.storage)
        for record in applied.records:
            if record.topic != INGESTION:
                continue
            data = orjson.loads(orjson.loads(record.value)["data"])
            run.captured.append({name: data[name] for name in _CAPTURED_FIELDS})
            lineage = parse_lineage(dict(record.headers)[LINEAGE_HEADER] or b"")
            self.unsettled.append(Unsettled({**data, "team_id": project.id}, lineage, project.id))
        run.requests += effects.requests
        run.api_requests += effects.api_requests
        run.api_calls += effects.api_calls
        run.logs += log_lines(applied.logs)
        run.cuts += [
            {
                "reason": str(cut.reason),
                "install": cut.install_id,
                "count": cut.count,
                "chain": cut.chain,
                "what": cut.what,
            }
            for cut in applied.cuts
            if cut.was_cut
        ]
        for own in effects.by_install.values():
            for name, verb, amount in own.metrics:
                before = run.metrics.get(name)
                run.metrics[name] = amount if before is None else combine(KINDS[verb], before, amount)
        requests = [request for own in effects.by_install.values() for request in own.jobs]
        started = [StartedJob(job, request) for job, request in zip(applied.jobs, requests, strict=False)]
        run.jobs += [_described(entry) for entry in started]
        return started


def parent_of(origin: Origin, lineage: Lineage, share: int) -> Parent:
    return Parent(origin.parent_uuid, origin.source, lineage, malformed_lineage=False, share=share, hook=origin.hook)


def _described(entry: StartedJob) -> dict[str, Any]:
    job, run_at = entry.job, None
    if not entry.is_due and job.run_at_ms is not None:
        moment = datetime.fromtimestamp(job.run_at_ms / 1000, UTC)
        run_at = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {"job": job.name, "payload": orjson.loads(job.payload), "run_at": run_at}


def log_lines(lines: Sequence[LogLine]) -> list[dict[str, Any]]:
    return [{"level": line.level, "message": line.message, "source": line.source} for line in lines]

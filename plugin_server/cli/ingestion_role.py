"""Makes the lanes of the ingestion role. What all of them share in a worker lives here."""

from __future__ import annotations

import time

from plugin_server.cli.effects import Effects
from plugin_server.database.engine import Database
from plugin_server.eventlog.port import EventLog, LaneLog
from plugin_server.host_api.logs import LogEntries
from plugin_server.ingestion.decode import make_decode
from plugin_server.ingestion.emit import Emitter
from plugin_server.ingestion.processor import IngestionProcessor
from plugin_server.ingestion.recorded import RecordedResults
from plugin_server.ingestion.report import IngestionReport
from plugin_server.lanes.fence import LaneKey, draw_epoch
from plugin_server.lanes.lane import Lane, LaneLimits
from plugin_server.outputs.topics import Topics
from plugin_server.registry.registry import Registry
from plugin_server.runtime.pool import SandboxPool
from plugin_server.settings import Settings


def lane_limits(settings: Settings) -> LaneLimits:
    """As the settings have them, for lanes of any role."""
    return LaneLimits(
        commit_interval_seconds=settings.commit_interval_ms / 1000,
        flush_max_results=settings.flush_max_results,
        window_events=settings.lane_window_events,
        window_bytes=settings.lane_window_bytes,
    )


class IngestionLanes:
    """`make` acquires the database's part of a lane whose log was acquired, and puts it together."""

    def __init__(
        self,
        settings: Settings,
        group: str,
        topics: Topics,
        registry: Registry,
        event_log: EventLog,
        database: Database,
        pool: SandboxPool,
        effects: Effects,
        logs: LogEntries,
        report: IngestionReport,
    ) -> None:
        self._settings = settings
        self._group = group
        self._topics = topics
        self._event_log = event_log
        self._database = database
        self._pool = pool
        self._effects = effects
        self._logs = logs
        self._report = report
        self._decode = make_decode(registry, settings.record_bytes)

    async def make(self, log: LaneLog) -> Lane:
        """Raises DatabaseUnavailable."""
        fence = await draw_epoch(self._database, LaneKey(self._group, self._topics.ingestion, log.partition))
        results = RecordedResults(fence, log)
        recorded = await results.load(self._database)
        emitter = Emitter(
            self._topics,
            self._effects.captures,
            self._logs,
            source_partition=log.partition,
            output_partitions=self._event_log.partition_count(self._topics.events),
            record_bytes=self._settings.record_bytes,
            clock=time.time,
        )
        source = f"{self._topics.ingestion}-{log.partition}-"
        return Lane(
            log,
            lambda lane: IngestionProcessor(
                lane,
                self._decode,
                self._pool,
                emitter,
                self._effects.committer,
                results,
                recorded,
                self._effects.app_metrics,
                self._report,
                source_of=lambda offset: f"{source}{offset}",
            ),
            self._effects.committer,
            lane_limits(self._settings),
            self._report,
        )

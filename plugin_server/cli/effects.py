"""What becomes of the effects of runs, as far as all roles of a worker share it: ledger, committer, outbox, apps' metrics."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import structlog

from plugin_server.database.engine import Database
from plugin_server.database.errors import database_errors
from plugin_server.eventlog.embedded import EmbeddedEventLog
from plugin_server.eventlog.port import EventLog
from plugin_server.host_api.app_metrics import AppMetrics
from plugin_server.host_api.captures import Captures, CutNotice, new_root
from plugin_server.host_api.commit import Committer, read_stored
from plugin_server.host_api.effects import RunEffects
from plugin_server.host_api.invoke import Hooks, Invoker
from plugin_server.host_api.ledger import Ledger
from plugin_server.host_api.logs import LogEntries
from plugin_server.host_api.outbox import Outbox
from plugin_server.host_api.storage_values import Key, Stored
from plugin_server.metrics import Metrics
from plugin_server.model.errors import Transient
from plugin_server.model.project import Project
from plugin_server.outputs.topics import Topics
from plugin_server.runtime.work import InvocationResult

_METRICS_SECONDS: Final = 20.0
_DRAIN_SECONDS: Final = 3.0
_log = structlog.get_logger(__name__)


class Effects:
    """One a worker."""

    def __init__(
        self,
        database: Database,
        event_log: EventLog,
        topics: Topics,
        record_bytes: int,
        logs: LogEntries,
        metrics: Metrics,
    ) -> None:
        self.ledger = Ledger(self._read)
        self.outbox = Outbox(database, event_log, event_log if isinstance(event_log, EmbeddedEventLog) else None)
        self.wake_jobs: Callable[[], None] = lambda: None
        """Called when jobs were stored: set by the jobs role, where this worker has it"""
        self.committer = Committer(database, self.ledger, self.outbox.wake, lambda: self.wake_jobs())  # noqa: PLW0108 - it is set later
        self.captures = Captures(topics.ingestion, topics.dead_letters, record_bytes, time.time)
        self.app_metrics = AppMetrics(topics.app_metrics)
        self._database = database
        self._event_log = event_log
        self._logs = logs
        self._metrics = metrics
        self._setups: set[asyncio.Task[None]] = set()

    def invoker(self, hooks: Hooks) -> Invoker:
        """For a role whose sandboxes are `hooks`: what it calls leaves its effects here."""
        return Invoker(hooks, self.committer, self.captures, self._logs, self.app_metrics, time.time, self.note_cuts)

    def start(self, tasks: asyncio.TaskGroup) -> None:
        """Begin to store and to send."""
        tasks.create_task(self.committer.run(), name="committer")
        tasks.create_task(self.outbox.run(), name="outbox")
        tasks.create_task(self._flush_metrics(), name="app-metrics")
        self._tasks = tasks

    async def drain(self) -> None:
        """Store and send what is left, for a few seconds at most."""
        if self._setups:
            await asyncio.wait(tuple(self._setups), timeout=_DRAIN_SECONDS)
        try:
            async with asyncio.timeout(_DRAIN_SECONDS):
                await self.outbox.drain()
                await self._event_log.produce(self.app_metrics.flush(datetime.now(UTC)))
        except (Transient, TimeoutError) as error:
            _log.warning("effects_not_drained", error=str(error), remedy="the outbox is sent after the next start")

    def settle_setup(self, project: Project, install_id: int, result: InvocationResult, effects: Any) -> None:
        """Keep what a setupPlugin or teardownPlugin did, whose captures are new roots."""
        for own in effects.by_install.values():
            self.app_metrics.add(project, install_id, own.metrics)
        if not (result.captures or effects.by_install or effects.storage.writes):
            effects.storage.abandon()
            return
        task = self._tasks.create_task(self._settle_setup(project, install_id, result, effects), name="setup-effects")
        self._setups.add(task)
        task.add_done_callback(self._setups.discard)

    async def _settle_setup(
        self, project: Project, install_id: int, result: InvocationResult, effects: RunEffects
    ) -> None:
        # What it read may have changed since; it is a set-up, and the next hook sees whatever is there by then.
        effects.storage.reads.clear()
        effects.storage.increments.clear()
        applied = self.captures.apply(project, new_root(effects.origin, project), result.captures, effects)
        self.note_cuts(project, applied.cuts)
        records = [*applied.records, *self._logs.records(project, applied.logs, datetime.now(UTC))]
        commitment = self.committer.add(effects.storage, jobs=applied.jobs, outbox=records, always=True)
        assert commitment is not None
        try:
            await self.committer.store([commitment])
        except Transient as error:
            _log.warning("setup_effects_lost", project_id=project.id, install_id=install_id, error=str(error))

    def note_cuts(self, project: Project, cuts: Sequence[CutNotice]) -> None:
        """Count what the loop guard cut outside of ingestion."""
        for cut in cuts:
            if cut.was_cut:
                self._metrics.captures_cut.labels(cut.reason, cut.install_id).inc(cut.count)
                _log.info(
                    "captures_cut", project_id=project.id, install_id=cut.install_id, reason=cut.reason, count=cut.count
                )

    async def _read(self, keys: Sequence[Key]) -> Mapping[Key, Stored]:
        with database_errors("cannot read storage"):
            async with self._database.read() as connection:
                return await read_stored(connection, keys)

    async def _flush_metrics(self) -> None:
        while True:
            await asyncio.sleep(_METRICS_SECONDS)
            records = self.app_metrics.flush(datetime.now(UTC))
            try:
                await self._event_log.produce(records)
            except Transient as error:
                _log.warning("app_metrics_lost", error=str(error), records=len(records))

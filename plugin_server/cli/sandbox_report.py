"""Tells owners and operator what becomes of sandboxes: how apps loaded, which were moved, how often one was replaced."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import structlog

from plugin_server.eventlog.port import EventLog, OutputRecord
from plugin_server.host_api.logs import LogEntries
from plugin_server.metrics import Metrics
from plugin_server.model.errors import EventLogUnavailable
from plugin_server.model.project import Project
from plugin_server.runtime.replies import Loaded, LogLine
from plugin_server.runtime.work import InvocationResult

_DRAIN_SECONDS: Final = 3.0
SettleSetup = Callable[[Project, int, InvocationResult, Any], None]
_log = structlog.get_logger(__name__)


class OwnersReport:
    """Writes log entries outside of any lane's transaction (SandboxReport)."""

    def __init__(
        self,
        event_log: EventLog,
        logs: LogEntries,
        metrics: Metrics,
        tasks: asyncio.TaskGroup,
        settle_setup: SettleSetup,
    ) -> None:
        self._event_log = event_log
        self._logs = logs
        self._metrics = metrics
        self._tasks = tasks
        self._settle_setup = settle_setup
        self._writing: set[asyncio.Task[None]] = set()

    async def drain(self) -> None:
        """Returns when all that was reported is written, or after a few seconds."""
        if self._writing:
            await asyncio.wait(tuple(self._writing), timeout=_DRAIN_SECONDS)

    def loaded(self, project: Project, loaded: Loaded) -> None:
        """Report what LOADED said: an app that failed, and the lines that apps logged while they loaded."""
        lines = list(loaded.logs)
        for entry in loaded.installs:
            if entry.error is not None:
                named = entry.error.kind == "compile" or entry.error.line is None  # those messages name their lines
                where = "" if named else f" (line {entry.error.line})"
                message = f"the app does not run: {entry.error.message}{where}"
                lines.append(LogLine(entry.install_id, "ERROR", message, "SYSTEM"))
                _log.warning(
                    "app_does_not_run",
                    project_id=project.id,
                    install_id=entry.install_id,
                    kind=entry.error.kind,
                    error=f"{entry.error.message}{where}",
                    effect="its project's events go on without it",
                )
        self._add(project, lines)

    def torn_down(self, project: Project, logs: Sequence[LogLine]) -> None:
        """What apps logged while they cleaned up."""
        self._add(project, logs)

    def set_up(self, project: Project, install_id: int, result: InvocationResult, effects: Any) -> None:
        """Keep what the app did while it was set up or cleaned up."""
        self._settle_setup(project, install_id, result, effects)

    def restarted(self, project: Project) -> None:
        """Count it."""
        self._metrics.sandbox_restarts.labels(project.id).inc()

    def moved(self, project: Project, install_id: int) -> None:
        """Tell the owner why the app runs alone from now on."""
        message = "the app cost three sandboxes within ten minutes: it runs in one of its own from now on"
        self._add(project, [LogLine(install_id, "WARN", message, "SYSTEM")])

    def _add(self, project: Project, lines: Sequence[LogLine]) -> None:
        if lines:
            records = self._logs.records(project, lines, datetime.now(UTC))
            task = self._tasks.create_task(self._write(records), name=f"sandbox-report-{project.id}")
            self._writing.add(task)
            task.add_done_callback(self._writing.discard)

    async def _write(self, records: list[OutputRecord]) -> None:
        try:
            await self._event_log.produce(records)
        except (EventLogUnavailable, ValueError) as error:
            _log.warning("sandbox_report_not_written", error=str(error), lines=len(records))

"""Tells owners and operator how the apps of a project loaded."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import structlog

from plugin_server.eventlog.port import EventLog, OutputRecord
from plugin_server.host_api.logs import LogEntries
from plugin_server.model.errors import EventLogUnavailable
from plugin_server.model.project import Project
from plugin_server.runtime.replies import Loaded, LogLine

_log = structlog.get_logger(__name__)


class LoadReport:
    """Writes log entries for loaded sandboxes, outside of any lane's transaction."""

    def __init__(self, event_log: EventLog, logs: LogEntries, tasks: asyncio.TaskGroup) -> None:
        self._event_log = event_log
        self._logs = logs
        self._tasks = tasks

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
        if lines:
            records = self._logs.records(project, lines, datetime.now(UTC))
            self._tasks.create_task(self._write(records), name=f"load-report-{project.id}")

    async def _write(self, records: list[OutputRecord]) -> None:
        try:
            await self._event_log.produce(records)
        except (EventLogUnavailable, ValueError) as error:
            _log.warning("load_report_not_written", error=str(error), lines=len(records))

"""Lines for the owners of apps: `plugin_log_entries`, limited per install and minute."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final

import orjson

from plugin_server.eventlog.port import OutputRecord
from plugin_server.model.project import Project
from plugin_server.model.token_bucket import TokenBucket
from plugin_server.outputs.events import clickhouse_time
from plugin_server.runtime.replies import LogLine

_KEPT_BUCKETS: Final = 50_000


class LogEntries:
    """Makes the records. One a worker, so that the limit counts what all lanes of an install log here."""

    def __init__(self, topic: str, instance_id: str) -> None:
        self._topic = topic
        self._instance_id = instance_id
        self._buckets: dict[int, TokenBucket] = {}
        self._left_out: dict[int, int] = {}

    def records(self, project: Project, lines: Iterable[LogLine], now: datetime) -> list[OutputRecord]:
        """Records of those lines that the limit lets pass. The next line that passes is preceded by the number left out."""
        records: list[OutputRecord] = []
        for line in lines:
            install = line.install_id
            if not self._bucket(project, install).take(now.timestamp()):
                self._left_out[install] = self._left_out.get(install, 0) + 1
                continue
            missing = self._left_out.pop(install, 0)
            if missing:
                limit = project.limits.log_lines_per_minute
                notice = f"{missing} log lines were left out: more than {limit} a minute (log_lines_per_minute)"
                records.append(self._record(project, LogLine(install, "WARN", notice, "SYSTEM"), now))
            records.append(self._record(project, line, now))
        return records

    def _bucket(self, project: Project, install_id: int) -> TokenBucket:
        bucket = self._buckets.get(install_id)
        if bucket is None:
            if len(self._buckets) >= _KEPT_BUCKETS:
                self._buckets.clear()
            limit = project.limits.log_lines_per_minute
            bucket = self._buckets[install_id] = TokenBucket(limit, limit / 60)
        return bucket

    def _record(self, project: Project, line: LogLine, now: datetime) -> OutputRecord:
        entry = {
            "id": str(uuid.uuid4()),
            "team_id": project.id,
            "plugin_id": line.install_id,
            "plugin_config_id": line.install_id,
            "timestamp": clickhouse_time(now.astimezone(UTC)),
            "source": line.source,
            "type": line.level,
            "message": line.message,
            "instance_id": self._instance_id,
        }
        return OutputRecord(self._topic, None, str(line.install_id).encode(), orjson.dumps(entry))

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import orjson

from plugin_server.host_api.logs import LogEntries
from plugin_server.model.project import Limits, Project
from plugin_server.runtime.replies import LogLine

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def line(message: str, install: int = 39) -> LogLine:
    return LogLine(install, "LOG", message, "CONSOLE")


def entries(records) -> list[dict[str, object]]:
    return [orjson.loads(record.value) for record in records]


def test_a_line_becomes_a_row_with_all_its_ids():
    (record,) = LogEntries("logs", "worker-1").records(Project(2, "p", "t"), [line("a b")], NOW)
    entry = orjson.loads(record.value)
    assert (record.topic, record.partition, record.key) == ("logs", None, b"39")
    assert len(entry.pop("id")) == 36
    assert entry == {
        "team_id": 2,
        "plugin_id": 39,
        "plugin_config_id": 39,
        "timestamp": "2026-01-01 12:00:00.000",
        "source": "CONSOLE",
        "type": "LOG",
        "message": "a b",
        "instance_id": "worker-1",
    }


def test_lines_beyond_the_limit_are_left_out_and_counted_in_the_next_that_passes():
    logs, project = LogEntries("logs", "w"), Project(2, "p", "t", limits=Limits(log_lines_per_minute=60))
    first = logs.records(project, [line(str(number)) for number in range(100)], NOW)
    assert len(first) == 60
    later = entries(logs.records(project, [line("later")], NOW + timedelta(seconds=2)))
    assert later[0]["message"] == "40 log lines were left out: more than 60 a minute (log_lines_per_minute)"
    assert (later[0]["type"], later[0]["source"]) == ("WARN", "SYSTEM")
    assert [entry["message"] for entry in later[1:]] == ["later"]


def test_each_install_has_a_limit_of_its_own():
    logs, project = LogEntries("logs", "w"), Project(2, "p", "t", limits=Limits(log_lines_per_minute=1))
    records = logs.records(project, [line("a"), line("b"), line("c", 40)], NOW)
    assert [entry["message"] for entry in entries(records)] == ["a", "c"]

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from plugin_server.cli.sandbox_report import OwnersReport
from plugin_server.host_api.logs import LogEntries
from plugin_server.metrics import Metrics
from plugin_server.model.errors import EventLogUnavailable
from plugin_server.model.project import Project
from plugin_server.runtime.replies import HookFailure, Loaded, LoadedInstall, LogLine

FAILED = Loaded(
    (
        LoadedInstall(1, frozenset(), HookFailure(1, "app", "ValueError: no", 3)),
        LoadedInstall(2, frozenset({"onEvent"}), None),
    ),
    (LogLine(2, "LOG", "up", "CONSOLE"),),
)


def nothing_to_settle(*_: object) -> None:
    raise AssertionError("no app was set up")


class Log:
    def __init__(self, fault: Exception | None = None) -> None:
        self.records: list[Any] = []
        self.fault = fault

    async def produce(self, records: Any) -> None:
        if self.fault is not None:
            raise self.fault
        self.records += records


async def report(log: Log, loaded: Loaded) -> None:
    async with asyncio.TaskGroup() as tasks:
        OwnersReport(log, LogEntries("logs", "w"), Metrics(), tasks, nothing_to_settle).loaded(
            Project(2, "p", "t"), loaded
        )  # type: ignore[arg-type]


async def test_owners_read_why_their_app_does_not_run():
    log = Log()
    await report(log, FAILED)
    messages = [orjson.loads(record.value)["message"] for record in log.records]
    assert messages == ["up", "the app does not run: ValueError: no (line 3)"]


@pytest.mark.parametrize("loaded", [Loaded((), ()), Loaded((LoadedInstall(1, frozenset(), None),), ())])
async def test_nothing_to_say_writes_nothing(loaded):
    log = Log(RuntimeError("not called"))
    await report(log, loaded)


async def test_a_log_that_is_away_stops_nobody():
    await report(Log(EventLogUnavailable("away")), FAILED)


async def test_the_owner_of_a_moved_app_reads_why():
    log = Log()
    async with asyncio.TaskGroup() as tasks:
        report = OwnersReport(log, LogEntries("logs", "w"), Metrics(), tasks, nothing_to_settle)  # type: ignore[arg-type]
        report.moved(Project(2, "p", "t"), 39)
        await report.drain()
        (record,) = log.records
    assert "cost three sandboxes" in orjson.loads(record.value)["message"]

"""The supervisor keeps a lane for each partition that is ours, and begins again when one fails."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from plugin_server.lanes import supervisor as module
from plugin_server.lanes.supervisor import STALLED_SECONDS, LaneSupervisor
from plugin_server.metrics import Metrics
from plugin_server.model.errors import EventLogUnavailable, LaneFenced

REAL_SLEEP = asyncio.sleep
ROLE = {"role": "ingestion"}


class Log:
    """A lane's log, of which only its end is looked at."""

    def __init__(self, partition: int) -> None:
        self.partition = partition
        self.closed = False

    async def close(self) -> None:
        self.closed = True


class Lane:
    """Runs until told what to raise."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.fault: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.still_ours = True
        self.suspended = 0
        self.stalled_seconds = 0.0
        self.hangs = False

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._run())

    async def _run(self) -> None:
        await self.fault

    async def suspend(self) -> None:
        self.suspended += 1
        if self.hangs:
            await asyncio.Event().wait()

    async def resume(self) -> bool:
        return self.still_ours

    async def drain(self) -> None:
        return


class Bench:
    def __init__(self) -> None:
        self.lanes: list[Lane] = []
        self.faults: list[Exception] = []
        self.metrics = Metrics()
        self.supervisor = LaneSupervisor(self, self.make, self.metrics, "ingestion")  # type: ignore[arg-type]

    async def open_lane(self, partition: int) -> Log:
        if self.faults:
            raise self.faults.pop()
        return Log(partition)

    async def make(self, log: Log) -> Lane:
        self.lanes.append(Lane(log))
        return self.lanes[-1]

    def open(self) -> list[int]:
        return sorted(lane.log.partition for lane in self.lanes if not lane.log.closed)

    async def assign(self, *partitions: int) -> None:
        self.supervisor.on_assigned(frozenset(partitions))
        await settle()


async def settle() -> None:
    for _ in range(40):
        await REAL_SLEEP(0)


@pytest.fixture
async def bench(monkeypatch) -> AsyncIterator[Bench]:
    async def at_once(_seconds: float) -> None:
        await REAL_SLEEP(0)

    monkeypatch.setattr("plugin_server.lanes.supervisor.asyncio.sleep", at_once)
    made = Bench()
    running = asyncio.create_task(made.supervisor.run())
    yield made
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    assert made.open() == []


async def test_each_assigned_partition_has_a_lane_and_others_are_given_up(bench):
    assert "waiting" in bench.supervisor.not_ready()
    await bench.assign(0, 1)
    assert bench.open() == [0, 1]
    assert bench.supervisor.not_ready() is None
    await bench.assign(1, 2)
    assert bench.open() == [1, 2]
    assert len(bench.lanes) == 3


async def test_a_lane_whose_events_do_not_move_makes_the_worker_not_ready(bench):
    await bench.assign(0)
    bench.lanes[0].stalled_seconds = STALLED_SECONDS + 1
    assert "no event was finished" in bench.supervisor.not_ready()


@pytest.mark.parametrize("fault", [LaneFenced(), EventLogUnavailable("away"), RuntimeError("a fault of ours")])
async def test_a_lane_that_fails_is_acquired_again(bench, fault):
    await bench.assign(0)
    bench.lanes[0].fault.set_exception(fault)
    await settle()
    assert len(bench.lanes) == 2
    assert bench.lanes[0].log.closed
    assert bench.open() == [0]
    assert bench.supervisor.not_ready() is None
    assert bench.metrics.registry.get_sample_value("plugin_server_lane_restarts_total", ROLE) == 1
    assert bench.metrics.registry.get_sample_value("plugin_server_lanes_running", ROLE) == 1


async def test_a_partition_that_cannot_be_acquired_is_tried_again(bench):
    bench.faults = [EventLogUnavailable("away")] * 3
    await bench.assign(0)
    assert bench.open() == [0]


async def test_while_a_partition_cannot_be_acquired_the_worker_says_why(bench):
    bench.faults = [EventLogUnavailable("away")] * 10_000
    await bench.assign(0)
    assert "away" in bench.supervisor.not_ready()
    bench.faults.clear()
    await settle()
    assert bench.supervisor.not_ready() is None


async def test_a_lane_that_is_still_ours_after_a_rebalance_goes_on(bench):
    await bench.assign(0, 1)
    await bench.supervisor.on_revoked(frozenset({0, 1, 7}))
    assert [lane.suspended for lane in bench.lanes] == [1, 1]
    await bench.assign(0, 1)
    assert len(bench.lanes) == 2


async def test_a_lane_that_another_worker_had_is_acquired_again(bench):
    await bench.assign(0)
    await bench.supervisor.on_revoked(frozenset({0}))
    bench.lanes[0].still_ours = False
    await bench.assign(0)
    assert len(bench.lanes) == 2
    assert bench.lanes[0].log.closed


async def test_a_flush_that_does_not_end_in_time_costs_the_lane(bench, monkeypatch):
    monkeypatch.setattr(module, "SUSPEND_SECONDS", 0.2)
    await bench.assign(0)
    bench.lanes[0].hangs = True
    await bench.supervisor.on_revoked(frozenset({0}))
    await settle()
    assert bench.lanes[0].log.closed
    assert len(bench.lanes) == 2

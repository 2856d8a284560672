"""An install whose events several lanes run at once: what it counts with get and set is right, on one worker and on two."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest

from plugin_server.database.engine import Database
from plugin_server.database.migrate import migrate
from plugin_server.database.tables import recorded_results, storage
from plugin_server.host_api.captures import Captures
from plugin_server.host_api.logs import LogEntries
from plugin_server.host_api.storage import storage_handlers
from plugin_server.ingestion.decode import make_decode
from plugin_server.ingestion.processor import IngestionProcessor
from plugin_server.ingestion.recorded import RecordedResults
from plugin_server.ingestion.report import IngestionReport
from plugin_server.lanes.fence import LaneKey, draw_epoch
from plugin_server.lanes.lane import Lane, LaneLimits
from plugin_server.metrics import Metrics
from plugin_server.model.project import Project
from plugin_server.registry.registry import Registry
from plugin_server.runtime.pool import SandboxPool
from tests.database.workers import Worker, rows, working
from tests.sandbox.projects import PATIENCE_SECONDS, project, running_pool
from tests.unit.ingestion.doubles import (
    NOW,
    RECORD_BYTES,
    TOPICS,
    Counted,
    Follower,
    MemoryLaneLog,
    Partition,
    Record,
    emitter,
    message,
)

COUNTS = """
async def processEvent(event, meta):
    n = await meta.storage.get("n", 0)
    await meta.storage.set("n", n + 1)
    meta.storage.increment("total")
    event["properties"]["count"] = n + 1
    return event
"""


class RunningLane:
    """A lane over a log in memory, with real sandboxes and a real database."""

    def __init__(self, worker: Worker, pool: SandboxPool, tenant: Project, number: int, count: int) -> None:
        self.worker = worker
        self.pool = pool
        self.number = number
        self.count = count
        self.decode = make_decode(Registry([tenant]), RECORD_BYTES)
        self.partition = Partition(
            [
                Record(n, message(1_000 * number + n, f"d{n % 20}", tenant.token), f"d{n % 20}".encode())
                for n in range(count)
            ]
        )

    async def acquire(self) -> None:
        log = MemoryLaneLog(self.partition)
        fence = await draw_epoch(self.worker.database, LaneKey("g", TOPICS.ingestion, self.number))
        results = RecordedResults(fence, log)
        recorded = await results.load(self.worker.database)
        report = IngestionReport(Metrics(), TOPICS.events, Follower())
        captures = Captures(TOPICS.ingestion, TOPICS.dead_letters, RECORD_BYTES, lambda: NOW)
        self.lane = Lane(
            log,
            lambda lane: IngestionProcessor(
                lane,
                self.decode,
                self.pool,
                emitter(captures, LogEntries(TOPICS.log_entries, "worker")),
                self.worker.committer,
                results,
                recorded,
                Counted(),
                report,
                source_of=lambda offset: f"{TOPICS.ingestion}-{self.number}-{offset}",
            ),
            self.worker.committer,
            LaneLimits(0.02, 5_000, 10_000, 2**26),
            report,
        )
        self.task = asyncio.create_task(self.lane.run())

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    @property
    def events(self) -> list[dict[str, Any]]:
        return [orjson.loads(record.value) for record in self.partition.output if record.topic == TOPICS.events]

    async def until_done(self) -> None:
        while self.partition.committed.next < self.count:
            if self.task.done():
                self.task.result()
            await asyncio.sleep(0.01)

    def check(self) -> list[int]:
        """Each event left once, in order per distinct id; what each was counted as."""
        properties = [orjson.loads(event["properties"]) for event in self.events]
        assert sorted(each["n"] for each in properties) == [1_000 * self.number + n for n in range(self.count)]
        by_key: dict[str, list[int]] = {}
        for event, each in zip(self.events, properties, strict=True):
            by_key.setdefault(event["distinct_id"], []).append(each["n"])
        assert all(numbers == sorted(numbers) for numbers in by_key.values())
        return [each["count"] for each in properties]


@asynccontextmanager
async def lanes(url: str, workers: int, count: int, per_worker: int = 2) -> AsyncIterator[list[RunningLane]]:
    database = Database(url)
    await migrate(database)
    await database.close()
    tenant = project(COUNTS)
    made: list[RunningLane] = []
    async with working(url, workers) as running:
        pools = [running_pool(handlers=storage_handlers(worker.ledger)) for worker in running]
        try:
            for number, (worker, pool) in enumerate(zip(running, pools, strict=True)):
                bench = await pool.__aenter__()
                made += [
                    RunningLane(worker, bench.pool, tenant, per_worker * number + place, count)
                    for place in range(per_worker)
                ]
            async with asyncio.timeout(PATIENCE_SECONDS):
                for lane in made:
                    await lane.acquire()
                yield made
        finally:
            for lane in made:
                await lane.stop()
            for pool in pools:
                await pool.__aexit__(None, None, None)


async def stored(worker: Worker) -> dict[str, bytes]:
    return {row.key: row.value for row in await rows(worker.database, storage)}


async def test_two_lanes_of_one_worker_count_right(database_url):
    async with lanes(database_url, 1, 300) as made:
        for lane in made:
            await lane.until_done()
        counts = [count for lane in made for count in lane.check()]
        assert sorted(counts) == list(range(1, 601))
        assert await stored(made[0].worker) == {"n": b"600", "total": b"600"}


@pytest.mark.postgres
async def test_lanes_of_two_workers_count_right(postgres_url):
    async with lanes(postgres_url, 2, 200, per_worker=1) as made:
        for lane in made:
            await lane.until_done()
        counts = [count for lane in made for count in lane.check()]
        assert sorted(counts) == list(range(1, 401))
        assert await stored(made[0].worker) == {"n": b"400", "total": b"400"}


async def test_lanes_that_are_lost_again_and_again_count_right(database_url):
    async with lanes(database_url, 1, 200) as made:
        for number in range(6):
            await asyncio.sleep(0.05)
            lane = made[number % 2]
            await lane.stop()
            await lane.acquire()
        for lane in made:
            await lane.until_done()
        counts = [count for lane in made for count in lane.check()]
        assert sorted(counts) == list(range(1, 401))
        assert await stored(made[0].worker) == {"n": b"400", "total": b"400"}
        assert len(await rows(made[0].worker.database, recorded_results)) < 400

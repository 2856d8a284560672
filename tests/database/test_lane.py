"""A lane on a real database: the counter counts an event once, whatever crashes; who had the lane before stores nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from plugin_server.database.engine import Database
from plugin_server.database.migrate import migrate
from plugin_server.database.tables import delivered, jobs, recorded_results, storage
from plugin_server.delivery.marks import DeliveredMarks, Mark
from plugin_server.eventlog.port import Position
from plugin_server.host_api.commit import Outcome
from plugin_server.host_api.effects import JobRequest
from plugin_server.host_api.storage_values import Key
from plugin_server.ingestion.recorded import RecordedResult, RecordedResults, encode_records
from plugin_server.lanes.fence import LaneKey, draw_epoch
from plugin_server.model.errors import DatabaseUnavailable, LaneFenced
from plugin_server.runtime.work import Work
from tests.database.workers import K, Worker, rows, working
from tests.unit.ingestion.doubles import TOPICS, Bench, MemoryLaneLog, Partition, Record, message

N: Key = (39, "n")
LANE = LaneKey("group", TOPICS.ingestion, 0)


@pytest.fixture
async def url(database_url: str) -> str:
    database = Database(database_url)
    await migrate(database)
    await database.close()
    return database_url


class Stage(Bench):
    """A lane whose apps count every event in storage."""

    def __init__(self, worker: Worker, partition: Partition) -> None:
        self.worker = worker
        super().__init__(partition)

    async def acquire(self) -> None:
        """As a lane is acquired: the log first, then the epoch, then what is recorded."""
        fence = await draw_epoch(self.worker.database, LANE)
        log = MemoryLaneLog(self.partition)
        results = RecordedResults(fence, log)
        recorded = await results.load(self.worker.database)
        self.restart(self.worker.committer, results, recorded)
        results._log = self.log
        self.start()
        await self.settle()

    async def count(self, work: Work[Any] | None = None) -> None:
        """The app of an event, of the oldest if none is named: get, set, and a job."""
        work = work or self.apps.held[0]
        effects: Any = work.effects
        ledger = self.worker.ledger
        found = await ledger.get(effects.storage, N)
        ledger.set(effects.storage, N, str(int(found or b"0") + 1).encode())
        effects.of(39).jobs.append(JobRequest("mail", b"{}", None))
        self.apps.finish([self.apps.held.index(work)])

    async def until_emitted(self, *numbers: int) -> None:
        while self.emitted() != list(numbers):  # noqa: ASYNC110 - the database answers in its own time
            await asyncio.sleep(0.005)

    async def value(self) -> bytes | None:
        return next((row.value for row in await rows(self.worker.database, storage) if row.key == "n"), None)


def partition(count: int) -> Partition:
    return Partition([Record(number, message(number, f"d{number}"), f"d{number}".encode()) for number in range(count)])


async def test_events_with_effects_are_recorded_until_the_log_has_them(url):
    async with working(url) as [worker]:
        stage = Stage(worker, partition(3))
        await stage.acquire()
        for number in range(3):
            await stage.count()
            await stage.until_emitted(*range(number + 1))
        assert await stage.value() == b"3"
        assert len(await rows(worker.database, jobs)) == 3
        assert [row.offset for row in await rows(worker.database, recorded_results)] == [2]
        await stage.stop()
        await stage.acquire()
        assert await rows(worker.database, recorded_results) == []
        await stage.stop()


async def test_marks_of_deliveries_go_when_a_lane_is_acquired_beyond_them(url):
    async with working(url) as [worker]:
        log = MemoryLaneLog(partition(5))
        other = DeliveredMarks(await draw_epoch(worker.database, LANE._replace(partition=1)), log)
        mine = DeliveredMarks(await draw_epoch(worker.database, LANE), log)
        for marks in (other, mine):
            async with worker.database.write() as connection:
                assert not await marks.complete(connection, [Mark((0, 1, 2), 39, "onEvent")])
        log.position = Position(2)
        again = DeliveredMarks(await draw_epoch(worker.database, LANE), log)
        await again.load(worker.database)
        assert [again.has(offset, 39, "onEvent") for offset in range(4)] == [False, False, True, False]
        left = [(row.partition, row.offset) for row in await rows(worker.database, delivered)]
        assert sorted(left) == [(0, 2), (1, 0), (1, 1), (1, 2)]


async def test_after_a_crash_between_the_commits_the_record_leaves_and_the_counter_counts_once(url):
    async with working(url) as [worker]:
        stage = Stage(worker, partition(2))
        await stage.acquire()
        stage.log.may_commit.clear()
        await stage.count()
        while await stage.value() is None:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.005)
        await stage.stop()
        assert stage.emitted() == []
        await stage.acquire()
        await stage.until_emitted(0)
        await stage.count()
        await stage.until_emitted(0, 1)
        assert await stage.value() == b"2"
        assert len({row.id for row in await rows(worker.database, jobs)}) == 2
        await stage.stop()


async def test_what_is_recorded_survives_as_it_was_made(url):
    async with working(url) as [worker]:
        stage = Stage(worker, partition(1))
        await stage.acquire()
        await stage.count()
        await stage.until_emitted(0)
        await stage.stop()
        (left,) = stage.partition.output
        assert stage.worker.ledger._units == {}
        stage.partition.committed = Position(0)
        stage.partition.output.clear()
        await stage.acquire()
        await stage.until_emitted(0)
        again = stage.partition.output[0]
        assert (again.topic, again.partition, again.key, again.value) == (
            left.topic,
            left.partition,
            left.key,
            left.value,
        )
        assert [tuple(header) for header in again.headers] == [tuple(header) for header in left.headers]
        assert await stage.value() == b"1"
        await stage.stop()


async def test_who_had_the_lane_before_stores_nothing_more(url):
    async with working(url) as [worker]:
        old = RecordedResults(await draw_epoch(worker.database, LANE), MemoryLaneLog(partition(1)))
        new = RecordedResults(await draw_epoch(worker.database, LANE), MemoryLaneLog(partition(1)))
        elsewhere = RecordedResults(
            await draw_epoch(worker.database, LANE._replace(partition=1)), MemoryLaneLog(partition(1))
        )
        result = RecordedResult(0, encode_records([]))
        commitments = [
            worker.write((1, name), b"1", completion=completion, token=result)
            for name, completion in (("old", old), ("new", new), ("elsewhere", elsewhere))
        ]
        assert await worker.store(*commitments) == [Outcome.LOST, Outcome.STORED, Outcome.STORED]
        assert [row.key for row in await rows(worker.database, storage)] == ["elsewhere", "new"]


async def test_a_lane_that_another_worker_acquired_ends_and_leaves_nothing(url):
    async with working(url) as [worker]:
        stage = Stage(worker, partition(1))
        await stage.acquire()
        await draw_epoch(worker.database, LANE)
        await stage.count()
        with pytest.raises(ExceptionGroup) as caught:
            await stage.task
        assert [type(error) for error in caught.value.exceptions] == [LaneFenced]
        assert stage.emitted() == []
        assert await rows(worker.database, storage) == []
        assert await worker.get(N) is None


async def test_epochs_count_up_from_one_for_each_lane(url):
    async with working(url) as [worker]:
        drawn = [await draw_epoch(worker.database, LANE) for _ in range(3)]
        assert [fence.epoch for fence in drawn] == [1, 2, 3]
        assert (await draw_epoch(worker.database, LANE._replace(group="other"))).epoch == 1


async def test_a_database_that_is_away_ends_the_lane_and_loses_nothing(url, monkeypatch):
    async with working(url) as [worker]:
        stage = Stage(worker, partition(2))
        await stage.acquire()

        async def refuse(_members: Any) -> Any:
            raise DatabaseUnavailable("gone")

        with monkeypatch.context() as patched:
            patched.setattr(worker.committer, "_transact", refuse)
            await stage.count()
            with pytest.raises(ExceptionGroup) as caught:
                await stage.task
        assert [str(error) for error in caught.value.exceptions] == ["gone"]
        assert stage.emitted() == []
        await stage.acquire()
        await stage.count()
        await stage.until_emitted(0)
        await stage.count()
        await stage.until_emitted(0, 1)
        assert await stage.value() == b"2"
        await stage.stop()


async def test_two_lanes_of_one_worker_count_in_one_key(url):
    async with working(url) as [worker]:
        stages = [Stage(worker, partition(50)) for _ in range(2)]
        fences = [await draw_epoch(worker.database, LANE._replace(partition=number)) for number in range(2)]
        for stage, fence in zip(stages, fences, strict=True):
            results = RecordedResults(fence, stage.log)
            stage.restart(worker.committer, results)
            results._log = stage.log
            stage.start()
            await stage.settle()

        async def drive(stage: Stage) -> None:
            while len(stage.emitted()) < 50:
                counting = [stage.count(work) for work in stage.apps.held]
                await asyncio.gather(*counting)
                await asyncio.sleep(0.001)

        await asyncio.gather(*map(drive, stages))
        assert await stages[0].value() == b"100"
        for stage in stages:
            await stage.stop()


@pytest.mark.postgres
async def test_the_epoch_is_drawn_after_the_old_owners_transaction_has_ended(postgres_url):
    database = Database(postgres_url)
    await migrate(database)
    await database.close()
    async with working(postgres_url, 2) as [old, new]:
        fence = await draw_epoch(old.database, LANE)
        async with old.database.write() as connection:
            assert await fence.holds(connection)
            drawing = asyncio.create_task(draw_epoch(new.database, LANE))
            await asyncio.sleep(0.1)
            assert not drawing.done()
            await connection.execute(storage.insert().values(install_id=K[0], key=K[1], value=b"1", version=1))
        assert (await drawing).epoch == fence.epoch + 1
        assert await new.get() == b"1"

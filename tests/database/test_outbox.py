"""What jobs and deliveries leave gets into the log once and in order, however many workers move it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
import structlog

from plugin_server.database.engine import Database, sqlite_url
from plugin_server.database.migrate import migrate
from plugin_server.database.tables import outbox
from plugin_server.eventlog.embedded import EmbeddedEventLog
from plugin_server.eventlog.port import OutputRecord
from plugin_server.host_api import outbox as module
from plugin_server.host_api.outbox import Outbox
from plugin_server.host_api.storage_transaction import StorageTransaction
from plugin_server.model.errors import EventLogUnavailable
from tests.database.workers import Worker, rows, working


class Killed(Exception):
    """Stands for SIGKILL: the transaction is gone."""


class Log:
    """An event log that keeps what it is given, and fails as often as it is told."""

    def __init__(self) -> None:
        self.produced: list[OutputRecord] = []
        self.failures = 0

    async def produce(self, records: Sequence[OutputRecord]) -> None:
        await asyncio.sleep(0.002)
        if self.failures:
            self.failures -= 1
            raise EventLogUnavailable("simulated")
        self.produced += records

    @property
    def numbers(self) -> list[int]:
        return [int(record.value) for record in self.produced]


@pytest.fixture
async def url(database_url: str) -> str:
    database = Database(database_url)
    await migrate(database)
    await database.close()
    return database_url


def records(numbers: range) -> list[OutputRecord]:
    return [
        OutputRecord("events", None, b"k" if number % 2 else None, str(number).encode(), [("h", b"v")] * (number % 3))
        for number in numbers
    ]


async def leave(worker: Worker, count: int) -> None:
    for start in range(0, count, 100):
        await worker.store(worker.add(StorageTransaction(), outbox=records(range(start, min(start + 100, count)))))


async def test_everything_leaves_as_it_was_made_in_order_and_the_table_is_empty(url):
    async with working(url) as [worker]:
        log = Log()
        await leave(worker, 1_234)
        await Outbox(worker.database, log).drain()  # type: ignore[arg-type]
        assert log.numbers == list(range(1_234))
        assert [(record.key, tuple(record.headers)) for record in log.produced[:3]] == [
            (None, ()),
            (b"k", (("h", b"v"),)),
            (None, (("h", b"v"), ("h", b"v"))),
        ]
        assert await rows(worker.database, outbox) == []


async def test_what_the_log_does_not_take_stays_and_leaves_later(url, monkeypatch):
    monkeypatch.setattr(module, "_BACKOFF_SECONDS", 0.01)
    async with working(url) as [worker]:
        log = Log()
        log.failures = 2
        moving = Outbox(worker.database, log)  # type: ignore[arg-type]
        await leave(worker, 10)
        with structlog.testing.capture_logs():
            task = asyncio.create_task(moving.run())
            while len(log.produced) < 10 or await rows(worker.database, outbox):  # noqa: ASYNC110 - real I/O
                await asyncio.sleep(0.005)
        worker.committer._on_outbox = moving.wake
        await worker.store(worker.add(StorageTransaction(), outbox=records(range(10, 11))))
        while len(log.produced) < 11:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.005)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert log.numbers == list(range(11))


async def test_a_worker_that_dies_in_between_moves_nothing_twice_where_the_log_is_in_the_same_file(
    tmp_path, monkeypatch
):
    url = sqlite_url(tmp_path)
    database = Database(url)
    await migrate(database)
    await database.close()

    async def die(*_arguments: object) -> None:
        raise Killed

    async with working(url) as [worker]:
        log = EmbeddedEventLog(worker.database, tmp_path)
        await log.start()
        await log.ensure_topics(["events"], 2)
        await leave(worker, 700)
        moving = Outbox(worker.database, log, log)
        with monkeypatch.context() as patched:
            patched.setattr(module, "_delete", die)
            with pytest.raises(Killed):
                await moving.drain()
        woken = log.wakeups.next_of("events")
        await moving.drain()
        assert woken.is_set()
        assert sorted(int(record.value or b"") for record in await log.latest("events", 2_000, 2**20)) == list(
            range(700)
        )
        assert await rows(worker.database, outbox) == []


@pytest.mark.postgres
async def test_two_workers_send_each_record_once_and_in_order(postgres_url):
    database = Database(postgres_url)
    await migrate(database)
    await database.close()
    async with working(postgres_url, 2) as workers:
        log = Log()
        await leave(workers[0], 3_000)
        await asyncio.gather(*(Outbox(worker.database, log).drain() for worker in workers))  # type: ignore[arg-type]
        assert log.numbers == list(range(3_000))
        assert await rows(workers[0].database, outbox) == []

"""What only the embedded log has: one file, one process, a disk that fills up."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from sqlalchemy import event

from plugin_server.database.engine import SQLITE_FILE_NAME, Database
from plugin_server.eventlog.embedded import EmbeddedEventLog
from plugin_server.eventlog.port import OutputRecord, Position
from plugin_server.model.errors import CommitOutcomeUnknown, ConfigurationError, EventLogUnavailable, LaneFenced
from tests.contract.logs import PATIENCE_SECONDS, EmbeddedLogs, Recorder, fetch_all, read_all, values_of

WORKER = textwrap.dedent(
    """
    import asyncio, sys
    from pathlib import Path
    from plugin_server.database.engine import Database, sqlite_url
    from plugin_server.eventlog.embedded import EmbeddedEventLog
    from plugin_server.eventlog.port import OutputRecord, Position

    class Listener:
        def on_assigned(self, partitions): pass
        async def on_revoked(self, partitions): pass

    async def main(data_dir, group, source, target):
        log = EmbeddedEventLog(Database(f"sqlite:///{data_dir}/plugin-server.sqlite3"), Path(data_dir))
        await log.start()
        await log.ensure_topics([source, target], 4)
        await log.join(group, source, Listener())
        lane = await log.open_lane(0)
        print("joined", flush=True)
        while True:
            for record in await lane.fetch(3, 1):
                await lane.commit([OutputRecord(target, 0, None, record.value)], Position(record.offset + 1))

    asyncio.run(main(*sys.argv[1:]))
    """
)


@pytest_asyncio.fixture
async def logs(tmp_path: Path, topic_prefix: str) -> AsyncIterator[EmbeddedLogs]:
    made = EmbeddedLogs(topic_prefix, tmp_path)
    yield made
    await made.close()


def start_worker(logs: EmbeddedLogs) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", WORKER, str(logs.data_dir), logs.group, logs.input, logs.output]
    worker = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    assert worker.stdout is not None
    assert worker.stdout.readline() == "joined\n"
    return worker


def end(worker: subprocess.Popen[str]) -> None:
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    assert worker.stdout is not None
    worker.stdout.close()


async def test_killed_workers_lose_and_double_nothing(logs: EmbeddedLogs) -> None:
    log = await logs.make()
    values = await logs.feed(log, 600)
    for _kill in range(3):
        worker = await asyncio.to_thread(start_worker, logs)
        await asyncio.sleep(0.15)
        end(worker)
    worker = await asyncio.to_thread(start_worker, logs)
    try:
        written = values_of(await read_all(log, logs.output, len(values)))
    finally:
        end(worker)
    assert written == values
    await log.join(logs.group, logs.input, Recorder())
    lane = await log.open_lane(0)
    assert lane.position.next == len(values)
    assert await lane.fetch(1, 0) == []


async def test_another_process_sees_what_this_one_writes(logs: EmbeddedLogs) -> None:
    log = await logs.make()
    worker = await asyncio.to_thread(start_worker, logs)
    try:
        reading = log.read([logs.output], from_start=True)
        values = await logs.feed(log, 5)
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert [(await anext(reading))[1].value for _ in values] == values
        await reading.aclose()  # type: ignore[attr-defined]
    finally:
        end(worker)


async def test_a_second_process_is_refused_and_told_what_to_do(logs: EmbeddedLogs) -> None:
    log = await logs.make()
    worker = await asyncio.to_thread(start_worker, logs)
    try:
        with pytest.raises(ConfigurationError, match=rf"process {worker.pid} already runs .* PLUGIN_SERVER_DATA_DIR"):
            await log.join(logs.group, logs.input, Recorder())
    finally:
        end(worker)
    await log.join(logs.group, logs.input, Recorder())


async def test_two_groups_in_one_process_wake_each_other(logs: EmbeddedLogs) -> None:
    ingestion = await logs.make_joined()
    delivery = await logs.make()
    await delivery.join(f"{logs.group}-delivery", logs.output, Recorder())
    await logs.feed(ingestion, 1)
    ingesting, delivering = await ingestion.open_lane(0), await delivery.open_lane(2)
    waiting = asyncio.create_task(fetch_all(delivering, 1))
    (record,) = await fetch_all(ingesting, 1)
    await ingesting.commit([logs.record(b"out", 2)], Position(record.offset + 1))
    assert values_of(await waiting) == [b"out"]


async def test_a_full_disk_loses_nothing_and_is_recovered_from(tmp_path: Path, topic_prefix: str) -> None:
    logs = EmbeddedLogs(topic_prefix, tmp_path)
    log = await logs.make_joined()
    values = await logs.feed(log, 10)
    lane = await log.open_lane(0)
    await fetch_all(lane, 10)
    big = [logs.record(b"x" * 500_000)] * 4

    async with logs.database.read() as connection:
        pages = (await connection.exec_driver_sql("PRAGMA page_count")).scalar_one()
    await logs.database.close()

    def limit_pages(dbapi_connection: sqlite3.Connection, _record: object) -> None:
        dbapi_connection.execute(f"PRAGMA max_page_count = {pages + 20}").close()

    event.listen(logs.database.engine.sync_engine, "connect", limit_pages)
    with pytest.raises(CommitOutcomeUnknown, match="full"):
        await lane.commit(big, Position(5))
    with pytest.raises(EventLogUnavailable, match="full"):
        await log.produce(big)
    event.remove(logs.database.engine.sync_engine, "connect", limit_pages)
    await lane.close()
    await logs.database.close()

    again = await log.open_lane(0)
    assert again.position == Position(0)
    assert values_of(await fetch_all(again, 10)) == values
    await again.commit(big, Position(10))
    assert len(await read_all(log, logs.output, 4)) == 4
    await logs.close()


async def test_cancelled_commits_leave_no_lock_behind(logs: EmbeddedLogs) -> None:
    """A statement torn off by cancellation kept SQLite's write lock: `database is locked` for all who came after."""
    log = await logs.make_joined()
    expected = []
    for number in range(300):
        lane = await log.open_lane(0)
        committing = asyncio.create_task(lane.commit([logs.record(b"%d" % number)], Position(number + 1)))
        await asyncio.sleep(0.0002 * (number % 30))
        committing.cancel()
        await asyncio.gather(committing, return_exceptions=True)
        if (await log.open_lane(0)).position == Position(number + 1):
            expected.append(b"%d" % number)
    assert values_of(await read_all(log, logs.output, len(expected))) == expected


async def test_a_deadline_in_the_middle_of_a_statement_is_a_time_out(logs: EmbeddedLogs) -> None:
    await logs.make()
    slow = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300000) SELECT count(*) FROM n"
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.001), logs.database.write() as connection:
            await connection.exec_driver_sql(slow)
    async with logs.database.write() as connection:
        assert (await connection.exec_driver_sql("SELECT 1")).scalar_one() == 1


async def test_prune_deletes_what_every_group_has_finished(logs: EmbeddedLogs) -> None:
    log = await logs.make_joined()
    assert isinstance(log, EmbeddedEventLog)
    slower = await logs.make()
    await slower.join(f"{logs.group}-slower", logs.input, Recorder())
    values = await logs.feed(log, 10)
    await log.produce([logs.record(b"nobody's")] * 3)
    fast_lane, slow_lane = await log.open_lane(0), await slower.open_lane(0)
    await fast_lane.commit([], Position(8))
    await slow_lane.commit([], Position(4, ((6, 9),)))
    assert await log.prune(older_than_seconds=3600) == 0
    assert await log.prune(older_than_seconds=-1) == 4 + 3
    assert values_of(await fetch_all(await slower.open_lane(0), 6)) == values[4:]
    await slow_lane.close()
    await (await slower.open_lane(0)).commit([], Position(10))
    await fast_lane.commit([], Position(10))
    assert await log.prune(older_than_seconds=-1) == 6
    more = await logs.feed(log, 1, first=10)
    (record,) = await fetch_all(await log.open_lane(0), 1)
    assert (record.offset, record.value) == (10, more[0])  # an offset never comes twice


async def test_effects_of_the_caller_are_in_the_lanes_transaction(logs: EmbeddedLogs) -> None:
    log = await logs.make_joined()
    assert isinstance(log, EmbeddedEventLog)
    lane = await log.open_lane(0)
    async with logs.database.write() as connection:
        await connection.exec_driver_sql("CREATE TABLE effects (n INTEGER)")
    async with logs.database.write() as connection:
        await connection.exec_driver_sql("INSERT INTO effects VALUES (1)")
        await lane.stage(connection, records := [logs.record(b"with effects")], Position(1))
    lane.committed(records, Position(1))
    newer = await log.open_lane(0)
    with pytest.raises(LaneFenced):  # noqa: PT012 the transaction must see it too
        async with logs.database.write() as connection:
            await connection.exec_driver_sql("INSERT INTO effects VALUES (2)")
            await lane.stage(connection, [logs.record(b"fenced")], Position(2))
    async with logs.database.read() as connection:
        assert (await connection.exec_driver_sql("SELECT n FROM effects")).scalars().all() == [1]
    assert newer.position == Position(1)


async def test_unknown_topics_and_partitions_are_refused(logs: EmbeddedLogs) -> None:
    log = await logs.make()
    with pytest.raises(ConfigurationError, match="ensure_topics"):
        await log.produce([OutputRecord("unknown", None, None, b"x")])
    with pytest.raises(ValueError, match="partition 9"):
        await log.produce([logs.record(b"x", 9)])


async def test_a_directory_that_cannot_be_written_is_unavailable(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    database = Database(f"sqlite:///{blocked / SQLITE_FILE_NAME}")
    with pytest.raises(EventLogUnavailable, match="file"):
        await EmbeddedEventLog(database, blocked).start()
    await database.close()


def test_only_known_databases_are_opened() -> None:
    with pytest.raises(ConfigurationError, match="DATABASE_URL"):
        Database("mysql://localhost/x")


async def test_every_commit_reaches_the_disk(logs: EmbeddedLogs) -> None:
    await logs.make()
    async with logs.database.read() as connection:
        settings = [
            (await connection.exec_driver_sql(f"PRAGMA {name}")).scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        ]
    assert settings == ["wal", 2, 1]
    assert (logs.data_dir / f"{SQLITE_FILE_NAME}-wal").exists()

"""What finished runs leave in a real database: many in one transaction, none that is stale or lost, each once."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import text

from plugin_server.database.engine import Database
from plugin_server.database.migrate import migrate
from plugin_server.database.tables import jobs, outbox, storage
from plugin_server.eventlog.port import OutputRecord
from plugin_server.host_api.commit import Outcome
from plugin_server.host_api.storage_transaction import StorageTransaction
from plugin_server.model.errors import DatabaseUnavailable
from plugin_server.model.lineage import Lineage
from tests.database.workers import Completions, K, Worker, job, rows, working

RECORD = OutputRecord("events", None, b"key", b"value", [("name", b"content")])


@pytest.fixture
async def url(database_url: str) -> str:
    database = Database(database_url)
    await migrate(database)
    await database.close()
    return database_url


async def stored(worker: Worker) -> dict[tuple[int, str], bytes]:
    return {(row.install_id, row.key): row.value for row in await rows(worker.database, storage)}


async def test_many_units_are_stored_in_one_transaction_in_their_order(url):
    async with working(url) as [worker]:
        completions = Completions()
        units = [
            worker.write((n % 7, f"key {n % 50}"), str(n).encode(), completion=completions, token=n)
            for n in range(1_000)
        ]
        assert set(await worker.store(*units)) == {Outcome.STORED}
        assert completions.asked == [list(range(1_000))]
        found = await stored(worker)
        assert found == {(n % 7, f"key {n % 50}"): str(n).encode() for n in range(1_000)}
        assert worker.woken == 0


async def test_jobs_and_records_and_completions_go_with_their_unit(url):
    async with working(url) as [worker]:
        completions = Completions()
        lineage = Lineage("018f0000-0000-7000-8000-000000000001", 1, (3,), 9)
        made = [job("a", lineage=lineage, share=4, link=2), job("b", run_at_ms=None)]
        commitment = worker.add(
            StorageTransaction(), jobs=made, outbox=[RECORD], completion=completions, token="t", always=True
        )
        assert await worker.store(commitment) == [Outcome.STORED]
        first, second = await rows(worker.database, jobs)
        assert (first.id, first.payload, first.run_at_ms, first.lineage) == ("a", b"{}", 5, lineage.encode())
        assert (first.share, first.link, first.state, first.attempts) == (4, 2, "waiting", 0)
        assert second.run_at_ms == second.created_at_ms > 0
        assert [(row.topic, row.key, row.value) for row in await rows(worker.database, outbox)] == [
            ("events", b"key", b"value")
        ]
        assert completions.asked == [["t"]]
        assert worker.woken == 1


async def test_the_same_job_asked_for_again_is_one_job(url):
    async with working(url) as [worker]:
        for name in ("first", "again"):
            await worker.store(worker.add(StorageTransaction(), jobs=[job("a", name=name), job(name)]))
        assert [(row.id, row.name) for row in await rows(worker.database, jobs)] == [
            ("a", "first"),
            ("again", "mail"),
            ("first", "mail"),
        ]


async def test_deleted_keys_are_gone_and_may_come_back(url):
    async with working(url) as [worker]:
        await worker.store(*[worker.write((1, f"k{n}"), b"1") for n in range(500)])
        await worker.store(*[worker.write((1, f"k{n}"), None) for n in range(499)])
        assert await stored(worker) == {(1, "k499"): b"1"}
        await worker.store(worker.write(K, None), worker.write(K, b"2"), worker.write((1, "k499"), None))
        assert await stored(worker) == {K: b"2"}
        assert await worker.get() == b"2"


async def test_ids_of_installs_may_be_as_large_as_the_database_takes(url):
    async with working(url) as [worker]:
        keys = [(install, "k") for install in (1, 2**31 - 1, 2**31, 2**32 + 1, 2**63 - 1)]
        assert set(await worker.store(*[worker.write(key, b"1") for key in keys])) == {Outcome.STORED}
        assert await stored(worker) == dict.fromkeys(keys, b"1")


async def test_of_what_is_lost_nothing_is_stored_and_what_read_from_it_is_stale(url):
    async with working(url) as [worker]:
        completions = Completions(lost=["mine no more"])
        first = worker.write(K, b"1", completion=completions, token="mine")
        lost = worker.write(K, b"2", completion=completions, token="mine no more", jobs=[job("a")], outbox=[RECORD])
        reader = StorageTransaction()
        assert await worker.ledger.get(reader, K) == b"2"
        worker.ledger.set(reader, (1, "copy"), b"2")
        stale = worker.add(reader, jobs=[job("b")])
        apart = worker.write((1, "apart"), b"3")
        assert await worker.store(first, lost, stale, apart) == [
            Outcome.STORED,
            Outcome.LOST,
            Outcome.STALE,
            Outcome.STORED,
        ]
        assert await stored(worker) == {K: b"1", (1, "apart"): b"3"}
        assert await rows(worker.database, jobs) == await rows(worker.database, outbox) == []
        assert await worker.get() == b"1"


async def test_what_changed_behind_the_ledger_is_found_out_and_only_its_readers_are_stale(url):
    async with working(url) as [worker]:
        await worker.store(worker.write(K, b"1"))
        reader, adder = StorageTransaction(), StorageTransaction()
        await worker.ledger.get(reader, K)
        worker.ledger.set(reader, (1, "copy"), b"1")
        await worker.ledger.increment(adder, K, 1, (1, 0))
        adder.look_at_increments([(1, 0)])
        commitments = worker.add(reader), worker.add(adder), worker.write((2, "k"), b"5")
        async with worker.database.write() as connection:
            await connection.execute(storage.update().values(value=b"10", version=99))
        assert await worker.store(*commitments) == [Outcome.STALE, Outcome.STORED, Outcome.STORED]
        assert await stored(worker) == {K: b"11", (2, "k"): b"5"}
        assert await worker.get() == b"11"


async def test_a_transaction_that_is_stale_when_it_is_added_is_decided_at_once(url):
    async with working(url) as [worker]:
        reader = StorageTransaction()
        await worker.ledger.get(reader, K)
        first = worker.write(K, b"1")
        assert await worker.store(worker.add(reader, always=True), first) == [Outcome.STALE, Outcome.STORED]


async def test_five_hundred_runs_at_once_count_right_with_get_and_set(url):
    async with working(url) as [worker]:
        await asyncio.gather(*(worker.count() for _ in range(500)))
        assert await stored(worker) == {K: b"500"}
        assert worker.runs <= 1_200


async def test_one_unit_that_cannot_be_stored_fails_alone_and_takes_along_only_what_read_from_it(url):
    async with working(url) as [worker]:
        before = [worker.write((1, f"before {n}"), b"1") for n in range(20)]
        bad = worker.write(K, b"1", jobs=[job("a", share="no number at all", name=object())])
        reader = StorageTransaction()
        await worker.ledger.get(reader, K)
        worker.ledger.set(reader, (1, "copy"), b"1")
        follower = worker.add(reader)
        after = [worker.write((1, f"after {n}"), b"1") for n in range(20)]
        assert set(await worker.store(*before, *after)) == {Outcome.STORED}
        assert await worker.store(follower) == [Outcome.STALE]
        with pytest.raises(DatabaseUnavailable, match="could not be stored"):
            await worker.store(bad)
        assert len(await stored(worker)) == 40
        assert await worker.get() is None


async def test_a_lane_that_is_given_up_withdraws_what_waits_and_not_what_is_being_stored(url):
    async with working(url) as [worker]:
        completions = Completions()
        completions.may_go_on.clear()
        storing = worker.write(K, b"1", completion=completions, token="a")
        task = asyncio.create_task(worker.store(storing))
        await completions.began.wait()
        waiting = worker.write((1, "other"), b"1")
        worker.committer.withdraw([storing, waiting])
        completions.may_go_on.set()
        assert await task == [Outcome.STORED]
        assert await worker.store(waiting) == [Outcome.LOST]
        assert await stored(worker) == {K: b"1"}


@pytest.mark.postgres
class TestTwoWorkers:
    async def test_increments_of_two_workers_all_count(self, postgres_url):
        await migrated(postgres_url)
        async with working(postgres_url, 2) as workers:
            await asyncio.gather(*(worker.increment() for worker in workers for _ in range(500)))
            assert await stored(workers[0]) == {K: b"1000"}

    async def test_get_and_set_of_two_workers_count_right(self, postgres_url):
        await migrated(postgres_url)
        async with working(postgres_url, 2) as workers:
            await asyncio.gather(*(worker.count() for worker in workers for _ in range(500)))
            assert await stored(workers[0]) == {K: b"1000"}

    async def test_many_keys_of_many_installs_lock_nobody_out(self, postgres_url):
        await migrated(postgres_url)
        async with working(postgres_url, 2) as workers:
            await asyncio.gather(
                *(
                    worker.count((install if worker is workers[0] else 9 - install, "k"))
                    for install in range(10)
                    for worker in workers
                    for _ in range(20)
                )
            )
            assert await stored(workers[0]) == {(install, "k"): b"40" for install in range(10)}

    async def test_a_connection_that_is_killed_fails_all_who_wait_and_leaves_nothing(self, postgres_url):
        await migrated(postgres_url)
        async with working(postgres_url, 2) as [worker, other]:
            await worker.store(worker.write(K, b"1"))
            completions = Completions()
            completions.may_go_on.clear()
            run = StorageTransaction()
            await worker.ledger.get(run, K)
            worker.ledger.set(run, K, b"2")
            storing = asyncio.create_task(worker.store(worker.add(run, completion=completions, token="a")))
            await completions.began.wait()
            waiting = asyncio.create_task(worker.store(worker.write((1, "other"), b"1")))
            await kill_connections(other)
            completions.may_go_on.set()
            for task in (storing, waiting):
                with pytest.raises(DatabaseUnavailable):
                    await task
            assert await worker.get() == b"1"
            await worker.count()
            assert await stored(worker) == {K: b"2"}


async def migrated(url: str) -> None:
    database = Database(url)
    await migrate(database)
    await database.close()


async def kill_connections(by: Worker) -> None:
    """All but one's own."""
    query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database()"
    async with by.database.write() as connection:
        await connection.execute(text(query))

"""Parked rows on SQLite and on Postgres: nothing is parked twice, worked on by two, or lost with a worker."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from plugin_server.database.engine import Database
from plugin_server.database.migrate import migrate
from plugin_server.delivery import parked_store
from plugin_server.delivery.parked_store import NewRow, NextTry, ParkedStore, RowEnd


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    made = Database(database_url)
    await migrate(made)
    yield made
    await made.close()


@pytest.fixture
def store(database: Database) -> ParkedStore:
    return ParkedStore(database, "worker-a")


@pytest.fixture
def other(database: Database) -> ParkedStore:
    return ParkedStore(database, "worker-b")


def row(number: int, *, install: int = 1, body: bytes = b"{}", due: bool = True, claimed: bool = False) -> NewRow:
    next_try = number if due else 2**45
    return NewRow(
        f"row-{number}", 2, install, "onEvent", f"in-0-{number}", body, 1, 1, next_try, "no\0t yet", number, claimed
    )


async def end(database: Database, store: ParkedStore, *ends: RowEnd) -> list[RowEnd]:
    async with database.write() as connection:
        return list(await store.complete(connection, ends))


async def test_a_delivery_is_parked_once(store: ParkedStore) -> None:
    await store.insert([row(1), row(2)])
    await store.insert([row(2), row(3)])
    assert (await store.held())[1].rows == 3


async def test_due_rows_are_claimed_oldest_first_and_by_one_worker(store: ParkedStore, other: ParkedStore) -> None:
    await store.insert([row(3), row(1), row(2), row(4, due=False), row(5, install=7)])
    first = await store.claim(1, 2)
    assert [(each.id, each.source, each.error) for each in first] == [
        ("row-1", "in-0-1", "no\ufffdt yet"),
        ("row-2", "in-0-2", "no\ufffdt yet"),
    ]
    assert [each.id for each in await other.claim(1, 10)] == ["row-3"]
    assert await store.claim(1, 10) == []


async def test_a_claim_that_nobody_renews_ends(
    store: ParkedStore, other: ParkedStore, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parked_store, "LEASE_SECONDS", -1.0)
    await store.insert([row(1)])
    assert len(await store.claim(1, 1)) == 1
    monkeypatch.setattr(parked_store, "LEASE_SECONDS", 60.0)
    await store.renew(["row-1"])
    assert await other.claim(1, 1) == []
    monkeypatch.setattr(parked_store, "LEASE_SECONDS", -1.0)
    await store.renew(["row-1"])
    assert len(await other.claim(1, 1)) == 1
    lost = RowEnd("row-1", None)
    assert await end(database, store, lost) == [lost]
    assert await end(database, other, RowEnd("row-1", None)) == []
    assert await store.held() == {}


async def test_what_is_under_way_when_it_is_parked_is_claimed_from_the_start(
    store: ParkedStore, other: ParkedStore, database: Database
) -> None:
    await store.insert([row(1, claimed=True)])
    await other.make_due(1)
    assert await other.claim(1, 1) == []
    assert await end(database, store, RowEnd("row-1", None)) == []
    assert await store.held() == {}


async def test_a_failed_row_waits_for_its_next_try_and_a_recovery_makes_it_due(
    store: ParkedStore, other: ParkedStore, database: Database
) -> None:
    await store.insert([row(2), row(1)])
    await store.claim(1, 2)
    ends = [RowEnd(f"row-{n}", NextTry(4, 2**45, "again")) for n in (1, 2)]
    assert await end(database, store, *ends) == []
    assert await other.claim(1, 2) == []
    await other.make_due(1)
    claimed = await other.claim(1, 2)
    assert [(each.id, each.attempts, each.error) for each in claimed] == [("row-1", 4, "again"), ("row-2", 4, "again")]


async def test_a_claim_takes_no_more_than_fits_and_one_at_least(
    store: ParkedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parked_store, "CLAIM_BYTES", 100)
    await store.insert([row(1, body=b"x" * 200), row(2, body=b"x" * 60), row(3, body=b"x" * 60)])
    assert [len(await store.claim(1, 10)) for _ in range(4)] == [1, 1, 1, 0]


async def test_what_is_parked_is_counted_by_install(store: ParkedStore) -> None:
    await store.insert([row(1, body=b"12345"), row(2, body=b"123"), row(3, install=7)])
    held = await store.held()
    assert held[1]._asdict() == {"project_id": 2, "rows": 2, "events": 2, "bytes": 8, "next_try_at_ms": 1}
    assert held[7].rows == 1

"""A Database keeps the promises that everybody relies on, on SQLite and on Postgres."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable

import pytest
from sqlalchemy import insert, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from plugin_server.database.engine import Database
from plugin_server.database.errors import database_errors
from plugin_server.database.migrate import migrate
from plugin_server.database.tables import storage
from plugin_server.model.errors import DatabaseUnavailable
from tests.services.postgres import PostgresServer

ROW = {"install_id": 1, "key": "k", "value": b"1", "version": 7}


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    made = Database(database_url)
    await migrate(made)
    yield made
    await made.close()


async def keys(database: Database) -> list[str]:
    async with database.read() as connection:
        return list((await connection.execute(select(storage.c.key).order_by(storage.c.key))).scalars())


async def write_to(database: Database) -> None:
    async with database.write() as connection:
        await connection.execute(insert(storage), ROW)


async def test_a_block_that_raises_writes_nothing(database: Database) -> None:
    async def fail_half_way() -> None:
        async with database.write() as connection:
            await connection.execute(insert(storage), ROW)
            raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        await fail_half_way()
    assert await keys(database) == []


async def test_a_reader_has_one_view_and_waits_for_no_writer(database: Database) -> None:
    async with database.read() as connection:
        assert (await connection.execute(select(storage))).all() == []
        async with database.write() as writing:
            await writing.execute(insert(storage), ROW)
        assert (await connection.execute(select(storage))).all() == []
    assert await keys(database) == ["k"]


async def test_many_writers_take_turns(database: Database) -> None:
    async def add(number: int) -> None:
        async with database.write() as connection:
            await connection.execute(insert(storage), ROW | {"key": f"{number:02}"})

    await asyncio.gather(*(add(number) for number in range(40)))
    assert len(await keys(database)) == 40


async def test_a_mistake_is_not_taken_for_an_outage(database: Database) -> None:
    with pytest.raises(DBAPIError), database_errors():
        async with database.read() as connection:
            await connection.execute(text("SELECT * FROM nothing_of_that_name"))
    with pytest.raises(IntegrityError), database_errors():
        async with database.write() as connection:
            await connection.execute(insert(storage), [ROW, ROW])


async def test_a_key_too_long_for_postgres_is_not_taken_for_an_outage(postgres_url: str) -> None:
    database = Database(postgres_url)
    try:
        await migrate(database)
        with pytest.raises(DBAPIError, match="index row"), database_errors():
            async with database.write() as connection:
                await connection.execute(insert(storage), ROW | {"key": random.Random(1).randbytes(4000).hex()})
    finally:
        await database.close()


async def test_a_locked_file_is_an_outage(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    if not database.is_sqlite:
        pytest.skip("Postgres has no file to lock")
    monkeypatch.setattr("plugin_server.database.engine.BUSY_TIMEOUT_SECONDS", 0.0)
    other = Database(str(database.engine.url))
    try:
        async with database.write():
            locked = pytest.raises(DatabaseUnavailable, match="cannot write: database is locked")
            with locked, database_errors("cannot write"):
                await write_to(other)
    finally:
        await other.close()


@pytest.mark.parametrize("crash", [PostgresServer.kill, PostgresServer.stop])
async def test_a_lost_postgres_is_an_outage_and_comes_back(
    own_postgres: PostgresServer, crash: Callable[[PostgresServer], None]
) -> None:
    database = Database(own_postgres.create_database())

    async def lose_it_half_way() -> None:
        async with database.write() as connection:
            await connection.execute(insert(storage), ROW)
            crash(own_postgres)
            await connection.execute(insert(storage), ROW | {"key": "l"})

    try:
        await migrate(database)
        with pytest.raises(DatabaseUnavailable, match="the database does not answer"), database_errors():
            await lose_it_half_way()
        with pytest.raises(DatabaseUnavailable), database_errors():
            await keys(database)
        own_postgres.start()
        assert await keys(database) == []
    finally:
        await database.close()


async def test_a_postgres_that_hangs_is_an_outage(own_postgres: PostgresServer) -> None:
    database = Database(own_postgres.create_database(), transaction_seconds=0.2)
    try:
        async with asyncio.timeout(60):
            async with database.read() as connection:
                await connection.execute(text("SELECT 1"))
            own_postgres.pause()
            with pytest.raises(DatabaseUnavailable, match=r"more than 0\.2 s"):
                async with database.read() as connection:
                    await connection.execute(text("SELECT 1"))
            own_postgres.unpause()
    finally:
        await database.close()


async def test_a_statement_that_takes_too_long_is_an_outage(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plugin_server.database.engine.STATEMENT_SECONDS", 0.1)
    database = Database(postgres_url)
    try:
        with pytest.raises(DatabaseUnavailable, match="statement timeout"), database_errors():
            async with database.read() as connection:
                await connection.execute(text("SELECT pg_sleep(60)"))
    finally:
        await database.close()


async def test_a_reader_cannot_write_on_postgres(postgres_url: str) -> None:
    database = Database(postgres_url)
    try:
        await migrate(database)
        with pytest.raises(DBAPIError, match="read-only transaction"):
            async with database.read() as connection:
                await connection.execute(insert(storage), ROW)
        async with database.write() as connection:
            await connection.execute(insert(storage), ROW)
    finally:
        await database.close()

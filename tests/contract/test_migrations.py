"""The tables that migrations make are those of tables.py, on both databases, whatever was there before."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
import structlog
from alembic.autogenerate import produce_migrations, render_python_code
from alembic.migration import MigrationContext
from sqlalchemy import Connection, event, insert, inspect, select, text

from plugin_server.database.engine import SQLITE_FILE_NAME, Database, sqlite_url
from plugin_server.database.migrate import migrate
from plugin_server.database.migrations import HEAD
from plugin_server.database.migrations.upgrade import SCRIPTS
from plugin_server.database.tables import metadata, storage
from plugin_server.eventlog.embedded import EmbeddedEventLog
from plugin_server.eventlog.port import OutputRecord
from plugin_server.model.errors import ConfigurationError, DatabaseUnavailable
from tests.services.postgres import PostgresServer

_AS_FIRST_RELEASED = """
CREATE TABLE log_partitions (
    topic TEXT NOT NULL, partition INTEGER NOT NULL, next_offset BIGINT NOT NULL, PRIMARY KEY (topic, partition));
CREATE TABLE log_records (
    topic TEXT NOT NULL, partition INTEGER NOT NULL, "offset" BIGINT NOT NULL, "key" BLOB, value BLOB, headers BLOB,
    timestamp_ms BIGINT NOT NULL, PRIMARY KEY (topic, partition, "offset"));
CREATE TABLE lanes (
    "group" TEXT NOT NULL, topic TEXT NOT NULL, partition INTEGER NOT NULL, epoch BIGINT NOT NULL,
    next BIGINT DEFAULT '0' NOT NULL, done TEXT DEFAULT '' NOT NULL, PRIMARY KEY ("group", topic, partition));
INSERT INTO log_partitions VALUES ('in', 0, 1);
INSERT INTO log_records VALUES ('in', 0, 0, NULL, x'31', NULL, 5);
INSERT INTO lanes VALUES ('g-ingestion', 'in', 0, 3, 1, '');
"""


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Database]:
    database = Database(url)
    try:
        yield database
    finally:
        await database.close()


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with opened(database_url) as made:
        yield made


def is_another_default(_context: object, _found: object, _wanted: object, *defaults: Any) -> bool | None:
    """SQLite puts an empty text into brackets, which Alembic takes for another; all else it compares itself (None)."""
    return False if defaults[0] == "('')" and not defaults[2] else None


def what_a_migration_would_do(connection: Connection) -> str:
    context = MigrationContext.configure(
        connection, opts={"compare_type": True, "compare_server_default": is_another_default}
    )
    operations = produce_migrations(context, metadata).upgrade_ops
    assert operations is not None
    return render_python_code(operations) if operations.ops else ""


async def test_migrations_make_the_tables_of_the_code(database: Database) -> None:
    await migrate(database)
    async with database.read() as connection:
        missing = await connection.run_sync(what_a_migration_would_do)
    assert not missing, f"Write the next file of plugin_server/database/migrations/versions, and set HEAD:\n{missing}"


async def test_an_up_to_date_database_costs_one_query(database: Database) -> None:
    await migrate(database)
    statements: list[str] = []
    event.listen(
        database.engine.sync_engine, "before_cursor_execute", lambda *arguments: statements.append(arguments[2])
    )
    await migrate(database)
    assert [statement for statement in statements if not statement.startswith("BEGIN")] == [
        "SELECT version_num FROM alembic_version"
    ]


def test_head_is_the_newest_step() -> None:
    assert SCRIPTS.get_heads() == [HEAD]


async def test_workers_that_start_at_once_migrate_once(database_url: str) -> None:
    databases = [Database(database_url) for _ in range(4)]
    with structlog.testing.capture_logs() as logs:
        await asyncio.gather(*(migrate(database) for database in databases))
    for database in databases:
        await database.close()
    assert [entry["steps"] for entry in logs if entry["event"] == "database_upgraded"] == [["0001", "0002"]]


async def test_migrating_again_keeps_rows(database: Database) -> None:
    await migrate(database)
    row = {"install_id": 1, "key": "k", "value": b"1", "version": 7}
    async with database.write() as connection:
        await connection.execute(insert(storage), row)
        await connection.execute(text("UPDATE alembic_version SET version_num = '0002'"))
    await migrate(database)
    async with database.read() as connection:
        assert (await connection.execute(select(storage))).one()._asdict() == row


async def test_a_database_of_a_newer_server_is_refused(database: Database) -> None:
    await migrate(database)
    async with database.write() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(ConfigurationError, match=r"newer plugin-server.*9999.*restore the backup"):
        await migrate(database)


async def test_a_failed_upgrade_leaves_nothing_behind(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise RuntimeError("half way")

    last = SCRIPTS.get_revision(HEAD)
    assert last is not None
    with monkeypatch.context() as patched:
        patched.setattr(last.module, "upgrade", fail)
        with pytest.raises(RuntimeError, match="half way"):
            await migrate(database)
    async with database.read() as connection:
        assert await connection.run_sync(lambda sync: inspect(sync).get_table_names()) == []
    await migrate(database)


async def test_a_file_of_the_first_release_keeps_its_records(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / SQLITE_FILE_NAME)) as old:
        old.executescript(_AS_FIRST_RELEASED)
    async with opened(sqlite_url(tmp_path)) as database:
        await migrate(database)
        async with database.read() as connection:
            assert not await connection.run_sync(what_a_migration_would_do)
            assert (await connection.execute(text("SELECT value, timestamp_ms FROM log_records"))).all() == [(b"1", 5)]
            assert (await connection.execute(text("SELECT epoch, next FROM lanes"))).all() == [(3, 1)]


@pytest.mark.parametrize("log_first", [True, False])
async def test_the_embedded_log_and_the_migrations_take_either_order(tmp_path: Path, *, log_first: bool) -> None:
    async with opened(sqlite_url(tmp_path)) as database:
        event_log = EmbeddedEventLog(database, tmp_path)
        if not log_first:
            await migrate(database)
        await event_log.start()
        await event_log.ensure_topics(["in"], 1)
        await event_log.produce([OutputRecord("in", 0, None, b"1")])
        await migrate(database)
        async with database.read() as connection:
            assert (await connection.execute(text("SELECT value FROM log_records"))).all() == [(b"1",)]
        await event_log.stop()


async def test_a_database_that_is_away_is_transient(own_postgres: PostgresServer) -> None:
    async with opened(own_postgres.create_database()) as database:
        own_postgres.kill()
        with pytest.raises(DatabaseUnavailable, match="cannot upgrade the database"):
            await migrate(database)
        own_postgres.start()
        await migrate(database)

"""The one database of a process: SQLite in the data directory, or Postgres.

All writes go through `Database.write`. On SQLite it hands out one write transaction at a time, first come, first
served: SQLite has one writer anyway, and its own busy handler polls, is unfair, and makes a transaction that read
before it wrote fail at once (SQLITE_BUSY_SNAPSHOT). Hence also BEGIN IMMEDIATE, which takes the write lock first;
the busy time-out is left for other processes (the CLI) that write to the same file.

SQLite runs with WAL and synchronous=FULL. WAL alone survives kill -9. NORMAL would lose the last commits with the
power: a capture endpoint has then said 200 for an event that is gone, and a delivery that was made is made again.
FULL costs one fsync a commit, and lanes commit some ten times a second.

Postgres answers in time or not at all: a statement, a transaction that idles and a host that is gone each have their
bound, and the whole of a block has one here, for a server that is there and does nothing.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any

from sqlalchemy import event, make_url
from sqlalchemy.engine import URL, Connection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from plugin_server.database.uninterrupted import UninterruptedConnection
from plugin_server.model.errors import ConfigurationError, DatabaseUnavailable

SQLITE_FILE_NAME = "plugin-server.sqlite3"
BUSY_TIMEOUT_SECONDS = 10.0
CONNECTIONS = 10
"""To Postgres, of one process: it takes 100 unless told otherwise, and its transactions are short"""
STATEMENT_SECONDS = 30.0
TRANSACTION_SECONDS = 60.0
_READ_ONLY = "plugin_server_read_only"
_DRIVERS = {
    "sqlite": "sqlite+aiosqlite",
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
}


def sqlite_url(data_dir: Path) -> str:
    """The URL of the embedded database in this directory."""
    return f"sqlite+aiosqlite:///{data_dir / SQLITE_FILE_NAME}"


class Database:
    """A pool of connections. `url` is a SQLAlchemy URL; the driver may be left out of it.

    Connects when first used. Raises ConfigurationError for a database that is neither SQLite nor Postgres.
    """

    def __init__(
        self, url: str, *, connections: int = CONNECTIONS, transaction_seconds: float = TRANSACTION_SECONDS
    ) -> None:
        """`connections` and `transaction_seconds`, the bound of a block of `write` or `read`, are Postgres's."""
        parsed = _with_driver(url)
        self.is_sqlite = parsed.get_backend_name() == "sqlite"
        self.engine: AsyncEngine
        if self.is_sqlite:
            path = parsed.database or ":memory:"
            self.engine = create_async_engine(parsed, async_creator=lambda: _connect_sqlite(path))
            event.listen(self.engine.sync_engine, "connect", _configure_sqlite)
            event.listen(self.engine.sync_engine, "begin", _begin_sqlite)
        else:
            self.engine = create_async_engine(
                parsed,
                pool_pre_ping=True,
                pool_size=connections,
                max_overflow=0,
                pool_timeout=STATEMENT_SECONDS,
                connect_args=_POSTGRES_CONNECTION,
            )
            event.listen(self.engine.sync_engine, "connect", _configure_postgres)
        self._reading_engine = self.engine.execution_options(
            **{_READ_ONLY: True} if self.is_sqlite else _POSTGRES_READING
        )
        self._deadline_seconds = None if self.is_sqlite else transaction_seconds
        self._write_lock: asyncio.Lock | nullcontext[None] = asyncio.Lock() if self.is_sqlite else nullcontext()

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """One transaction: committed at the end of the block, rolled back when it raises.

        On SQLite all others wait meanwhile, so await nothing but the database in it; a cancellation then takes effect
        after the transaction, which is committed. On Postgres it is rolled back. Raises SQLAlchemy's errors (see
        database_errors), DatabaseUnavailable when the block takes too long.
        """
        async with self._write_lock, self._deadline(), self.engine.begin() as connection:
            yield connection
        await asyncio.sleep(0)  # where a cancellation that came during a statement takes effect

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """One consistent view, that never waits for a writer. Must not write. Raises as `write` does."""
        async with self._deadline(), self._reading_engine.connect() as connection:
            yield connection
        await asyncio.sleep(0)  # as in `write`

    @asynccontextmanager
    async def _deadline(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._deadline_seconds) as deadline:
                yield
        except TimeoutError as error:
            if not deadline.expired():
                raise
            raise DatabaseUnavailable(f"the database took more than {self._deadline_seconds:g} s") from error

    async def close(self) -> None:
        """Close all connections. It may be used again afterwards."""
        await self.engine.dispose()


_POSTGRES_READING: dict[str, Any] = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
_POSTGRES_CONNECTION: dict[str, Any] = {
    "application_name": "plugin-server",
    "connect_timeout": 10,
    # A host that is gone, or behind a broken network, is noticed within half a minute.
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
}


def _with_driver(url: str) -> URL:
    parsed = make_url(url)
    driver = _DRIVERS.get(parsed.get_backend_name())
    if driver is None:
        raise ConfigurationError(
            f"PLUGIN_SERVER_DATABASE_URL must be sqlite:///… or postgresql://…, not {parsed.drivername}://"
        )
    return parsed.set(drivername=driver)


async def _connect_sqlite(path: str) -> UninterruptedConnection:
    def connect() -> sqlite3.Connection:
        # No isolation level, else the driver sends BEGINs of its own. It is used from one thread, opened in another.
        return sqlite3.connect(path, isolation_level=None, check_same_thread=False)

    connection = UninterruptedConnection(connect)
    await connection
    return connection


def _configure_sqlite(dbapi_connection: Any, _record: object) -> None:
    cursor = dbapi_connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {int(BUSY_TIMEOUT_SECONDS * 1000)}")
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _configure_postgres(dbapi_connection: Any, _record: object) -> None:
    # Not by `options` in the connection string: a pooler like PgBouncer refuses those.
    cursor = dbapi_connection.cursor()
    cursor.execute(f"SET statement_timeout = {int(STATEMENT_SECONDS * 1000)}")
    cursor.execute(f"SET idle_in_transaction_session_timeout = {int(TRANSACTION_SECONDS * 1000)}")
    cursor.close()
    dbapi_connection.commit()


def _begin_sqlite(connection: Connection) -> None:
    read_only = connection.get_execution_options().get(_READ_ONLY, False)
    connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

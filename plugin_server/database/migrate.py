"""Brings the tables of a database up to date when a server starts."""

from __future__ import annotations

from typing import Final

import structlog
from sqlalchemy import text
from sqlalchemy.exc import OperationalError, ProgrammingError

from plugin_server.database.engine import Database
from plugin_server.database.errors import database_errors
from plugin_server.database.migrations import HEAD

_LOCK: Final = 0x706C7567696E  # "plugin": an advisory lock is a number, which all workers of one database share
_log = structlog.get_logger(__name__)


async def migrate(database: Database) -> None:
    """Upgrade the tables, or make them; one query when there is nothing to do. Keeps all rows.

    Any number of workers may call it at once: one upgrades, in one transaction, and the others wait for it. Raises
    ConfigurationError when the database is newer than this server, DatabaseUnavailable.
    """
    with database_errors("cannot upgrade the database"):
        if await _version(database) == HEAD:
            return
        from plugin_server.database.migrations.upgrade import upgrade  # noqa: PLC0415  (see HEAD)

        async with database.write() as connection:  # on SQLite that is the lock
            if not database.is_sqlite:
                await connection.execute(text("SET LOCAL statement_timeout = 0"))
                await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
            steps = await connection.run_sync(upgrade)
    if steps:
        _log.info("database_upgraded", steps=steps)


async def _version(database: Database) -> str | None:
    try:
        async with database.read() as connection:
            return (await connection.execute(text("SELECT version_num FROM alembic_version"))).scalar_one_or_none()
    except (OperationalError, ProgrammingError):
        return None  # no such table; or the database is away, which the next statement finds out

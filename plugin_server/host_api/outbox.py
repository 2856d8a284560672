"""Moves what finished jobs and deliveries left in the outbox into the event log, oldest first.

Once where the log is in the same database file, else at least once: a worker killed in between moves it again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final, Protocol

import structlog
from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncConnection

from plugin_server.database.engine import Database
from plugin_server.database.errors import database_errors
from plugin_server.database.tables import outbox
from plugin_server.eventlog.headers_codec import decode_headers
from plugin_server.eventlog.port import EventLog, OutputRecord
from plugin_server.model.errors import Transient

_BATCH_RECORDS: Final = 500
_POLL_SECONDS: Final = 5.0
"""For what another worker left, or this one in an earlier life"""
_BACKOFF_SECONDS: Final = 1.0
_log = structlog.get_logger(__name__)


class LogInDatabase(Protocol):
    """A log that is in the outbox's own database (EmbeddedEventLog)."""

    async def append(self, connection: AsyncConnection, records: Sequence[OutputRecord]) -> None:
        """Write records in a transaction of the caller's."""

    def committed(self, records: Sequence[OutputRecord]) -> None:
        """Take note that the transaction of an `append` was committed."""


class Outbox:
    """One a worker. `run` is its life; `wake` says that there is something."""

    def __init__(self, database: Database, event_log: EventLog, same_file: LogInDatabase | None = None) -> None:
        """`same_file` is the event log where it is in this very database."""
        self._database = database
        self._event_log = event_log
        self._same_file = same_file
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """Records were committed to the table."""
        self._woken.set()

    async def run(self) -> None:
        """Move records until cancelled."""
        while True:
            try:
                while await self._move_some():
                    pass
            except Transient as error:
                _log.warning("outbox_waits", error=str(error), retry_seconds=_BACKOFF_SECONDS)
                await asyncio.sleep(_BACKOFF_SECONDS)
                continue
            try:
                async with asyncio.timeout(_POLL_SECONDS):
                    await self._woken.wait()
            except TimeoutError:
                pass
            self._woken.clear()

    async def drain(self) -> None:
        """Move all that is there now. Raises Transient."""
        while await self._move_some():
            pass

    async def _move_some(self) -> bool:
        """Move the oldest records; whether there were any."""
        if not self._database.is_sqlite:
            with database_errors("cannot read the outbox"):
                async with self._database.write() as connection:
                    # Locked until they are gone. Who comes meanwhile waits: it must not send what is younger first.
                    rows = await _oldest(connection, lock=True)
                    await self._send(connection, rows)
            return bool(rows)
        if self._same_file is not None:
            return await self._move_inside(self._same_file)
        # One process has the file: nobody else moves them meanwhile.
        with database_errors("cannot read the outbox"):
            async with self._database.read() as connection:
                rows = await _oldest(connection, lock=False)
        if rows:
            await self._event_log.produce([_record(row) for row in rows])
            with database_errors("cannot empty the outbox"):
                async with self._database.write() as connection:
                    await _delete(connection, rows)
        return bool(rows)

    async def _move_inside(self, log: LogInDatabase) -> bool:
        """As `_move_some`, from table to table."""
        with database_errors("cannot move the outbox"):
            async with self._database.read() as connection:
                if not await _oldest(connection, lock=False):
                    return False
            async with self._database.write() as connection:
                rows = await _oldest(connection, lock=False)
                records = [_record(row) for row in rows]
                await log.append(connection, records)
                await _delete(connection, rows)
        log.committed(records)
        return bool(rows)

    async def _send(self, connection: AsyncConnection, rows: Sequence[Any]) -> None:
        if rows:
            await self._event_log.produce([_record(row) for row in rows])
            await _delete(connection, rows)


async def _oldest(connection: AsyncConnection, *, lock: bool) -> Sequence[Any]:
    query = select(outbox).order_by(outbox.c.id).limit(_BATCH_RECORDS)
    if lock:
        query = query.with_for_update()
    return (await connection.execute(query)).all()


async def _delete(connection: AsyncConnection, rows: Sequence[Any]) -> None:
    await connection.execute(delete(outbox).where(outbox.c.id.in_([row.id for row in rows])))


def _record(row: Any) -> OutputRecord:
    return OutputRecord(row.topic, None, row.key, row.value, decode_headers(row.headers) if row.headers else ())

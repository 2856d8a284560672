"""The rows of `parked`: deliveries that wait in the database. Statements, and nothing that decides.

Who works on a row has claimed it until a time (a lease, renewed while it works); a claim is also the row's next try, so
that the row of a worker that was killed comes up again by itself.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, and_, bindparam, delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from plugin_server.database.engine import Database
from plugin_server.database.errors import database_errors
from plugin_server.database.insert import insert_into
from plugin_server.database.tables import parked

LEASE_SECONDS: Final = 15.0
CLAIM_BYTES: Final = 32 * 2**20
"""Of the rows that are claimed at once"""
_ERROR_CHARACTERS: Final = 1_000
_IDS_PER_STATEMENT: Final = 500


class NewRow(NamedTuple):
    """A delivery to be parked. `is_claimed`: it is under way in this worker all the same."""

    id: str
    project_id: int
    install_id: int
    hook: str
    source: str
    body: bytes
    events: int
    attempts: int
    next_try_at_ms: int
    error: str
    created_at_ms: int
    is_claimed: bool


class ParkedRow(NamedTuple):
    """One that was claimed."""

    id: str
    project_id: int
    install_id: int
    hook: str
    source: str
    body: bytes
    events: int
    attempts: int
    error: str
    created_at_ms: int


class NextTry(NamedTuple):
    """When a row is tried again, and what was wrong with it last."""

    attempts: int
    next_try_at_ms: int
    error: str


class RowEnd(NamedTuple):
    """What becomes of a row that was worked on: tried again, or (None) gone."""

    id: str
    again: NextTry | None


class Held(NamedTuple):
    """What is parked for one install."""

    project_id: int
    rows: int
    events: int
    bytes: int
    next_try_at_ms: int
    """The soonest"""


class ParkedStore:
    """Access for one worker, and the Completion of what it works on. Its methods raise DatabaseUnavailable."""

    def __init__(self, database: Database, claimant: str) -> None:
        """`claimant` names this life of this worker, unlike any other's."""
        self._database = database
        self._claimant = claimant

    async def insert(self, rows: Sequence[NewRow]) -> None:
        """Add those that are not there yet."""
        statement = insert_into(parked, is_sqlite=self._database.is_sqlite)
        until_ms = _lease_ms()
        values = [
            {
                **{name: value for name, value in row._asdict().items() if name != "is_claimed"},
                "error": _bounded(row.error),
                "next_try_at_ms": until_ms if row.is_claimed else row.next_try_at_ms,
                "claimed_by": self._claimant if row.is_claimed else None,
                "claimed_until_ms": until_ms if row.is_claimed else 0,
            }
            for row in rows
        ]
        with database_errors("cannot park deliveries"):
            async with self._database.write() as connection:
                await connection.execute(statement.on_conflict_do_nothing(index_elements=[parked.c.id]), values)

    async def claim(self, install_id: int, limit: int) -> list[ParkedRow]:
        """The rows of an install that are due, at most so many, those that have waited longest first."""
        now_ms = _now_ms()
        columns = parked.c
        due = (
            select(columns.id, func.length(columns.body))
            .where(
                columns.install_id == install_id,
                columns.next_try_at_ms <= now_ms,
                columns.claimed_until_ms <= now_ms,
            )
            .order_by(columns.next_try_at_ms)
            .limit(limit)
        )
        if not self._database.is_sqlite:
            due = due.with_for_update(skip_locked=True)
        with database_errors("cannot claim parked deliveries"):
            async with self._database.write() as connection:
                ids = _within(CLAIM_BYTES, (await connection.execute(due)).all())
                if not ids:
                    return []
                until_ms = _lease_ms()
                await connection.execute(
                    update(parked)
                    .where(columns.id.in_(ids))
                    .values(claimed_by=self._claimant, claimed_until_ms=until_ms, next_try_at_ms=until_ms)
                )
                wanted = [columns[name] for name in ParkedRow._fields]
                found = await connection.execute(select(*wanted).where(columns.id.in_(ids)))
                rows = {row.id: ParkedRow(*row) for row in found}
        return [rows[id_] for id_ in ids]

    async def renew(self, ids: Sequence[str]) -> None:
        """Keep the claims on these."""
        until_ms = _lease_ms()
        with database_errors("cannot renew claims"):
            async with self._database.write() as connection:
                for start in range(0, len(ids), _IDS_PER_STATEMENT):
                    await connection.execute(
                        update(parked)
                        .where(self._mine(ids[start : start + _IDS_PER_STATEMENT]))
                        .values(claimed_until_ms=until_ms, next_try_at_ms=until_ms)
                    )

    async def make_due(self, install_id: int) -> None:
        """The install's destination is back: all that waits for it is due, the oldest first."""
        now_ms = _now_ms()
        columns = parked.c
        with database_errors("cannot make parked deliveries due"):
            async with self._database.write() as connection:
                await connection.execute(
                    update(parked)
                    .where(
                        columns.install_id == install_id,
                        columns.next_try_at_ms > now_ms,
                        columns.claimed_until_ms <= now_ms,
                    )
                    .values(next_try_at_ms=columns.created_at_ms)
                )

    async def held(self) -> Mapping[int, Held]:
        """What is parked, by install."""
        columns = parked.c
        query = select(
            columns.install_id,
            func.min(columns.project_id),
            func.count(),
            func.sum(columns.events),
            func.sum(func.length(columns.body)),
            func.min(columns.next_try_at_ms),
        ).group_by(columns.install_id)
        with database_errors("cannot count parked deliveries"):
            async with self._database.read() as connection:
                return {
                    install: Held(project, rows, int(events), int(size), soonest)
                    for install, project, rows, events, size, soonest in await connection.execute(query)
                }

    async def complete(self, connection: AsyncConnection, tokens: Sequence[RowEnd]) -> Collection[Any]:
        """End the work on these rows; returns those that are somebody else's, or nobody's, by now (Completion)."""
        mine: set[str] = set()
        ids = [token.id for token in tokens]
        for start in range(0, len(ids), _IDS_PER_STATEMENT):
            query = select(parked.c.id).where(self._mine(ids[start : start + _IDS_PER_STATEMENT]))
            if not self._database.is_sqlite:
                query = query.with_for_update()
            mine.update((await connection.execute(query)).scalars())
        gone = [token.id for token in tokens if token.again is None and token.id in mine]
        for start in range(0, len(gone), _IDS_PER_STATEMENT):
            await connection.execute(delete(parked).where(parked.c.id.in_(gone[start : start + _IDS_PER_STATEMENT])))
        again = [
            {"row": token.id, **token.again._asdict(), "error": _bounded(token.again.error)}
            for token in tokens
            if token.again is not None and token.id in mine
        ]
        if again:
            await connection.execute(_TRY_AGAIN, again)
        return [token for token in tokens if token.id not in mine]

    def _mine(self, ids: Sequence[str]) -> ColumnElement[bool]:
        return and_(parked.c.id.in_(ids), parked.c.claimed_by == self._claimant)


_TRY_AGAIN: Final = (
    update(parked)
    .where(parked.c.id == bindparam("row"))
    .values(
        attempts=bindparam("attempts"),
        next_try_at_ms=bindparam("next_try_at_ms"),
        error=bindparam("error"),
        claimed_by=None,
        claimed_until_ms=0,
    )
)


def _within(limit_bytes: int, sizes: Sequence[Any]) -> list[str]:
    """The first ids whose rows fit together, one at least."""
    ids: list[str] = []
    for id_, size in sizes:
        limit_bytes -= size
        if ids and limit_bytes < 0:
            break
        ids.append(id_)
    return ids


def _bounded(error: str) -> str:
    return error[:_ERROR_CHARACTERS].replace("\0", "\ufffd")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _lease_ms() -> int:
    return _now_ms() + int(LEASE_SECONDS * 1_000)

"""Deliveries of one lane that left effects, marked in the transaction that stored those effects: a replay skips them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncConnection

from plugin_server.database.engine import Database
from plugin_server.database.errors import database_errors
from plugin_server.database.insert import insert_into
from plugin_server.database.tables import delivered
from plugin_server.eventlog.port import LaneLog
from plugin_server.lanes.fence import LaneFence

_OFFSETS_PER_STATEMENT: Final = 500


class Mark(NamedTuple):
    """That a hook of an install has had these events, by their offsets."""

    offsets: tuple[int, ...]
    install_id: int
    hook: str


class DeliveredMarks:
    """Those of one lane (Completion of the committer)."""

    def __init__(self, fence: LaneFence, log: LaneLog) -> None:
        self._fence = fence
        self._log = log
        self._trimmed = -1
        self._loaded: set[tuple[int, int, str]] = set()
        self.is_lost = False
        """Another worker has the lane: what was refused is its to deliver"""

    async def load(self, database: Database) -> None:
        """Read those at or beyond the lane's position, and remove the others. Raises DatabaseUnavailable."""
        table, committed = delivered, self._log.position.next
        mine = self._fence.key.matches(table)
        query = select(table.c.offset, table.c.install_id, table.c.hook).where(mine)
        with database_errors("cannot read delivered marks"):
            async with database.write() as connection:
                await connection.execute(delete(table).where(mine, table.c.offset < committed))
                self._loaded = {(offset, install, hook) for offset, install, hook in await connection.execute(query)}

    def has(self, offset: int, install_id: int, hook: str) -> bool:
        """Was it delivered, with its effects, before this lane was acquired?"""
        return bool(self._loaded) and (offset, install_id, hook) in self._loaded

    async def complete(self, connection: AsyncConnection, tokens: Sequence[Mark]) -> Collection[Any]:
        """Mark these, if the lane is still ours. What was marked by an earlier call, whose outcome nobody heard, is refused."""
        if not await self._fence.holds(connection):
            self.is_lost = True
            return tokens
        table, key = delivered, self._fence.key
        committed = self._log.position.next
        if committed > self._trimmed:
            await connection.execute(delete(table).where(key.matches(table), table.c.offset < committed))
            self._trimmed = committed
        marked = await self._marked(connection, tokens)
        lost = [token for token in tokens if any((offset, *token[1:]) in marked for offset in token.offsets)]
        rows = [
            {**key._asdict(), "offset": offset, "install_id": token.install_id, "hook": token.hook}
            for token in tokens
            if token not in lost
            for offset in token.offsets
        ]
        if rows:
            statement = insert_into(table, is_sqlite=connection.dialect.name == "sqlite")
            await connection.execute(statement.on_conflict_do_nothing(), rows)
        return lost

    async def _marked(self, connection: AsyncConnection, tokens: Sequence[Mark]) -> set[tuple[int, int, str]]:
        table = delivered
        offsets = sorted({offset for token in tokens for offset in token.offsets})
        marked: set[tuple[int, int, str]] = set()
        for start in range(0, len(offsets), _OFFSETS_PER_STATEMENT):
            query = select(table.c.offset, table.c.install_id, table.c.hook).where(
                self._fence.key.matches(table), table.c.offset.in_(offsets[start : start + _OFFSETS_PER_STATEMENT])
            )
            marked.update((offset, install, hook) for offset, install, hook in await connection.execute(query))
        return marked

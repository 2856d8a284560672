"""The database's fence round a lane: who draws a new epoch shuts out whoever had the lane before (docs/decisions/011).

It is drawn after the log's own fence, and before anything that the previous owner stored is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import ColumnElement, Table, and_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from plugin_server.database.engine import Database
from plugin_server.database.errors import database_errors
from plugin_server.database.insert import insert_into
from plugin_server.database.tables import lane_epochs


class LaneKey(NamedTuple):
    """One lane of one consumer group."""

    group: str
    topic: str
    partition: int

    def matches(self, table: Table) -> ColumnElement[bool]:
        """The rows of this lane in a table with these three columns."""
        columns = table.c
        return and_(columns.group == self.group, columns.topic == self.topic, columns.partition == self.partition)


@dataclass(frozen=True, slots=True)
class LaneFence:
    """The right to write for a lane."""

    key: LaneKey
    epoch: int

    async def holds(self, connection: AsyncConnection) -> bool:
        """Is the lane still ours? It stays so until the caller's transaction ends. Raises SQLAlchemy's errors."""
        query = select(lane_epochs.c.epoch).where(self.key.matches(lane_epochs)).with_for_update(read=True)
        return (await connection.execute(query)).scalar_one_or_none() == self.epoch


async def draw_epoch(database: Database, key: LaneKey) -> LaneFence:
    """Shut out the lane's previous owner. Raises DatabaseUnavailable."""
    statement = insert_into(lane_epochs, is_sqlite=database.is_sqlite).values(**key._asdict(), epoch=1)
    statement = statement.on_conflict_do_update(
        index_elements=[lane_epochs.c.group, lane_epochs.c.topic, lane_epochs.c.partition],
        set_={"epoch": lane_epochs.c.epoch + 1},
    )
    with database_errors("cannot acquire a lane"):
        async with database.write() as connection:
            epoch: int = (await connection.execute(statement.returning(lane_epochs.c.epoch))).scalar_one()
    return LaneFence(key, epoch)

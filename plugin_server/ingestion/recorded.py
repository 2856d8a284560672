"""What events with effects in the database left behind, recorded with those effects: a replay emits it and runs nothing.

So a counter in storage counts an event once, although the event log commits its outputs a moment later, or never.
"""

from __future__ import annotations

import base64
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import orjson
from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from plugin_server.database.engine import Database
from plugin_server.database.errors import database_errors
from plugin_server.database.tables import recorded_results
from plugin_server.eventlog.port import LaneLog, OutputRecord
from plugin_server.lanes.fence import LaneFence


class RecordedResult(NamedTuple):
    """One event's: its offset, and its records encoded."""

    offset: int
    records: bytes


class RecordedResults:
    """Those of one lane (Completion of the committer)."""

    def __init__(self, fence: LaneFence, log: LaneLog) -> None:
        self._fence = fence
        self._log = log
        self._trimmed = -1

    async def load(self, database: Database) -> Mapping[int, list[OutputRecord]]:
        """By offset, what was recorded and not committed to the log before this lane was acquired. Raises DatabaseUnavailable.

        What the log has is removed, so that the last rows of each life of a lane do not stay.
        """
        table, committed = recorded_results, self._log.position.next
        mine = self._fence.key.matches(table)
        with database_errors("cannot read recorded results"):
            async with database.write() as connection:
                await connection.execute(delete(table).where(mine, table.c.offset < committed))
                rows = await connection.execute(select(table.c.offset, table.c.records).where(mine))
                return {offset: decode_records(records) for offset, records in rows}

    async def complete(self, connection: AsyncConnection, tokens: Sequence[RecordedResult]) -> Collection[Any]:
        """Record these, if the lane is still ours. What the log has committed meanwhile is removed."""
        if not await self._fence.holds(connection):
            return tokens
        table, key = recorded_results, self._fence.key
        committed = self._log.position.next
        if committed > self._trimmed:
            await connection.execute(delete(table).where(key.matches(table), table.c.offset < committed))
            self._trimmed = committed
        rows = [{**key._asdict(), "offset": offset, "records": records} for offset, records in tokens]
        await connection.execute(insert(table), rows)
        return ()


def encode_records(records: Sequence[OutputRecord]) -> bytes:
    """As `recorded_results` has them."""
    return orjson.dumps(
        [
            [
                record.topic,
                record.partition,
                None if record.key is None else base64.b64encode(record.key).decode(),
                base64.b64encode(record.value).decode(),
                [[name, base64.b64encode(content).decode()] for name, content in record.headers],
            ]
            for record in records
        ]
    )


def decode_records(raw: bytes) -> list[OutputRecord]:
    """The reverse."""
    return [
        OutputRecord(
            topic,
            partition,
            None if key is None else base64.b64decode(key),
            base64.b64decode(value),
            [(name, base64.b64decode(content)) for name, content in headers],
        )
        for topic, partition, key, value, headers in orjson.loads(raw)
    ]

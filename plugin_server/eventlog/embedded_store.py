"""The statements of the embedded log. Each takes a connection and is part of the caller's transaction."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sqlalchemy import ColumnElement, and_, bindparam, delete, func, insert, literal, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from plugin_server.database.tables import lanes, log_partitions, log_records
from plugin_server.eventlog.headers_codec import decode_headers, encode_headers
from plugin_server.eventlog.partitioning import Partitioner
from plugin_server.eventlog.port import Headers, OutputRecord, Position
from plugin_server.eventlog.position_codec import decode_position, encode_done
from plugin_server.model.errors import ConfigurationError, LaneFenced


class LaneKey(NamedTuple):
    """One lane of one group."""

    group: str
    topic: str
    partition: int


class StoredRecord(NamedTuple):
    """An InputRecord as read from the table."""

    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    timestamp: int


_records_c = log_records.c
_SELECT_RECORDS = (
    select(_records_c.offset, _records_c.key, _records_c.value, _records_c.headers, _records_c.timestamp_ms)
    .where(_records_c.topic == bindparam("topic"), _records_c.partition == bindparam("partition"))
    .where(_records_c.offset >= bindparam("from_offset"))
    .order_by(_records_c.offset)
    .limit(bindparam("max_records"))
)
_SIZE_BYTES = sum(
    (func.coalesce(func.length(column), 0) for column in (_records_c.key, _records_c.value, _records_c.headers)),
    start=literal(0),
)
_INSERT_RECORDS = insert(log_records)
_TAKE_OFFSETS = (
    update(log_partitions)
    .where(log_partitions.c.topic == bindparam("in_topic"), log_partitions.c.partition == bindparam("in_partition"))
    .values(next_offset=log_partitions.c.next_offset + bindparam("count"))
    .returning(log_partitions.c.next_offset)
)


async def create_partitions(connection: AsyncConnection, topic: str, partitions: int) -> int:
    """Create the topic if it is missing; how many partitions it has."""
    counted = select(func.count()).select_from(log_partitions).where(log_partitions.c.topic == topic)
    existing: int = (await connection.execute(counted)).scalar_one()
    if existing:
        return existing
    rows = [{"topic": topic, "partition": number, "next_offset": 0} for number in range(partitions)]
    await connection.execute(insert(log_partitions), rows)
    return partitions


async def partition_counts(connection: AsyncConnection) -> dict[str, int]:
    """How many partitions each topic has."""
    counted = select(log_partitions.c.topic, func.count().label("partitions")).group_by(log_partitions.c.topic)
    return {row.topic: row.partitions for row in await connection.execute(counted)}


async def append(
    connection: AsyncConnection, records: Sequence[OutputRecord], counts: dict[str, int], partitioner: Partitioner
) -> None:
    """Give the records their offsets and insert them.

    Raises ConfigurationError for a topic, ValueError for a partition, that does not exist.
    """
    by_partition: defaultdict[tuple[str, int], list[OutputRecord]] = defaultdict(list)
    for record in records:
        count = counts.get(record.topic)
        if count is None:
            raise ConfigurationError(f"topic {record.topic!r} is not in the embedded log; name it to ensure_topics")
        partition = record.partition
        if partition is None:
            partition = partitioner.choose(record.key, count)
        elif not 0 <= partition < count:
            raise ValueError(f"partition {partition} of {record.topic!r}, which has {count}")
        by_partition[record.topic, partition].append(record)

    timestamp_ms = time.time_ns() // 1_000_000
    rows = []
    for (topic, partition), group in by_partition.items():
        parameters = {"in_topic": topic, "in_partition": partition, "count": len(group)}
        end: int = (await connection.execute(_TAKE_OFFSETS, parameters)).scalar_one()
        rows += [
            {
                "topic": topic,
                "partition": partition,
                "offset": offset,
                "key": record.key,
                "value": record.value,
                "headers": encode_headers(record.headers) if record.headers else None,
                "timestamp_ms": timestamp_ms,
            }
            for offset, record in enumerate(group, end - len(group))
        ]
    if rows:
        await connection.execute(_INSERT_RECORDS, rows)


async def records_from(
    connection: AsyncConnection, topic: str, partition: int, from_offset: int, max_records: int
) -> list[StoredRecord]:
    """At most `max_records` records at or beyond an offset, in order."""
    parameters = {"topic": topic, "partition": partition, "from_offset": from_offset, "max_records": max_records}
    result = await connection.execute(_SELECT_RECORDS, parameters)
    return [
        StoredRecord(offset, key, value, decode_headers(headers) if headers else (), timestamp_ms)
        for offset, key, value, headers, timestamp_ms in result
    ]


async def start_of_latest(
    connection: AsyncConnection, topic: str, partition: int, max_records: int, max_bytes: int
) -> int | None:
    """The offset from which on there are as many of the last records as are within both bounds; None where none is."""
    sizes = (
        select(_records_c.offset, _SIZE_BYTES)
        .where(_records_c.topic == topic, _records_c.partition == partition)
        .order_by(_records_c.offset.desc())
        .limit(max_records)
    )
    start, room_bytes = None, max_bytes
    for offset, size_bytes in await connection.execute(sizes):
        room_bytes -= size_bytes
        if room_bytes < 0:
            break
        start = offset
    return start


async def end_offset(connection: AsyncConnection, topic: str, partition: int) -> int:
    """The offset that the next record of this partition gets."""
    query = select(log_partitions.c.next_offset).where(
        log_partitions.c.topic == topic, log_partitions.c.partition == partition
    )
    end: int = (await connection.execute(query)).scalar_one()
    return end


async def earliest_offset(connection: AsyncConnection, topic: str, partition: int) -> int:
    """The first record that is still there; where none is, the end."""
    query = select(func.min(_records_c.offset)).where(_records_c.topic == topic, _records_c.partition == partition)
    earliest: int | None = (await connection.execute(query)).scalar_one()
    return await end_offset(connection, topic, partition) if earliest is None else earliest


async def acquire_lane(connection: AsyncConnection, lane: LaneKey) -> tuple[int, Position]:
    """Fence the lane's previous owner. The new epoch and the committed position; a new lane starts at the earliest."""
    bumped = update(lanes).where(_is(lane)).values(epoch=lanes.c.epoch + 1)
    row = (await connection.execute(bumped.returning(lanes.c.epoch, lanes.c.next, lanes.c.done))).one_or_none()
    if row is not None:
        return row.epoch, decode_position(row.next, row.done)
    earliest = await earliest_offset(connection, lane.topic, lane.partition)
    await connection.execute(insert(lanes), {**lane._asdict(), "epoch": 1, "next": earliest, "done": ""})
    return 1, Position(earliest)


async def committed_position(connection: AsyncConnection, lane: LaneKey) -> tuple[int, Position] | None:
    """The lane's latest epoch and position."""
    query = select(lanes.c.epoch, lanes.c.next, lanes.c.done).where(_is(lane))
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else (row.epoch, decode_position(row.next, row.done))


async def move_lane(connection: AsyncConnection, lane: LaneKey, epoch: int, position: Position) -> None:
    """Store the position, if the lane is still ours. Raises LaneFenced, after which the caller must roll back."""
    values = {"next": position.next, "done": encode_done(position)}
    moved = await connection.execute(update(lanes).where(_is(lane), lanes.c.epoch == epoch).values(values))
    if moved.rowcount == 0:
        raise LaneFenced


def _is(lane: LaneKey) -> ColumnElement[bool]:
    return and_(lanes.c.group == lane.group, lanes.c.topic == lane.topic, lanes.c.partition == lane.partition)


async def prune(connection: AsyncConnection, before_ms: int, topics: Iterable[str]) -> int:
    """Delete records older than a time, but none that a group has yet to finish. How many went."""
    deleted = 0
    for topic in topics:
        unfinished = (
            select(func.min(lanes.c.next))
            .where(lanes.c.topic == log_records.c.topic, lanes.c.partition == log_records.c.partition)
            .scalar_subquery()
        )
        old = delete(log_records).where(
            log_records.c.topic == topic,
            log_records.c.timestamp_ms < before_ms,
            log_records.c.offset < func.coalesce(unfinished, log_records.c.offset + 1),
        )
        deleted += (await connection.execute(old)).rowcount
    return deleted

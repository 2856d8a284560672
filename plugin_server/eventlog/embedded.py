"""The event log in the database file: one process, no broker, the same contract (port.py).

Offsets, outputs and whatever else a flush writes can be one transaction here: `EmbeddedLaneLog.stage`.

Two members in one process (ingestion and delivery, say) are two EmbeddedEventLog objects with different groups. Give
them the same Database, whose write lock serialises them, and the same Wakeups, so that one's output wakes the other at
once. Other processes may read, produce and tail the same file; what they write is seen within POLL_SECONDS.

Rejected: records in files of our own beside the database. Two things to fsync are two things that can disagree.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from plugin_server.database.engine import Database
from plugin_server.database.tables import LOG_TABLES, metadata
from plugin_server.eventlog import embedded_store as store
from plugin_server.eventlog.partitioning import Partitioner
from plugin_server.eventlog.port import AssignmentListener, InputRecord, OutputRecord, Position
from plugin_server.eventlog.position_codec import encode_checked
from plugin_server.eventlog.process_lock import ProcessLock
from plugin_server.eventlog.wakeups import Wakeups, wait_at_most
from plugin_server.model.errors import CommitOutcomeUnknown, ConfigurationError, EventLogUnavailable, PluginServerError

POLL_SECONDS = 0.5
_READ_BATCH_RECORDS = 500

log = structlog.get_logger(__name__)


@contextmanager
def _database_errors_as(kind: type[PluginServerError], what: str) -> Iterator[None]:
    """What a full disk, a locked file or a closed connection mean to the caller."""
    try:
        yield
    except (SQLAlchemyError, OSError) as error:
        cause = getattr(error, "orig", None) or error
        raise kind(f"{what}: {cause}") from error


class EmbeddedLaneLog:
    """A lane of the embedded log, see LaneLog."""

    def __init__(self, event_log: EmbeddedEventLog, lane: store.LaneKey, epoch: int, position: Position) -> None:
        self._log = event_log
        self._lane = lane
        self._epoch = epoch
        self._position = position
        self._fetch_offset = position.next
        self._is_dead = False

    @property
    def partition(self) -> int:
        return self._lane.partition

    @property
    def position(self) -> Position:
        return self._position

    async def fetch(self, max_records: int, timeout_seconds: float) -> Sequence[InputRecord]:
        """See LaneLog.fetch. There are no gaps: `prune` spares what a group has yet to finish."""
        deadline = time.monotonic() + timeout_seconds
        while True:
            committed = self._log.wakeups.next_of(self._lane.topic)
            with _database_errors_as(EventLogUnavailable, "cannot read the embedded log"):
                async with self._log.database.read() as connection:
                    records = await store.records_from(
                        connection, self._lane.topic, self._lane.partition, self._fetch_offset, max_records
                    )
            if records:
                self._fetch_offset = records[-1].offset + 1
                return records
            remaining_seconds = deadline - time.monotonic()
            if remaining_seconds <= 0:
                return []
            await wait_at_most(committed, min(remaining_seconds, POLL_SECONDS))

    async def commit(self, records: Sequence[OutputRecord], position: Position) -> None:
        """See LaneLog.commit."""
        encode_checked(position)
        if self._is_dead:
            raise CommitOutcomeUnknown
        self._is_dead = True  # until it has succeeded, so that a cancel leaves it so
        with _database_errors_as(CommitOutcomeUnknown, "cannot commit to the embedded log"):
            async with self._log.database.write() as connection:
                await self.stage(connection, records, position)
        self._is_dead = False
        self.committed(records, position)

    async def stage(self, connection: AsyncConnection, records: Sequence[OutputRecord], position: Position) -> None:
        """Do what `commit` does in a transaction of the caller's, who calls `committed` when it has succeeded.

        Raises LaneFenced (roll back), SQLAlchemy's errors.
        """
        await store.move_lane(connection, self._lane, self._epoch, position)
        await self._log.append(connection, records)

    def committed(self, records: Sequence[OutputRecord], position: Position) -> None:
        """Take note that a transaction with `stage` in it was committed."""
        self._position = position
        self._log.wakeups.records_committed(record.topic for record in records)

    async def resume(self) -> bool:
        """See LaneLog.resume."""
        with _database_errors_as(EventLogUnavailable, "cannot read the embedded log"):
            async with self._log.database.read() as connection:
                found = await store.committed_position(connection, self._lane)
        return not self._is_dead and found == (self._epoch, self._position)

    async def close(self) -> None:
        """See LaneLog.close."""
        self._is_dead = True


class EmbeddedEventLog:
    """See EventLog. `data_dir` holds the lock file of the group; the database is opened and closed by the caller."""

    def __init__(self, database: Database, data_dir: Path, *, wakeups: Wakeups | None = None) -> None:
        if not database.is_sqlite:
            raise ConfigurationError(
                "the embedded log lives in SQLite: set PLUGIN_SERVER_KAFKA_BROKERS, or unset PLUGIN_SERVER_DATABASE_URL"
            )
        self.database = database
        self.wakeups = wakeups if wakeups is not None else Wakeups()
        self._data_dir = data_dir
        self._counts: dict[str, int] = {}
        self._partitioner = Partitioner()
        self._membership: tuple[str, str] | None = None
        self._lock: ProcessLock | None = None

    async def start(self) -> None:
        """See EventLog.start. Creates the tables if they are missing."""
        with _database_errors_as(EventLogUnavailable, f"cannot open the embedded log in {self._data_dir}"):
            self._data_dir.mkdir(parents=True, exist_ok=True)
            async with self.database.write() as connection:
                await connection.run_sync(metadata.create_all, tables=LOG_TABLES)
            async with self.database.read() as connection:
                self._counts = await store.partition_counts(connection)

    async def stop(self) -> None:
        """See EventLog.stop. Leaves the database open: it is not this object's."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    async def ensure_topics(self, topics: Sequence[str], partitions: int) -> None:
        """See EventLog.ensure_topics."""
        with _database_errors_as(EventLogUnavailable, "cannot create topics in the embedded log"):
            async with self.database.write() as connection:
                counts = {topic: await store.create_partitions(connection, topic, partitions) for topic in topics}
        self._counts.update(counts)

    def partition_count(self, topic: str) -> int:
        """See EventLog.partition_count."""
        count = self._counts.get(topic)
        if count is None:
            raise ConfigurationError(f"topic {topic!r} is not in the embedded log; name it to ensure_topics")
        return count

    async def record_limit_bytes(self) -> int | None:
        """None: SQLite takes blobs up to a gigabyte, far beyond what capture lets in."""
        return None

    async def join(self, group: str, topic: str, listener: AssignmentListener) -> None:
        """Own all partitions at once.

        Raises ConfigurationError when another process, or another object in this one, is this group's member.
        """
        if self._membership is not None:
            raise ConfigurationError("this event log has joined a group already; make another one")
        count = self.partition_count(topic)
        self._lock = ProcessLock.acquire(self._data_dir, group)
        self._membership = (group, topic)
        listener.on_assigned(frozenset(range(count)))

    async def open_lane(self, partition: int) -> EmbeddedLaneLog:
        """See EventLog.open_lane."""
        if self._membership is None:
            raise ConfigurationError("join a group before opening lanes")
        lane = store.LaneKey(*self._membership, partition)
        with _database_errors_as(EventLogUnavailable, "cannot acquire a lane of the embedded log"):
            async with self.database.write() as connection:
                epoch, position = await store.acquire_lane(connection, lane)
        return EmbeddedLaneLog(self, lane, epoch, position)

    async def produce(self, records: Sequence[OutputRecord]) -> None:
        """See EventLog.produce."""
        if not records:
            return
        with _database_errors_as(EventLogUnavailable, "cannot write to the embedded log"):
            async with self.database.write() as connection:
                await self.append(connection, records)
        self.committed(records)

    async def append(self, connection: AsyncConnection, records: Sequence[OutputRecord]) -> None:
        """Insert records in a transaction of the caller's, who calls `committed` when it has succeeded."""
        await store.append(connection, records, self._counts, self._partitioner)

    def committed(self, records: Sequence[OutputRecord]) -> None:
        """Take note that a transaction with `append` in it was committed."""
        self.wakeups.records_committed(record.topic for record in records)

    async def read(self, topics: Sequence[str], *, from_start: bool) -> AsyncIterator[tuple[str, InputRecord]]:
        """See EventLog.read. Without `from_start` it begins at the end as it is when the first record is asked for."""
        offsets = {(topic, partition): 0 for topic in topics for partition in range(self.partition_count(topic))}
        if not from_start:
            with _database_errors_as(EventLogUnavailable, "cannot read the embedded log"):
                async with self.database.read() as connection:
                    for topic, partition in offsets:
                        offsets[topic, partition] = await store.end_offset(connection, topic, partition)
        while True:
            committed = [self.wakeups.next_of(topic) for topic in topics]
            found = False
            for (topic, partition), offset in list(offsets.items()):
                with _database_errors_as(EventLogUnavailable, "cannot read the embedded log"):
                    async with self.database.read() as connection:
                        records = await store.records_from(connection, topic, partition, offset, _READ_BATCH_RECORDS)
                for record in records:
                    found = True
                    offsets[topic, partition] = record.offset + 1
                    yield topic, record
            if not found:
                await _wait_for_any(committed, POLL_SECONDS)

    async def latest(self, topic: str, max_records_per_partition: int, max_bytes: int) -> Sequence[InputRecord]:
        """See EventLog.latest."""
        count = self.partition_count(topic)
        records: list[InputRecord] = []
        with _database_errors_as(EventLogUnavailable, "cannot read the embedded log"):
            async with self.database.read() as connection:
                for partition in range(count):
                    start = await store.start_of_latest(
                        connection, topic, partition, max_records_per_partition, max_bytes // count
                    )
                    if start is not None:
                        records += await store.records_from(
                            connection, topic, partition, start, max_records_per_partition
                        )
        return records

    async def prune(self, older_than_seconds: float) -> int:
        """Delete older records, but none that a group has yet to finish; how many. Raises EventLogUnavailable."""
        before_ms = int((time.time() - older_than_seconds) * 1000)
        deleted = 0
        for topic in list(self._counts):
            with _database_errors_as(EventLogUnavailable, "cannot prune the embedded log"):
                async with self.database.write() as connection:
                    deleted += await store.prune(connection, before_ms, [topic])
        if deleted:
            log.info("embedded_log_pruned", records=deleted, older_than_seconds=older_than_seconds)
        return deleted


async def _wait_for_any(events: Sequence[asyncio.Event], seconds: float) -> None:
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

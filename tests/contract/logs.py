"""What the suites of the event log share: a way to make logs of either implementation, and to wait for things."""

# mypy: allow-untyped-calls

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from plugin_server.database.engine import Database, sqlite_url
from plugin_server.eventlog.embedded import EmbeddedEventLog, EmbeddedLaneLog
from plugin_server.eventlog.kafka import KafkaEventLog
from plugin_server.eventlog.kafka_lane import KafkaLaneLog
from plugin_server.eventlog.port import EventLog, InputRecord, LaneLog, OutputRecord
from plugin_server.eventlog.wakeups import Wakeups

PATIENCE_SECONDS = 30
PARTITIONS = 4


@dataclass
class Recorder:
    """An AssignmentListener that remembers what it was told."""

    assigned: list[frozenset[int]] = field(default_factory=list)
    revoked: list[frozenset[int]] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def on_assigned(self, partitions: frozenset[int]) -> None:
        self.assigned.append(partitions)
        self.changed.set()

    async def on_revoked(self, partitions: frozenset[int]) -> None:
        self.revoked.append(partitions)

    async def until(self, condition: Callable[[frozenset[int]], bool]) -> frozenset[int]:
        """The latest assignment, once it meets the condition."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not (self.assigned and condition(self.assigned[-1])):
                self.changed.clear()
                await self.changed.wait()
        return self.assigned[-1]


class Logs(ABC):
    """Makes started logs that share topics and a group, and closes them all."""

    def __init__(self, prefix: str) -> None:
        self.group = f"{prefix}group"
        self.input = f"{prefix}input"
        self.output = f"{prefix}output"
        self._made: list[EventLog] = []

    async def make(self) -> EventLog:
        log = self._new()
        await log.start()
        self._made.append(log)
        await log.ensure_topics([self.input, self.output], PARTITIONS)
        return log

    async def make_joined(self) -> EventLog:
        log = await self.make()
        recorder = Recorder()
        await log.join(self.group, self.input, recorder)
        await recorder.until(lambda partitions: len(partitions) == PARTITIONS)
        return log

    async def close(self) -> None:
        for log in self._made:
            await log.stop()

    def record(self, value: bytes, partition: int | None = 0, key: bytes | None = None) -> OutputRecord:
        return OutputRecord(self.output, partition, key, value)

    async def feed(self, log: EventLog, count: int, partition: int = 0, first: int = 0) -> list[bytes]:
        values = [b"event %d of %d" % (number, partition) for number in range(first, first + count)]
        await log.produce([OutputRecord(self.input, partition, b"key", value) for value in values])
        return values

    @abstractmethod
    def _new(self) -> EventLog: ...

    @abstractmethod
    async def die_within_commit(self, lane: LaneLog, records: Sequence[OutputRecord]) -> None:
        """Leave things as a process does that is killed after it wrote records and before it committed."""


class EmbeddedLogs(Logs):
    def __init__(self, prefix: str, data_dir: Path) -> None:
        super().__init__(prefix)
        self.data_dir = data_dir
        self.database = Database(sqlite_url(data_dir))
        self._wakeups = Wakeups()

    def _new(self) -> EmbeddedEventLog:
        return EmbeddedEventLog(self.database, self.data_dir, wakeups=self._wakeups)

    async def die_within_commit(self, lane: LaneLog, records: Sequence[OutputRecord]) -> None:
        assert isinstance(lane, EmbeddedLaneLog)
        async with self.database.engine.connect() as connection:
            await lane.stage(connection, records, lane.position)
            await connection.invalidate()

    async def close(self) -> None:
        await super().close()
        await self.database.close()


class KafkaLogs(Logs):
    def __init__(self, prefix: str, brokers: str, *, exactly_once: bool = True) -> None:
        super().__init__(prefix)
        self.brokers = brokers
        self.events_lost: list[tuple[int, int]] = []
        self._exactly_once = exactly_once

    def _new(self) -> KafkaEventLog:
        return KafkaEventLog(
            self.brokers,
            worker_id=None,
            exactly_once=self._exactly_once,
            events_lost=lambda partition, count: self.events_lost.append((partition, count)),
        )

    async def die_within_commit(self, lane: LaneLog, records: Sequence[OutputRecord]) -> None:
        assert isinstance(lane, KafkaLaneLog)
        producer = lane._producer
        await producer.begin_transaction()
        await producer.deliver(producer.fill(records, lane._choose_partition))
        await producer._drop()


async def fetch_all(lane: LaneLog, count: int) -> list[InputRecord]:
    """The next `count` records of a lane."""
    records: list[InputRecord] = []
    async with asyncio.timeout(PATIENCE_SECONDS):
        while len(records) < count:
            records += await lane.fetch(count - len(records), 1)
    return records


async def read_all(log: EventLog, topic: str, count: int) -> list[InputRecord]:
    """The first `count` records of a topic."""
    records: list[InputRecord] = []
    if count == 0:
        return records
    reading = log.read([topic], from_start=True)
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            async for _topic, record in reading:
                records.append(record)
                if len(records) == count:
                    break
    finally:
        await reading.aclose()  # type: ignore[attr-defined]
    return records


def values_of(records: Sequence[InputRecord]) -> list[bytes | None]:
    return [record.value for record in records]

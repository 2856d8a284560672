"""A stage for tests of whole servers: a log of either kind, the servers on it, and what comes in and goes out.

The tests write and read the log themselves, beside the servers: Kafka with aiokafka alone, so that nothing of the
product judges itself; the embedded log by its own tables.
"""

# mypy: allow-untyped-calls
# (aiokafka is only partly annotated)

from __future__ import annotations

import json
import sqlite3
import uuid
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from plugin_server.database.engine import SQLITE_FILE_NAME, Database, sqlite_url
from plugin_server.eventlog.embedded import EmbeddedEventLog
from plugin_server.eventlog.headers_codec import decode_headers
from plugin_server.eventlog.port import OutputRecord
from plugin_server.outputs.topics import make_topics
from tests.server import Server, until, write_projects

BOTH_LOGS = ["embedded", pytest.param("kafka", marks=pytest.mark.kafka)]
PARTITIONS = 4
NOW = "2026-11-23T12:00:00.000Z"
_RECORD_BYTES = 4 * 2**20
"""Of topics here, so that what is too large for the server is not too large for the broker"""


class Record(NamedTuple):
    """A committed record."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes
    headers: dict[str, bytes]

    @property
    def json(self) -> Any:
        return json.loads(self.value)

    @property
    def properties(self) -> Any:
        """Of an output event."""
        return json.loads(self.json["properties"])

    @property
    def lineage(self) -> Any:
        return json.loads(self.headers["ps-lineage"])

    def header(self, name: str) -> str:
        """A header's text, empty when there is none."""
        return self.headers.get(name, b"").decode()


def event_uuid(number: int) -> str:
    return f"018f0000-0000-7000-8000-{number:012d}"


def envelope(
    project_id: int, number: int, distinct_id: str = "d1", event: str = "x", *, data: Any = None, **properties: Any
) -> dict[str, Any]:
    """What the capture endpoint would write; `data` instead of an ordinary event is taken as it is."""
    text = data if data is not None else json.dumps({"event": event, "properties": properties})
    return {
        "uuid": event_uuid(number),
        "distinct_id": distinct_id,
        "ip": "10.0.0.1",
        "site_url": "",
        "data": text,
        "now": NOW,
        "sent_at": "",
        "token": f"phc_{project_id}",
    }


class Log(ABC):
    """The topics of one stage, read and written from outside."""

    def __init__(self, prefix: str, partitions: int) -> None:
        self.prefix = prefix
        self.partitions = partitions
        self.topics = make_topics(prefix)
        self.group = f"{prefix}group"

    async def send(self, messages: Iterable[dict[str, Any]], partition: int | None = None) -> None:
        """Envelopes, each to the partition of its distinct_id unless another is given."""
        await self.send_raw(
            [
                OutputRecord(
                    self.topics.ingestion,
                    self.partition_of(message["distinct_id"]) if partition is None else partition,
                    f"{message['token']}:{message['distinct_id']}".encode(),
                    json.dumps(message).encode(),
                )
                for message in messages
            ]
        )

    def partition_of(self, distinct_id: str) -> int:
        return sum(distinct_id.encode()) % self.partitions

    async def until_settled(self) -> None:
        """Until everything that came in, captures included, is finished and its outputs are committed."""
        await until(self._is_settled, "all events are finished")

    async def is_settled(self) -> bool:
        return await self._is_settled()

    async def outputs(self) -> list[Record]:
        return await self.read(self.topics.events)

    async def dead_letters(self) -> list[Record]:
        return await self.read(self.topics.dead_letters)

    async def log_entries(self) -> list[dict[str, Any]]:
        return [record.json for record in await self.read(self.topics.log_entries)]

    @abstractmethod
    def settings(self) -> dict[str, str]:
        """Of servers on this log."""

    @abstractmethod
    async def open(self) -> None: ...
    @abstractmethod
    async def close(self) -> None: ...
    @abstractmethod
    async def send_raw(self, records: Sequence[OutputRecord]) -> None:
        """Write records as they are."""

    @abstractmethod
    async def read(self, topic: str) -> list[Record]:
        """All committed records of a topic, by partition and offset."""

    @abstractmethod
    async def count_outputs(self) -> int:
        """How far the output topic has come: grows with every commit of outputs. Cheap."""

    @abstractmethod
    async def _is_settled(self) -> bool: ...


class EmbeddedLog(Log):
    def __init__(self, prefix: str, partitions: int, data_dir: Path) -> None:
        super().__init__(prefix, partitions)
        self._data_dir = data_dir
        self._database = Database(sqlite_url(data_dir))
        self._event_log = EmbeddedEventLog(self._database, data_dir)

    def settings(self) -> dict[str, str]:
        return {"topic_prefix": self.prefix, "consumer_group": self.group}

    async def open(self) -> None:
        await self._event_log.start()
        await self._event_log.ensure_topics(self.topics.all, self.partitions)

    async def close(self) -> None:
        await self._event_log.stop()
        await self._database.close()

    async def send_raw(self, records: Sequence[OutputRecord]) -> None:
        await self._event_log.produce(records)

    async def read(self, topic: str) -> list[Record]:
        rows = self._query(
            'SELECT partition, "offset", key, value, headers FROM log_records WHERE topic = ? ORDER BY 1, 2', topic
        )
        return [
            Record(partition, offset, key, value, dict(decode_headers(blob)))
            for partition, offset, key, value, blob in rows
        ]

    async def count_outputs(self) -> int:
        return int(self._query("SELECT sum(next_offset) FROM log_partitions WHERE topic = ?", self.topics.events)[0][0])

    async def _is_settled(self) -> bool:
        lanes = 'SELECT partition, next, done FROM lanes WHERE topic = ? AND "group" = ?'
        finished = {
            row[0]: row[1] for row in self._query(lanes, self.topics.ingestion, f"{self.group}-ingestion") if not row[2]
        }
        ends = self._query("SELECT partition, next_offset FROM log_partitions WHERE topic = ?", self.topics.ingestion)
        return all(finished.get(partition, 0) >= end for partition, end in ends)

    def _query(self, statement: str, *values: Any) -> list[Any]:
        path = self._data_dir / SQLITE_FILE_NAME
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as connection:
            return connection.execute(statement, values).fetchall()


class KafkaLog(Log):
    def __init__(self, prefix: str, partitions: int, brokers: str) -> None:
        super().__init__(prefix, partitions)
        self.output_partitions = partitions
        self._brokers = brokers
        self._stack = AsyncExitStack()
        self._read: dict[str, list[Record]] = {}
        self._readers: dict[str, AIOKafkaConsumer] = {}

    def settings(self) -> dict[str, str]:
        return {
            "topic_prefix": self.prefix,
            "consumer_group": self.group,
            "kafka_brokers": self._brokers,
            "single_worker": "true",  # nothing that workers share is in the database here
        }

    async def open(self) -> None:
        self._admin = AIOKafkaAdminClient(bootstrap_servers=self._brokers)
        await self._admin.start()
        self._stack.push_async_callback(self._admin.close)
        limits = {"max.message.bytes": str(_RECORD_BYTES)}
        await self._admin.create_topics(
            [NewTopic(topic, len(self._places(topic)), 1, topic_configs=limits) for topic in self.topics.all]
        )
        self._producer = AIOKafkaProducer(
            bootstrap_servers=self._brokers,
            max_request_size=_RECORD_BYTES,
            max_batch_size=2**18,
            linger_ms=2,
            enable_idempotence=True,
        )
        await self._producer.start()
        self._stack.push_async_callback(self._producer.stop)
        self._uncommitted = await self._consumer("read_uncommitted")
        self._committed = await self._consumer("read_committed")

    async def close(self) -> None:
        await self._stack.aclose()

    async def send_raw(self, records: Sequence[OutputRecord]) -> None:
        sent = [
            await self._producer.send(
                record.topic, record.value, record.key, partition=record.partition, headers=list(record.headers)
            )
            for record in records
        ]
        await self._producer.flush()
        for future in sent:
            await future

    async def read(self, topic: str) -> list[Record]:
        await until(lambda: self._is_decided(topic), f"no transaction is open on {topic}")
        places = self._places(topic)
        reader = self._readers.get(topic)
        if reader is None:
            reader = self._readers[topic] = await self._consumer("read_committed")
            reader.assign(places)
            await reader.seek_to_beginning(*places)
        records = self._read.setdefault(topic, [])
        ends = await self._committed.end_offsets(places)

        async def at_end() -> bool:
            for fetched in (await reader.getmany(timeout_ms=50)).values():
                for one in fetched:
                    headers = {name: bytes(content) for name, content in one.headers}
                    records.append(Record(one.partition, one.offset, one.key, one.value or b"", headers))
            return all([await reader.position(place) >= end for place, end in ends.items()])

        await until(at_end, f"{topic} is read to its end")
        return sorted(records, key=lambda record: record[:2])

    async def count_outputs(self) -> int:
        return sum((await self._committed.end_offsets(self._places(self.topics.events))).values())

    async def _is_settled(self) -> bool:
        committed = await self._admin.list_consumer_group_offsets(f"{self.group}-ingestion")
        topic = self.topics.ingestion
        if any(position.metadata for position in committed.values()) or not await self._is_decided(topic):
            return False
        finished = {place.partition: position.offset for place, position in committed.items()}
        ends: dict[int, int] = {}
        for record in await self.read(topic):
            ends[record.partition] = record.offset + 1
        return all(finished.get(partition, 0) >= end for partition, end in ends.items())

    async def _is_decided(self, topic: str) -> bool:
        """Whether no transaction is open: what readers of committed records see is all there is."""
        places = self._places(topic)
        ends = await self._uncommitted.end_offsets(places)
        return bool(ends == await self._committed.end_offsets(places))

    def _places(self, topic: str) -> list[TopicPartition]:
        count = self.output_partitions if topic == self.topics.events else self.partitions
        return [TopicPartition(topic, partition) for partition in range(count)]

    async def _consumer(self, isolation: str) -> AIOKafkaConsumer:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._brokers,
            isolation_level=isolation,
            enable_auto_commit=False,
            fetch_max_wait_ms=20,
            max_partition_fetch_bytes=_RECORD_BYTES,
        )
        await consumer.start()
        self._stack.push_async_callback(consumer.stop)
        return consumer


class Stage:
    """One log, one projects file, any number of servers."""

    def __init__(self, directory: Path, log: Log, projects_file: Path, settings: dict[str, str]) -> None:
        self.log = log
        self.servers: list[Server] = []
        self._directory = directory
        self._settings = {"projects_file": str(projects_file), **log.settings(), **settings}

    async def __aenter__(self) -> Self:
        await self.log.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for server in self.servers:
            server.kill()
        await self.log.close()

    def server(self, name: str = "worker", **settings: str) -> Server:
        """A server that is not started yet. On the embedded log all share one data directory, hence one name."""
        server = Server(self._directory / name, **{**self._settings, **settings})
        self.servers.append(server)
        return server

    def logged(self, event: str) -> list[dict[str, Any]]:
        """What all servers logged of one kind."""
        return [entry for server in self.servers for entry in server.log_entries(event)]


def make_stage(
    kind: str, request: pytest.FixtureRequest, directory: Path, projects: list[dict[str, Any]], **settings: str
) -> Stage:
    """A stage on the log of this kind, `embedded` or `kafka`. Enter it."""
    prefix = f"t{uuid.uuid4().hex[:10]}_"
    partitions = int(settings.setdefault("topic_partitions", str(PARTITIONS)))
    log: Log
    if kind == "kafka":
        log = KafkaLog(prefix, partitions, request.getfixturevalue("kafka"))
    else:
        log = EmbeddedLog(prefix, partitions, directory / "worker" / "data")
    return Stage(directory, log, write_projects(directory, projects), settings)


@asynccontextmanager
async def running(stage: Stage, **settings: str) -> AsyncIterator[Server]:
    """The stage with one server that is ready."""
    async with stage:
        server = stage.server(**settings)
        await server.start_ready()
        yield server

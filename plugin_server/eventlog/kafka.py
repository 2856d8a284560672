"""The event log on Kafka, by aiokafka: topics, producing outside of lanes, reading without a group, and lanes.

What one would look for here and finds elsewhere: the group in kafka_membership.py, a lane in kafka_lane.py, the
producer in kafka_producer.py, committed offsets in kafka_offsets.py, topics in
kafka_topics.py, a look at the last records in kafka_latest.py.
"""

# mypy: allow-untyped-calls
# (aiokafka is only partly annotated)

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import ConsumerStoppedError, KafkaError

from plugin_server.eventlog.kafka_lane import REQUEST_SECONDS, KafkaLaneLog
from plugin_server.eventlog.kafka_latest import read_latest
from plugin_server.eventlog.kafka_membership import FETCH_MAX_WAIT_MS, Membership
from plugin_server.eventlog.kafka_offsets import CommittedOffsets
from plugin_server.eventlog.kafka_producer import LaneProducer
from plugin_server.eventlog.kafka_topics import (
    connected_admin,
    create_missing_topics,
    record_limit_bytes,
    wait_for_leaders,
)
from plugin_server.eventlog.partitioning import Partitioner
from plugin_server.eventlog.port import AssignmentListener, InputRecord, OutputRecord, Position
from plugin_server.model.errors import ConfigurationError, EventLogUnavailable

OPEN_LANE_SECONDS = 30.0
PRODUCE_SECONDS = 15.0
LATEST_SECONDS = 15.0
_TOPICS_SECONDS = 30.0
_READ_POLL_MS = 500

log = structlog.get_logger(__name__)


def _ignore_events_lost(partition: int, count: int) -> None:
    """The lane has logged them."""


@contextmanager
def _unavailable(what: str) -> Iterator[None]:
    try:
        yield
    except (KafkaError, ConsumerStoppedError, OSError, TimeoutError) as error:
        raise EventLogUnavailable(f"{what}: {error!r}") from error


class KafkaEventLog:
    """See EventLog.

    `worker_id` makes membership static: a worker that restarts within the session time-out gets its partitions back
    without a rebalance. Without `exactly_once` a lane produces first and commits its position next, so what was
    between the two at a crash is emitted again. `events_lost(partition, count)` is called when retention has deleted
    records that were never read.
    """

    def __init__(
        self,
        brokers: str,
        *,
        worker_id: str | None,
        exactly_once: bool = True,
        client_id: str = "plugin-server",
        events_lost: Callable[[int, int], None] = _ignore_events_lost,
    ) -> None:
        self._brokers = brokers
        self._worker_id = worker_id
        self._exactly_once = exactly_once
        self._client_id = client_id
        self._events_lost = events_lost
        self._partitioner = Partitioner()
        self._topics: set[str] = set()
        self._record_limit_bytes: int | None = None
        self._client: AIOKafkaClient | None = None
        self._membership: Membership | None = None
        self._offsets: CommittedOffsets | None = None
        self._producer: LaneProducer | None = None
        self._producer_starting = asyncio.Lock()

    async def start(self) -> None:
        """See EventLog.start."""
        client = AIOKafkaClient(
            bootstrap_servers=self._brokers, client_id=self._client_id, request_timeout_ms=int(REQUEST_SECONDS * 1000)
        )
        with _unavailable(f"cannot connect to Kafka at {self._brokers}"):
            try:
                await client.bootstrap()
            except BaseException:
                await client.close()
                raise
        self._client = client

    async def stop(self) -> None:
        """See EventLog.stop."""
        membership, self._membership = self._membership, None
        if membership is not None:
            await membership.stop()
        producer, self._producer = self._producer, None
        if producer is not None:
            await producer.discard()
        client, self._client = self._client, None
        if client is not None:
            try:
                await client.close()
            except (KafkaError, OSError) as error:
                log.info("kafka_connection_dropped", error=repr(error))

    async def ensure_topics(self, topics: Sequence[str], partitions: int) -> None:
        """See EventLog.ensure_topics. Their replication factor is the broker's default."""
        with _unavailable(f"cannot create topics {', '.join(topics)}"):
            async with asyncio.timeout(_TOPICS_SECONDS):
                async with connected_admin(self._brokers, self._client_id) as admin:
                    await create_missing_topics(admin, topics, partitions)
                await wait_for_leaders(self._connected, topics)
        self._topics.update(topics)
        self._record_limit_bytes = await self.record_limit_bytes()

    def partition_count(self, topic: str) -> int:
        """See EventLog.partition_count."""
        partitions = self._connected.cluster.partitions_for_topic(topic) if topic in self._topics else None
        if not partitions:
            raise ConfigurationError(f"topic {topic!r} is not known; name it to ensure_topics")
        return len(partitions)

    async def record_limit_bytes(self) -> int | None:
        """The lowest `max.message.bytes` of the topics named so far, None if the broker does not tell us.

        Kafka applies it to a whole batch, so a record's key, value and headers must stay some 100 bytes below.
        """
        if not self._topics:
            return None
        with _unavailable("cannot read the topics' limits"):
            async with asyncio.timeout(_TOPICS_SECONDS), connected_admin(self._brokers, self._client_id) as admin:
                return await record_limit_bytes(admin, self._topics)

    async def join(self, group: str, topic: str, listener: AssignmentListener) -> None:
        """See EventLog.join. Returns before the first assignment. Raises EventLogUnavailable."""
        if self._membership is not None:
            raise ConfigurationError("this event log has joined a group already; make another one")
        membership = Membership(
            self._brokers,
            group=group,
            topic=topic,
            worker_id=self._worker_id,
            client_id=self._client_id,
            listener=listener,
        )
        with _unavailable(f"cannot join {group!r}"):
            await membership.start()
        self._membership = membership
        self._offsets = CommittedOffsets(self._connected, group)

    async def open_lane(self, partition: int) -> KafkaLaneLog:
        """See EventLog.open_lane. Raises EventLogUnavailable also when the partition is not ours (any more)."""
        membership, offsets = self._membership, self._offsets
        if membership is None or offsets is None:
            raise ConfigurationError("join a group before opening lanes")
        if not membership.owns(partition):
            raise EventLogUnavailable(f"{membership.topic}-{partition} is not assigned to this worker")
        generation = membership.generation
        place = TopicPartition(membership.topic, partition)
        producer = self._new_producer(f"{membership.group}-{place.topic}-{partition}" if self._exactly_once else None)
        try:
            with _unavailable(f"cannot acquire {place.topic}-{partition}"):
                async with asyncio.timeout(OPEN_LANE_SECONDS):
                    await producer.start()  # fences the previous owner, so it comes before the position is read
                    committed = await offsets.read(*place)
                    if committed is None:
                        earliest = (await membership.consumer.beginning_offsets([place]))[place]
            lane = KafkaLaneLog(
                membership,
                partition,
                generation=generation,
                producer=producer,
                offsets=offsets,
                position=Position(earliest) if committed is None else committed,
                has_committed=committed is not None,
                choose_partition=self._choose_partition,
                exactly_once=self._exactly_once,
                events_lost=self._events_lost,
            )
            lane.start()
        except BaseException:
            await producer.discard()
            raise
        return lane

    async def produce(self, records: Sequence[OutputRecord]) -> None:
        """See EventLog.produce. Raises ValueError for a record over the broker's limit."""
        if not records:
            return
        with _unavailable("cannot produce"):
            async with asyncio.timeout(PRODUCE_SECONDS):
                producer = await self._shared_producer()
                try:
                    await producer.deliver(producer.fill(records, self._choose_partition))
                except (KafkaError, TimeoutError, asyncio.CancelledError):
                    if self._producer is producer:
                        self._producer = None  # an idempotent producer that has lost a batch may refuse all others
                    await producer.discard()
                    raise

    async def read(self, topics: Sequence[str], *, from_start: bool) -> AsyncIterator[tuple[str, InputRecord]]:
        """See EventLog.read. Without `from_start` it begins at the end as it is when the first record is asked for."""
        consumer = AIOKafkaConsumer(
            *topics,
            bootstrap_servers=self._brokers,
            client_id=self._client_id,
            group_id=None,
            isolation_level="read_committed",
            auto_offset_reset="earliest" if from_start else "latest",
            fetch_max_wait_ms=FETCH_MAX_WAIT_MS,
        )
        try:
            with _unavailable("cannot read"):
                await consumer.start()
                if not from_start:
                    await consumer.seek_to_end()
            while True:
                with _unavailable("cannot read"):
                    fetched = await consumer.getmany(timeout_ms=_READ_POLL_MS)
                for place, records in fetched.items():
                    for record in records:
                        yield place.topic, record
        finally:
            await consumer.stop()

    async def latest(self, topic: str, max_records_per_partition: int, max_bytes: int) -> Sequence[InputRecord]:
        """See EventLog.latest. Takes a connection of its own, and 15 s at the most."""
        count = self.partition_count(topic)
        with _unavailable(f"cannot read the end of {topic}"):
            async with asyncio.timeout(LATEST_SECONDS):
                return await read_latest(
                    self._brokers,
                    self._client_id,
                    [TopicPartition(topic, partition) for partition in range(count)],
                    max_records_per_partition,
                    max_bytes // count,
                )

    @property
    def _connected(self) -> AIOKafkaClient:
        if self._client is None:
            raise EventLogUnavailable("the event log was not started")
        return self._client

    def _choose_partition(self, record: OutputRecord) -> int:
        return self._partitioner.choose(record.key, self.partition_count(record.topic))

    def _new_producer(self, transactional_id: str | None) -> LaneProducer:
        return LaneProducer(
            self._brokers,
            client_id=self._client_id,
            transactional_id=transactional_id,
            record_limit_bytes=self._record_limit_bytes,
        )

    async def _shared_producer(self) -> LaneProducer:
        async with self._producer_starting:
            if self._producer is None:
                producer = self._new_producer(None)
                try:
                    await producer.start()
                except BaseException:
                    await producer.discard()
                    raise
                self._producer = producer
            return self._producer

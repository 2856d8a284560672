"""A lane on Kafka: reads one partition from the group's consumer, commits through a producer of its own.

aiokafka has no KIP-447 (fencing by group generation), so lanes are fenced by `transactional.id`, one per input
partition: starting the producer aborts what the previous owner had open and refuses whatever it tries later.
"""

# mypy: allow-untyped-calls
# (aiokafka is only partly annotated)

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

import structlog
from aiokafka import TopicPartition
from aiokafka.errors import (
    CommitFailedError,
    ConsumerStoppedError,
    IllegalOperation,
    InvalidProducerEpoch,
    KafkaError,
    OffsetOutOfRangeError,
    ProducerFenced,
)
from aiokafka.structs import OffsetAndMetadata

from plugin_server.eventlog.kafka_membership import Membership
from plugin_server.eventlog.kafka_offsets import CommittedOffsets
from plugin_server.eventlog.kafka_producer import LaneProducer
from plugin_server.eventlog.port import InputRecord, OutputRecord, Position
from plugin_server.eventlog.position_codec import encode_checked
from plugin_server.model.errors import CommitOutcomeUnknown, EventLogUnavailable, LaneFenced

COMMIT_SECONDS = 15.0
REQUEST_SECONDS = 10.0
_FETCH_GRACE_SECONDS = 0.5
_SUSPENDED_POLL_SECONDS = 0.05
_KAFKA_ERRORS = (KafkaError, ConsumerStoppedError, IllegalOperation, OSError, TimeoutError)

log = structlog.get_logger(__name__)


class KafkaLaneLog:
    """See LaneLog. Made by KafkaEventLog.open_lane, with the producer started and the place in the partition sought."""

    def __init__(
        self,
        membership: Membership,
        partition: int,
        *,
        generation: int,
        producer: LaneProducer,
        offsets: CommittedOffsets,
        position: Position,
        has_committed: bool,
        choose_partition: Callable[[OutputRecord], int],
        exactly_once: bool,
        events_lost: Callable[[int, int], None],
    ) -> None:
        self._membership = membership
        self._place = TopicPartition(membership.topic, partition)
        self._generation = generation
        self._producer = producer
        self._offsets = offsets
        self._position = position
        self._fetch_offset = position.next
        self._choose_partition = choose_partition
        self._exactly_once = exactly_once
        self._events_lost = events_lost
        self._has_committed = has_committed
        self._is_dead = False

    @property
    def partition(self) -> int:
        return self._place.partition

    @property
    def position(self) -> Position:
        return self._position

    async def fetch(self, max_records: int, timeout_seconds: float) -> Sequence[InputRecord]:
        """See LaneLog.fetch. Empty, too, from a revocation until `resume`."""
        deadline = time.monotonic() + timeout_seconds
        generation = self._generation
        try:
            if generation == self._membership.generation:
                consumer = self._membership.consumer
                async with asyncio.timeout(timeout_seconds + _FETCH_GRACE_SECONDS):  # aiokafka waits out a rebalance
                    fetched = await consumer.getmany(
                        self._place, timeout_ms=timeout_seconds * 1000, max_records=max_records
                    )
                # Those of a later assignment begin at the committed offset: they would be taken twice.
                if generation == self._membership.generation:
                    records: Sequence[InputRecord] = fetched.get(self._place, [])
                    if records:
                        self._fetch_offset = records[-1].offset + 1
                    return records
                if self._generation == self._membership.generation:
                    self._seek_again()  # it was still waiting when `resume` sought, so it may hold records from after that
        except TimeoutError:
            return []
        except OffsetOutOfRangeError:
            await self._skip_gap()
            return []
        except (KafkaError, ConsumerStoppedError, IllegalOperation) as error:
            self._seek_again()
            raise EventLogUnavailable(f"cannot read {self._name}: {error!r}") from error
        await asyncio.sleep(max(0, min(deadline - time.monotonic(), _SUSPENDED_POLL_SECONDS)))
        return []

    async def commit(self, records: Sequence[OutputRecord], position: Position) -> None:
        """See LaneLog.commit. Raises ValueError for a record over the broker's limit, before anything was sent."""
        metadata = encode_checked(position)
        if self._is_dead:
            raise CommitOutcomeUnknown
        batches = self._producer.fill(records, self._choose_partition)
        offsets = {self._place: OffsetAndMetadata(position.next, metadata)}
        self._is_dead = True  # until it has succeeded, so that a cancel leaves it so
        try:
            async with asyncio.timeout(COMMIT_SECONDS):
                if self._exactly_once:
                    await self._producer.begin_transaction()
                    await self._producer.deliver(batches)
                    await self._producer.send_offsets_to_transaction(offsets, self._membership.group)
                    await self._producer.commit_transaction()
                else:
                    await self._producer.deliver(batches)
                    await self._membership.consumer.commit(offsets)
        except ValueError:
            raise
        except Exception as error:
            if _is_fenced(error):
                raise LaneFenced from error
            raise CommitOutcomeUnknown(f"commit on {self._name}: {error!r}") from error
        self._is_dead = False
        self._has_committed = True
        self._position = position

    async def resume(self) -> bool:
        """See LaneLog.resume."""
        generation = self._membership.generation
        if self._is_dead or not self._membership.owns(self.partition):
            return False
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                committed = await self._offsets.read(*self._place)
        except _KAFKA_ERRORS as error:
            raise EventLogUnavailable(f"cannot read the position of {self._name}: {error!r}") from error
        if not self._is_ours(committed) or generation != self._membership.generation:
            return False
        self._start_at(self._fetch_offset, generation)
        return True

    async def close(self) -> None:
        """See LaneLog.close."""
        self._is_dead = True
        await self._producer.discard()

    def start(self) -> None:
        """Begin reading at the position. Raises EventLogUnavailable when the partition was revoked since."""
        self._start_at(self._position.next, self._generation)

    def _start_at(self, offset: int, generation: int) -> None:
        if generation != self._membership.generation or not self._membership.owns(self.partition):
            raise EventLogUnavailable(f"{self._name} was revoked while it was being acquired")
        try:
            consumer = self._membership.consumer
            consumer.seek(self._place, offset)  # drops what is buffered, and what is on its way
            consumer.resume(self._place)
        except _KAFKA_ERRORS as error:
            raise EventLogUnavailable(f"cannot read {self._name}: {error!r}") from error
        self._generation = generation

    def _is_ours(self, committed: Position | None) -> bool:
        """`None` is what a lane found that began where nothing was ever committed."""
        return committed == self._position if self._has_committed else committed is None

    @property
    def _name(self) -> str:
        return f"{self._place.topic}-{self._place.partition}"

    def _seek_again(self) -> None:
        """Because aiokafka loses records that stand before a corrupt batch in the same answer unless they are asked for again."""
        try:
            self._membership.consumer.seek(self._place, self._fetch_offset)
        except (KafkaError, ConsumerStoppedError):
            return  # not ours any more; whoever owns it seeks

    async def _skip_gap(self) -> None:
        """The records at our place are gone: retention was faster than we, or the topic was made anew."""
        wanted = self._fetch_offset
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                consumer = self._membership.consumer
                earliest = (await consumer.beginning_offsets([self._place]))[self._place]
                end = (await consumer.end_offsets([self._place]))[self._place]
            if earliest <= wanted <= end:  # a leader that was behind for a moment
                consumer.seek(self._place, wanted)
                return
            consumer.seek(self._place, earliest)
        except _KAFKA_ERRORS as error:
            raise EventLogUnavailable(f"cannot find the earliest record of {self._name}: {error!r}") from error
        lost = max(earliest - wanted, 0)
        self._fetch_offset = earliest
        log.error(
            "events_lost",
            topic=self._place.topic,
            partition=self.partition,
            wanted=wanted,
            earliest=earliest,
            count=lost,
        )
        self._events_lost(self.partition, lost)


def _is_fenced(error: BaseException) -> bool:
    """Also where aiokafka wraps what ended its sender, at times twice."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, (ProducerFenced, InvalidProducerEpoch, CommitFailedError)):
            return True
        cause = cause.__cause__ or cause.__context__
    return False

"""Membership in a consumer group that tells of partitions, and that heals.

What aiokafka 0.14 does, and what follows from it:
- Rebalances are eager, their callbacks run without heartbeats, and errors in them vanish. So the listener only posts.
- The new assignment is in force before the callback, and reads from the committed offset at once. So nothing may be
  taken from the consumer before a lane has sought its own place: `generation` changes with every revocation, and a
  lane that has not sought since takes nothing (kafka_lane.py).
- An error of the coordinator is handed to the next `getmany`, and the group's work stands still until somebody calls
  it. A worker without partitions has nobody who does. It also counts as idle, and drops out of the group after
  `max_poll_interval_ms`. So `_watch` polls, and replaces a consumer that goes on failing.
- StickyPartitionAssignor keeps its state on the class, shared by all members in a process, and is never told the
  generation. So each member gets a class of its own, and is told.
"""

# mypy: allow-untyped-calls
# (aiokafka is only partly annotated)

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from aiokafka.errors import ConsumerStoppedError, KafkaError

from plugin_server.eventlog.port import AssignmentListener

HEARTBEAT_INTERVAL_MS = 3_000
SESSION_TIMEOUT_MS = 10_000
REBALANCE_TIMEOUT_MS = 30_000
MAX_POLL_INTERVAL_MS = 3_600_000  # lanes have a progress watchdog of their own
FETCH_MAX_WAIT_MS = 25
PARTITION_FETCH_BYTES = 1 << 20
_REVOKE_SECONDS = 3.0
_WATCH_SECONDS = 1.0
_FAILURES_TO_REPLACE = 5
_STOP_SECONDS = 5.0
_NO_PARTITION = -1

log = structlog.get_logger(__name__)


class LaneConsumer(AIOKafkaConsumer):
    """A consumer that can be dropped in bounded time."""

    @property
    def group_generation(self) -> int:
        """The rebalance that the assignment came from."""
        coordinator: Any = self._coordinator
        generation: int = coordinator.generation
        return generation

    async def discard(self) -> None:
        """Leave the group and disconnect, within seconds even in the middle of a rebalance. Never raises."""
        for step in (self.stop, self._close_fetcher, self._client.close):
            try:
                async with asyncio.timeout(_STOP_SECONDS):
                    await step()
            except Exception as error:  # noqa: BLE001 whatever ended its tasks is raised here again
                log.info("kafka_consumer_dropped", step=step.__name__, error=repr(error))

    async def _close_fetcher(self) -> None:
        if self._fetcher is not None:
            await self._fetcher.close()


class Membership(ConsumerRebalanceListener):
    """One member of a group, reading one topic. The consumer may be replaced; `generation` then changes too."""

    def __init__(
        self,
        brokers: str,
        *,
        group: str,
        topic: str,
        worker_id: str | None,
        client_id: str,
        listener: AssignmentListener,
    ) -> None:
        self.group = group
        self.topic = topic
        self.generation = 0
        self._brokers = brokers
        self._worker_id = worker_id
        self._client_id = client_id
        self._listener = listener
        self._assignor = _own_sticky_assignor()
        self._consumer: LaneConsumer | None = None
        self._assigned: frozenset[int] = frozenset()
        self._watching: asyncio.Task[None] | None = None

    @property
    def consumer(self) -> LaneConsumer:
        """The one that reads now. Raises KafkaError while there is none."""
        if self._consumer is None:
            raise ConsumerStoppedError("the consumer is being replaced")
        return self._consumer

    def owns(self, partition: int) -> bool:
        """Whether the partition is ours by the last assignment and not revoked since."""
        return partition in self._assigned

    async def start(self) -> None:
        """Connect and join; returns before the first assignment. Raises KafkaError."""
        self._consumer = await self._connect()
        self._watching = asyncio.create_task(self._watch(), name=f"watch membership in {self.group}")

    async def stop(self) -> None:
        """Leave the group, unless membership is static: then a successor of the same name takes over quietly."""
        if self._watching is not None:
            self._watching.cancel()
            with suppress(asyncio.CancelledError):
                await self._watching
        self.generation += 1
        self._assigned = frozenset()
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await consumer.discard()

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Called by aiokafka before it joins anew."""
        await self._revoke(frozenset(each.partition for each in revoked))

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Called by aiokafka when the assignment is in force already."""
        consumer = self.consumer
        consumer.pause(*assigned)
        self._assignor.on_generation_assignment(consumer.group_generation)
        self._assigned = frozenset(each.partition for each in assigned)
        log.info("partitions_assigned", group=self.group, partitions=sorted(self._assigned))
        self._listener.on_assigned(self._assigned)

    async def _revoke(self, revoked: frozenset[int]) -> None:
        self.generation += 1
        self._assigned = frozenset()
        if not revoked:
            return
        log.info("partitions_revoked", group=self.group, partitions=sorted(revoked))
        try:
            async with asyncio.timeout(_REVOKE_SECONDS):
                await self._listener.on_revoked(revoked)
        except TimeoutError:
            log.warning("revocation_took_too_long", group=self.group, limit_seconds=_REVOKE_SECONDS)

    async def _connect(self) -> LaneConsumer:
        consumer = LaneConsumer(
            bootstrap_servers=self._brokers,
            client_id=self._client_id,
            group_id=self.group,
            group_instance_id=self._worker_id,
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level="read_committed",
            session_timeout_ms=SESSION_TIMEOUT_MS,
            heartbeat_interval_ms=HEARTBEAT_INTERVAL_MS,
            rebalance_timeout_ms=REBALANCE_TIMEOUT_MS,
            max_poll_interval_ms=MAX_POLL_INTERVAL_MS,
            partition_assignment_strategy=(self._assignor,),
            fetch_max_wait_ms=FETCH_MAX_WAIT_MS,
            max_partition_fetch_bytes=PARTITION_FETCH_BYTES,
        )
        try:
            await consumer.start()
            consumer.subscribe([self.topic], listener=self)
        except BaseException:
            await consumer.discard()
            raise
        return consumer

    async def _watch(self) -> None:
        nothing = TopicPartition(self.topic, _NO_PARTITION)
        failures = 0
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            try:
                async with asyncio.timeout(_WATCH_SECONDS):
                    await self.consumer.getmany(nothing)
            except TimeoutError:
                continue  # a rebalance is under way
            except (KafkaError, ConsumerStoppedError) as error:
                failures += 1
                log.warning("consumer_group_error", group=self.group, error=repr(error), failures=failures)
            else:
                failures = 0
            if failures >= _FAILURES_TO_REPLACE:
                failures = await self._replace()

    async def _replace(self) -> int:
        """A consumer that goes on failing does not recover by itself. The failures to begin with again."""
        log.error("consumer_replaced", group=self.group)
        consumer, self._consumer = self._consumer, None
        await self._revoke(self._assigned)
        if consumer is not None:
            await consumer.discard()
        try:
            self._consumer = await self._connect()
        except (KafkaError, OSError) as error:
            log.warning("cannot_join_group", group=self.group, error=repr(error))
            return _FAILURES_TO_REPLACE
        return 0


def _own_sticky_assignor() -> type[StickyPartitionAssignor]:
    class MemberAssignor(StickyPartitionAssignor):
        member_assignment = None
        generation = StickyPartitionAssignor.DEFAULT_GENERATION_ID

    return MemberAssignor

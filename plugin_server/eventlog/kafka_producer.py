"""An aiokafka producer that is filled batch by batch, and that can be dropped in bounded time in any state.

Records are put into batches by `fill` before a transaction is opened: 2.7 µs a record against 30 µs through
`AIOKafkaProducer.send`, and what cannot be sent is refused before anything was.
"""

# mypy: allow-untyped-calls
# (aiokafka is only partly annotated)

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError, ProducerClosed, RecordListTooLargeError
from aiokafka.producer.message_accumulator import BatchBuilder

from plugin_server.eventlog.port import OutputRecord

TRANSACTION_TIMEOUT_MS = 10_000
_REQUEST_TIMEOUT_MS = 10_000
_RETRY_BACKOFF_MS = 5  # aiokafka's 100 ms stands between two transactions and cuts their rate to a third
_BATCH_LIMIT_BYTES = 1 << 20
_REQUEST_LIMIT_BYTES = 1 << 26  # `fill` knows the broker's real limit; this one must only not be in the way
_DISCARD_SECONDS = 3.0

log = structlog.get_logger(__name__)


class FilledBatch(NamedTuple):
    """Records of one partition, closed to more."""

    topic: str
    partition: int
    batch: BatchBuilder


class LaneProducer(AIOKafkaProducer):
    """Transactional if it has a `transactional_id`, else idempotent."""

    def __init__(
        self, brokers: str, *, client_id: str, transactional_id: str | None, record_limit_bytes: int | None
    ) -> None:
        super().__init__(
            bootstrap_servers=brokers,
            client_id=client_id,
            acks="all",
            enable_idempotence=True,
            transactional_id=transactional_id,
            transaction_timeout_ms=TRANSACTION_TIMEOUT_MS,
            request_timeout_ms=_REQUEST_TIMEOUT_MS,
            retry_backoff_ms=_RETRY_BACKOFF_MS,
            max_batch_size=min(_BATCH_LIMIT_BYTES, record_limit_bytes or _BATCH_LIMIT_BYTES),
            max_request_size=_REQUEST_LIMIT_BYTES,
        )
        self._record_limit_bytes = record_limit_bytes

    def fill(
        self, records: Sequence[OutputRecord], choose_partition: Callable[[OutputRecord], int]
    ) -> list[FilledBatch]:
        """Put records into batches, in their order. Raises ValueError when one is too large for the broker."""
        timestamp_ms = time.time_ns() // 1_000_000
        filled: list[FilledBatch] = []
        open_batches: dict[tuple[str, int], BatchBuilder] = {}
        for record in records:
            topic, partition, key, value, headers = record
            if partition is None:
                partition = choose_partition(record)
            header_list = headers if type(headers) is list else list(headers)
            batch = open_batches.get((topic, partition))
            if batch is None or batch.append(timestamp=timestamp_ms, key=key, value=value, headers=header_list) is None:
                batch = open_batches[topic, partition] = self.create_batch()
                filled.append(FilledBatch(topic, partition, batch))
                batch.append(timestamp=timestamp_ms, key=key, value=value, headers=header_list)  # the first one fits
                if self._record_limit_bytes is not None and batch.size() > self._record_limit_bytes:
                    message = (
                        f"a record of {batch.size()} bytes for {topic!r}, whose limit is {self._record_limit_bytes}"
                    )
                    raise ValueError(message)
        for _topic, _partition, batch in filled:
            batch.close()
        return filled

    async def deliver(self, batches: Sequence[FilledBatch]) -> None:
        """Send the batches and wait for every one of them.

        Raises the first error once all are settled: aiokafka commits a transaction from which a refused batch is
        missing. ValueError when the broker finds a batch too large, which no retry would change.
        """
        sent: list[asyncio.Future[Any]] = []
        for topic, partition, batch in batches:
            future = await self.send_batch(batch, topic, partition=partition)
            future.add_done_callback(_retrieve_error)
            sent.append(future)
        outcomes = await asyncio.gather(*sent, return_exceptions=True)
        for (topic, partition, _batch), outcome in zip(batches, outcomes, strict=True):
            if isinstance(outcome, (MessageSizeTooLargeError, RecordListTooLargeError)):
                message = f"the broker takes no batch of this size on {topic!r}, partition {partition}: raise its limit"
                raise ValueError(message) from outcome  # noqa: TRY004 the type is how the error comes
            if isinstance(outcome, BaseException):
                raise outcome

    async def discard(self) -> None:
        """Abort an open transaction and disconnect, within seconds even if Kafka is away. Never raises."""
        try:
            async with asyncio.timeout(_DISCARD_SECONDS):
                if self._txn_manager is not None and self._txn_manager.is_in_transaction():
                    await self.abort_transaction()
                await self.stop()
        except Exception as error:  # noqa: BLE001 aiokafka raises its own errors, assertions and what killed its sender
            log.info("kafka_producer_dropped", transactional_id=self._transactional_id, error=repr(error))
            await self._drop()
        finally:
            self._retrieve_errors()

    @property
    def _transactional_id(self) -> str | None:
        transactional_id: str | None = None if self._txn_manager is None else self._txn_manager.transactional_id
        return transactional_id

    async def _drop(self) -> None:
        """Disconnect without waiting for anything. The broker aborts the transaction when its time-out has passed."""
        self._closed = True
        orphans = {self._sender.sender_task, *self._tasks_of_sender()} - {None, asyncio.current_task()}
        for task in orphans:
            task.cancel()
        if orphans:
            done, _ = await asyncio.wait(orphans, timeout=1)
            for task in done:
                _retrieve_error(task)
        undelivered = self._undelivered()
        self._message_accumulator.fail_all(ProducerClosed())
        for future in undelivered:
            _retrieve_error(future)
        try:
            async with asyncio.timeout(1):
                await self.client.close()
        except (KafkaError, OSError, TimeoutError) as error:
            log.info("kafka_connection_dropped", error=repr(error))

    def _tasks_of_sender(self) -> list[asyncio.Task[Any]]:
        """Requests that the sender started and would wait for, some of which retry for ever while Kafka is away."""
        found = []
        for task in asyncio.all_tasks():
            frame = getattr(task.get_coro(), "cr_frame", None)
            if frame is not None and frame.f_locals.get("self") in (self._sender, self._message_accumulator):
                found.append(task)
        return found

    def _retrieve_errors(self) -> None:
        """Keep asyncio from reporting again the error that ended a transaction: it sets it on futures nobody awaits."""
        ended = None if self._txn_manager is None else self._txn_manager.wait_for_transaction_end()
        for future in (ended, *self._undelivered()):
            if future is not None:
                _retrieve_error(future)

    def _undelivered(self) -> list[asyncio.Future[Any]]:
        """What tells of the batches that wait or are on their way."""
        accumulator = self._message_accumulator
        batches = [batch for queue in accumulator._batches.values() for batch in queue]  # noqa: SLF001
        batches += accumulator._pending_batches  # noqa: SLF001
        return [future for batch in batches for future in (batch.future, batch._drain_waiter)]  # noqa: SLF001


def _retrieve_error(future: asyncio.Future[Any]) -> None:
    """Keep asyncio from reporting an error whose receiver was cancelled."""
    if future.done() and not future.cancelled():
        future.exception()

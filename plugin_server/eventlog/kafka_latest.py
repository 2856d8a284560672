"""A look at the last records of some partitions of a Kafka topic.

Kafka is read forwards only, so reading starts some offsets before the end. A transaction's mark takes an offset too: of
transactions with one record each, every other offset is a mark. Hence twice as many offsets as records are wanted.
"""

# mypy: allow-untyped-calls
# (aiokafka is only partly annotated)

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from plugin_server.eventlog.kafka_membership import FETCH_MAX_WAIT_MS
from plugin_server.eventlog.port import InputRecord

_OFFSETS_PER_RECORD = 2
_POLL_MS = 500


async def read_latest(
    brokers: str,
    client_id: str,
    places: Sequence[TopicPartition],
    max_records: int,
    max_bytes: int,
) -> list[InputRecord]:
    """The last committed records of each place, oldest first, within both bounds (each for one place).

    The end is where it is at the start of the call. Without end when the broker is slow, so call it under a deadline.
    Raises KafkaError.
    """
    consumer = AIOKafkaConsumer(
        bootstrap_servers=brokers,
        client_id=client_id,
        group_id=None,
        isolation_level="read_committed",
        enable_auto_commit=False,
        fetch_max_wait_ms=FETCH_MAX_WAIT_MS,
    )
    kept = {place: _Last(max_records, max_bytes) for place in places}
    try:
        await consumer.start()
        consumer.assign(places)
        beginnings = await consumer.beginning_offsets(places)
        ends = await consumer.end_offsets(places)  # of what is committed: as far as a reader of committed records comes
        for place in places:
            consumer.seek(place, max(beginnings[place], ends[place] - max_records * _OFFSETS_PER_RECORD))
        unread = set(places)
        while True:
            for place in list(unread):
                if await consumer.position(place) >= ends[place]:
                    unread.remove(place)
                    consumer.pause(place)
            if not unread:
                break
            for place, records in (await consumer.getmany(*unread, timeout_ms=_POLL_MS)).items():
                for record in records:
                    if record.offset < ends[place]:
                        kept[place].add(record)
    finally:
        await consumer.stop()
    return [record for place in places for record in kept[place].records]


class _Last:
    """Keeps the last records that are within both bounds."""

    def __init__(self, max_records: int, max_bytes: int) -> None:
        self.records: deque[InputRecord] = deque()
        self._max_records = max_records
        self._room_bytes = max_bytes

    def add(self, record: Any) -> None:
        self.records.append(record)
        self._room_bytes -= _size_bytes(record)
        while self.records and (len(self.records) > self._max_records or self._room_bytes < 0):
            self._room_bytes += _size_bytes(self.records.popleft())


def _size_bytes(record: InputRecord) -> int:
    headers = sum(len(name) + len(content or b"") for name, content in record.headers)
    return len(record.key or b"") + len(record.value or b"") + headers

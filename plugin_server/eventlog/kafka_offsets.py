"""Reads the committed position of a lane from Kafka, waiting for transactions that are being completed.

aiokafka's own ways (`committed`, `list_consumer_group_offsets`) speak version 3 of OffsetFetch at most and cannot be
used for a lane, for two reasons:
- Starting a producer completes the previous owner's transaction, but the group coordinator takes over the offsets of
  a completed transaction in another thread. Until it has, version 3 answers with the old offset, and a flush would be
  emitted twice; version 7 can ask for stable offsets only (KIP-447). The moment is short: 800 takeovers in the middle
  of a commit on one idle broker did not hit it, which is no promise for a busy one.
- They overlook the error of the whole answer: while a coordinator loads its group they report "no committed offset",
  and a lane would begin again at the earliest record.
"""

# mypy: allow-untyped-calls
# (aiokafka is only partly annotated)

from __future__ import annotations

import asyncio
from typing import Any

from aiokafka.client import AIOKafkaClient, ConnectionGroup, CoordinationType
from aiokafka.errors import BrokerResponseError, KafkaError, for_code
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Boolean, CompactArray, CompactString, Int16, Int32, Int64, Schema
from aiokafka.protocol.types import TaggedFields as Tags

from plugin_server.eventlog.port import Position
from plugin_server.eventlog.position_codec import decode_position

NO_OFFSET = -1
_RETRY_SECONDS = 0.01
_UNSTABLE_OFFSET_COMMIT = 88


class _OffsetFetchResponseV7(Response):
    API_KEY = 9
    API_VERSION = 7
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "topics",
            CompactArray(
                ("topic", CompactString("utf-8")),
                (
                    "partitions",
                    CompactArray(
                        ("partition", Int32),
                        ("offset", Int64),
                        ("leader_epoch", Int32),
                        ("metadata", CompactString("utf-8")),
                        ("error_code", Int16),
                        ("tags", Tags),
                    ),
                ),
                ("tags", Tags),
            ),
        ),
        ("error_code", Int16),
        ("tags", Tags),
    )


class _OffsetFetchRequestV7(RequestStruct):
    FLEXIBLE_VERSION = True
    API_KEY = 9
    API_VERSION = 7
    RESPONSE_TYPE = _OffsetFetchResponseV7
    SCHEMA = Schema(
        ("consumer_group", CompactString("utf-8")),
        (
            "topics",
            CompactArray(("topic", CompactString("utf-8")), ("partitions", CompactArray(Int32)), ("tags", Tags)),
        ),
        ("require_stable", Boolean),
        ("tags", Tags),
    )


class _StableOffsetFetch(Request[_OffsetFetchRequestV7]):
    API_KEY = 9

    def __init__(self, group: str, topic: str, partition: int) -> None:
        self._group = group
        self._topics: list[tuple[str, list[int], dict[int, bytes]]] = [(topic, [partition], {})]

    def build(self, request_struct_class: type[_OffsetFetchRequestV7]) -> _OffsetFetchRequestV7:
        return request_struct_class(self._group, self._topics, True, {})


class CommittedOffsets:
    """Of one group. Shares a client; finds the group's coordinator again when it has moved."""

    def __init__(self, client: AIOKafkaClient, group: str) -> None:
        self._client = client
        self._group = group
        self._coordinator_id: int | None = None

    async def read(self, topic: str, partition: int) -> Position | None:
        """The committed position, None if there is none yet.

        Retries what may pass without end, so call it under a deadline. Raises KafkaError for what will not pass.
        """
        while True:
            try:
                return await self._read_once(topic, partition)
            except KafkaError as error:
                if not (error.retriable or isinstance(error, _UnstableOffsetError)):
                    raise
                if not isinstance(error, _UnstableOffsetError):
                    self._coordinator_id = None
                await asyncio.sleep(_RETRY_SECONDS)

    async def _read_once(self, topic: str, partition: int) -> Position | None:
        if self._coordinator_id is None:
            self._coordinator_id = await self._client.coordinator_lookup(CoordinationType.GROUP, self._group)
        response: Any = await self._client.send(
            self._coordinator_id, _StableOffsetFetch(self._group, topic, partition), group=ConnectionGroup.COORDINATION
        )
        _raise_for(response.error_code)
        ((_topic, ((_partition, offset, _leader_epoch, metadata, error_code, _), *_more), _tags),) = response.topics
        _raise_for(error_code)
        return None if offset == NO_OFFSET else decode_position(offset, metadata)


class _UnstableOffsetError(BrokerResponseError):
    errno = _UNSTABLE_OFFSET_COMMIT
    message = "UNSTABLE_OFFSET_COMMIT"
    description = "A transaction with this offset is being completed"


def _raise_for(error_code: int) -> None:
    if error_code == _UNSTABLE_OFFSET_COMMIT:
        raise _UnstableOffsetError
    if error_code:
        raise for_code(error_code)(f"OffsetFetch: error {error_code}")

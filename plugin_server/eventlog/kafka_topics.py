"""Topics of a Kafka cluster: creating them, and what records they take."""

# mypy: allow-untyped-calls
# (aiokafka is only partly annotated)

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Any

import structlog
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import TopicAlreadyExistsError, for_code

_REQUEST_TIMEOUT_MS = 10_000
_BROKER_DEFAULT = -1
_METADATA_POLL_SECONDS = 0.05
_RECORD_LIMIT_OPTION = "max.message.bytes"

log = structlog.get_logger(__name__)


@asynccontextmanager
async def connected_admin(brokers: str, client_id: str) -> AsyncIterator[AIOKafkaAdminClient]:
    """An admin client for the length of the block. Raises KafkaError."""
    admin = AIOKafkaAdminClient(bootstrap_servers=brokers, client_id=client_id, request_timeout_ms=_REQUEST_TIMEOUT_MS)
    try:
        await admin.start()
        yield admin
    finally:
        await admin.close()


async def create_missing_topics(admin: AIOKafkaAdminClient, topics: Collection[str], partitions: int) -> None:
    """With the broker's default replication factor. Raises KafkaError, but not for one that others create meanwhile."""
    missing = sorted(set(topics) - set(await admin.list_topics()))
    if not missing:
        return
    new = [NewTopic(topic, partitions, _BROKER_DEFAULT, replica_assignments={}) for topic in missing]
    response: Any = await admin.create_topics(new)
    for topic, error_code, *rest in response.topic_errors:
        error = for_code(error_code)
        if error_code and error is not TopicAlreadyExistsError:
            raise error(f"cannot create {topic!r}: {rest[0] if rest and rest[0] else error.__name__}")
    log.info("topics_created", topics=missing, partitions=partitions)


async def wait_for_leaders(client: AIOKafkaClient, topics: Collection[str]) -> None:
    """Until the client knows all partitions and their leaders. Without end, so call it under a deadline."""
    for topic in topics:
        client.add_topic(topic)
    while True:
        await client.force_metadata_update()
        if all(_has_leaders(client, topic) for topic in topics):
            return
        await asyncio.sleep(_METADATA_POLL_SECONDS)


async def record_limit_bytes(admin: AIOKafkaAdminClient, topics: Collection[str]) -> int | None:
    """The lowest `max.message.bytes` of these topics, None if the broker tells us of none. Raises KafkaError."""
    described: list[Any] = await admin.describe_configs(
        [
            ConfigResource(ConfigResourceType.TOPIC, topic, configs={_RECORD_LIMIT_OPTION: ""})
            for topic in sorted(topics)
        ]
    )
    limits: list[int] = []
    for response in described:
        for error_code, message, _type, topic, options in response.resources:
            if error_code:
                log.warning("topic_limits_unknown", topic=topic, error=message or str(for_code(error_code)))
            limits += [int(value) for name, value, *_rest in options if name == _RECORD_LIMIT_OPTION]
    return min(limits, default=None)


def _has_leaders(client: AIOKafkaClient, topic: str) -> bool:
    known = client.cluster.partitions_for_topic(topic)
    return bool(known) and client.cluster.available_partitions_for_topic(topic) == known

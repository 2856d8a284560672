"""A lane that stays with its worker through a rebalance reads on without a gap."""

# mypy: allow-untyped-calls

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.contract.logs import PARTITIONS, KafkaLogs, Recorder, fetch_all, values_of

LONG_SECONDS = 5


@pytest.fixture
async def logs(kafka: str, topic_prefix: str) -> AsyncIterator[KafkaLogs]:
    logs = KafkaLogs(topic_prefix, kafka)
    yield logs
    await logs.close()


async def test_a_fetch_that_waited_through_a_rebalance_swallows_nothing(logs: KafkaLogs) -> None:
    """It was waiting when the lane was resumed, and is answered with what came after that."""
    first, recorder = await logs.make(), Recorder()
    await first.join(logs.group, logs.input, recorder)
    await recorder.until(lambda partitions: len(partitions) == PARTITIONS)
    lanes = {partition: await first.open_lane(partition) for partition in range(PARTITIONS)}
    for partition, lane in lanes.items():  # so that there is a position to come back to
        await logs.feed(first, 1, partition)
        [record] = await fetch_all(lane, 1)
        await lane.commit([], type(lane.position)(record.offset + 1))
    waiting = {partition: asyncio.create_task(lane.fetch(10, LONG_SECONDS)) for partition, lane in lanes.items()}
    second = await logs.make()
    await second.join(logs.group, logs.input, Recorder())
    kept = await recorder.until(lambda partitions: 0 < len(partitions) < PARTITIONS)
    for partition in kept:
        assert await lanes[partition].resume()
        assert not waiting[partition].done()
        await logs.feed(first, 5, partition, first=1)
    for partition in kept:
        read = [*await waiting[partition]]
        read += await fetch_all(lanes[partition], 5 - len(read))
        assert values_of(read) == [b"event %d of %d" % (number, partition) for number in range(1, 6)]
    for partition, lane in lanes.items():
        await waiting[partition]
        await lane.close()

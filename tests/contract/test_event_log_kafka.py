"""What only Kafka has: members that come and go, retention, brokers that are away."""

# mypy: allow-untyped-calls

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest
import pytest_asyncio
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError

from plugin_server.eventlog import kafka as kafka_module
from plugin_server.eventlog import kafka_lane, kafka_membership
from plugin_server.eventlog.kafka import KafkaEventLog
from plugin_server.eventlog.kafka_offsets import CommittedOffsets
from plugin_server.eventlog.port import EventLog, InputRecord, LaneLog, OutputRecord, Position
from plugin_server.model.errors import CommitOutcomeUnknown, EventLogUnavailable, LaneFenced
from tests.contract.logs import PARTITIONS, PATIENCE_SECONDS, KafkaLogs, Recorder, fetch_all, read_all, values_of
from tests.kafka_broker.broker import KafkaBroker

pytestmark = pytest.mark.kafka
NOBODY_LISTENS = "127.0.0.1:1"


@pytest_asyncio.fixture
async def logs(kafka: str, topic_prefix: str) -> AsyncIterator[KafkaLogs]:
    made = KafkaLogs(topic_prefix, kafka)
    yield made
    await made.close()


async def test_two_members_share_the_partitions_and_keep_what_they_can(logs: KafkaLogs) -> None:
    first, second = await logs.make(), await logs.make()
    of_first, of_second = Recorder(), Recorder()
    await first.join(logs.group, logs.input, of_first)
    await of_first.until(lambda partitions: len(partitions) == PARTITIONS)
    await second.join(logs.group, logs.input, of_second)
    half = await of_first.until(lambda partitions: len(partitions) == PARTITIONS // 2)
    other_half = await of_second.until(lambda partitions: len(partitions) == PARTITIONS // 2)
    assert half | other_half == frozenset(range(PARTITIONS))
    assert of_first.revoked == [frozenset(range(PARTITIONS))]
    third = await logs.make()
    await third.join(logs.group, logs.input, of_third := Recorder())
    of_three = await of_third.until(bool)
    kept = await of_first.until(lambda partitions: partitions <= half)
    also_kept = await of_second.until(lambda partitions: partitions <= other_half)
    assert kept | also_kept | of_three == frozenset(range(PARTITIONS))
    await third.stop()
    await second.stop()
    await of_first.until(lambda partitions: len(partitions) == PARTITIONS)


async def test_a_lane_kept_over_a_rebalance_takes_nothing_twice(logs: KafkaLogs) -> None:
    log = await logs.make()
    await log.join(logs.group, logs.input, recorder := Recorder())
    await recorder.until(lambda partitions: len(partitions) == PARTITIONS)
    values = {partition: await logs.feed(log, 40, partition) for partition in range(PARTITIONS)}
    lanes = {partition: await log.open_lane(partition) for partition in range(PARTITIONS)}
    for lane in lanes.values():
        records = await fetch_all(lane, 10)
        await lane.commit([], Position(records[4].offset + 1))  # records 5 to 9 are in flight

    async def fetch_on(lane: LaneLog, into: list[bytes | None]) -> None:
        while True:
            into += values_of(await lane.fetch(5, 0.05))

    fetched: dict[int, list[bytes | None]] = {partition: [] for partition in lanes}
    fetching = [asyncio.create_task(fetch_on(lane, fetched[partition])) for partition, lane in lanes.items()]
    other = await logs.make()
    await other.join(logs.group, logs.input, of_other := Recorder())
    lost = await of_other.until(lambda partitions: len(partitions) == PARTITIONS // 2)
    kept = await recorder.until(lambda partitions: len(partitions) == PARTITIONS // 2)
    await asyncio.sleep(0.5)  # time in which a lane that did not wait for `resume` would take records
    for partition in kept:
        assert await lanes[partition].resume()
    for partition in lost:
        assert not await lanes[partition].resume()
    async with asyncio.timeout(PATIENCE_SECONDS):
        while any(len(fetched[partition]) < 30 for partition in kept):  # noqa: ASYNC110 they are filled by others
            await asyncio.sleep(0.05)
    for partition in kept:
        assert fetched[partition] == values[partition][10:]
    for partition in lost:
        successor = await other.open_lane(partition)
        assert values_of(await fetch_all(successor, 35)) == values[partition][5:]
        with pytest.raises(LaneFenced):
            await lanes[partition].commit([logs.record(b"late")], Position(40))
        await successor.close()
    for task in fetching:
        task.cancel()
    await asyncio.gather(*fetching, return_exceptions=True)
    for lane in lanes.values():
        await lane.close()


async def test_a_partition_that_is_not_ours_is_not_acquired(logs: KafkaLogs) -> None:
    log = await logs.make_joined()
    with pytest.raises(EventLogUnavailable, match="not assigned"):
        await log.open_lane(PARTITIONS)


async def test_static_membership_survives_a_restart_without_a_rebalance(kafka: str, logs: KafkaLogs) -> None:
    await logs.make()
    other, of_other = await logs.make(), Recorder()
    await other.join(logs.group, logs.input, of_other)
    await of_other.until(lambda partitions: len(partitions) == PARTITIONS)

    async def start(worker_id: str) -> tuple[EventLog, frozenset[int]]:
        log = KafkaEventLog(kafka, worker_id=worker_id)
        await log.start()
        await log.ensure_topics([logs.input], PARTITIONS)
        await log.join(logs.group, logs.input, recorder := Recorder())
        return log, await recorder.until(bool)

    worker, before = await start("worker-1")
    await of_other.until(lambda partitions: len(partitions) == PARTITIONS // 2)
    revocations = len(of_other.revoked)
    await worker.stop()
    worker, after = await start("worker-1")
    assert after == before
    assert len(of_other.revoked) == revocations
    await worker.stop()


async def test_records_deleted_by_retention_are_counted_and_reading_goes_on(logs: KafkaLogs) -> None:
    log = await logs.make_joined()
    values = await logs.feed(log, 20)
    lane = await log.open_lane(0)
    await lane.commit([], Position(3))
    await lane.close()
    admin = AIOKafkaAdminClient(bootstrap_servers=logs.brokers)
    await admin.start()
    await admin.delete_records({TopicPartition(logs.input, 0): RecordsToDelete(11)})
    await admin.close()
    lane = await log.open_lane(0)
    assert values_of(await fetch_all(lane, 9)) == values[11:]
    assert logs.events_lost == [(0, 8)]
    await lane.close()


async def test_metadata_of_somebody_else_does_not_stop_a_lane(logs: KafkaLogs) -> None:
    log = await logs.make_joined()
    lane = await log.open_lane(0)
    await lane._producer.begin_transaction()  # type: ignore[attr-defined]
    await lane._producer.send_offsets_to_transaction(  # type: ignore[attr-defined]
        {TopicPartition(logs.input, 0): (7, "set by an operator")}, logs.group
    )
    await lane._producer.commit_transaction()  # type: ignore[attr-defined]
    await lane.close()
    again = await log.open_lane(0)
    assert again.position == Position(7)
    await again.close()


async def test_a_record_over_the_brokers_limit_is_refused_and_the_lane_stays_usable(logs: KafkaLogs) -> None:
    log = await logs.make_joined()
    limit_bytes = await log.record_limit_bytes()
    assert limit_bytes == 1_048_588
    lane = await log.open_lane(0)
    with pytest.raises(ValueError, match="limit is"):
        await lane.commit([logs.record(b"small"), logs.record(b"x" * limit_bytes)], Position(1))
    with pytest.raises(ValueError, match="limit is"):
        await log.produce([logs.record(b"x" * limit_bytes)])
    await lane.commit([logs.record(b"x" * 1_000_000), logs.record(b"y" * 1_000_000)], Position(2))
    await lane.close()
    assert [len(record.value or b"") for record in await read_all(log, logs.output, 2)] == [1_000_000] * 2


async def test_a_hundred_lanes_start_and_commit(kafka: str, topic_prefix: str) -> None:
    log = KafkaEventLog(kafka, worker_id=None)
    await log.start()
    topic = f"{topic_prefix}wide"
    await log.ensure_topics([topic], 100)
    await log.join(f"{topic_prefix}group", topic, recorder := Recorder())
    partitions = await recorder.until(lambda partitions: len(partitions) == 100)
    lanes = await asyncio.gather(*(log.open_lane(partition) for partition in partitions))
    await asyncio.gather(
        *(lane.commit([OutputRecord(topic, lane.partition, None, b"from lane")], Position(0)) for lane in lanes)
    )
    fetched = await asyncio.gather(*(fetch_all(lane, 1) for lane in lanes))
    assert all(values_of(records) == [b"from lane"] for records in fetched)
    await asyncio.gather(*(lane.close() for lane in lanes))
    await log.stop()


async def test_a_successor_reads_the_offset_of_a_transaction_that_was_just_committed(logs: KafkaLogs) -> None:
    """A coordinator takes over offsets after the transaction has ended; reading in between would double a flush."""
    log = await logs.make_joined()
    lane = await log.open_lane(0)
    for number in range(1, 60):
        await lane.commit([logs.record(b"x", number % PARTITIONS)], Position(number))
        successor = await log.open_lane(0)
        assert successor.position == Position(number)
        await lane.close()
        lane = successor
    await lane.close()


async def test_an_unstable_offset_is_waited_for(logs: KafkaLogs) -> None:
    log = await logs.make_joined()
    lane = await log.open_lane(0)
    await lane.commit([], Position(1))
    producer = lane._producer  # type: ignore[attr-defined]
    await producer.begin_transaction()
    await producer.send_offsets_to_transaction({TopicPartition(logs.input, 0): (2, "")}, logs.group)
    client = AIOKafkaClient(bootstrap_servers=logs.brokers)
    await client.bootstrap()
    reading = asyncio.create_task(CommittedOffsets(client, logs.group).read(logs.input, 0))
    await asyncio.sleep(0.3)
    assert not reading.done()
    await producer.commit_transaction()
    assert await reading == Position(2)
    await client.close()
    await lane.close()


async def test_at_least_once_commits_without_a_transaction(kafka: str, topic_prefix: str) -> None:
    logs = KafkaLogs(topic_prefix, kafka, exactly_once=False)
    log = await logs.make_joined()
    await logs.feed(log, 10)
    lane = await log.open_lane(0)
    records = await fetch_all(lane, 10)
    await lane.commit([logs.record(b"one"), logs.record(b"two")], Position(3, ((5, 7),)))
    await lane.close()
    assert values_of(await read_all(log, logs.output, 2)) == [b"one", b"two"]
    again = await log.open_lane(0)
    assert again.position == Position(3, ((5, 7),))
    assert values_of(await fetch_all(again, 7)) == values_of(records[3:])
    await again.close()
    await logs.close()


async def test_a_consumer_that_goes_on_failing_is_replaced(logs: KafkaLogs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Aiokafka does not recover from an error that ends its heartbeats; it reports it for ever."""
    monkeypatch.setattr(kafka_membership, "_WATCH_SECONDS", 0.05)
    log = await logs.make()
    await log.join(logs.group, logs.input, recorder := Recorder())
    await recorder.until(lambda partitions: len(partitions) == PARTITIONS)
    values = await logs.feed(log, 10)
    lane = await log.open_lane(0)
    await lane.commit([], Position(2))
    await fetch_all(lane, 6)

    async def fail() -> None:
        raise KafkaError("the heartbeat was refused")

    coordinator = log._membership.consumer._coordinator  # type: ignore[attr-defined]
    coordinator._heartbeat_task.cancel()
    coordinator._heartbeat_task = asyncio.create_task(fail())
    recorder.assigned.clear()
    await recorder.until(lambda partitions: len(partitions) == PARTITIONS)
    assert recorder.revoked == [frozenset(range(PARTITIONS))]
    assert await lane.resume()
    assert values_of(await fetch_all(lane, 4)) == values[6:]
    await lane.commit([logs.record(b"goes on")], Position(10))
    await lane.close()


async def test_no_broker_is_said_at_once() -> None:
    log = KafkaEventLog(NOBODY_LISTENS, worker_id=None)
    with pytest.raises(EventLogUnavailable, match=NOBODY_LISTENS):
        await log.start()
    await log.stop()


async def test_a_broker_that_crashes_and_comes_back_loses_and_doubles_nothing(
    topic_prefix: str, own_kafka: KafkaBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_lane, "COMMIT_SECONDS", 2.0)
    monkeypatch.setattr(kafka_module, "PRODUCE_SECONDS", 2.0)
    logs = KafkaLogs(topic_prefix, own_kafka.bootstrap_servers)
    try:
        log = await logs.make_joined()
        values = await logs.feed(log, 100)
        lane = await log.open_lane(0)
        await lane.commit([logs.record(value) for value in values[:10]], Position(10))
        await asyncio.to_thread(own_kafka.kill)
        with pytest.raises(CommitOutcomeUnknown):
            await lane.commit([logs.record(value) for value in values[10:20]], Position(20))
        await lane.close()
        with pytest.raises(EventLogUnavailable):
            await log.produce([OutputRecord(logs.input, 3, None, b"nowhere to go")])
        await asyncio.to_thread(own_kafka.start)

        async with asyncio.timeout(4 * PATIENCE_SECONDS):
            lane = await open_when_possible(log, 0)
            done = lane.position.next
            assert done == 10
            while done < len(values):
                records = await fetch_when_possible(lane)
                if records:
                    done = records[-1].offset + 1
                    await lane.commit([logs.record(record.value or b"") for record in records], Position(done))
        await lane.close()
        assert values_of(await read_all(log, logs.output, len(values))) == values
    finally:
        await logs.close()


async def open_when_possible(log: EventLog, partition: int) -> LaneLog:
    while True:
        try:
            return await log.open_lane(partition)
        except EventLogUnavailable:
            await asyncio.sleep(0.2)


async def fetch_when_possible(lane: LaneLog) -> Sequence[InputRecord]:
    try:
        return await lane.fetch(30, 1)
    except EventLogUnavailable:
        return []

"""The contract of the event log (port.py), held by both implementations."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from plugin_server.eventlog.port import METADATA_LIMIT_BYTES, OutputRecord, Position
from plugin_server.model.errors import CommitOutcomeUnknown, ConfigurationError, LaneFenced
from tests.contract.logs import (
    PARTITIONS,
    PATIENCE_SECONDS,
    EmbeddedLogs,
    KafkaLogs,
    Logs,
    Recorder,
    fetch_all,
    read_all,
    values_of,
)


@pytest_asyncio.fixture(params=["embedded", pytest.param("kafka", marks=pytest.mark.kafka)])
async def logs(request: pytest.FixtureRequest, tmp_path: Path, topic_prefix: str) -> AsyncIterator[Logs]:
    made: Logs
    if request.param == "kafka":
        made = KafkaLogs(topic_prefix, request.getfixturevalue("kafka"))
    else:
        made = EmbeddedLogs(topic_prefix, tmp_path)
    yield made
    await made.close()


async def test_fetch_gives_records_in_offset_order_as_they_were_written(logs: Logs) -> None:
    log = await logs.make_joined()
    before_ms = int(time.time() * 1000)
    headers = [("lineage", b'{"v":1}'), ("empty", b""), ("lineage", b"\x00\xff")]
    await log.produce(
        [
            OutputRecord(logs.input, 0, b"key", b"first", headers),
            OutputRecord(logs.input, 0, None, b"second"),
            OutputRecord(logs.input, 0, b"", b"\x00third"),
        ]
    )
    lane = await log.open_lane(0)
    records = await fetch_all(lane, 3)
    assert [(record.key, record.value) for record in records] == [
        (b"key", b"first"),
        (None, b"second"),
        (b"", b"\x00third"),
    ]
    assert [list(record.headers) for record in records] == [headers, [], []]
    assert [record.offset for record in records] == sorted({record.offset for record in records})
    assert all(before_ms - 1 <= record.timestamp <= time.time() * 1000 + 1 for record in records)
    await lane.close()


async def test_fetch_returns_at_most_what_was_asked_for_and_then_the_rest(logs: Logs) -> None:
    log = await logs.make_joined()
    values = await logs.feed(log, 25)
    lane = await log.open_lane(0)
    fetched: list[bytes | None] = []
    async with asyncio.timeout(PATIENCE_SECONDS):
        while len(fetched) < len(values):
            batch = await lane.fetch(10, 1)
            assert len(batch) <= 10
            fetched += values_of(batch)
    assert fetched == values
    assert await lane.fetch(10, 0.05) == []
    await lane.close()


async def test_fetch_wakes_up_for_a_record_that_comes_while_it_waits(logs: Logs) -> None:
    log = await logs.make_joined()
    lane = await log.open_lane(0)
    waiting = asyncio.create_task(lane.fetch(10, PATIENCE_SECONDS))
    await asyncio.sleep(0.2)
    values = await logs.feed(log, 1)
    assert values_of(await waiting) == values
    await lane.close()


async def test_cancelling_fetch_loses_no_record(logs: Logs) -> None:
    log = await logs.make_joined()
    values = await logs.feed(log, 200)
    lane = await log.open_lane(0)
    fetched: list[bytes | None] = []
    async with asyncio.timeout(PATIENCE_SECONDS):
        for delay in range(10_000):
            fetching = asyncio.create_task(lane.fetch(7, 1))
            await asyncio.sleep(0.0005 * (delay % 5))
            fetching.cancel()
            try:
                fetched += values_of(await fetching)
            except asyncio.CancelledError:
                fetched += values_of(await lane.fetch(3, 0.05))
            if len(fetched) >= len(values):
                break
    assert fetched == values
    await lane.close()


async def test_lanes_fetch_at_the_same_time_each_from_its_partition(logs: Logs) -> None:
    log = await logs.make_joined()
    expected = [await logs.feed(log, 300, partition) for partition in range(PARTITIONS)]
    lanes = await asyncio.gather(*(log.open_lane(partition) for partition in range(PARTITIONS)))
    assert [lane.partition for lane in lanes] == list(range(PARTITIONS))
    fetched = await asyncio.gather(*(fetch_all(lane, 300) for lane in lanes))
    assert [values_of(records) for records in fetched] == expected
    await asyncio.gather(*(lane.close() for lane in lanes))


async def test_a_new_lane_starts_at_the_earliest_record(logs: Logs) -> None:
    log = await logs.make_joined()
    lane = await log.open_lane(1)
    assert lane.position == Position(0)
    await lane.close()


async def test_commit_writes_records_and_position(logs: Logs) -> None:
    log = await logs.make_joined()
    await logs.feed(log, 20)
    lane = await log.open_lane(0)
    records = await fetch_all(lane, 20)
    position = Position(
        records[4].offset + 1, ((records[6].offset, records[9].offset), (records[12].offset, records[12].offset + 1))
    )
    outputs = [
        OutputRecord(logs.output, 2, b"key", b"one", [("h", b"1"), ("h", b"2")]),
        OutputRecord(logs.output, 2, None, b"two", (("t", b"3"),)),
    ]
    await lane.commit(outputs, position)
    assert lane.position == position
    await lane.close()

    written = await read_all(log, logs.output, 2)
    assert [(each.key, each.value, list(each.headers)) for each in written] == [
        (b"key", b"one", [("h", b"1"), ("h", b"2")]),
        (None, b"two", [("t", b"3")]),
    ]
    again = await log.open_lane(0)
    assert again.position == position
    # `done` records are among them: to skip them is the lane's work.
    assert values_of(await fetch_all(again, 15)) == values_of(records[5:])
    await again.close()


async def test_commit_without_records_moves_the_position(logs: Logs) -> None:
    log = await logs.make_joined()
    await logs.feed(log, 5)
    lane = await log.open_lane(0)
    await lane.commit([], Position(3, ((4, 5),)))
    await lane.close()
    again = await log.open_lane(0)
    assert again.position == Position(3, ((4, 5),))
    await again.close()


async def test_many_records_of_many_sizes_are_committed_in_order(logs: Logs) -> None:
    log = await logs.make_joined()
    lane = await log.open_lane(0)
    outputs = [logs.record(b"%d " % number + b"x" * (number * 137 % 9_000), number % 2) for number in range(1_000)]
    await lane.commit(outputs, Position(0))
    await lane.close()
    written = values_of(await read_all(log, logs.output, len(outputs)))
    for partition in range(2):
        expected = [record.value for record in outputs if record.partition == partition]
        assert [value for value in written if value in set(expected)] == expected


async def test_records_without_partition_are_spread_by_key(logs: Logs) -> None:
    log = await logs.make_joined()
    lane = await log.open_lane(0)
    keys = [b"token:user %d" % number for number in range(40)]
    await lane.commit([logs.record(key, None, key) for key in keys], Position(0))
    await log.produce([logs.record(key, None, key) for key in keys])
    await lane.close()
    partition_of: dict[bytes | None, set[int]] = {}
    other = await logs.make()
    await other.join(f"{logs.group}2", logs.output, recorder := Recorder())
    await recorder.until(lambda partitions: len(partitions) == PARTITIONS)
    for partition in range(PARTITIONS):
        reading = await other.open_lane(partition)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while batch := await reading.fetch(1_000, 0.5):
                for record in batch:
                    partition_of.setdefault(record.key, set()).add(partition)
        await reading.close()
    assert set(partition_of) == set(keys)
    assert all(len(partitions) == 1 for partitions in partition_of.values())
    assert len(set.union(*partition_of.values())) == PARTITIONS


async def test_an_older_lane_is_fenced_and_nothing_of_it_is_seen(logs: Logs) -> None:
    log = await logs.make_joined()
    await logs.feed(log, 10)
    older = await log.open_lane(0)
    await fetch_all(older, 10)
    await older.commit([logs.record(b"before")], Position(2))
    newer = await log.open_lane(0)
    assert newer.position == Position(2)
    with pytest.raises(LaneFenced):
        await older.commit([logs.record(b"of the older")], Position(9))
    with pytest.raises(CommitOutcomeUnknown):
        await older.commit([], Position(9))
    await newer.commit([logs.record(b"of the newer")], Position(4))
    await older.close()
    await newer.close()
    assert values_of(await read_all(log, logs.output, 2)) == [b"before", b"of the newer"]
    again = await log.open_lane(0)
    assert again.position == Position(4)
    await again.close()


async def test_what_a_killed_worker_left_unfinished_is_never_seen(logs: Logs) -> None:
    log = await logs.make_joined()
    await logs.feed(log, 10)
    lane = await log.open_lane(0)
    await lane.commit([logs.record(b"finished")], Position(1))
    await logs.die_within_commit(lane, [logs.record(b"unfinished")] * 3)
    successor = await log.open_lane(0)
    assert successor.position == Position(1)
    await successor.commit([logs.record(b"after")], Position(2))
    assert values_of(await read_all(log, logs.output, 2)) == [b"finished", b"after"]
    await lane.close()
    await successor.close()


async def test_offsets_may_have_gaps(logs: Logs) -> None:
    log = await logs.make_joined()
    writer = await log.open_lane(1)
    for number in range(5):
        await writer.commit([OutputRecord(logs.input, 0, None, b"%d" % number)], Position(0))
    await writer.close()
    reader = await log.open_lane(0)
    records = await fetch_all(reader, 5)
    assert values_of(records) == [b"0", b"1", b"2", b"3", b"4"]
    offsets = [record.offset for record in records]
    assert offsets == sorted(set(offsets))
    await reader.commit([], Position(offsets[2] + 1))
    await reader.close()
    again = await log.open_lane(0)
    assert values_of(await fetch_all(again, 2)) == [b"3", b"4"]
    await again.close()


async def test_resume_goes_on_where_fetch_had_arrived(logs: Logs) -> None:
    log = await logs.make_joined()
    values = await logs.feed(log, 10)
    lane = await log.open_lane(0)
    assert await lane.resume()  # also before its first commit
    await fetch_all(lane, 6)
    await lane.commit([], Position(2, ((3, 4),)))
    assert await lane.resume()
    assert values_of(await fetch_all(lane, 4)) == values[6:]
    await lane.close()


async def test_resume_is_refused_when_somebody_else_moved_the_position(logs: Logs) -> None:
    log = await logs.make_joined()
    await logs.feed(log, 10)
    lane = await log.open_lane(0)
    await lane.commit([], Position(2))
    other = await log.open_lane(0)
    await other.commit([], Position(2, ((5, 6),)))
    assert not await lane.resume()
    await lane.close()
    await other.close()


async def test_a_closed_lane_commits_nothing(logs: Logs) -> None:
    log = await logs.make_joined()
    lane = await log.open_lane(0)
    await lane.close()
    await lane.close()
    with pytest.raises(CommitOutcomeUnknown):
        await lane.commit([logs.record(b"late")], Position(1))
    assert not await lane.resume()


async def test_a_position_that_a_broker_would_refuse_is_refused_before_anything_is_written(logs: Logs) -> None:
    log = await logs.make_joined()
    lane = await log.open_lane(0)
    runs = tuple((number, number + 1) for number in range(1, 2 * METADATA_LIMIT_BYTES, 2))
    with pytest.raises(ValueError, match="over 4000"):
        await lane.commit([logs.record(b"too much")], Position(0, runs))
    await lane.commit([logs.record(b"fits")], Position(0, runs[:1_900]))
    await lane.close()
    again = await log.open_lane(0)
    assert again.position == Position(0, runs[:1_900])
    assert values_of(await read_all(log, logs.output, 1)) == [b"fits"]
    await again.close()


async def test_read_without_from_start_gives_only_what_comes_next(logs: Logs) -> None:
    log = await logs.make()
    await log.produce([logs.record(b"old")])
    reading = log.read([logs.output, logs.input], from_start=False)
    first = asyncio.ensure_future(anext(reading))
    async with asyncio.timeout(PATIENCE_SECONDS):
        number = 0
        while not first.done():  # where "next" begins is when the reading has started, which has no sign of its own
            await log.produce([logs.record(b"new %d" % number)])
            number += 1
            await asyncio.sleep(0.1)
    topic, record = await first
    assert topic == logs.output
    assert record.value is not None
    assert record.value.startswith(b"new")
    await reading.aclose()  # type: ignore[attr-defined]


async def test_topics_are_left_as_they_are(logs: Logs) -> None:
    log = await logs.make()
    await log.ensure_topics([logs.input, f"{logs.input}2"], PARTITIONS + 3)
    assert log.partition_count(logs.input) == PARTITIONS
    assert log.partition_count(f"{logs.input}2") == PARTITIONS + 3
    with pytest.raises(ConfigurationError):
        log.partition_count("never heard of")


async def test_the_listener_is_told_of_all_partitions(logs: Logs) -> None:
    log = await logs.make()
    recorder = Recorder()
    await log.join(logs.group, logs.input, recorder)
    assert await recorder.until(bool) == frozenset(range(PARTITIONS))
    assert recorder.revoked == []
    with pytest.raises(ConfigurationError):
        await log.join(logs.group, logs.input, recorder)


async def test_a_cancelled_commit_is_settled_by_acquiring_the_lane_again(logs: Logs) -> None:
    log = await logs.make_joined()
    await logs.feed(log, 60)
    expected = []
    for number in range(12):
        lane = await log.open_lane(0)
        committing = asyncio.create_task(lane.commit([logs.record(b"%d" % number)], Position(lane.position.next + 1)))
        await asyncio.sleep(0.001 * number)
        committing.cancel()
        await asyncio.gather(committing, return_exceptions=True)
        before = lane.position.next if committing.cancelled() else lane.position.next - 1
        await lane.close()
        again = await log.open_lane(0)
        if again.position.next > before:
            expected.append(b"%d" % number)
        await again.close()
    last = await log.open_lane(0)
    await last.commit([logs.record(b"end")], last.position)
    await last.close()
    assert values_of(await read_all(log, logs.output, len(expected) + 1)) == [*expected, b"end"]


async def test_latest_gives_the_last_records_of_each_partition_in_order(logs: Logs) -> None:
    log = await logs.make()
    assert await log.latest(logs.output, 10, 2**20) == []
    headers = [("h", b"1")]
    written = [OutputRecord(logs.output, n % 2, b"k%d" % n, b"value %d" % n, headers) for n in range(30)]
    await log.produce(written)
    last = await log.latest(logs.output, 5, 2**20)
    assert values_of(last) == [b"value %d" % n for n in (20, 22, 24, 26, 28, 21, 23, 25, 27, 29)]
    assert (last[0].key, list(last[0].headers)) == (b"k20", headers)
    assert sorted(values_of(await log.latest(logs.output, 1_000, 2**20))) == sorted(each.value for each in written)


async def test_latest_keeps_within_its_bytes(logs: Logs) -> None:
    log = await logs.make()
    await log.produce([logs.record(b"%d" % n + b"x" * 999) for n in range(9)])
    assert [value[:1] for value in values_of(await log.latest(logs.output, 9, PARTITIONS * 3_500)) if value] == [
        b"6",
        b"7",
        b"8",
    ]
    assert await log.latest(logs.output, 9, PARTITIONS * 100) == []


async def test_latest_gives_committed_records_only_and_ends_where_a_transaction_is_open(logs: Logs) -> None:
    log = await logs.make_joined()
    for number in range(6):
        lane = await log.open_lane(0)
        await lane.commit([logs.record(b"committed %d" % number)], Position(0))
        await logs.die_within_commit(lane, [logs.record(b"never committed")])
    assert values_of(await log.latest(logs.output, 1, 2**20)) in ([], [b"committed 5"])
    assert values_of(await log.latest(logs.output, 100, 2**20)) == [b"committed %d" % number for number in range(6)]

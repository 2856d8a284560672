"""The lane over a log in memory: whatever happens in whatever order, each event's outputs are committed once."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugin_server.eventlog.port import Position
from plugin_server.lanes.lane import FETCH_RECORDS
from plugin_server.model.errors import CommitOutcomeUnknown, EventLogUnavailable, LaneFenced
from plugin_server.runtime.replies import Capture, LogLine, Notes
from sandbox.wire import EventOutcome
from tests.unit.ingestion.doubles import TOPICS, Bench, Partition, Record, message

STEPS = st.lists(
    st.sampled_from(["answer first", "answer last", "answer middle", "answer all", "settle", "settle", "feed"])
    | st.sampled_from(["suspend", "resume", "crash", "fence", "lose commit", "unknown commit", "fetch error"]),
    max_size=40,
)


async def follow(steps: list[str], bench: Bench) -> None:
    """Do the steps; whenever the lane ends, acquire it anew, as its keeper does."""
    bench.start()
    await bench.settle(2)
    for step in steps:
        held = len(bench.apps.held)
        match step:
            case "answer first" if held:
                bench.apps.finish([0])
            case "answer last" if held:
                bench.apps.finish([held - 1])
            case "answer middle" if held:
                bench.apps.finish([held // 2])
            case "answer all":
                bench.apps.finish(range(held - 1, -1, -1))
            case "feed":
                last = bench.partition.records[-1].offset
                bench.log.feed(*(Record(last + gap, message(last + gap)) for gap in (1, 3)))
            case "suspend":
                await bench.lane.suspend()
                commits = bench.partition.commits
                await bench.settle()
                assert bench.partition.commits == commits
            case "resume":
                assert await bench.lane.resume() or bench.task.done()
            case "crash":
                await bench.stop()
            case "fence":
                bench.log.commit_fault = LaneFenced()
            case "lose commit":
                bench.log.commit_fault = CommitOutcomeUnknown()
            case "unknown commit":
                bench.log.commit_fault = CommitOutcomeUnknown()
                bench.log.is_committed_first = True
            case "fetch error":
                bench.log.fetch_fault = EventLogUnavailable()
        await bench.settle(10)
        if bench.task.done():
            if not bench.task.cancelled():
                error = bench.task.exception()
                assert isinstance(error, ExceptionGroup)
                assert error.subgroup((LaneFenced, CommitOutcomeUnknown, EventLogUnavailable)) is not None
            assert bench.lane.closed
            bench.restart()
            bench.start()
            await bench.settle(2)
    await finish(bench)


async def finish(bench: Bench) -> None:
    """Run quietly to the end."""
    await bench.stop()
    bench.restart()
    bench.start()
    for _ in range(200):
        await bench.settle(5)
        bench.apps.finish_all()
        if bench.partition.committed.next > bench.partition.records[-1].offset:
            break
    await bench.lane.drain()
    await bench.stop()


@given(STEPS, st.integers(1, 60), st.integers(1, 20))
def test_each_event_leaves_once_whatever_happens(steps, count, flush):
    async def run() -> None:
        bench = Bench(Partition([Record(2 * number, message(2 * number)) for number in range(count)]), flush=flush)
        await follow(steps, bench)
        assert Counter(bench.emitted()) == Counter(record.offset for record in bench.partition.records)
        assert bench.partition.committed == Position(bench.partition.records[-1].offset + 1)

    asyncio.run(run())


def partition(count: int, **fields: object) -> Partition:
    return Partition([Record(number, message(number, **fields)) for number in range(count)])  # type: ignore[arg-type]


async def test_outputs_leave_in_the_order_in_which_they_were_finished():
    bench = Bench(partition(20))
    bench.start()
    await bench.settle()
    order = [3, 1, 4, 0, 2, *range(19, 4, -1)]
    held = list(bench.apps.held)
    for number in order:
        bench.apps.finish([bench.apps.held.index(held[number])])
        await bench.settle(3)
    await bench.settle()
    await bench.stop()
    assert bench.emitted() == order


async def test_finished_events_leave_past_one_that_is_not():
    bench = Bench(partition(10))
    bench.start()
    await bench.settle()
    bench.apps.finish(range(1, 10))
    await bench.settle()
    assert bench.emitted() == list(range(1, 10))
    assert bench.partition.committed == Position(0, ((1, 10),))
    await bench.stop()
    bench.restart()
    bench.start()
    await bench.settle()
    assert [work.item.record.offset for work in bench.apps.held] == [0]
    bench.apps.finish_all()
    await bench.settle()
    await bench.stop()
    assert sorted(bench.emitted()) == list(range(10))
    assert bench.partition.committed == Position(10)


@pytest.mark.parametrize("bound", [{"window_events": 50}, {"window_bytes": 10_000}])
async def test_a_lane_takes_no_more_than_its_window(bound):
    bench = Bench(partition(5_000), **bound)
    bench.start()
    await bench.settle(200)
    assert len(bench.apps.held) == FETCH_RECORDS
    for _ in range(300):
        bench.apps.finish(range(len(bench.apps.held) // 2 + 1) if bench.apps.held else [])
        await bench.settle(5)
    await bench.stop()
    assert bench.apps.most_held <= 50 + 2 * FETCH_RECORDS
    assert sorted(bench.emitted()) == list(range(5_000))


@pytest.mark.parametrize("fault", [LaneFenced(), CommitOutcomeUnknown()])
async def test_a_failed_commit_ends_the_lane_and_nothing_has_left(fault):
    bench = Bench(partition(10))
    bench.log.commit_fault = fault
    bench.start()
    await bench.settle()
    bench.apps.finish_all()
    with pytest.raises(ExceptionGroup) as caught:
        await bench.task
    assert caught.value.exceptions == (fault,)
    assert bench.lane.closed
    assert bench.partition.output == []
    assert bench.partition.committed == Position(0)


async def test_a_failed_fetch_ends_the_lane():
    bench = Bench(partition(10))
    bench.log.fetch_fault = EventLogUnavailable()
    bench.start()
    with pytest.raises(ExceptionGroup) as caught:
        await bench.task
    assert caught.group_contains(EventLogUnavailable)
    assert bench.lane.closed


async def test_a_suspended_lane_takes_nothing_commits_nothing_and_goes_on_afterwards():
    bench = Bench(partition(10), window_events=5)
    bench.start()
    await bench.settle()
    bench.log.may_commit.clear()
    bench.apps.finish([0, 1])
    await bench.settle()
    suspending = asyncio.create_task(bench.lane.suspend())
    await bench.settle()
    assert not suspending.done()
    bench.log.may_commit.set()
    await suspending
    bench.log.feed(Record(10, message(10)))
    fetches, commits = bench.log.fetches, bench.partition.commits
    bench.apps.finish_all()
    await bench.settle()
    assert (bench.log.fetches, bench.partition.commits) == (fetches, commits)
    assert await bench.lane.resume()
    await bench.settle()
    bench.apps.finish_all()
    await bench.settle()
    await bench.stop()
    assert sorted(bench.emitted()) == list(range(11))


async def test_a_lane_that_another_worker_had_is_over():
    bench = Bench(partition(3))
    bench.start()
    await bench.settle()
    await bench.lane.suspend()
    bench.partition.committed = Position(2)
    assert not await bench.lane.resume()
    await bench.stop()


async def test_draining_takes_no_more_and_ends_when_all_is_committed():
    bench = Bench(partition(3))
    bench.start()
    await bench.settle()
    draining = asyncio.create_task(bench.lane.drain())
    await bench.settle()
    assert not draining.done()
    assert bench.lane.in_flight == 3
    bench.apps.finish_all()
    await draining
    assert bench.partition.committed == Position(3)
    assert bench.lane.in_flight == 0
    await bench.stop()


async def test_an_idle_lane_drains_at_once_and_commits_nothing():
    bench = Bench(Partition([]))
    bench.start()
    await bench.settle()
    await bench.lane.drain()
    await bench.stop()
    assert bench.partition.commits == 0


BAD = {
    "empty": (b"", "invalid_json"),
    "null": (None, "invalid_json"),
    "not JSON": (b"{", "invalid_json"),
    "not UTF-8": (b"\xff\xfe", "invalid_json"),
    "a number": (b"5", "invalid_envelope"),
    "NaN": (b'{"token":NaN}', "invalid_json"),
    "deep": (b"[" * 10_000, "too_deep"),
    "large": (b" " * 100_001, "too_large"),
    "unknown token": (message(1, token="phc_nobody"), "unknown_project"),
    "unknown team": (message(1, token=None, team_id=99), "unknown_project"),
    "no project": (message(1, token=None), "no_project"),
    "bad data": (message(1, token="phc_bare", data="{"), "invalid_json"),
    "data too deep": (message(1, token="phc_bare", data="[" * 5_000), "too_deep"),
    "no name": (message(1, token="phc_bare", data="{}"), "invalid_event"),
}


@pytest.mark.parametrize("name", BAD)
async def test_a_bad_message_is_a_dead_letter_and_its_neighbours_go_on(name):
    value, reason = BAD[name]
    bench = Bench(Partition([Record(0, message(0)), Record(1, value, b"key"), Record(2, message(2, token="phc_bare"))]))
    bench.start()
    await bench.settle()
    bench.apps.finish_all()
    await bench.settle()
    await bench.stop()
    assert sorted(bench.emitted()) == [0, 2]
    (letter,) = bench.letters()
    assert letter["reason"] == reason
    assert letter["source"] == f"{TOPICS.ingestion}-6-1"
    assert bench.partition.committed == Position(3)
    assert bench.lane._held_bytes == 0


async def test_what_a_refused_message_held_is_given_back_whatever_it_was_rewritten_to():
    # Without `now` the envelope is written anew, and shorter by its spaces.
    value = message(1, token="phc_bare", data="{").replace(b',"now":"2026-01-01T00:00:00Z"', b" " * 5_000)
    bench = Bench(Partition([Record(0, value)]))
    bench.start()
    await bench.settle()
    await bench.stop()
    assert len(bench.letters()) == 1
    assert bench.lane._held_bytes == 0


async def test_an_event_that_a_sandbox_could_not_open_is_a_dead_letter():
    bench = Bench(partition(1))
    bench.start()
    await bench.settle()
    bench.apps.finish_all(Notes(error=("TooDeep", "nested deeper")), EventOutcome.INVALID)
    await bench.settle()
    await bench.stop()
    assert [letter["reason"] for letter in bench.letters()] == ["too_deep"]
    assert bench.emitted() == []


async def test_a_dropped_event_leaves_nothing_but_its_logs_and_captures():
    bench = Bench(partition(1))
    bench.start()
    await bench.settle()
    notes = Notes(
        captures=(Capture(39, 0, "derived", "eve", None, {}),),
        logs=(LogLine(39, "LOG", "bye", "CONSOLE"),),
        dropped_by=39,
    )
    bench.apps.finish_all(notes, EventOutcome.DROP)
    await bench.settle()
    await bench.stop()
    assert sorted(record.topic for record in bench.partition.output) == sorted([TOPICS.ingestion, TOPICS.log_entries])
    assert bench.partition.committed == Position(1)


async def test_a_fault_of_ours_over_one_event_is_a_dead_letter_and_the_lane_lives(monkeypatch):
    bench = Bench(partition(3))
    real = bench.emitter.emit

    def emit(event, result, *, has_delivery):
        if event.record.offset == 1:
            raise RuntimeError("ours")
        return real(event, result, has_delivery=has_delivery)

    monkeypatch.setattr(bench.emitter, "emit", emit)
    bench.start()
    await bench.settle()
    bench.apps.finish_all()
    await bench.settle()
    await bench.stop()
    assert bench.emitted() == [0, 2]
    assert [letter["reason"] for letter in bench.letters()] == ["internal_error"]

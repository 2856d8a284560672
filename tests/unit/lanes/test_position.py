"""The tracker's promise: in any order of finishing, with any crashes, each record leaves once."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from plugin_server.eventlog.port import METADATA_LIMIT_BYTES, Position
from plugin_server.eventlog.position_codec import decode_position, encode_checked
from plugin_server.lanes.lane import MAX_RUNS
from plugin_server.lanes.position import PositionTracker


class Lane:
    """A partition whose records are taken, finished and flushed; a crash loses all that was not committed."""

    def __init__(self, offsets: list[int], start: int, max_runs: int) -> None:
        self.offsets = offsets
        self.max_runs = max_runs
        self.committed = Position(start)
        self.emitted: Counter[int] = Counter()
        self.begin()

    def begin(self) -> None:
        """As after a restart: all that is known is the position, as the log kept it."""
        self.committed = decode_position(self.committed.next, encode_checked(self.committed))
        self.tracker = PositionTracker(self.committed, self.max_runs)
        self.place = sum(offset < self.committed.next for offset in self.offsets)
        self.running: list[int] = []
        self.ready: list[int] = []

    def take(self, count: int) -> None:
        for offset in self.offsets[self.place : self.place + count]:
            if self.tracker.take(offset):
                self.running.append(offset)
        self.place = min(len(self.offsets), self.place + count)

    def finish(self, which: int) -> None:
        if self.running:
            self.ready.append(self.running.pop(which % len(self.running)))

    def flush(self) -> None:
        position, waiting = self.tracker.propose(self.ready)
        assert len(encode_checked(position)) <= METADATA_LIMIT_BYTES
        assert len(position.done) <= self.max_runs
        assert position.next >= self.committed.next
        assert set(waiting) <= set(self.ready)
        leaving = [offset for offset in self.ready if offset not in waiting]
        for offset in leaving:
            assert self.is_done(position, offset)
        for offset in (*self.running, *waiting):
            assert not self.is_done(position, offset)
        self.emitted.update(leaving)
        self.ready = waiting
        self.committed = position

    def drain(self) -> None:
        while self.place < len(self.offsets) or self.running or self.ready:
            self.take(3)
            self.finish(0)
            self.flush()

    @staticmethod
    def is_done(position: Position, offset: int) -> bool:
        return offset < position.next or any(start <= offset < stop for start, stop in position.done)


GAPS = st.lists(st.sampled_from([1, 1, 1, 2, 5]), min_size=1, max_size=30)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("take"), st.integers(1, 8)),
        st.tuples(st.just("finish"), st.integers(0, 20)),
        st.tuples(st.just("finish"), st.integers(0, 20)),
        st.tuples(st.just("flush"), st.just(0)),
        st.tuples(st.just("crash"), st.just(0)),
    ),
    max_size=60,
)


@given(GAPS, st.integers(0, 3), STEPS, st.integers(1, 4) | st.just(MAX_RUNS))
@example([1] * 5, 0, [("take", 5), ("finish", 4), ("finish", 2), ("flush", 0), ("crash", 0), ("take", 2)], 1)
def test_each_record_leaves_once_in_any_order_and_through_any_crash(gaps, start, steps, max_runs):
    offsets = [start + sum(gaps[:number]) for number in range(len(gaps))]
    lane = Lane(offsets, start, max_runs)
    for step, number in steps:
        match step:
            case "take":
                lane.take(number)
            case "finish":
                lane.finish(number)
            case "flush":
                lane.flush()
            case "crash":
                lane.begin()
    lane.drain()
    assert lane.emitted == Counter(offsets)
    assert lane.committed == Position(offsets[-1] + 1)


@pytest.mark.parametrize("start", [0, 2**62])
def test_the_worst_pattern_fits_the_metadata(start):
    # Every second record finished, with large gaps, and the first never.
    gap = 10**6
    tracker = PositionTracker(Position(start), MAX_RUNS)
    offsets = [start + gap * number for number in range(2_000)]
    for offset in offsets:
        assert tracker.take(offset)
    position, waiting = tracker.propose(offsets[1::2])
    assert len(position.done) <= MAX_RUNS
    assert len(encode_checked(position)) <= METADATA_LIMIT_BYTES
    assert len(waiting) >= 1_000 - MAX_RUNS
    assert position.next == start


def test_what_waits_leaves_when_the_record_before_it_has():
    tracker = PositionTracker(Position(0), 1)
    for offset in range(4):
        tracker.take(offset)
    assert tracker.propose([1, 3]) == (Position(0, ((1, 2),)), [3])
    assert tracker.propose([3, 2]) == (Position(0, ((1, 4),)), [])
    assert tracker.propose([0]) == (Position(4), [])
    assert tracker.unfinished == 0


def test_finished_records_are_skipped_after_a_restart():
    tracker = PositionTracker(Position(5, ((6, 8), (10, 11))), 8)
    assert [tracker.take(offset) for offset in (5, 6, 7, 8, 10, 12)] == [True, False, False, True, False, True]
    assert tracker.propose([5]) == (Position(8, ((10, 11),)), [])
    assert tracker.propose([8, 12]) == (Position(13), [])


def test_a_gap_between_finished_records_makes_one_range():
    tracker = PositionTracker(Position(0), 1)
    for offset in (0, 3, 7, 100):
        tracker.take(offset)
    assert tracker.propose([3, 7, 100]) == (Position(0, ((3, 101),)), [])


def test_what_may_repeat_does_not_wait_for_gaps_and_leaves_out_what_does_not_fit() -> None:
    tracker = PositionTracker(Position(0), 2, may_repeat=True)
    for offset in range(10):
        tracker.take(offset)
    assert tracker.propose([1, 3, 5, 7]) == (Position(0, ((1, 2), (3, 4))), [])
    assert tracker.propose([0, 2]) == (Position(4, ((5, 6), (7, 8))), [])
    assert tracker.propose([4, 6, 8, 9]) == (Position(10), [])

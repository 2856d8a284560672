"""What has effects in the database leaves when it is stored, runs again when it is stale, and each key keeps its order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from plugin_server.eventlog.port import InputRecord, OutputRecord
from plugin_server.host_api.commit import Commitment, Outcome
from plugin_server.host_api.ledger import Unit
from plugin_server.lanes.lane import Finished, FinishedEvents, Lane, LaneLimits
from plugin_server.model.errors import DatabaseUnavailable, LaneFenced
from tests.unit.ingestion.doubles import MemoryLaneLog, Partition, Record


class Committer:
    """Stores when it is told to, or at once; remembers who was withdrawn."""

    def __init__(self) -> None:
        self.may_store = asyncio.Event()
        self.may_store.set()
        self.withdrawn: list[Commitment] = []
        self.asked: list[list[Commitment]] = []

    async def store(self, commitments: Sequence[Commitment]) -> None:
        self.asked.append(list(commitments))
        await self.may_store.wait()
        for commitment in commitments:
            commitment.decide(Outcome.STORED)
            commitment.decided.result()

    def withdraw(self, commitments: Sequence[Commitment]) -> None:
        self.withdrawn += commitments


class Report:
    def taken(self, count: int) -> None:
        del count

    def flushed(self, records: Sequence[OutputRecord], seconds: float) -> None:
        del records, seconds


class Bench:
    """A lane whose events are finished by the test."""

    def __init__(self, keys: str) -> None:
        self.log = MemoryLaneLog(Partition([Record(offset, b"x", key.encode()) for offset, key in enumerate(keys)]))
        self.keys = keys
        self.committer = Committer()
        self.again: list[int] = []
        self.lane = Lane(
            self.log,
            self._make_processor,
            self.committer,  # type: ignore[arg-type]
            LaneLimits(0.0, 5_000, 10_000, 2**26),
            Report(),
            clock=lambda: 0.0,
        )

    def _make_processor(self, _lane: FinishedEvents) -> Bench:
        return self

    def take(self, records: Sequence[InputRecord]) -> None:
        """Processor."""

    async def close(self) -> None:
        """Processor."""

    def commitment(self, outcome: Outcome | Exception | None = None) -> Commitment:
        made = Commitment(Unit(frozenset(), {}), (), (), None, None)
        if isinstance(outcome, Outcome):
            made.decide(outcome)
        elif outcome is not None:
            made.decided.set_exception(outcome)
        return made

    def finish(self, offset: int, commitment: Commitment | None = None) -> None:
        record = OutputRecord("events", 0, None, str(offset).encode(), [])
        key = self.keys[offset].encode()
        self.lane.finished([Finished(offset, 1, [record], commitment, lambda: self.again.append(offset), key)])

    @property
    def output(self) -> list[int]:
        return [int(record.value) for record in self.log.store.output]


@asynccontextmanager
async def running(keys: str) -> AsyncIterator[Bench]:
    bench = Bench(keys)
    task = asyncio.create_task(bench.lane.run())
    await settle()
    try:
        yield bench
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def settle() -> None:
    for _ in range(30):
        await asyncio.sleep(0)


async def test_an_event_leaves_only_when_its_effects_are_stored():
    async with running("ab") as bench:
        bench.committer.may_store.clear()
        bench.finish(0, bench.commitment())
        bench.finish(1)
        await settle()
        assert bench.output == []
        bench.committer.may_store.set()
        await settle()
        assert bench.output == [0, 1]


async def test_what_finishes_while_others_are_stored_is_stored_before_it_leaves():
    async with running("abc") as bench:
        bench.committer.may_store.clear()
        bench.finish(0, bench.commitment())
        await settle()
        late = bench.commitment()
        bench.finish(1, late)
        bench.finish(2)
        await settle()
        bench.committer.may_store.set()
        await settle()
        assert bench.output == [0, 1, 2]
        assert [late] in bench.committer.asked


async def test_what_turns_out_stale_while_others_are_stored_does_not_leave_and_is_processed_again():
    async with running("ab") as bench:
        bench.committer.may_store.clear()
        bench.finish(0, bench.commitment())
        await settle()
        bench.finish(1, bench.commitment(Outcome.STALE))
        bench.committer.may_store.set()
        await settle()
        assert bench.output == [0]
        assert bench.again == [1]
        bench.finish(1, bench.commitment())
        await settle()
        assert bench.output == [0, 1]
        assert bench.log.store.committed.next == 2


@pytest.mark.parametrize(
    ("outcome", "error"),
    [(Outcome.LOST, LaneFenced), (DatabaseUnavailable("gone"), DatabaseUnavailable)],
)
async def test_what_is_lost_while_others_are_stored_ends_the_lane_and_leaves_nothing(outcome, error):
    bench = Bench("ab")
    task = asyncio.create_task(bench.lane.run())
    await settle()
    bench.committer.may_store.clear()
    first = bench.commitment()
    bench.finish(0, first)
    await settle()
    late = bench.commitment(outcome)
    bench.finish(1, late)
    bench.committer.may_store.set()
    with pytest.raises(ExceptionGroup) as caught:
        await task
    assert [type(each) for each in caught.value.exceptions] == [error]
    assert bench.output == []
    assert bench.committer.withdrawn == [first, late]
    assert bench.lane.closed


async def test_later_events_of_a_key_wait_for_one_that_is_processed_again_and_others_do_not():
    async with running("abaabb") as bench:
        bench.finish(0, bench.commitment(Outcome.STALE))
        bench.finish(1)
        bench.finish(2)
        bench.finish(3, bench.commitment())
        await settle()
        assert bench.again == [0]
        assert bench.output == [1]
        bench.finish(4)
        await settle()
        assert bench.output == [1, 4]
        bench.finish(0, bench.commitment())
        await settle()
        assert bench.output == [1, 4, 0, 2, 3]
        bench.finish(5)
        await settle()
        assert bench.output == [1, 4, 0, 2, 3, 5]
        assert bench.log.store.committed.next == 6


async def test_an_event_that_is_stale_again_is_waited_for_again():
    async with running("aa") as bench:
        bench.finish(0, bench.commitment(Outcome.STALE))
        bench.finish(1)
        for _ in range(3):
            await settle()
            bench.finish(0, bench.commitment(Outcome.STALE))
        await settle()
        assert bench.output == []
        bench.finish(0)
        await settle()
        assert bench.output == [0, 1]


async def test_a_lane_that_is_given_up_withdraws_what_was_not_stored():
    async with running("ab") as bench:
        bench.committer.may_store.clear()
        waiting = bench.commitment()
        bench.finish(0, waiting)
        bench.finish(1)
        await settle()
    assert bench.committer.withdrawn == [waiting]
    assert bench.output == []
    assert bench.lane.closed


async def test_a_lane_that_is_told_what_is_away_fails_with_it_and_leaves_nothing_more():
    bench = Bench("ab")
    task = asyncio.create_task(bench.lane.run())
    await settle()
    bench.finish(0)
    await settle()
    bench.lane.fail(DatabaseUnavailable("gone"))
    bench.lane.fail(DatabaseUnavailable("still"))
    with pytest.raises(ExceptionGroup) as caught:
        await task
    assert [str(each) for each in caught.value.exceptions] == ["gone"]
    assert bench.output == [0]


async def test_when_it_was_told_that_something_is_away_nothing_more_leaves():
    bench = Bench("aab")
    task = asyncio.create_task(bench.lane.run())
    await settle()
    bench.committer.may_store.clear()
    bench.finish(2, bench.commitment())
    await settle()
    bench.lane.fail(DatabaseUnavailable("the first event needed it"))
    bench.finish(1)
    bench.committer.may_store.set()
    with pytest.raises(ExceptionGroup):
        await task
    assert bench.output == []


async def test_draining_waits_for_what_is_processed_again():
    async with running("aa") as bench:
        bench.finish(0, bench.commitment(Outcome.STALE))
        bench.finish(1)
        await settle()
        drained = asyncio.create_task(bench.lane.drain())
        await settle()
        assert not drained.done()
        bench.finish(0, bench.commitment())
        await drained
        assert bench.output == [0, 1]

"""Events whose apps use storage: run again when they are stale, in the order of their key, and each counts once."""

from __future__ import annotations

import asyncio
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugin_server.host_api import contended as contended_module
from plugin_server.host_api.storage_values import Key
from plugin_server.ingestion.recorded import decode_records
from plugin_server.model.errors import DatabaseUnavailable
from plugin_server.runtime.replies import HookFailure, LogLine, Notes
from plugin_server.runtime.work import Answered, Work
from tests.unit.host_api.simulated import Fault, SimulatedCommitter, SimulatedDatabase
from tests.unit.ingestion.doubles import Bench, Partition, Record, message

N: Key = (39, "n")


class Stage(Bench):
    """A lane on a simulated database, with apps that count."""

    def __init__(self, names: str, faults: list[tuple[Fault, int]] | None = None) -> None:
        """Each letter is an event of that distinct id; a capital one counts."""
        self.names = names
        self.database = SimulatedDatabase(faults or [])
        super().__init__(
            Partition(
                [
                    Record(n, message(n, name.lower()), f"phc_acme:{name.lower()}".encode())
                    for n, name in enumerate(names)
                ]
            )
        )
        self.begin()

    def begin(self) -> None:
        """Acquire the lane, as after a crash."""
        recorded = {token.offset: decode_records(token.records) for token in self.database.recorded if token}
        self.restart(SimulatedCommitter(self.database, lambda: 0.0), None, recorded)
        self.storing = asyncio.get_running_loop().create_task(self.committer.run())
        self.start()

    async def end(self) -> None:
        self.storing.cancel()
        await asyncio.gather(self.storing, return_exceptions=True)
        await self.stop()

    def work(self, number: int) -> Work[Any]:
        return next(work for work in self.apps.held if work.item.record.offset == number)

    async def count(self, number: int) -> None:
        """What the app does before it returns: get, set."""
        storage = self.work(number).effects.storage  # type: ignore[attr-defined]
        found = await self.committer.ledger.get(storage, N)
        self.committer.ledger.set(storage, N, str(int(found or b"0") + 1).encode())
        self.committer.ledger.set(storage, (39, f"last:{self.names[number].lower()}"), str(number).encode())

    def finish_event(self, number: int, notes: Notes | None = None) -> None:
        self.apps.finish([self.apps.held.index(self.work(number))], notes)

    def value(self, key: Key = N) -> bytes | None:
        stored = self.database.values.get(key)
        return None if stored is None else stored.value

    @property
    def held(self) -> list[int]:
        return [work.item.record.offset for work in self.apps.held]


@pytest.fixture
async def stage(request):
    made = Stage(request.param)
    await made.settle()
    yield made
    await made.end()


@pytest.mark.parametrize("stage", ["AB"], indirect=True)
async def test_an_event_whose_read_has_changed_runs_again_and_leaves_once(stage):
    await stage.count(0)
    await stage.count(1)
    stage.finish_event(0)
    stage.finish_event(1)
    await stage.settle()
    assert stage.emitted() == [0]
    assert stage.held == [1]
    await stage.count(1)
    stage.finish_event(1)
    await stage.settle()
    assert stage.emitted() == [0, 1]
    assert stage.value() == b"2"


@pytest.mark.parametrize("stage", ["AB"], indirect=True)
async def test_what_was_answered_from_outside_is_answered_again_and_ids_stay(stage):
    await stage.count(0)
    await stage.count(1)
    first = stage.work(1).effects
    first.journal[39, 0] = Answered(b"digest", [True, 1])
    stage.finish_event(0)
    stage.finish_event(1)
    second = stage.work(1).effects
    assert second is not first
    assert second.journal is first.journal
    assert second.origin == first.origin
    assert second.storage.is_empty


@pytest.mark.parametrize("stage", ["AB"], indirect=True)
async def test_who_cost_a_sandbox_is_not_called_when_the_event_runs_again(stage):
    failure = HookFailure(40, "timeout", "too long", 3)
    await stage.count(0)
    await stage.count(1)
    stage.work(1).effects.left_out[40] = failure
    stage.finish_event(0)
    stage.finish_event(1)
    assert stage.work(1).failed == {40: failure}
    await stage.settle()
    await stage.count(1)
    stage.finish_event(1)
    await stage.settle()
    assert stage.emitted() == [0, 1]


@pytest.mark.parametrize("stage", ["ABbab"], indirect=True)
async def test_later_events_of_the_key_run_again_after_it_and_others_do_not(stage):
    await stage.count(0)
    await stage.count(1)
    for number in (0, 1, 2, 3):
        stage.finish_event(number)
    await stage.settle()
    assert stage.emitted() == [0, 3]
    assert stage.held == [4, 1]
    stage.finish_event(4)
    stage.log.feed(Record(5, message(5, "b"), b"phc_acme:b"), Record(6, message(6, "a"), b"phc_acme:a"))
    await stage.settle()
    assert stage.held == [1, 6]
    await stage.count(1)
    for number in (1, 2, 4, 5):
        assert stage.held == [6, number] or number == 1
        stage.finish_event(number)
    await stage.settle()
    assert stage.emitted() == [0, 3, 1, 2, 4, 5]
    assert stage.partition.committed.next == 6


@pytest.mark.parametrize("stage", ["A"], indirect=True)
async def test_a_run_that_is_stale_when_it_is_stored_is_neither_counted_nor_reported(stage):
    stage.follower.following = True
    notes = Notes(logs=(LogLine(39, "INFO", "hi", "CONSOLE"),))
    for stored in (False, True):
        await stage.lane.suspend()
        await stage.count(0)
        stage.work(0).effects.of(39).metrics.append(("sent", "increment", 1.0))
        stage.finish_event(0, notes)
        if not stored:
            stage.database.put(N, b"5")
        assert await stage.lane.resume()
        await stage.settle()
        assert stage.emitted() == [0] * stored
        assert stage.counted.added == [("sent", "increment", 1.0)] * stored
        assert len(stage.follower.entries) == stored
    assert stage.value() == b"6"


@pytest.mark.parametrize("stage", ["a"], indirect=True)
async def test_a_run_with_nothing_to_store_is_counted_at_once(stage):
    stage.work(0).effects.of(39).metrics.append(("sent", "increment", 1.0))
    stage.finish_event(0)
    assert stage.counted.added == [("sent", "increment", 1.0)]


@pytest.mark.parametrize("stage", ["A"], indirect=True)
async def test_what_a_failed_install_stored_does_not_count_and_its_event_leaves(stage):
    await stage.count(0)
    failure = HookFailure(39, "app", "no", 1)
    stage.finish_event(0, Notes(failures=(failure,), logs=(LogLine(39, "ERROR", "no", "PLUGIN"),)))
    await stage.settle()
    assert stage.emitted() == [0]
    assert stage.database.values == {}


@pytest.mark.parametrize("stage", ["Ab"], indirect=True)
async def test_an_event_whose_storage_was_away_ends_the_lane_and_nothing_of_it_leaves(stage):
    stage.work(0).effects.note_trouble(39, DatabaseUnavailable("gone"))
    stage.finish_event(1)
    await stage.settle()
    stage.finish_event(0)
    with pytest.raises(ExceptionGroup) as caught:
        await stage.task
    assert [str(error) for error in caught.value.exceptions] == ["gone"]
    assert stage.emitted() == [1]
    stage.storing.cancel()
    stage.begin()
    await stage.settle()
    assert stage.held == [0]


@pytest.mark.parametrize("stage", ["AB"], indirect=True)
async def test_after_a_crash_between_both_commits_the_recorded_result_leaves_and_nothing_runs_again(stage):
    await stage.count(0)
    stage.log.may_commit.clear()
    stage.finish_event(0)
    await stage.settle()
    assert stage.value() == b"1"
    assert stage.emitted() == []
    await stage.end()
    stage.begin()
    await stage.settle()
    assert stage.emitted() == [0]
    assert stage.held == [1]
    assert stage.value() == b"1"


@pytest.mark.parametrize("stage", ["aAbAaB"], indirect=True)
async def test_after_a_crash_what_is_recorded_leaves_after_the_earlier_events_of_its_key(stage):
    await stage.lane.suspend()
    for number in (0, 1, 2, 3, 4, 5):
        if stage.names[number].isupper():
            await stage.count(number)
        stage.finish_event(number)
    stage.log.may_commit.clear()
    assert await stage.lane.resume()
    await stage.settle()
    assert stage.value() == b"3"
    await stage.end()
    stage.begin()
    await stage.settle()
    assert stage.emitted() == []
    assert stage.held == [0, 2, 4]
    stage.finish_event(2)
    await stage.settle()
    assert stage.emitted() == [2, 5]
    stage.finish_event(0)
    await stage.settle()
    assert stage.emitted() == [2, 5, 0, 1, 3]
    stage.finish_event(4)
    await stage.settle()
    assert stage.emitted() == [2, 5, 0, 1, 3, 4]
    assert stage.value() == b"3"


@pytest.mark.parametrize("stage", ["AB"], indirect=True)
async def test_nobody_waits_for_runs_of_a_lane_that_is_over(stage):
    first, second = stage.work(0), stage.work(1)
    storage = first.effects.storage
    await stage.count(0)
    await stage.end()
    assert storage.finished.is_set()
    assert second.effects.storage.finished.is_set()
    stage.begin()


async def _live(names: str, steps: list[int], faults: list[tuple[Fault, int]]) -> None:
    stage = Stage(names, faults)
    begun: dict[Work[Any], asyncio.Task[None]] = {}

    async def step(choice: int, *, is_last: bool = False) -> None:
        if stage.task.done():
            begun.clear()
            await stage.end()
            stage.begin()
        await stage.settle(choice % 4)
        first: dict[str, Work[Any]] = {}
        for work in stage.apps.held:  # a sandbox runs those of a key one after another
            first.setdefault(stage.names[work.item.record.offset].lower(), work)
        if choice % 11 == 0 and not is_last and N in stage.database.values:
            stage.database.put(N, stage.value())
        if not first:
            return
        work = list(first.values())[choice % len(first)]
        number = work.item.record.offset
        if stage.names[number].isupper() and work not in begun:
            begun[work] = asyncio.create_task(stage.count(number))
        elif work not in begun or begun[work].done():
            task = begun.pop(work, None)
            if task is not None and task.exception() is not None:
                work.effects.note_trouble(39, DatabaseUnavailable("gone"))  # type: ignore[arg-type]
            stage.finish_event(number)

    for choice in steps:
        await step(choice)
    for choice in range(2_000):
        if stage.partition.committed.next == len(names) and not stage.partition.committed.done:
            break
        await step(choice, is_last=True)
    await stage.settle()
    emitted = stage.emitted()
    await stage.end()
    assert sorted(emitted) == list(range(len(names)))
    for name in set(names.lower()):
        numbers = [number for number in emitted if names[number].lower() == name]
        assert numbers == sorted(numbers)
        counting = [number for number in numbers if names[number].isupper()]
        last = stage.value((39, f"last:{name}"))
        assert last == (str(counting[-1]).encode() if counting else None)
    total = sum(name.isupper() for name in names)
    assert stage.value() == (str(total).encode() if total else None)


@given(
    st.text("abABC", min_size=1, max_size=12),
    st.lists(st.integers(0, 200), max_size=60),
    st.lists(
        st.tuples(
            st.sampled_from([Fault.NONE, Fault.REFUSED, Fault.ANSWER_LOST, Fault.UNREADABLE, Fault.TAKEN_OVER]),
            st.integers(0, 5),
        ),
        max_size=6,
    ),
)
def test_whatever_happens_each_event_leaves_once_in_its_order_and_counts_once(names, steps, faults):
    async def live() -> None:
        async with asyncio.timeout(30):
            await _live(names, steps, faults)

    with patch.object(contended_module, "WAIT_SECONDS", 0.001):
        asyncio.run(live())

"""The host's side of a chain: what is sent of it, and how many events go together."""

from __future__ import annotations

from collections import deque
from typing import Any

import orjson
import pytest

from plugin_server.model.project import Attachment
from plugin_server.runtime.chain import BATCH_BYTES, BATCH_EVENTS, BATCH_SECONDS, Batch, Chain
from plugin_server.runtime.replies import HookFailure, LoadedInstall
from plugin_server.runtime.work import Work
from tests.unit.runtime.doubles import RECORD_BYTES, Sink, chain, install, project


class Clock:
    """In the place of the module `time`."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("plugin_server.runtime.chain.time", made)
    return made


def works(count: int, size: int = 10, sink: Sink | None = None) -> list[Work[Any]]:
    sink = sink or Sink()
    return [Work(number, b"x" * size, sink) for number in range(count)]


def run_batch(of: Chain, clock: Clock, seconds_each: float, *, alone: bool = False) -> int:
    """Take a batch from a long queue, and end it after so long for each event; its size."""
    taken = of.take_batch(deque(works(2_000)), alone=alone)
    batch = Batch(of, 1, len(taken))
    clock.now += seconds_each * len(taken)
    of.batch_ended(batch, alone=alone)
    return len(taken)


@pytest.mark.parametrize(
    ("seconds_each", "expected"),
    [(1e-6, BATCH_EVENTS), (0.0, BATCH_EVENTS), (BATCH_SECONDS / 100, 100), (0.001, 20), (0.02, 1), (5.0, 1)],
)
def test_a_batch_grows_and_shrinks_to_what_takes_twenty_milliseconds(clock, seconds_each, expected):
    of = chain(1)
    sizes = [run_batch(of, clock, seconds_each) for _ in range(30)]
    assert sizes[0] == 50
    assert expected <= sizes[-1] <= expected + 2
    assert all(1 <= size <= BATCH_EVENTS for size in sizes)


def test_batches_find_their_size_anew_when_the_apps_change_their_pace(clock):
    of = chain(1)
    for _ in range(30):
        run_batch(of, clock, 1e-6)
    assert run_batch(of, clock, 0.01) == BATCH_EVENTS
    for _ in range(30):
        last = run_batch(of, clock, 0.01)
    assert last <= 4


def test_a_batch_that_waited_for_another_is_timed_from_the_end_of_that(clock):
    of = chain(1)
    first, second = Batch(of, 1, 10), Batch(of, 11, 10)
    clock.now += 10 * BATCH_SECONDS / 100
    of.batch_ended(first, alone=False)
    clock.now += 10 * BATCH_SECONDS / 100
    of.batch_ended(second, alone=False)
    expected = chain(1)
    for _ in range(2):
        batch = Batch(expected, 1, 10)
        clock.now += 10 * BATCH_SECONDS / 100
        expected.batch_ended(batch, alone=False)
    assert run_batch(of, clock, 0) == run_batch(expected, clock, 0)


def test_events_that_are_run_alone_say_nothing_about_batches(clock):
    of = chain(1)
    assert run_batch(of, clock, 30.0, alone=True) == 1
    assert run_batch(of, clock, 0.0) == 50


def test_a_batch_is_bounded_in_bytes():
    queue = deque(works(40, size=BATCH_BYTES // 4))
    taken = chain(1).take_batch(queue, alone=False)
    assert len(taken) == 4
    assert len(queue) == 36


def test_one_event_of_any_size_is_taken():
    taken = chain(1).take_batch(deque(works(3, size=2 * BATCH_BYTES)), alone=False)
    assert len(taken) == 1


def test_events_that_nobody_waits_for_are_left_out():
    closed, other = Sink(), Sink()
    closed.closed = True
    queue = deque([*works(70, sink=closed), *works(2, sink=other), *works(5, sink=closed)])
    taken = chain(1).take_batch(queue, alone=False)
    assert [work.sink for work in taken] == [other, other]
    assert not queue
    assert chain(1).take_batch(deque(works(3, sink=closed)), alone=True) == []


def test_run_says_what_failed_before_and_where_each_event_ends():
    of = chain(1, 2, number=7)
    given = [Work(number, raw, Sink(), "key") for number, raw in enumerate((b"a", b"", b"ccc"))]
    given[1].failed = {2: HookFailure(2, "timeout", "too long", 5)}
    head, blob = of.run_frame(11, given, trace=True)
    assert orjson.loads(head) == {
        "chain": 7,
        "first": 11,
        "lengths": [1, 0, 3],
        "failed": {"12": {"2": ["timeout", "too long", 5, False]}},
        "trace": True,
        "whole": False,
        "keys": None,
        "snapshots": None,
    }
    assert blob == b"accc"


def test_run_gives_keys_for_events_that_are_opened():
    of = chain(1, opened=True, whole=True)
    given = [Work(number, b"{}", Sink(), key) for number, key in enumerate(("ada", "é", ""))]
    head = orjson.loads(of.run_frame(1, given, trace=False)[0])
    assert (head["whole"], head["keys"], head["trace"], head["failed"]) == (True, ["ada", "é", ""], False, {})


def test_load_has_each_install_with_its_attachments_and_what_broke_it():
    one = install(1, config={"k": "v"}, attachments={"a": Attachment("text/plain", "a.txt", b"abc")})
    two = install(2, attachments={"b": Attachment("x/y", "b", b""), "c": Attachment("x/y", "c", b"de")})
    tenant = project(one, two, cpu_seconds=0.5, event_bytes=5_000, captures_per_event=7)
    of = Chain(3, tenant, tenant.installs, RECORD_BYTES)
    of.broken[2] = HookFailure(2, "memory", "too much", None)
    raw, blob = of.load_frame("1.2", 5.5)
    head = orjson.loads(raw)
    assert blob == b"abcde"
    assert (head["chain"], head["project_id"], head["now"], head["library_version"]) == (3, 2, 5.5, "1.2")
    assert head["limits"] == {
        "cpu_seconds": 0.5,
        "memory_bytes": 256 * 2**20,
        "event_bytes": 5_000,
        "record_bytes": RECORD_BYTES,
        "captures_per_event": 7,
    }
    assert [entry["attachments"] for entry in head["installs"]] == [
        {"a": ["text/plain", "a.txt", 0, 3]},
        {"b": ["x/y", "b", 3, 3], "c": ["x/y", "c", 3, 5]},
    ]
    assert [entry["failed"] for entry in head["installs"]] == [None, ["memory", "too much", None, False]]
    assert [(entry["id"], entry["name"], entry["config"]) for entry in head["installs"]] == [
        (1, "App1", {"k": "v"}),
        (2, "App2", {}),
    ]
    assert orjson.loads(of.load_frame("1.2", None)[0])["now"] is None


def test_hooks_are_those_of_apps_that_work():
    of = chain(1, 2)
    of.known = (
        LoadedInstall(1, frozenset({"processEvent"}), None),
        LoadedInstall(2, frozenset({"processEvent"}), HookFailure(2, "app", "x", None)),
    )
    assert of.hooks(1) == {"processEvent"}
    assert of.hooks(2) == frozenset()
    assert of.hooks(3) == frozenset()


def test_a_chain_whose_process_has_ended_is_not_ready_and_its_hooks_stay_known():
    of = chain(1)
    of.loaded = of.known
    of.became_ready.set()
    of.forget_process()
    assert (of.loaded, of.ready, of.next_to_set_up()) == (None, False, None)
    assert of.hooks(1) == {"processEvent"}


def test_a_chain_waits_while_it_has_events_new_or_to_be_run_again():
    of = chain(1)
    assert not of.waiting
    for queue in (of.queue, of.replay):
        queue.extend(works(1))
        assert of.waiting
        queue.clear()
    assert not of.waiting


def test_bounds_are_for_the_installs_of_this_chain_alone():
    tenant = project(1, 2, 3, captures_per_event=5)
    of = Chain(1, tenant, tenant.installs[1:], RECORD_BYTES)
    assert of.bounds.installs == {2, 3}
    assert of.bounds.captures == 10

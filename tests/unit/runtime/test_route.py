"""The way of a project's events through its sandboxes, with sandboxes that only take what they are given."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from plugin_server.runtime.chain import Chain
from plugin_server.runtime.replies import Capture, ChainResult, HookFailure, LoadedInstall, LogLine, Notes
from plugin_server.runtime.route import OneChain, Place, Relay, Spread
from plugin_server.runtime.work import Work
from sandbox.wire import EventOutcome
from tests.unit.runtime.doubles import NOW, Sink, TakingSandbox, chain, emitted, envelope, project, uuid_of

CAPTURES = [Capture(number, 0, f"c{number}", "ada", None, {}) for number in (1, 2, 3)]
LOGS = [LogLine(number, "LOG", f"line {number}", "CONSOLE") for number in (1, 2, 3)]


# One chain, and several of the same


def test_one_chain_takes_all_events_as_they_come():
    sandbox, of = TakingSandbox(), chain(1)
    route = OneChain(Place(sandbox, of))  # type: ignore[arg-type]
    works = [Work(number, b"", Sink()) for number in range(3)]
    route.submit(works)
    assert sandbox.taken == [(of, work) for work in works]


def spread(count: int) -> tuple[Spread, list[TakingSandbox]]:
    sandboxes = [TakingSandbox() for _ in range(count)]
    return Spread([Place(sandbox, chain(1)) for sandbox in sandboxes]), sandboxes  # type: ignore[arg-type]


KEYS = st.none() | st.text(max_size=5) | st.binary(max_size=5)


@given(st.integers(2, 5), st.lists(st.lists(KEYS, max_size=8), max_size=4))
def test_events_of_a_key_meet_in_one_sandbox_in_their_order(count, batches):
    route, sandboxes = spread(count)
    number = 0
    for keys in batches:
        route.submit([Work((number := number + 1), b"", Sink(), key) for key in keys])
    places: dict[Any, int] = {}
    for place, sandbox in enumerate(sandboxes):
        items = [work.item for work in sandbox.works]
        assert items == sorted(items)
        for work in sandbox.works:
            assert places.setdefault(work.key, place) == place
    assert sum(len(sandbox.taken) for sandbox in sandboxes) == number


def test_a_key_goes_the_same_way_as_text_and_as_bytes_and_in_every_worker():
    for key in ("ada", "é", "\ud800"):
        route, sandboxes = spread(4)
        route.submit([Work(1, b"", Sink(), key), Work(2, b"", Sink(), key.encode("utf-8", "replace"))])
        assert [len(sandbox.taken) for sandbox in sandboxes if sandbox.taken] == [2]
    route, sandboxes = spread(3)
    route.submit([Work(number, b"", Sink(), f"user-{number}") for number in range(6)])
    assert [[work.item for work in sandbox.works] for sandbox in sandboxes] == [[3, 4, 5], [2], [0, 1]]


def test_many_keys_are_spread_over_all_sandboxes():
    route, sandboxes = spread(4)
    route.submit([Work(number, b"", Sink(), str(number)) for number in range(1_000)])
    assert all(150 < len(sandbox.taken) < 350 for sandbox in sandboxes)


# One after another


class Bench:
    """A relay of so many segments, each with one install, numbered from 1."""

    def __init__(self, segments: int = 2, *, chains: list[Chain] | None = None) -> None:
        self.chains = chains or [chain(number, opened=True, whole=True) for number in range(1, segments + 1)]
        self.sandboxes = [TakingSandbox() for _ in self.chains]
        installs = [entry for of in self.chains for entry in of.installs]
        places = [Place(sandbox, of) for sandbox, of in zip(self.sandboxes, self.chains, strict=True)]
        self.relay = Relay(project(*installs), places)  # type: ignore[arg-type]
        self.sink = Sink()

    def submit(self, *raws: bytes, sink: Sink | None = None) -> None:
        self.relay.submit([Work(number, raw, sink or self.sink, "k") for number, raw in enumerate(raws, 1)])

    def pass_all(self, segment: int = 0, notes: Notes | None = None, **options: Any) -> None:
        """The events in a segment come out of it unchanged."""
        sandbox = self.sandboxes[segment]
        sandbox.answer(*(whole(work.raw, notes) for work in sandbox.works), **options)

    def properties(self, place: int = 0) -> Any:
        return orjson.loads(self.sink.results[place].properties)


def whole(raw: bytes, notes: Notes | None = None, **fields: Any) -> ChainResult:
    """An event as a segment answers it, with some of its fields changed."""
    event = orjson.loads(raw) | fields
    return ChainResult(EventOutcome.WHOLE, "", "", "", "", orjson.dumps(event).decode(), notes)


def drop(install: int, notes: Notes = Notes()) -> ChainResult:  # noqa: B008 - frozen
    return ChainResult(EventOutcome.DROP, "", "", "", "", "", notes._replace(dropped_by=install))


def test_an_app_that_has_only_batches_is_a_step_of_the_chain_too():
    batches, others = chain(1, opened=True, whole=True), chain(2, opened=True, whole=True)
    batches.known = (LoadedInstall(1, frozenset({"processEventBatch"}), None),)
    others.known = (LoadedInstall(2, frozenset({"onEvent"}), None),)
    bench = Bench(chains=[batches, others])
    bench.submit(envelope(1))
    bench.pass_all(0)
    bench.pass_all(1)
    assert bench.properties()["$plugins_succeeded"] == ["App1 (1)"]


def test_an_event_goes_from_one_segment_to_the_next_and_is_finished():
    bench = Bench(3)
    bench.submit(envelope(1, timestamp="2025-12-31T10:00:00Z"))
    for place, sandbox in enumerate(bench.sandboxes):
        ((of, work),) = sandbox.taken
        assert of is bench.chains[place]
        assert bench.sink.delivered == []
        event = orjson.loads(work.raw)
        sandbox.answer(whole(work.raw, properties=event["properties"] | {f"s{place}": True}))
    ((item, result),) = bench.sink.delivered
    assert item == 1
    assert result._replace(properties="") == ChainResult(
        EventOutcome.EMIT, "x", "ada", "2025-12-31 10:00:00.000", "", "", None
    )
    assert bench.properties() == {
        "n": 1,
        "s0": True,
        "s1": True,
        "s2": True,
        "$plugins_succeeded": ["App1 (1)", "App2 (2)", "App3 (3)"],
        "$plugins_failed": [],
    }


def test_events_are_opened_once_and_go_under_the_distinct_id_that_they_came_with():
    bench = Bench()
    bench.submit(envelope(1, "ada"), envelope(2, "eve"))
    works = bench.sandboxes[0].works
    assert [work.key for work in works] == ["ada", "eve"]
    assert [orjson.loads(work.raw)["uuid"] for work in works] == [uuid_of(1), uuid_of(2)]
    assert orjson.loads(works[0].raw)["team_id"] == 2
    bench.sandboxes[0].answer(whole(works[0].raw, distinct_id="other"), whole(works[1].raw))
    assert [work.key for work in bench.sandboxes[1].works] == ["ada", "eve"]
    bench.pass_all(1)
    assert [result.distinct_id for result in bench.sink.results] == ["other", "eve"]


def test_who_is_left_out_of_an_event_is_left_out_in_its_own_segment_alone():
    bench = Bench()
    failure = HookFailure(2, "timeout", "too long", 3)
    work = Work(1, envelope(1), bench.sink, "k")
    work.failed = {2: failure}
    bench.relay.submit([work])
    assert not bench.sandboxes[0].works[0].failed
    bench.pass_all(0)
    assert bench.sandboxes[1].works[0].failed == {2: failure}


def test_the_time_of_receipt_is_that_of_the_envelope_whatever_apps_write():
    bench = Bench()
    bench.submit(envelope(1))
    bench.sandboxes[0].answer(whole(bench.sandboxes[0].works[0].raw, now="1999-01-01T00:00:00Z", sent_at=None))
    bench.pass_all(1)
    assert bench.sink.results[0].timestamp == f"{NOW[:10]} {NOW[11:19]}.000"


def test_events_overtake_each_other_between_segments_as_their_sandboxes_answer():
    bench = Bench()
    bench.submit(envelope(1), envelope(2), envelope(3))
    first = bench.sandboxes[0]
    waits = first.taken.pop(0)
    bench.pass_all(0)
    bench.pass_all(1)
    assert bench.sink.items == [2, 3]
    first.taken.append(waits)
    bench.pass_all(0)
    bench.pass_all(1)
    assert bench.sink.items == [2, 3, 1]


def test_what_cannot_be_opened_is_invalid_at_once_and_the_others_go_on():
    bench = Bench()
    deep = b'{"uuid":"u","distinct_id":"d","now":"","data":"{\\"event\\":' + b"[" * 101 + b"]" * 101 + b'}"}'
    bench.submit(envelope(1), envelope(2, event=None), b'{"data":"{"}', deep, envelope(5))
    assert bench.sink.items == [2, 3, 4]
    assert all(result.outcome is EventOutcome.INVALID for result in bench.sink.results)
    assert [result.notes.error[0] for result in bench.sink.results if result.notes and result.notes.error] == [
        "InvalidEvent",
        "InvalidJson",
        "TooDeep",
    ]
    assert len(bench.sandboxes[0].taken) == 2


def test_nothing_is_submitted_where_there_is_nothing():
    bench = Bench()
    bench.submit()
    bench.submit(b'{"data":"{"}')
    assert bench.sandboxes[0].taken == []


def test_notes_are_joined_in_the_order_of_the_segments():
    bench = Bench(3)
    bench.submit(envelope(1))
    failure = HookFailure(2, "app", "ValueError: x", 3)
    bench.pass_all(0, Notes(captures=(CAPTURES[0],), logs=(LOGS[0],)))
    bench.pass_all(1, Notes(logs=(LOGS[1],), failures=(failure,)))
    bench.pass_all(2, Notes(captures=(CAPTURES[2],), logs=(LOGS[2],)))
    notes = bench.sink.results[0].notes
    assert notes == Notes((CAPTURES[0], CAPTURES[2]), tuple(LOGS), (failure,))
    assert bench.properties()["$plugins_succeeded"] == ["App1 (1)", "App3 (3)"]
    assert bench.properties()["$plugins_failed"] == ["App2 (2)"]


def test_a_trace_is_joined_without_the_event_as_it_came_twice():
    bench = Bench()
    bench.submit(envelope(1))
    step = {"properties": {}}
    bench.pass_all(0, Notes(trace=((0, step), (1, step | {"a": 1}))))
    bench.pass_all(1, Notes(trace=((0, step | {"a": 1}), (2, step | {"a": 2}))))
    notes = bench.sink.results[0].notes
    assert notes is not None
    assert notes.trace == ((0, step), (1, step | {"a": 1}), (2, step | {"a": 2}))


def test_a_trace_that_begins_on_the_way_is_kept_from_there():
    bench = Bench()
    bench.submit(envelope(1))
    bench.pass_all(0)
    trace = ((0, {"properties": {}}), (2, {"properties": {}}))
    bench.pass_all(1, Notes(trace=trace))
    notes = bench.sink.results[0].notes
    assert notes is not None
    assert notes.trace == trace


def test_a_drop_in_the_middle_ends_the_way_and_keeps_what_was_noted_before():
    bench = Bench(3)
    bench.submit(envelope(1), envelope(2))
    bench.pass_all(0, Notes(captures=(CAPTURES[0],)))
    works = bench.sandboxes[1].works
    bench.sandboxes[1].answer(drop(2, Notes(logs=(LOGS[1],))), whole(works[1].raw))
    ((item, result),) = bench.sink.delivered
    assert (item, result.outcome) == (1, EventOutcome.DROP)
    assert result.notes == Notes((CAPTURES[0],), (LOGS[1],), dropped_by=2)
    assert [orjson.loads(work.raw)["uuid"] for work in bench.sandboxes[2].works] == [uuid_of(2)]


def test_an_event_that_a_segment_cannot_open_is_invalid():
    bench = Bench()
    bench.submit(envelope(1))
    invalid = ChainResult(EventOutcome.INVALID, "", "", "", "", "", Notes(error=("InvalidEvent", "no")))
    bench.sandboxes[0].answer(invalid)
    assert bench.sink.results == [invalid]


SPOILT = [
    {"uuid": uuid_of(2)},
    {"uuid": None},
    {"team_id": 3},
    {"team_id": True},
    {"properties": None},
    {"properties": []},
    {"distinct_id": ""},
    {"distinct_id": 5},
    {"event": ""},
    {"event": None},
]


@pytest.mark.parametrize("segment", [0, 1], ids=["on the way", "at the end"])
@pytest.mark.parametrize("fields", SPOILT, ids=str)
def test_an_event_that_a_child_spoilt_is_invalid_and_said_to_the_operator(fields, segment):
    bench = Bench()
    bench.submit(envelope(1))
    if segment:
        bench.pass_all(0, Notes(captures=(CAPTURES[0],), logs=(LOGS[0],)))
    sandbox = bench.sandboxes[segment]
    with structlog.testing.capture_logs() as logs:
        sandbox.answer(whole(sandbox.works[0].raw, **fields))
    ((item, result),) = bench.sink.delivered
    assert (item, result.outcome, result.properties) == (1, EventOutcome.INVALID, "")
    assert result.notes is not None
    assert result.notes.error is not None
    assert result.notes.logs == ((LOGS[0],) if segment else ())
    assert bench.sandboxes[1].taken == []
    assert [(entry["event"], entry["project_id"]) for entry in logs] == [("event_spoilt_by_sandbox", 2)]


@pytest.mark.parametrize("segment", [0, 1], ids=["on the way", "at the end"])
@pytest.mark.parametrize("text", ["", "5", "[]", "{", "null", '{"a":NaN}', "[" * 10_000, '{"properties":{}}'])
def test_what_is_no_event_at_all_is_invalid(text, segment):
    bench = Bench()
    bench.submit(envelope(1))
    if segment:
        bench.pass_all(0)
    bench.sandboxes[segment].answer(ChainResult(EventOutcome.WHOLE, "", "", "", "", text, None))
    ((_, result),) = bench.sink.delivered
    assert result.outcome is EventOutcome.INVALID


@pytest.mark.parametrize("value", [r'"\ud800"', "1" * 400 + ".0e-399", "123456789012345678901234567890", "-0", "1e308"])
@pytest.mark.parametrize("segment", [0, 1], ids=["on the way", "at the end"])
def test_json_that_only_a_lenient_reader_takes_is_finished_or_invalid(value, segment):
    # A child need not encode as ours does. Whatever it writes, its event must not be lost, nor the lane it came from.
    bench = Bench()
    bench.submit(envelope(1))
    if segment:
        bench.pass_all(0)
    sandbox = bench.sandboxes[segment]
    text = sandbox.works[0].raw.decode().replace('"n":1', f'"n":{value}')
    sandbox.answer(ChainResult(EventOutcome.WHOLE, "", "", "", "", text, None))
    if not bench.sink.delivered:
        onward = bench.sandboxes[1].works[0].raw.decode()
        bench.sandboxes[1].answer(ChainResult(EventOutcome.WHOLE, "", "", "", "", onward, None))
    assert len(bench.sink.delivered) == 1
    assert bench.sink.results[0].outcome in (EventOutcome.EMIT, EventOutcome.INVALID)


def test_stamps_name_those_that_ran_and_those_that_failed_in_the_order_of_the_installs():
    broken = chain(3, opened=True, whole=True)
    broken.known = (LoadedInstall(3, frozenset({"processEvent"}), HookFailure(3, "app", "x", None)),)
    other = chain(5, opened=True, whole=True)
    other.known = (LoadedInstall(5, frozenset({"onEvent"}), None),)
    bench = Bench(chains=[chain(1, 2, opened=True, whole=True), broken, chain(4, opened=True, whole=True), other])
    bench.submit(envelope(1))
    bench.pass_all(0, Notes(failures=(HookFailure(2, "timeout", "x", None),)))
    bench.pass_all(1)
    bench.pass_all(2)
    bench.pass_all(3)
    assert bench.properties()["$plugins_succeeded"] == ["App1 (1)", "App4 (4)"]
    assert bench.properties()["$plugins_failed"] == ["App2 (2)"]


def test_an_install_that_cost_its_sandbox_is_stamped_as_failed_though_it_is_not_known_any_more():
    unknown = chain(2, opened=True, whole=True)
    unknown.known = ()
    bench = Bench(chains=[chain(1, opened=True, whole=True), unknown])
    bench.submit(envelope(1))
    bench.pass_all(0)
    bench.pass_all(1, Notes(failures=(HookFailure(2, "sandbox", "x", None),)))
    assert bench.properties()["$plugins_failed"] == ["App2 (2)"]


def test_without_an_app_that_ran_there_are_no_stamps():
    of = chain(1, opened=True, whole=True)
    of.known = ()
    bench = Bench(chains=[of, of])
    bench.submit(envelope(1))
    bench.pass_all(0)
    bench.pass_all(1)
    assert bench.properties() == {"n": 1}
    assert bench.sink.results[0].notes is None


def test_a_snapshot_is_not_stamped_as_no_app_runs_on_it():
    bench = Bench()
    bench.submit(envelope(1, event="$snapshot"))
    for segment in range(len(bench.sandboxes)):
        bench.pass_all(segment)
    assert bench.properties() == {"n": 1}


def test_what_an_app_renames_to_a_snapshot_is_none_to_the_apps_after_it():
    bench = Bench()
    bench.submit(envelope(1), envelope(2, event="$snapshot"))
    assert [work.is_snapshot for work in bench.sandboxes[0].works] == [False, True]
    bench.sandboxes[0].answer(*(whole(work.raw, event="$snapshot") for work in bench.sandboxes[0].works))
    assert [work.is_snapshot for work in bench.sandboxes[1].works] == [False, True]
    head, _ = bench.chains[1].run_frame(1, bench.sandboxes[1].works, trace=False)
    assert orjson.loads(head)["snapshots"] == [False, True]


def test_events_whose_sink_has_closed_go_no_further():
    bench = Bench()
    closing = Sink()
    bench.submit(envelope(1), sink=closing)
    bench.submit(envelope(2))
    closing.closed = True
    bench.pass_all(0)
    assert [orjson.loads(work.raw)["uuid"] for work in bench.sandboxes[1].works] == [uuid_of(2)]
    bench.pass_all(1)
    assert closing.delivered == []
    assert len(bench.sink.delivered) == 1


def test_a_sink_that_closes_before_the_end_is_told_nothing():
    bench = Bench()
    bench.submit(envelope(1), envelope(2))
    bench.pass_all(0)
    bench.sink.closed = True
    bench.pass_all(1)
    assert bench.sink.delivered == []


@pytest.mark.parametrize("hooks", [(False, False), (True, False), (False, True)])
def test_a_project_has_delivery_if_any_of_its_segments_has(hooks):
    bench = Bench()
    bench.submit(envelope(1))
    bench.pass_all(0, has_delivery=hooks[0])
    bench.pass_all(1, has_delivery=hooks[1])
    assert bench.sink.has_delivery == [any(hooks)]


def test_each_sink_gets_its_own_events():
    bench = Bench()
    sinks = [Sink(), Sink()]
    for number, sink in enumerate(sinks, 1):
        bench.submit(envelope(number), sink=sink)
    bench.pass_all(0)
    bench.pass_all(1)
    assert [len(sink.delivered) for sink in sinks] == [1, 1]
    assert orjson.loads(sinks[1].results[0].properties)["n"] == 2


def test_an_outcome_that_was_not_asked_for_ends_the_way():
    # in_flight refuses it; were it to come through, the event must still be told of once.
    bench = Bench()
    bench.submit(envelope(1))
    bench.sandboxes[0].answer(emitted())
    assert bench.sink.items == [1]
    assert bench.sandboxes[1].taken == []

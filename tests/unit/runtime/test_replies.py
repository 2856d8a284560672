"""Frames of a child that lies: each is a valid value or a ProtocolViolation, and never anything else."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from plugin_server.model.errors import ProtocolViolation
from plugin_server.model.project import App, Install, Limits
from plugin_server.runtime.replies import (
    Bounds,
    Capture,
    ChainResult,
    HookFailure,
    HostCallRequest,
    InvocationReply,
    LoadedFrame,
    LogLine,
    hook_name,
    read_call,
    read_done,
    read_loaded,
    read_results,
)
from sandbox import codec
from sandbox.wire import HOOKS, WIRE_VERSION, EventOutcome

APP = App("App", "0", "main.py", "", {})
INSTALLS = (Install(1, APP, 1, {}), Install(2, APP, 2, {}))
BOUNDS = Bounds.of(INSTALLS, Limits(captures_per_event=3), 10_000)
PROPERTIES = b'{"a":1}'
WHOLE = b'{"event":"x","properties":{}}'
CAPTURED = (b'{"a":1}', b"{}")
STEPS = (b'{"properties":{}}', b'{"properties":{"b":null}}')
NOTES = {
    "captures": [[1, 0, "x", "ada", None, 7], [2, 0, "y", "eve", "2026-01-01", 2]],
    "logs": [[1, "LOG", "hello", "CONSOLE"]],
    "failed": [[2, "app", "ValueError", 3, True]],
    "unheard": [[1, 4]],
    "trace": [[0, len(STEPS[0])], [1, len(STEPS[1])]],
}
EMITTED = [5, 0, "x", "ada", "2026-01-01 00:00:00.000", "a:b", len(PROPERTIES), NOTES]
EMITTED_BLOB = b"".join((PROPERTIES, *CAPTURED, *STEPS))
RESULTS = [
    1,
    [
        EMITTED,
        [6, 1, "", "", "", "", 0, {"dropped_by": 1, "captures": [[1, 0, "z", "ada", None, 2]]}],
        [7, 2, "", "", "", "", 0, {"error": ["InvalidEvent", "no"]}],
        [8, 3, "", "", "", "", len(WHOLE), None],
    ],
]
RESULTS_BLOB = EMITTED_BLOB + b"{}" + WHOLE
LOADED = {
    "version": WIRE_VERSION,
    "chain": 1,
    "installs": [
        {"id": 1, "hooks": ["processEvent", "jobs.mail"], "metrics": {"n": "sum"}, "error": None},
        {"id": 2, "hooks": [], "metrics": {}, "error": ["compile", "bad", 1, False]},
    ],
}
CALL = [1, 5, 2, 0, "sleep", [1.5]]
ANSWER = b'{"url":"x"}'
DONE = [9, None, len(ANSWER), {"captures": NOTES["captures"], "logs": NOTES["logs"]}]
DONE_BLOB = ANSWER + b"".join(CAPTURED)
FAILED = [9, ["timeout", "too long", 3, False], 4, {"logs": NOTES["logs"]}]


def bounds_of(_number: int) -> Bounds:
    """Of whatever is asked for: whether it was given at all is judged by who knows (in_flight)."""
    return BOUNDS


ODD = [
    None, True, False, 0, 1, -1, 2, 3, 99, 2**31, 2**63, 1.0, 0.0, -0.5, 1e300, "", "x", "12", "abcdefgh", "x" * 300, "\ud7ff",
    "\x00", [], [None], [1, 2, 3, 4, 5, 6, 7, 8], [[]], {}, {"a": 1}, {"captures": 5}, {"dropped_by": 1}, {"error": "ab"},
    {"error": []}, {"error": {}}, {"logs": {"a": 1}}, {"trace": [[1]]}, {"trace": [["1", {}]]}, {"failed": "x"}, ["x"] * 6,
    [1, "LOG", [], {}], [1, [], "x", "CONSOLE"], [[1, {}, "x", None]], {"properties": {}},
]  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path]
    if isinstance(value, dict):
        for key, item in value.items():
            found += places(item, (*path, key))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            found += places(item, (*path, number))
    return found


def replaced(frame: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    made = copy.deepcopy(frame)
    inner = made
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    return made


def lengths_of(frame: Any) -> list[tuple[Any, ...]]:
    """The places of all numbers: lengths are among them."""
    return [path for path in places(frame) if path and type(value_at(frame, path)) is int]


def value_at(frame: Any, path: tuple[Any, ...]) -> Any:
    for step in path:
        frame = frame[step]
    return frame


def mutations(frame: Any, count: int, seed: int) -> list[bytes]:
    """Each field replaced by each odd value, numbers a little off, fields left out, added and doubled; bytes changed."""
    chance = random.Random(seed)
    spots = places(frame)
    made = [orjson.dumps(replaced(frame, path, value)) for path in spots for value in ODD]
    made += [
        orjson.dumps(replaced(frame, path, value_at(frame, path) + change))
        for path in lengths_of(frame)
        for change in (-2, -1, 1, 2, 7, 20, 2**16, 2**30, -(2**30))
    ]
    for path in spots[1:]:
        short = copy.deepcopy(frame)
        inner = value_at(short, path[:-1])
        del inner[path[-1]]
        made.append(orjson.dumps(short))
        long = copy.deepcopy(frame)
        inner = value_at(long, path[:-1])
        if isinstance(inner, list):
            inner.insert(path[-1], copy.deepcopy(inner[path[-1]]))
        else:
            inner["more"] = 1
        made.append(orjson.dumps(long))
    raw = orjson.dumps(frame)
    made += [damaged(raw, chance) for _ in range(count - len(made))]
    return made


def damaged(raw: bytes, chance: random.Random) -> bytes:
    made = bytearray(raw)
    for _ in range(chance.randint(1, 3)):
        place = chance.randrange(len(made))
        match chance.randrange(3):
            case 0:
                made[place] = chance.choice(b'0123456789[]{}",:-.ent\\\xff')
            case 1:
                del made[place]
            case _:
                made.insert(place, chance.choice(b'0123456789[]{}",:-.ent'))
    return bytes(made)


def moved_lengths(frame: Any, count: int, seed: int) -> Iterator[bytes]:
    """Several numbers changed at once, most so that their sum stays: parts of the blob that begin where they should not."""
    chance = random.Random(seed)
    spots = lengths_of(frame)
    for _ in range(count):
        made = copy.deepcopy(frame)
        for _ in range(chance.randint(1, 2)):
            change = chance.choice((1, 1, 2, 3, 7, 20))
            for sign in (1, -1) if chance.random() < 0.8 else (1,):
                path = chance.choice(spots)
                value_at(made, path[:-1])[path[-1]] += sign * change
        yield orjson.dumps(made)


def damaged_blobs(blob: bytes, count: int, seed: int) -> Iterator[bytes]:
    """The blob with bytes changed, left out and added, cut, doubled and turned round."""
    chance = random.Random(seed)
    yield from (blob[:stop] for stop in range(len(blob)))
    yield from (blob + more for more in (b"x", b"{}", b"\x00", b"\xff", blob))
    yield from (blob[place:] + blob[:place] for place in range(1, len(blob)))
    for _ in range(count - 2 * len(blob) - 4):
        yield damaged(blob, chance)


def is_result(result: Any) -> bool:
    assert type(result) is ChainResult
    assert type(result.outcome) is EventOutcome
    assert all(type(text) is str for text in result[1:6])
    notes = result.notes
    if result.outcome is EventOutcome.DROP:
        assert notes.dropped_by in (1, 2)
    if result.outcome is EventOutcome.INVALID:
        assert all(type(text) is str for text in notes.error)
    if notes is None:
        return True
    assert len(notes.captures) <= 6
    assert all(map(is_capture, notes.captures))
    assert all(type(line) is LogLine and line.install_id in (1, 2) and type(line.message) is str for line in notes.logs)
    assert all(type(failure) is HookFailure and type(failure.message) is str for failure in notes.failures)
    assert all(type(install) is int and type(event) is dict for install, event in notes.trace)
    return True


def is_capture(capture: Any) -> bool:
    assert type(capture) is Capture
    assert capture.install_id in (1, 2)
    assert type(capture.number) is int
    assert type(capture.event) is str
    assert type(capture.distinct_id) is str
    assert type(capture.properties) is dict
    assert type(capture.timestamp) in (str, type(None))
    orjson.dumps(list(capture))
    return True


def read_all_results(frames: Iterator[tuple[bytes, bytes]]) -> tuple[int, int]:
    """How many there were, and how many of them were read."""
    number = read = 0
    for head, blob in frames:
        number += 1
        try:
            batches, results = read_results(head, blob, bounds_of, 1_000)
        except ProtocolViolation:
            continue
        read += 1
        assert type(batches) is int
        assert all(type(sequence) is int and is_result(result) for sequence, result in results)
    return number, read


def test_twelve_thousand_damaged_results_are_valid_or_violations():
    number, read = read_all_results((head, RESULTS_BLOB) for head in mutations(RESULTS, 12_000, 1))
    assert number >= 12_000
    assert read > 100


def test_four_thousand_results_with_wrong_lengths_are_valid_or_violations():
    number, read = read_all_results((head, RESULTS_BLOB) for head in moved_lengths(RESULTS, 4_000, 4))
    assert number == 4_000
    assert 0 < read < 2_000


def test_three_thousand_results_with_damaged_blobs_are_valid_or_violations():
    head = orjson.dumps(RESULTS)
    number, read = read_all_results((head, blob) for blob in damaged_blobs(RESULTS_BLOB, 3_000, 5))
    assert number >= 3_000
    assert 0 < read < 2_000


def test_five_thousand_damaged_loadeds_are_valid_or_violations():
    for raw in mutations(LOADED, 5_000, 2):
        try:
            loaded = read_loaded(raw, bounds_of)
        except ProtocolViolation:
            continue
        assert type(loaded) is LoadedFrame
        assert type(loaded.chain) is int
        assert [entry.install_id for entry in loaded.installs] in ([1, 2], [2, 1])
        assert all(type(hook) is str for entry in loaded.installs for hook in entry.hooks)
        assert all(type(entry.error) in (HookFailure, type(None)) for entry in loaded.installs)


def test_five_thousand_damaged_calls_are_valid_or_violations():
    for raw in mutations(CALL, 5_000, 3):
        try:
            call = read_call(raw, bounds_of)
        except ProtocolViolation:
            continue
        assert type(call) is HostCallRequest
        assert call.install_id in (1, 2)
        assert type(call.name) is str
        assert type(call.arguments) is list


def test_nine_thousand_damaged_dones_are_valid_or_violations():
    frames = [(head, DONE_BLOB) for head in mutations(DONE, 4_000, 6)]
    frames += [(head, b"null") for head in mutations(FAILED, 2_000, 7)]
    frames += [(head, DONE_BLOB) for head in moved_lengths(DONE, 1_500, 8)]
    frames += [(orjson.dumps(DONE), blob) for blob in damaged_blobs(DONE_BLOB, 1_500, 9)]
    assert len(frames) >= 9_000
    read = 0
    for head, blob in frames:
        try:
            reply = read_done(head, blob, bounds_of)
        except ProtocolViolation:
            continue
        read += 1
        assert type(reply) is InvocationReply
        assert type(reply.sequence) is int
        assert reply.failure is None or [type(part) for part in reply.failure[:2]] == [str, str]
        orjson.dumps(reply.value)
        assert len(reply.notes.captures) <= BOUNDS.captures
        assert all(map(is_capture, reply.notes.captures))
        assert all(type(line) is LogLine and line.install_id in (1, 2) for line in reply.notes.logs)
        assert reply.notes._replace(captures=(), logs=()) == ((), (), (), None, None, (), ())
    assert read > 50


def test_valid_frames_are_read():
    batches, results = read_results(orjson.dumps(RESULTS), RESULTS_BLOB, bounds_of, 1_000)
    assert batches == 1
    assert [sequence for sequence, _ in results] == [5, 6, 7, 8]
    assert [result.outcome for _, result in results] == list(EventOutcome)
    assert results[0][1].properties == '{"a":1}'
    notes = results[0][1].notes
    assert notes is not None
    assert notes.failures == (HookFailure(2, "app", "ValueError", 3, retryable=True),)
    assert notes.captures == (
        Capture(1, 0, "x", "ada", None, {"a": 1}),
        Capture(2, 0, "y", "eve", "2026-01-01", {}),
    )
    assert notes.trace == ((0, {"properties": {}}), (1, {"properties": {"b": None}}))
    assert results[3][1] == ChainResult(EventOutcome.WHOLE, "", "", "", "", WHOLE.decode(), None)
    loaded = read_loaded(orjson.dumps(LOADED), bounds_of)
    assert loaded.chain == 1
    assert loaded.installs[0].hooks == {"processEvent", "jobs.mail"}
    assert loaded.installs[1].error == HookFailure(2, "compile", "bad", 1)
    raw = orjson.dumps(CALL)
    assert read_call(raw, bounds_of) == HostCallRequest(1, 5, 2, 0, "sleep", [1.5], len(raw))
    reply = read_done(orjson.dumps(DONE), DONE_BLOB, bounds_of)
    assert (reply.sequence, reply.failure, reply.value) == (9, None, {"url": "x"})
    assert reply.notes.captures == notes.captures
    failed = read_done(orjson.dumps(FAILED), b"null", bounds_of)
    assert (failed.failure, failed.value) == (("timeout", "too long", 3, False), None)


@pytest.mark.parametrize(
    ("read", "frame", "blob"),
    [(read_results, RESULTS, RESULTS_BLOB), (read_done, DONE, DONE_BLOB), (read_call, CALL, None)],
)
def test_what_was_not_given_is_a_violation_whatever_is_said_of_it(read, frame, blob):
    def refuses(number: int) -> Bounds:
        asked.append(number)
        raise ProtocolViolation("not given")

    asked: list[int] = []
    with pytest.raises(ProtocolViolation, match="not given"):
        read(orjson.dumps(frame), *([] if blob is None else [blob]), refuses, *([9] if read is read_results else []))
    assert asked in ([5], [9])


def test_more_rows_than_events_in_flight_are_a_violation():
    with pytest.raises(ProtocolViolation, match="more rows"):
        read_results(orjson.dumps(RESULTS), RESULTS_BLOB, bounds_of, len(RESULTS[1]) - 1)


def test_a_capture_of_more_lists_than_an_honest_child_sends_is_a_violation():
    blob = b'{"a":[' + b"[]," * codec.MAX_CONTAINERS + b"[]]}"
    head = [0, [[5, 1, "", "", "", "", 0, {"dropped_by": 1, "captures": [[1, 0, "x", "d", None, len(blob)]]}]]]
    with pytest.raises(ProtocolViolation, match="lists and objects"):
        read_results(orjson.dumps(head), blob, lambda _: Bounds.of(INSTALLS, Limits(), 1_000_000), 9)


def test_each_row_is_judged_by_the_bounds_of_its_own_chain():
    small = Bounds(frozenset({1, 2}), 10, 6)
    rows = [[number, 0, "x", "ada", "2026-01-01 00:00:00.000", "", 20, None] for number in (1, 2)]
    blob = b'{"a":"0123456789ab"}' * 2
    read_results(orjson.dumps([1, rows]), blob, bounds_of, 1_000)
    with pytest.raises(ProtocolViolation, match="longer than its limits"):
        read_results(orjson.dumps([1, rows]), blob, lambda number: small if number == 2 else BOUNDS, 1_000)


def test_a_loaded_for_a_chain_that_was_not_asked_for_is_a_violation():
    def refuses(_chain: int) -> Bounds:
        raise ProtocolViolation("not asked for")

    with pytest.raises(ProtocolViolation, match="not asked for"):
        read_loaded(orjson.dumps(LOADED), refuses)


@pytest.mark.parametrize(
    ("installs", "limits", "record_bytes", "expected"),
    [
        (INSTALLS, Limits(captures_per_event=3), 10_000, (frozenset({1, 2}), 2**20 + 2**16, 6)),
        (INSTALLS, Limits(event_bytes=1_024), 10_000, (frozenset({1, 2}), 40_000 + 2**16, 200)),
        ((), Limits(captures_per_event=0), 10, (frozenset(), 2**20 + 2**16, 0)),
    ],
)
def test_bounds_follow_from_limits_and_the_longest_record(installs, limits, record_bytes, expected):
    assert Bounds.of(installs, limits, record_bytes) == expected


@pytest.mark.parametrize("blob", [b"", b'{"a":1', b'{"a":1}x', b"\xff" * 7, b'{"a":"'])
def test_properties_of_other_lengths_or_no_text_are_violations(blob):
    with pytest.raises(ProtocolViolation):
        read_results(emitted(notes=None), blob, bounds_of, 1_000)
    with pytest.raises(ProtocolViolation):
        read_done(orjson.dumps([9, None, 7, None]), blob, bounds_of)


def emitted(**fields: Any) -> bytes:
    names = ["sequence", "outcome", "event", "distinct_id", "timestamp", "elements_chain", "length", "notes"]
    row = list(EMITTED)
    for name, value in fields.items():
        row[names.index(name)] = value
    return orjson.dumps([0, [row]])


@pytest.mark.parametrize(
    "fields",
    [
        {"event": "x" * 201},
        {"distinct_id": ""},
        {"timestamp": "2026-01-01T00:00:00.000"},
        {"timestamp": "٢٠٢٦-01-01 00:00:00.000"},
        {"timestamp": "2026-01-01 00:00:00.000\n"},
        {"length": 10**9},
        {"length": -1},
        {"length": 1, "notes": None},
        {"notes": {"captures": [[1, 0, "x", "ada", None, 2]] * 7}},
        {"notes": {"captures": [[3, 0, "x", "ada", None, 2]]}},
        {"notes": {"captures": [[True, 0, "x", "ada", None, 2]]}},
        {"notes": {"captures": [[1, 0, "x" * 201, "ada", None, 2]]}},
        {"notes": {"captures": [[1, 0, "", "ada", None, 2]]}},
        {"notes": {"captures": [[1, 0, "x", "", None, 2]]}},
        {"notes": {"captures": [[1, 0, "x", "ada", "2" * 65, 2]]}},
        {"notes": {"captures": [[1, 0, "x", "ada", None, -1]]}},
        {"notes": {"captures": [[1, 0, "x", "ada", None, True]]}},
        {"notes": {"captures": [[1, 0, "x", "ada", None, 2.0]]}},
        {"notes": {"captures": [[1, 0, "x", "ada", None, 10**9]]}},
        {"notes": {"logs": [[1, "LOG", "x", "CONSOLE"]] * 2_001}},
        {"notes": {"logs": [[1, "LOG", "x" * 20_001, "CONSOLE"]]}},
        {"notes": {"logs": [[1, "FATAL", "x", "CONSOLE"]]}},
        {"notes": {"failed": [[1, "odd", "x", None, False]]}},
        {"notes": {"failed": [[1, "app", "x", None, 1]]}},
        {"notes": {"failed": [[1, "app", "x", None]]}},
        {"notes": {"unheard": [[1, "x"]]}},
        {"notes": {"unheard": [[3, 1]]}},
        {"notes": {"unheard": [[1, 1]] * 2_001}},
        {"notes": {"trace": [[0, 2]]}},
        {"notes": {"trace": [[3, 17]]}},
        {"notes": {"trace": [[0, 17]] * 4}},
        {"notes": {"dropped_by": 3}},
        {"notes": {"error": ["x" * 41, "y"]}},
    ],
)
def test_what_is_out_of_bounds_is_a_violation(fields):
    # The blob is what the lengths say, so that it is the field that is judged.
    parts = {2: b"{}", len(STEPS[0]): STEPS[0]}
    notes = {"notes": None} | fields
    lengths = [part[-1] for name in ("captures", "trace") for part in (notes["notes"] or {}).get(name, ())]
    blob = PROPERTIES[: fields.get("length", 7)] + b"".join(parts.get(length, b"") for length in lengths)
    with pytest.raises(ProtocolViolation):
        read_results(emitted(**notes), blob, bounds_of, 1_000)


@pytest.mark.parametrize("part", [b"5", b"[]", b'"text"', b"null", b"{", b"{}x", b"\xff\xff", b'{"a":NaN}', b""])
def test_a_capture_or_a_step_that_is_no_object_is_a_violation(part):
    for notes in (
        {"captures": [[1, 0, "x", "ada", None, len(part)]]},
        {"trace": [[0, len(part)]]},
    ):
        with pytest.raises(ProtocolViolation):
            read_results(emitted(notes=notes), PROPERTIES + part, bounds_of, 1_000)


@pytest.mark.parametrize("row", [[8, 3, "", "", "", "", 10**9, None], [8, 3, "", "", "", "", -1, None]])
def test_a_whole_event_of_an_impossible_length_is_a_violation(row):
    with pytest.raises(ProtocolViolation):
        read_results(orjson.dumps([0, [row]]), b"", bounds_of, 1_000)


def test_a_negative_length_is_a_violation_also_where_the_sum_is_right():
    rows = [[number, 3, "", "", "", "", length, None] for number, length in ((1, -2), (2, 4))]
    with pytest.raises(ProtocolViolation, match="sum of its lengths"):
        read_results(orjson.dumps([0, rows]), b"{}", bounds_of, 1_000)


@pytest.mark.parametrize(
    "row",
    [
        [5, 1, "", "", "", "", 0, None],
        [5, 1, "", "", "", "", 0, {}],
        [5, 1, "", "", "", "", 0, {"error": ["a", "b"]}],
        [5, 2, "", "", "", "", 0, {"dropped_by": 1}],
        [5, 1, "", "", "", "", 2, {"dropped_by": 1}],
        [5, 4, "", "", "", "", 0, {"dropped_by": 1}],
        [5, True, "", "", "", "", 0, {"dropped_by": 1}],
        [5, "1", "", "", "", "", 0, {"dropped_by": 1}],
    ],
)
def test_an_event_that_ends_without_a_valid_reason_is_a_violation(row):
    with pytest.raises(ProtocolViolation):
        read_results(orjson.dumps([0, [row]]), b"{}" if row[6] else b"", bounds_of, 1_000)


@pytest.mark.parametrize(
    "frame",
    [
        [9, None, 4],
        [9, None, 4, None, None],
        {"sequence": 9},
        ["9", None, 4, None],
        [True, None, 4, None],
        [9, None, "4", None],
        [9, None, -4, None],
        [9, None, 5, None],
        [9, [], 4, None],
        [9, "abc", 4, None],
        [9, ["odd", "x", None, False], 4, None],
        [9, ["app", 5, None, False], 4, None],
        [9, ["app", "x" * 20_001, None, False], 4, None],
        [9, ["app", "x", "3", False], 4, None],
        [9, ["app", "x", 3], 4, None],
        [9, ["app", "x", 3, None], 4, None],
        [9, None, 4, []],
        [9, None, 4, {"failed": [[1, "app", "x", 1, False]]}],
        [9, None, 4, {"dropped_by": 1}],
        [9, None, 4, {"error": ["a", "b"]}],
    ],
)
def test_a_done_that_an_honest_child_would_not_send_is_a_violation(frame):
    with pytest.raises(ProtocolViolation):
        read_done(orjson.dumps(frame), b"null", bounds_of)


def test_a_done_with_a_trace_is_a_violation():
    frame = [9, None, 4, {"trace": [[0, 17]]}]
    with pytest.raises(ProtocolViolation):
        read_done(orjson.dumps(frame), b"null" + STEPS[0], bounds_of)


def test_what_is_nested_beyond_what_can_be_written_is_a_violation():
    deep = b'{"properties":{"a":' + b"[" * 300 + b"]" * 300 + b"}}"
    for notes in ({"captures": [[1, 0, "x", "ada", None, len(deep)]]}, {"trace": [[0, len(deep)]]}):
        with pytest.raises(ProtocolViolation):
            read_results(emitted(notes=notes), PROPERTIES + deep, bounds_of, 1_000)
    with pytest.raises(ProtocolViolation):
        read_done(orjson.dumps([9, None, len(deep), None]), deep, bounds_of)


def test_an_event_that_grew_by_its_numbers_alone_is_read():
    # "1E15" is written 1000000000000000.0, so what came as 10 kB may leave as 40.
    properties = orjson.dumps({"a": [1e15] * 2_000})
    small = Bounds.of(INSTALLS, Limits(event_bytes=1_024), 10_000)
    _, results = read_results(emitted(length=len(properties), notes=None), properties, lambda _: small, 10)
    assert len(results[0][1].properties) == len(properties)


@pytest.mark.parametrize(
    "installs",
    [
        [],
        [{"id": 1, "hooks": [], "metrics": {}, "error": None}],
        [{"id": number, "hooks": [], "metrics": {}, "error": None} for number in (1, 2, 3)],
        [{"id": number, "hooks": ["onEvent"] * 129, "metrics": {}, "error": None} for number in (1, 2)],
        [{"id": number, "hooks": [], "error": None} for number in (1, 2)],
        [{"id": number, "hooks": [], "metrics": [], "error": None} for number in (1, 2)],
        [{"id": number, "hooks": [], "metrics": {"n": "avg"}, "error": None} for number in (1, 2)],
        [{"id": number, "hooks": [], "metrics": {"n": ["sum"]}, "error": None} for number in (1, 2)],
        [{"id": number, "hooks": [], "metrics": {"x" * 201: "sum"}, "error": None} for number in (1, 2)],
        [
            {"id": number, "hooks": [], "metrics": {str(n): "sum" for n in range(101)}, "error": None}
            for number in (1, 2)
        ],
        [{"id": number, "hooks": ["anything"], "metrics": {}, "error": None} for number in (1, 2)],
        [{"id": number, "hooks": ["load"], "metrics": {}, "error": None} for number in (1, 2)],
        [{"id": number, "hooks": ["job"], "metrics": {}, "error": None} for number in (1, 2)],
        [{"id": number, "hooks": ["jobs." + "x" * 200], "metrics": {}, "error": None} for number in (1, 2)],
        [{"id": 1, "hooks": [], "metrics": {}, "error": None}] * 2,
    ],
)
def test_a_loaded_of_other_installs_is_a_violation(installs):
    with pytest.raises(ProtocolViolation):
        read_loaded(orjson.dumps(LOADED | {"installs": installs}), bounds_of)


@pytest.mark.parametrize("version", [1, WIRE_VERSION + 1, None, "2"])
def test_another_version_of_the_protocol_is_a_violation(version):
    with pytest.raises(ProtocolViolation, match="speaks version"):
        read_loaded(orjson.dumps(LOADED | {"version": version}), bounds_of)


def test_hooks_are_named_also_those_that_are_none():
    assert hook_name(HOOKS.index("processEvent")) == "processEvent"
    assert hook_name(2**32 - 1) == "an unknown hook"

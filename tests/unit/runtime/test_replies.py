"""Frames of a child that lies: each is a valid value or a ProtocolViolation, and never anything else."""

from __future__ import annotations

import copy
import random
from typing import Any

import orjson
import pytest

from plugin_server.model.errors import ProtocolViolation
from plugin_server.model.project import App, Install, Limits, Project
from plugin_server.runtime.replies import (
    ChainResult,
    HookFailure,
    HostCallRequest,
    Loaded,
    LogLine,
    ReplyReader,
    hook_name,
)
from sandbox.wire import HOOKS, EventOutcome

APP = App("App", "0", "main.py", "", {})
PROJECT = Project(2, "p", "t", (Install(1, APP, 1, {}), Install(2, APP, 2, {})), limits=Limits(captures_per_event=3))
READER = ReplyReader(PROJECT, 10_000)
PROPERTIES = b'{"a":1}'
NOTES = {
    "captures": [[1, 0, "x", "ada", None, {"a": 1}], [2, 0, "y", "eve", "2026-01-01", {}]],
    "logs": [[1, "LOG", "hello", "CONSOLE"]],
    "failed": [[2, "app", "ValueError", 3]],
    "trace": [[0, {"properties": {}}], [1, {"properties": {"b": None}}]],
}
EMITTED = [5, 0, "x", "ada", "2026-01-01 00:00:00.000", "a:b", len(PROPERTIES), NOTES]
RESULTS = [
    1,
    [
        EMITTED,
        [6, 1, "", "", "", "", 0, {"dropped_by": 1}],
        [7, 2, "", "", "", "", 0, {"error": ["InvalidEvent", "no"]}],
    ],
]
LOADED = {
    "version": 1,
    "installs": [
        {"id": 1, "hooks": ["processEvent"], "error": None},
        {"id": 2, "hooks": [], "error": ["compile", "bad", 1]},
    ],
    "logs": [[1, "INFO", "up", "CONSOLE"]],
}
CALL = [1, 5, 2, 0, "sleep", [1.5]]

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


def mutations(frame: Any, count: int, seed: int) -> list[bytes]:
    """Each field replaced by each odd value, fields left out, added and doubled; bytes of the frame changed."""
    chance = random.Random(seed)
    spots = places(frame)
    made = [orjson.dumps(replaced(frame, path, value)) for path in spots for value in ODD]
    for path in spots[1:]:
        short = copy.deepcopy(frame)
        inner = short
        for step in path[:-1]:
            inner = inner[step]
        del inner[path[-1]]
        made.append(orjson.dumps(short))
        long = copy.deepcopy(frame)
        inner = long
        for step in path[:-1]:
            inner = inner[step]
        if isinstance(inner, list):
            inner.insert(path[-1], copy.deepcopy(inner[path[-1]]))
        else:
            inner["more"] = 1
        made.append(orjson.dumps(long))
    raw = orjson.dumps(frame)
    while len(made) < count:
        damaged = bytearray(raw)
        for _ in range(chance.randint(1, 3)):
            place = chance.randrange(len(damaged))
            match chance.randrange(3):
                case 0:
                    damaged[place] = chance.choice(b'0123456789[]{}",:-.ent\\\xff')
                case 1:
                    del damaged[place]
                case _:
                    damaged.insert(place, chance.choice(b'0123456789[]{}",:-.ent'))
        made.append(bytes(damaged))
    return made


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
    for capture in notes.captures:
        assert capture.install_id in (1, 2)
        assert type(capture.event) is str
        assert type(capture.distinct_id) is str
        assert type(capture.properties) is dict
        assert type(capture.timestamp) in (str, type(None))
        orjson.dumps(list(capture))
    assert all(type(line) is LogLine and line.install_id in (1, 2) and type(line.message) is str for line in notes.logs)
    assert all(type(failure) is HookFailure and type(failure.message) is str for failure in notes.failures)
    assert all(type(install) is int and type(event) is dict for install, event in notes.trace)
    return True


def test_twelve_thousand_damaged_results_are_valid_or_violations():
    read = 0
    for raw in mutations(RESULTS, 12_000, 1):
        try:
            batches, results = READER.results(raw, PROPERTIES)
        except ProtocolViolation:
            continue
        read += 1
        assert type(batches) is int
        assert all(type(sequence) is int and is_result(result) for sequence, result in results)
    assert read > 50


def test_five_thousand_damaged_loadeds_are_valid_or_violations():
    for raw in mutations(LOADED, 5_000, 2):
        try:
            loaded = READER.loaded(raw)
        except ProtocolViolation:
            continue
        assert type(loaded) is Loaded
        assert {entry.install_id for entry in loaded.installs} == {1, 2}
        assert all(type(hook) is str for entry in loaded.installs for hook in entry.hooks)


def test_five_thousand_damaged_calls_are_valid_or_violations():
    for raw in mutations(CALL, 5_000, 3):
        try:
            call = READER.call(raw)
        except ProtocolViolation:
            continue
        assert type(call) is HostCallRequest
        assert call.install_id in (1, 2)
        assert type(call.name) is str
        assert type(call.arguments) is list


def test_valid_frames_are_read():
    batches, results = READER.results(orjson.dumps(RESULTS), PROPERTIES)
    assert batches == 1
    assert [sequence for sequence, _ in results] == [5, 6, 7]
    assert [result.outcome for _, result in results] == list(EventOutcome)
    assert results[0][1].properties == '{"a":1}'
    assert results[0][1].notes is not None
    assert results[0][1].notes.failures == (HookFailure(2, "app", "ValueError", 3),)
    assert READER.loaded(orjson.dumps(LOADED)).installs[1].error == HookFailure(2, "compile", "bad", 1)
    assert READER.call(orjson.dumps(CALL)) == HostCallRequest(1, 5, 2, 0, "sleep", [1.5])


@pytest.mark.parametrize("blob", [b"", b'{"a":1', b'{"a":1}x', b"\xff" * 7, b'{"a":"'])
def test_properties_of_other_lengths_or_no_text_are_violations(blob):
    with pytest.raises(ProtocolViolation):
        READER.results(orjson.dumps(RESULTS), blob)


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
        {"notes": {"captures": [[1, 0, "x", "ada", None, {}]] * 7}},
        {"notes": {"captures": [[3, 0, "x", "ada", None, {}]]}},
        {"notes": {"captures": [[1, 0, "x" * 201, "ada", None, {}]]}},
        {"notes": {"captures": [[1, 0, "x", "ada", "2" * 65, {}]]}},
        {"notes": {"logs": [[1, "LOG", "x", "CONSOLE"]] * 2_001}},
        {"notes": {"logs": [[1, "LOG", "x" * 20_001, "CONSOLE"]]}},
        {"notes": {"logs": [[1, "FATAL", "x", "CONSOLE"]]}},
        {"notes": {"failed": [[1, "odd", "x", None]]}},
        {"notes": {"trace": [[0, 5]]}},
        {"notes": {"trace": [[0, {"properties": 5}]]}},
    ],
)
def test_what_is_out_of_bounds_is_a_violation(fields):
    with pytest.raises(ProtocolViolation):
        READER.results(emitted(**fields), PROPERTIES)


def test_captures_and_traces_nested_beyond_what_can_be_written_are_violations():
    deep = b'{"properties":{"a":' + b"[" * 300 + b"]" * 300 + b"}}"
    for notes in (b'{"captures":[[1,0,"x","ada",null,%b]]}', b'{"trace":[[0,%b]]}'):
        head = b'[0,[[5,0,"x","ada","2026-01-01 00:00:00.000","",7,%b]]]' % (notes % deep)
        with pytest.raises(ProtocolViolation):
            READER.results(head, PROPERTIES)


def test_an_event_that_grew_by_its_numbers_alone_is_read():
    # "1E15" is written 1000000000000000.0, so what came as 10 kB may leave as 40.
    properties = orjson.dumps({"a": [1e15] * 2_000})
    small = ReplyReader(Project(2, "p", "t", PROJECT.installs, limits=Limits(event_bytes=1_024)), 10_000)
    _, results = small.results(emitted(length=len(properties), notes=None), properties)
    assert len(results[0][1].properties) == len(properties)


@pytest.mark.parametrize(
    "installs",
    [
        [],
        [{"id": 1, "hooks": [], "error": None}],
        [{"id": number, "hooks": [], "error": None} for number in (1, 2, 3)],
        [{"id": number, "hooks": ["x"] * 33, "error": None} for number in (1, 2)],
    ],
)
def test_a_loaded_of_other_installs_is_a_violation(installs):
    with pytest.raises(ProtocolViolation):
        READER.loaded(orjson.dumps(LOADED | {"installs": installs}))


def test_another_version_of_the_protocol_is_a_violation():
    with pytest.raises(ProtocolViolation, match="version 2"):
        READER.loaded(orjson.dumps(LOADED | {"version": 2}))


def test_hooks_are_named_also_those_that_are_none():
    assert hook_name(HOOKS.index("processEvent")) == "processEvent"
    assert hook_name(2**32 - 1) == "an unknown hook"

"""The lineage header: what the host stamps comes back as it was, and nothing else gets in."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from plugin_server.model.lineage import DEPTH_CEILING, PATH_LENGTH, Lineage, MalformedLineage, parse_lineage, refused

ROOT = "018f0000-0000-7000-8000-000000000001"
LARGE = 2**63 - 1
LINEAGES = st.builds(
    Lineage,
    st.uuids().map(str),
    st.integers(0, LARGE),
    st.lists(st.integers(1, 2**31 - 1), max_size=PATH_LENGTH).map(tuple),
    st.integers(0, LARGE),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


def parse_or_refuse(raw: bytes) -> None:
    """The only two things that may happen to a header."""
    try:
        lineage = parse_lineage(raw)
    except MalformedLineage:
        return
    assert lineage.depth >= 0
    assert lineage.budget >= 0
    assert len(lineage.path) <= PATH_LENGTH
    assert all(type(number) is int for number in (lineage.depth, lineage.budget, *lineage.path))
    assert parse_lineage(lineage.encode()) == lineage


@given(LINEAGES)
def test_what_is_encoded_is_parsed(lineage):
    assert parse_lineage(lineage.encode()) == lineage


@given(LINEAGES)
def test_the_header_is_the_json_that_others_read(lineage):
    assert orjson.loads(lineage.encode()) == {
        "v": 1,
        "root": lineage.root,
        "depth": lineage.depth,
        "path": list(lineage.path),
        "budget": lineage.budget,
    }


@given(LINEAGES, st.data())
def test_a_damaged_header_is_parsed_to_something_valid_or_refused(lineage, data):
    raw = lineage.encode()
    start = data.draw(st.integers(0, len(raw)))
    stop = data.draw(st.integers(start, min(len(raw), start + 4)))
    parse_or_refuse(raw[:start] + data.draw(st.binary(max_size=4)) + raw[stop:])


@given(LINEAGES, st.sampled_from(["v", "root", "depth", "path", "budget"]), JSON)
@example(Lineage(ROOT), "v", True)
@example(Lineage(ROOT), "depth", True)
@example(Lineage(ROOT), "path", [1.0])
def test_a_field_of_another_type_is_parsed_to_something_valid_or_refused(lineage, name, value):
    fields = orjson.loads(lineage.encode()) | {name: value}
    try:
        raw = orjson.dumps(fields)
    except TypeError:
        return
    parse_or_refuse(raw)


@given(st.binary(max_size=100))
def test_any_bytes_are_refused_or_valid(raw):
    parse_or_refuse(raw)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"\xff",
        b"[" * 2_000,
        b" " * 3_000 + Lineage(ROOT).encode(),
        Lineage(ROOT).encode().replace(b'"v":1', b'"v":2'),
        Lineage(ROOT).encode().replace(b'"v":1', b'"v":true'),
        Lineage(ROOT).encode().replace(b'"v":1', b'"v":1.0'),
        Lineage(ROOT).encode().replace(ROOT.encode(), b"root"),
        Lineage(ROOT, depth=7).encode().replace(b"7,", b"-7,"),
        Lineage(ROOT, depth=7).encode().replace(b"7,", b"NaN,"),
        Lineage(ROOT, depth=7).encode().replace(b"7,", b"123456789012345678901234567890,"),
        Lineage(ROOT, budget=9).encode().replace(b"9}", b"-9}"),
        Lineage(ROOT, budget=9).encode().replace(b"9}", b'"9"}'),
        Lineage(ROOT, path=(1,)).encode().replace(b"[1]", b'{"1":1}'),
        Lineage(ROOT, path=(1,)).encode().replace(b"[1]", b"[null]"),
        Lineage(ROOT, path=tuple(range(PATH_LENGTH + 1))).encode(),
    ],
)
def test_what_the_host_never_writes_is_refused(raw):
    with pytest.raises(MalformedLineage):
        parse_lineage(raw)


def test_a_refused_lineage_leaves_nothing_to_spend():
    assert refused(ROOT) == Lineage(ROOT, DEPTH_CEILING, (), 0)
    assert parse_lineage(refused(ROOT).encode()) == refused(ROOT)

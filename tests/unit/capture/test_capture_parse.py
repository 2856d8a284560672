"""Rules of parsing that hold for every body: a request or a refusal, never a crash, and never a record over the limit."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugin_server.capture.decode import decode_json, is_deeper_than
from plugin_server.capture.envelope import envelopes, uuid7
from plugin_server.capture.parse import parse_request
from plugin_server.capture.refusal import Refusal

NOW = datetime(2026, 11, 23, tzinfo=UTC)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**80), 2**80)
    | st.floats()
    | st.text(st.characters(codec=None), max_size=8)
    | st.sampled_from(["phc_a", "u", "e"])
)
KEYS = st.sampled_from(
    ["event", "distinct_id", "$distinct_id", "properties", "token", "api_key", "batch", "uuid", "sent_at", "timestamp"]
) | st.text(st.characters(codec=None), max_size=4)
JSON = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=6), max_leaves=20
)
GOOD = st.fixed_dictionaries(
    {"event": st.text(min_size=1), "distinct_id": JSON, "token": st.just("phc_a")},
    optional={"properties": st.dictionaries(KEYS, JSON, max_size=3), "uuid": JSON, "x": JSON, "timestamp": st.text()},
)


def records(raw: bytes, record_bytes: int = 1_000_000):
    request = parse_request(decode_json(raw), {})
    return envelopes(request, topic="t", ip="", received_at=NOW, record_bytes=record_bytes)


@given(JSON | st.lists(GOOD, min_size=1, max_size=3))
def test_any_json_is_refused_or_becomes_records_that_can_be_read(document: Any) -> None:
    try:
        made = records(json.dumps(document).encode())
    except Refusal as refusal:
        assert refusal.status in (400, 401)  # noqa: PT017 - it may be a good one
    else:
        for record in made:
            value = orjson.loads(record.value)
            assert record.key == f"{value['token']}:{value['distinct_id']}".encode()
            assert 1 <= len(value["distinct_id"]) <= 200
            assert isinstance(orjson.loads(value["data"])["properties"], dict)


@given(st.binary(max_size=60))
def test_any_bytes_are_refused_or_read(raw: bytes) -> None:
    try:
        parse_request(decode_json(raw), {})
    except Refusal as refusal:
        assert refusal.status in (400, 401)  # noqa: PT017 - it may be a good one


@given(st.text(max_size=50), st.integers(200, 400))
def test_no_record_is_larger_than_the_limit(text: str, limit: int) -> None:
    raw = json.dumps({"event": "e", "distinct_id": "u", "token": "phc_a", "x": text}).encode()
    try:
        (record,) = records(raw, limit)
    except Refusal as refusal:
        assert refusal.status == 413  # noqa: PT017 - it may be a good one
    else:
        assert len(record.key or b"") + len(record.value) <= limit


@given(st.integers(0, 150), st.integers(0, 150))
def test_depth_counts_objects_and_lists_inside_each_other(depth: int, limit: int) -> None:
    value: Any = 1
    for level in range(depth):
        value = [value, 2] if level % 2 else {"a": value, "b": 1}
    assert is_deeper_than(value, limit) is (depth > limit)


@given(st.integers(0, 2**47))
def test_a_uuid7_is_ordered_by_its_time(milliseconds: int) -> None:
    time = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds % (250 * 10**12))
    made = uuid7(time)
    assert (made.version, made.variant) == (7, "specified in RFC 4122")
    assert abs((made.int >> 80) - milliseconds % (250 * 10**12)) <= 1


@pytest.mark.parametrize("query", [{"_": "\u0661\u0662"}, {"_": "-1"}, {"_": "1" * 400}, {"sent_at": "x"}])
def test_a_strange_clock_in_the_query_is_ignored(query: dict[str, str]) -> None:
    assert parse_request({"event": "e", "distinct_id": "u", "token": "phc_a"}, query).sent_at == ""

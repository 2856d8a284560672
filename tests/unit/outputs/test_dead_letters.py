"""A dead letter always fits a record, and keeps the original or says what is left of it."""

from __future__ import annotations

import hashlib

from hypothesis import example, given
from hypothesis import strategies as st

from plugin_server.eventlog.headers_codec import encode_headers
from plugin_server.model.outcome import DeadLetter, DeadLetterReason
from plugin_server.outputs.dead_letters import TRUNCATED_BYTES, dead_letter_record

LETTER = DeadLetter("decode", DeadLetterReason.INVALID_JSON, "no", 2, 39, "v1")
TEXT = st.text(max_size=30) | st.sampled_from(["é" * 3_000, "x" * 5_000, "\ud800"])
HEADERS = st.lists(st.tuples(st.sampled_from(["", "k", "é" * 500, "x" * 3_000]), st.binary(max_size=300)), max_size=60)


def make(
    value: bytes, letter: DeadLetter = LETTER, *, key: bytes | None = None, headers=(), record_bytes: int = 100_000
):
    return dead_letter_record(
        "dlq", letter, key=key, value=value, headers=headers, source="events-0-1", record_bytes=record_bytes
    )


def size(record) -> int:
    return len(record.value) + len(record.key or b"") + len(encode_headers(record.headers) or b"")


@given(
    st.integers(0, 300_000),
    TEXT,
    TEXT,
    HEADERS,
    st.none() | st.binary(max_size=2_000),
    st.integers(20_000, 200_000),
    st.none() | TEXT,
)
@example(0, "", "", [("", b"")] * 50_000, None, 20_000, None)
@example(300_000, "é" * 3_000, "é" * 3_000, [("é" * 500, b"x" * 300)] * 60, b"k" * 1_024, 20_000, "é" * 3_000)
def test_every_dead_letter_fits_a_record(length, step, error, headers, key, record_bytes, version):
    value = b"v" * length
    letter = DeadLetter(step, DeadLetterReason.TOO_LARGE, error, 2**31, 2**31, version)
    record = make(value, letter, key=key, headers=headers, record_bytes=record_bytes)
    assert size(record) <= record_bytes
    added = dict(record.headers)
    if record.value != value:
        assert value.startswith(record.value)
        assert added["truncated"] == b"true"
        assert added["length"] == b"%d" % length
        assert added["sha256"] == hashlib.sha256(value).hexdigest().encode()
        assert len(record.value) <= TRUNCATED_BYTES
    else:
        assert length == 0 or "truncated" not in added


def test_a_message_that_fits_is_kept_as_it_was_with_its_own_headers_first():
    record = make(b"\xff\x00", key=b"k", headers=[("token", b"t"), ("ps-lineage", b"{}")])
    assert (record.topic, record.partition, record.key, record.value) == ("dlq", None, b"k", b"\xff\x00")
    assert list(record.headers) == [
        ("token", b"t"),
        ("ps-lineage", b"{}"),
        ("step", b"decode"),
        ("reason", b"invalid_json"),
        ("error", b"no"),
        ("project", b"2"),
        ("install", b"39"),
        ("app_version", b"v1"),
        ("source", b"events-0-1"),
    ]


def test_what_is_not_known_is_left_out():
    names = [name for name, _ in make(b"x", DeadLetter("decode", DeadLetterReason.NO_PROJECT, "")).headers]
    assert names == ["step", "reason", "source"]


def test_a_large_value_keeps_its_first_64_kib():
    record = make(b"ab" * 100_000)
    assert record.value == (b"ab" * 100_000)[: 64 * 1024]


def test_a_key_too_long_is_left_out():
    assert make(b"x", key=b"k" * 1_025).key is None

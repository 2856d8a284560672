from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugin_server.eventlog.headers_codec import decode_headers, encode_headers

HEADERS = st.lists(st.tuples(st.text(), st.binary()), max_size=10)


@given(HEADERS)
def test_what_is_encoded_is_decoded(headers: list[tuple[str, bytes]]) -> None:
    assert decode_headers(encode_headers(headers)) == tuple(headers)


def test_no_headers_take_no_room() -> None:
    assert encode_headers([]) is None
    assert decode_headers(None) == ()


@given(HEADERS.filter(bool), st.data())
def test_a_blob_that_was_cut_off_is_refused_or_ends_between_headers(
    headers: list[tuple[str, bytes]], data: st.DataObject
) -> None:
    blob = encode_headers(headers)
    assert blob is not None
    cut = blob[: data.draw(st.integers(min_value=0, max_value=len(blob) - 1))]
    try:
        decoded = decode_headers(cut)
    except ValueError:
        return
    assert decoded == tuple(headers[: len(decoded)])


def test_a_length_beyond_the_end_is_refused() -> None:
    with pytest.raises(ValueError, match="within a value"):
        decode_headers(b"\x01\x00\x00\x00\xff\x00\x00\x00a")

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugin_server.eventlog.port import METADATA_LIMIT_BYTES, Position, Runs
from plugin_server.eventlog.position_codec import decode_position, encode_checked, encode_done

OFFSETS = st.integers(min_value=0, max_value=2**62)
SMALL = st.integers(min_value=1, max_value=1_000)


@st.composite
def positions(draw: st.DrawFn) -> Position:
    next_offset = draw(OFFSETS)
    runs: list[tuple[int, int]] = []
    end = next_offset + draw(st.integers(min_value=-1, max_value=0))
    for gap, length in draw(st.lists(st.tuples(SMALL, SMALL), max_size=50)):
        start = end + gap
        end = start + length
        runs.append((start, end))
    return Position(next_offset, tuple(runs))


@given(positions())
def test_what_is_encoded_is_decoded(position: Position) -> None:
    assert decode_position(position.next, encode_done(position)) == position


@given(positions())
def test_the_text_is_ascii(position: Position) -> None:
    assert encode_done(position).isascii()


@given(OFFSETS, st.text())
def test_any_text_gives_a_position_that_can_be_committed(next_offset: int, raw_metadata: str) -> None:
    position = decode_position(next_offset, raw_metadata)
    assert position.next == next_offset
    assert decode_position(next_offset, encode_done(position)) == position


@given(positions(), st.data())
def test_a_damaged_text_gives_a_position_that_can_be_committed(position: Position, data: st.DataObject) -> None:
    text = encode_done(position)
    place = data.draw(st.integers(min_value=0, max_value=len(text)))
    damaged = text[:place] + data.draw(st.text("0123456789,+;- \n", max_size=3)) + text[place + 1 :]
    encode_done(decode_position(position.next, damaged))


@pytest.mark.parametrize(
    "raw_metadata", [None, "", "note", "2;1", "1;", "1;1,,2", "1;1,0", "1;01", "1;-1", "1;1+0", "1;٣"]
)
def test_what_we_did_not_write_is_taken_as_empty(raw_metadata: str | None) -> None:
    assert decode_position(5, raw_metadata) == Position(5)


@pytest.mark.parametrize(
    "done",
    [((4, 6),), ((7, 7),), ((8, 7),), ((6, 7), (7, 8)), ((8, 9), (6, 7)), ((6, 9), (8, 10))],
    ids=["before next", "empty", "descending", "touching", "out of order", "overlapping"],
)
def test_runs_that_make_no_sense_are_refused(done: Runs) -> None:
    with pytest.raises(ValueError, match="at or beyond 5"):
        encode_done(Position(5, done))


def test_the_text_is_short_and_can_be_read() -> None:
    assert encode_done(Position(100)) == ""
    assert encode_done(Position(100, ((101, 102), (110, 610)))) == "1;1,8+500"


def test_a_text_over_the_limit_is_refused() -> None:
    every_second = tuple((offset, offset + 1) for offset in range(1, METADATA_LIMIT_BYTES, 2))
    fits = Position(0, every_second[: METADATA_LIMIT_BYTES // 2 - 1])
    assert len(encode_checked(fits)) <= METADATA_LIMIT_BYTES
    with pytest.raises(ValueError, match="over 4000"):
        encode_checked(Position(0, every_second))

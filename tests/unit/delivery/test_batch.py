"""Batches of exportEvents (PostHog's behaviours 85–87)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugin_server.delivery.batch import CALL_BYTES, ExportBuffer, ExportSettings


def cut(sizes: list[int], **config: Any) -> list[list[int]]:
    """The batches that events of these sizes make."""
    buffer: ExportBuffer[int] = ExportBuffer(ExportSettings.of(config))
    batches: list[list[int]] = []
    for size in sizes:
        batches += buffer.add(size, size, 0.0)
    return [*batches, *([rest] if (rest := buffer.take()) else [])]


def test_a_thousand_bytes_hold_seven_events_of_133() -> None:
    assert [len(batch) for batch in cut([133] * 100, exportEventsBufferBytes=1_000)] == [7] * 14 + [2]


def test_one_byte_makes_a_batch_of_each() -> None:
    assert cut([133] * 100, exportEventsBufferBytes="1") == [[133]] * 100


def test_an_event_that_fills_the_buffer_alone_does_not_wait_for_the_next() -> None:
    buffer: ExportBuffer[str] = ExportBuffer(ExportSettings(buffer_bytes=10))
    assert buffer.add("large", 50, 0.0) == [["large"]]
    assert buffer.add("small", 4, 0.0) == []
    assert buffer.add("large", 50, 0.0) == [["small"], ["large"]]


def test_a_batch_is_due_when_its_oldest_event_has_waited() -> None:
    buffer: ExportBuffer[str] = ExportBuffer(ExportSettings(buffer_seconds=10))
    assert not buffer.is_due(1_000.0)
    buffer.add("a", 1, 100.0)
    buffer.add("b", 1, 109.0)
    assert not buffer.is_due(109.9)
    assert buffer.is_due(110.0)
    assert buffer.take() == ["a", "b"]
    assert not buffer.is_due(1_000.0)
    buffer.add("c", 1, 200.0)
    assert buffer.waited_seconds(203.0) == 3.0


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        ({}, ExportSettings(2**20, 10.0)),
        ({"exportEventsBufferBytes": "0.5", "exportEventsBufferSeconds": "0.01"}, ExportSettings(1, 1.0)),
        ({"exportEventsBufferBytes": 10**12, "exportEventsBufferSeconds": 10**6}, ExportSettings(100 * 2**20, 600.0)),
        ({"exportEventsBufferBytes": "x", "exportEventsBufferSeconds": None}, ExportSettings()),
        ({"exportEventsBufferBytes": "nan", "exportEventsBufferSeconds": True}, ExportSettings()),
        ({"exportEventsToIgnore": " a, b ,,c"}, ExportSettings(ignored=frozenset("abc"))),
        ({"exportEventsToIgnore": ""}, ExportSettings()),
    ],
)
def test_settings_are_read_and_moved_into_their_bounds(config: dict[str, Any], wanted: ExportSettings) -> None:
    assert ExportSettings.of(config) == wanted


@given(st.lists(st.integers(1, 500), max_size=200), st.integers(1, 2_000))
def test_every_event_is_in_one_batch_in_order_and_no_batch_is_too_large(sizes: list[int], limit: int) -> None:
    batches = cut(sizes, exportEventsBufferBytes=limit)
    assert [size for batch in batches for size in batch] == sizes
    for batch in batches:
        assert sum(batch) <= limit or len(batch) == 1


def test_no_call_is_larger_than_a_frame_carries_whatever_is_configured() -> None:
    third = CALL_BYTES // 3 + 1
    assert cut([third] * 4, exportEventsBufferBytes=10**12) == [[third] * 2, [third] * 2]

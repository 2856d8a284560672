from __future__ import annotations

import pytest

from plugin_server.eventlog.partitioning import Partitioner


@pytest.mark.parametrize(
    ("key", "hashed"),
    [(b"21", -973932308), (b"foobar", -790332482), (b"a-little-bit-long-string", -985981536), (b"abc", 479470107)],
)
def test_keys_go_where_java_sends_them(key: bytes, hashed: int) -> None:
    """Values of murmur2 from Kafka's own UtilsTest; its partitioner drops the sign bit."""
    for partition_count in (1, 3, 50):
        assert Partitioner().choose(key, partition_count) == (hashed & 0x7FFFFFFF) % partition_count


def test_records_without_a_key_take_turns() -> None:
    partitioner = Partitioner()
    assert [partitioner.choose(None, 3) for _ in range(7)] == [0, 1, 2, 0, 1, 2, 0]


def test_an_empty_key_is_a_key() -> None:
    partitioner = Partitioner()
    assert len({partitioner.choose(b"", 1000) for _ in range(5)}) == 1

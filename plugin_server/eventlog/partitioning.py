"""To which partition a record goes that does not say: as Java's producer does, so that keys stay where they are."""

# mypy: allow-untyped-calls
# (aiokafka is only partly annotated)

from __future__ import annotations

import itertools

from aiokafka.partitioner import murmur2


class Partitioner:
    """Murmur2 of the key, or a round robin for records without one."""

    def __init__(self) -> None:
        self._turn = itertools.count()

    def choose(self, key: bytes | None, partition_count: int) -> int:
        """A partition in [0, partition_count)."""
        number: int = next(self._turn) if key is None else murmur2(key) & 0x7FFFFFFF
        return number % partition_count

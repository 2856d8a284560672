"""The event log as the rest of the server sees it: partitions of records, lanes that own one, and positions.

Two implementations keep this contract and pass one suite (tests/contract): `kafka` and `embedded`.

Rejected: a generic broker abstraction (topics, consumers, producers as separate objects). What the server
needs is narrower, a lane that reads one partition and commits outputs together with its position, and only
in that shape can both implementations promise exactly once (docs/decisions/002).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

Headers = Sequence[tuple[str, bytes]]
Runs = tuple[tuple[int, int], ...]
"""Half-open ranges of offsets, ascending, neither touching nor overlapping."""

METADATA_LIMIT_BYTES = 4_000
"""What `done` may take when encoded; Kafka's default `offset.metadata.max.bytes` is 4,096."""


class InputRecord(Protocol):
    """One record as read. `timestamp` is in milliseconds since the epoch."""

    @property
    def offset(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Headers: ...
    @property
    def timestamp(self) -> int: ...


class OutputRecord(NamedTuple):
    """One record to be written. `topic` is the full name, prefix included; `partition` None means murmur2 of the key."""

    topic: str
    partition: int | None
    key: bytes | None
    value: bytes
    headers: Headers = ()


@dataclass(frozen=True, slots=True)
class Position:
    """All offsets below `next` are finished, and so are those in `done`, all at or beyond it."""

    next: int
    done: Runs = ()


class LaneLog(Protocol):
    """One partition, owned by this worker. Used by one lane only; `fetch` and `commit` may be under way together."""

    @property
    def partition(self) -> int: ...

    @property
    def position(self) -> Position:
        """What is committed: as read when the lane was acquired, later as last committed by it."""
        ...

    async def fetch(self, max_records: int, timeout_seconds: float) -> Sequence[InputRecord]:
        """The next records in offset order, as soon as there are any; empty after the time-out.

        Offsets may have gaps. Records in `position.done` are returned too; to skip them is the lane's work.
        After a gap in retention it goes on at the earliest record, logs an ERROR and counts the events lost.
        Raises EventLogUnavailable. Cancelling it loses no record.
        """
        ...

    async def commit(self, records: Sequence[OutputRecord], position: Position) -> None:
        """Write all of `records` and the position, or none of it, visible to readers at once.

        Raises LaneFenced when another worker has acquired the partition since, CommitOutcomeUnknown on any other
        failure. After either (and after a cancel) this object is dead: close it and acquire the lane again.
        """
        ...

    async def resume(self) -> bool:
        """After a rebalance that gave us the partition again: go on where `fetch` had arrived.

        True if the committed position is still the one that we committed, so what is in flight stays valid;
        False if somebody else has moved it: close this object and acquire the lane again.
        """
        ...

    async def close(self) -> None:
        """Release the partition's producer or connection. An open transaction is aborted. Never raises."""
        ...


class AssignmentListener(Protocol):
    """What a consumer group tells the supervisor. Both may be called from a rebalance: they must be quick."""

    def on_assigned(self, partitions: frozenset[int]) -> None:
        """We own these now, all of ours. Their reading is paused until `open_lane` or `LaneLog.resume`."""
        ...

    async def on_revoked(self, partitions: frozenset[int]) -> None:
        """We may lose these: take no more of them and finish or abort what is being committed, within 3 s."""
        ...


class EventLog(Protocol):
    """The log as a whole. Created and closed by the composition root."""

    async def start(self) -> None:
        """Connect. Raises EventLogUnavailable when the log does not answer."""
        ...

    async def stop(self) -> None:
        """Disconnect: leave the group if it was joined, close what is open. Never raises."""
        ...

    async def ensure_topics(self, topics: Sequence[str], partitions: int) -> None:
        """Create those that are missing; leave the others as they are."""
        ...

    def partition_count(self, topic: str) -> int:
        """Of a topic that `ensure_topics` was told of."""
        ...

    async def record_limit_bytes(self) -> int | None:
        """The largest record that the broker takes, None if it has no limit."""
        ...

    async def join(self, group: str, topic: str, listener: AssignmentListener) -> None:
        """Become a member of the group. The listener is called from now on. Once per object."""
        ...

    async def open_lane(self, partition: int) -> LaneLog:
        """Acquire a partition of the joined topic: fence its previous owner, then read its committed position.

        Raises EventLogUnavailable. `fetch` starts at the position.
        """
        ...

    async def produce(self, records: Sequence[OutputRecord]) -> None:
        """Write records outside any lane, durably, at least once. Raises EventLogUnavailable."""
        ...

    def read(self, topics: Sequence[str], *, from_start: bool) -> AsyncIterator[tuple[str, InputRecord]]:
        """All committed records of these topics as they come, without a group, until closed."""
        ...

    async def latest(self, topic: str, max_records_per_partition: int, max_bytes: int) -> Sequence[InputRecord]:
        """The last committed records of a topic, by partition and offset: a look, without a group, that ends by itself.

        Of each partition at most so many, and at most its even share of `max_bytes` (keys, values and headers). They may
        be fewer than there are: a transaction's mark or an aborted record counts as one. Raises EventLogUnavailable.
        """
        ...

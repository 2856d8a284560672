"""Storage as the runs of one worker see it: what is committed, and on top of it what finished runs have yet to commit.

Runs overlap, so each reads and writes in a transaction of its own, and its reads are judged when it finishes: if a key
that it read has changed meanwhile, it is stale and has to run again. So the outcome is as if runs came one after the
other, in the order in which they finished. A finished run's writes are seen by later runs at once, long before the
database has them; the committer stores units in that order, and whatever read from one that could not be stored is stale
too. An increment that nobody looked at is a delta and is never stale.

A key that made a run stale is *contended* for a while: who reads it then waits for earlier readers to finish, so that a
hundred events that count in turn do not run a hundred times each.

Rejected: reading the database alone (a run would see nothing of those before it until their flush: ten counts a second),
and locks on every key (a reader would wait for nothing most of the time, and two could wait for each other).
"""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import orjson

from plugin_server.model.errors import InvalidArgument

Key = tuple[int, str]
"""Install and key"""
FRESH_SECONDS: Final = 1.0
"""What was read from the database is not read again for so long"""
CONTENDED_SECONDS: Final = 5.0
WAIT_SECONDS: Final = 1.0
"""For one earlier reader of a contended key; then it is read all the same"""
KEPT_SECONDS: Final = 60.0
KEPT_ENTRIES: Final = 20_000
_LARGEST: Final = 2**63 - 1


class Stored(NamedTuple):
    """A key as the database has it. `value` is JSON, None where there is none; `version` is 0 then."""

    value: bytes | None
    version: int


MISSING: Final = Stored(None, 0)
ReadStored = Callable[[Sequence[Key]], Awaitable[Mapping[Key, Stored]]]
"""Reads keys from the database; those that it lacks may be left out."""


@dataclass(frozen=True, slots=True)
class Write:
    """Set to this JSON; None deletes."""

    value: bytes | None

    def apply(self, value: bytes | None) -> bytes | None:
        del value
        return self.value


@dataclass(frozen=True, slots=True)
class Add:
    """Add to the number that is there. What is no number (it was one when the app looked) counts as 0."""

    by: float

    def apply(self, value: bytes | None) -> bytes | None:
        found = None if value is None else orjson.loads(value)
        return _encode((found if type(found) in (int, float) else 0) + self.by)


Operation = Write | Add


class _Entry:
    """One key: what the database has (`base`), and on top of it what finished units do that are not stored yet."""

    __slots__ = ("base", "contended_until", "holders", "pending", "read_at", "stamp", "value")

    def __init__(self, base: Stored, stamp: int, now: float) -> None:
        self.base = base
        self.value = base.value
        self.stamp = stamp
        """Changes whenever the value does"""
        self.pending: list[tuple[Unit, Operation]] = []
        self.read_at = now
        self.contended_until = 0.0
        self.holders: list[StorageTransaction] = []
        """Unfinished runs that read it while it was contended, in order"""

    def recompute(self, stamp: int) -> None:
        value = self.base.value
        for _, operation in self.pending:
            value = operation.apply(value)
        if value != self.value:
            self.value, self.stamp = value, stamp


class StorageTransaction:
    """What one run has read and wants to write."""

    __slots__ = ("_held", "finished", "increments", "order", "reads", "writes")

    def __init__(self) -> None:
        self.reads: dict[Key, int] = {}
        """The stamp of the key's entry when it was read"""
        self.increments: dict[tuple[int, int], tuple[Key, int]] = {}
        """By install and number of the call: a read only if the app looks at the answer"""
        self.writes: dict[Key, Operation] = {}
        self.order = 0
        self.finished = asyncio.Event()
        self._held: list[_Entry] = []

    @property
    def is_empty(self) -> bool:
        return not (self.reads or self.writes or self.increments)

    def hold(self, entry: _Entry) -> None:
        entry.holders.append(self)
        self._held.append(entry)

    def abandon(self) -> None:
        """It is over, and nobody has to wait for it."""
        for entry in self._held:
            entry.holders.remove(self)
        self._held.clear()
        self.finished.set()

    def drop(self, install_id: int) -> None:
        """Forget what one install read and wrote."""
        self.reads = {key: stamp for key, stamp in self.reads.items() if key[0] != install_id}
        self.writes = {key: operation for key, operation in self.writes.items() if key[0] != install_id}
        self.increments = {call: read for call, read in self.increments.items() if call[0] != install_id}

    def look_at_increments(self, unheard: Iterable[tuple[int, int]]) -> None:
        """All increments but these were looked at, so they are reads."""
        for call in unheard:
            self.increments.pop(call, None)
        for key, stamp in self.increments.values():
            self.reads.setdefault(key, stamp)
        self.increments.clear()


@dataclass(eq=False, slots=True)
class Unit:
    """The storage part of a finished run, as the committer stores it."""

    reads: frozenset[Key]
    writes: Mapping[Key, Operation]
    is_stale: bool = field(default=False)


class Ledger:
    """The storage of one worker. One user a call: everything but the reading is done without awaiting."""

    def __init__(self, read_stored: ReadStored, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._read_stored = read_stored
        self._clock = clock
        self._entries: dict[Key, _Entry] = {}
        self._stamps = itertools.count(1)
        self._orders = itertools.count(1)
        self._loading: dict[Key, asyncio.Future[_Entry]] = {}
        self._wanted: list[Key] = []
        self._units: dict[Unit, None] = {}
        """Finished and not stored, in order"""

    # Reading and writing, by runs

    async def get(self, transaction: StorageTransaction, key: Key) -> bytes | None:
        """The value's JSON, None if there is none. Raises the database's errors."""
        own = transaction.writes.get(key)
        if isinstance(own, Write):
            return own.value
        entry = await self._entry_for(transaction, key)
        transaction.reads.setdefault(key, entry.stamp)
        later = transaction.writes.get(key) if own is not None else None
        return later.apply(entry.value) if later is not None else entry.value

    def set(self, transaction: StorageTransaction, key: Key, value: bytes | None) -> None:
        """Set to JSON, None deletes."""
        transaction.writes[key] = Write(value)

    async def increment(
        self, transaction: StorageTransaction, key: Key, by: float, call: tuple[int, int]
    ) -> int | float:
        """The new number. Raises InvalidArgument if what is there is no number. `call` is the install and the call's number."""
        own = transaction.writes.get(key)
        if not isinstance(own, Write):
            entry = await self._entry_for(transaction, key)
            transaction.increments[call] = (key, entry.stamp)
            before = entry.value
        else:
            before = None
        own = transaction.writes.get(key)
        after = _number(before if own is None else own.apply(before)) + by
        encoded = _encode(after)
        match own:
            case None:
                transaction.writes[key] = Add(by)
            case Add():
                transaction.writes[key] = Add(own.by + by)
            case Write():
                transaction.writes[key] = Write(encoded)
        return orjson.loads(encoded)  # type: ignore[no-any-return]

    async def set_if_absent(self, transaction: StorageTransaction, key: Key, value: bytes) -> bool:
        """Set it if there is nothing; whether it was set."""
        if await self.get(transaction, key) is not None:
            return False
        transaction.writes[key] = Write(value)
        return True

    # Finishing, by whoever made the runs

    def is_stale(self, transaction: StorageTransaction) -> bool:
        """Has anything changed that it read? It has to run again then; what it changed itself is not kept."""
        stale = [key for key, stamp in transaction.reads.items() if not self._is_current(key, stamp)]
        until = self._clock() + CONTENDED_SECONDS
        for key in stale:
            if (entry := self._entries.get(key)) is not None:
                entry.contended_until = until
        return bool(stale)

    def finish(self, transaction: StorageTransaction, *, always: bool = False) -> Unit | None:
        """Make its writes visible to later runs. Not to be called for one that is stale.

        None when there is nothing to store and nothing to wait for; with `always`, a unit all the same.
        """
        transaction.abandon()
        reads, entries = frozenset(transaction.reads), self._entries
        depends = any(entries[key].pending for key in reads)
        if not (transaction.writes or depends or always):
            return None
        unit = Unit(reads, transaction.writes)
        self._units[unit] = None
        now = self._clock()
        for key, operation in unit.writes.items():
            entry = entries.get(key)
            if entry is None:
                entry = entries[key] = _Entry(MISSING, next(self._stamps), now - FRESH_SECONDS)
            entry.pending.append((unit, operation))
            entry.value = operation.apply(entry.value)
            entry.stamp = next(self._stamps)
        return unit

    # Storing, by the committer

    def base_version(self, key: Key) -> int:
        """The version that runs have read below all that is pending."""
        entry = self._entries.get(key)
        return entry.base.version if entry is not None else 0

    def stored(self, units: Sequence[Unit], written: Mapping[Key, Stored]) -> None:
        """These units, the oldest there are, are in the database, which has `written` now."""
        gone = set(units)
        for unit in units:
            self._units.pop(unit, None)
        for key, stored in written.items():
            entry = self._entries[key]
            entry.pending = [(unit, operation) for unit, operation in entry.pending if unit not in gone]
            entry.base = stored
            entry.read_at = self._clock()
            entry.recompute(next(self._stamps))
        self._prune()

    def read_anew(self, found: Mapping[Key, Stored]) -> None:
        """The database has other versions than it was thought to have."""
        for key, stored in found.items():
            entry = self._entries.get(key)
            if entry is not None:
                entry.base = stored
                entry.stamp = next(self._stamps)
                entry.read_at = self._clock()
                entry.recompute(next(self._stamps))

    def withdraw(self, units: Iterable[Unit], changed: Iterable[Key] = ()) -> list[Unit]:
        """Take units back, and all that read from them or from `changed` keys. Returns those others, now stale."""
        gone = set(units)
        dirty = set(changed)
        stale: list[Unit] = []
        for unit in list(self._units):
            if unit in gone or not dirty.isdisjoint(unit.reads):
                dirty.update(unit.writes)
                del self._units[unit]
                unit.is_stale = True
                if unit not in gone:
                    stale.append(unit)
        until = self._clock() + CONTENDED_SECONDS
        for key in dirty:
            entry = self._entries.get(key)
            if entry is not None:
                entry.pending = [pair for pair in entry.pending if not pair[0].is_stale]
                entry.recompute(next(self._stamps))
                entry.contended_until = until
        return stale

    def forget(self) -> list[Unit]:
        """The database has failed: nothing that is not stored counts. Returns the units that were waiting."""
        units = list(self._units)
        self._units.clear()
        for unit in units:
            unit.is_stale = True
        for entry in self._entries.values():
            entry.pending.clear()
            entry.read_at = -math.inf
            entry.stamp = next(self._stamps)
        return units

    def _is_current(self, key: Key, stamp: int) -> bool:
        entry = self._entries.get(key)
        return entry is not None and entry.stamp == stamp

    async def _entry_for(self, transaction: StorageTransaction, key: Key) -> _Entry:
        if not transaction.order:
            transaction.order = next(self._orders)
        while True:
            entry = self._entries.get(key)
            now = self._clock()
            if entry is None or (not entry.pending and now - entry.read_at > FRESH_SECONDS):
                entry = await self._load(key)
            if entry.contended_until <= now or transaction in entry.holders:
                return entry
            # Only for earlier ones: so no two ever wait for each other.
            earlier = next((holder for holder in entry.holders if holder.order < transaction.order), None)
            if earlier is None:
                transaction.hold(entry)
                return entry
            if not await _ended(earlier):
                return entry

    async def _load(self, key: Key) -> _Entry:
        loading = self._loading.get(key)
        if loading is None:
            loading = self._loading[key] = asyncio.get_running_loop().create_future()
            self._wanted.append(key)
            if len(self._wanted) == 1:
                # One statement for all that is asked for in this turn of the loop.
                asyncio.get_running_loop().call_soon(self._start_loading)
        return await asyncio.shield(loading)

    def _start_loading(self) -> None:
        wanted, self._wanted = self._wanted, []
        self._reading = asyncio.get_running_loop().create_task(self._read(wanted))

    async def _read(self, keys: Sequence[Key]) -> None:
        try:
            found = await self._read_stored(keys)
        except Exception as error:  # noqa: BLE001 - whoever waits for one of them is told
            for key in keys:
                loading = self._loading.pop(key)
                loading.set_exception(error)
                loading.exception()  # the one who asked may have been cancelled
            return
        now = self._clock()
        for key in keys:
            stored = found.get(key, MISSING)
            entry = self._entries.get(key)
            if entry is None:
                entry = self._entries[key] = _Entry(stored, next(self._stamps), now)
            elif stored.version != entry.base.version and not entry.pending:
                entry.base = stored
                entry.recompute(next(self._stamps))
            entry.read_at = now
            self._loading.pop(key).set_result(entry)

    def _prune(self) -> None:
        if len(self._entries) <= KEPT_ENTRIES:
            return
        before = self._clock() - KEPT_SECONDS
        for key, entry in list(self._entries.items()):
            if not entry.pending and not entry.holders and entry.read_at < before:
                del self._entries[key]


async def _ended(transaction: StorageTransaction) -> bool:
    """Wait for a run to finish, for a while."""
    try:
        async with asyncio.timeout(WAIT_SECONDS):
            await transaction.finished.wait()
    except TimeoutError:
        return False
    return True


def _number(value: bytes | None) -> Any:
    """The number that the JSON is, 0 where there is none. Raises InvalidArgument."""
    if value is None:
        return 0
    number = orjson.loads(value)
    if type(number) is int or type(number) is float:
        return number
    raise InvalidArgument(f"storage.increment: the value there is not a number but {type(number).__name__}")


def _encode(number: float) -> bytes:
    if type(number) is int and abs(number) > _LARGEST:
        number = float(number)
    if not math.isfinite(number):
        raise InvalidArgument("storage.increment: the number is too large")
    return orjson.dumps(number)

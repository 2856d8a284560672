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
from typing import Final

import orjson

from plugin_server.host_api.contended import Line
from plugin_server.host_api.storage_transaction import StorageTransaction
from plugin_server.host_api.storage_values import MISSING, Add, Key, Operation, Stored, Write, encode_number, number_of

FRESH_SECONDS: Final = 1.0
"""What was read from the database is not read again for so long"""
CONTENDED_SECONDS: Final = 5.0
KEPT_SECONDS: Final = 60.0
KEPT_ENTRIES: Final = 20_000
KEPT_BYTES: Final = 64 * 2**20
"""Of values; beyond it those that are not fresh are read again when they are asked for"""
_PRUNE_SECONDS: Final = 1.0

ReadStored = Callable[[Sequence[Key]], Awaitable[Mapping[Key, Stored]]]
"""Reads keys from the database; those that it lacks may be left out."""


class _Entry:
    """One key: what the database has (`base`), and on top of it what finished units do that are not stored yet."""

    __slots__ = ("base", "contended_until", "is_hollow", "line", "pending", "read_at", "stamp", "value")

    def __init__(self, base: Stored, stamp: int, now: float) -> None:
        self.base = base
        self.value = base.value
        self.stamp = stamp
        """Changes whenever the value does"""
        self.pending: list[tuple[Unit, Operation]] = []
        self.read_at = now
        self.contended_until = 0.0
        self.line = Line()
        """Of those that read it while it is contended"""
        self.is_hollow = False
        """Only the version is kept, for want of room"""

    def recompute(self, stamp: int) -> None:
        value = self.base.value
        for _, operation in self.pending:
            value = operation.apply(value)
        if value != self.value:
            self.value, self.stamp = value, stamp

    def hollow(self) -> None:
        """Forget the value of one that has nothing pending. Who has read it is no more stale than before."""
        self.base = Stored(None, self.base.version)
        self.value = None
        self.is_hollow = True

    def fill(self, stored: Stored, stamp: int, *, is_depended_on: bool) -> None:
        """The database has this. The version stays if what is pending has read that one: the committer has to find out."""
        if is_depended_on and stored.version != self.base.version:
            if not self.is_hollow:
                return
            stored = Stored(stored.value, self.base.version)
        if self.is_hollow and stored.version == self.base.version and not self.pending:
            self.value = stored.value
        self.base, self.is_hollow = stored, False
        self.recompute(stamp)


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
        self._readings: set[asyncio.Task[None]] = set()
        self._added_bytes = 0
        """To the values that are kept, since they were last counted"""
        self._prune_at = 0.0
        self._units: dict[Unit, None] = {}
        """Finished and not stored, in order"""

    # Reading and writing, by runs

    async def get(self, transaction: StorageTransaction, key: Key) -> bytes | None:
        """The value's JSON, None if there is none. Raises the database's errors."""
        async with transaction.turn(key):
            return await self._get(transaction, key)

    def set(self, transaction: StorageTransaction, key: Key, value: bytes | None) -> None:
        """Set to JSON, None deletes. By whoever has no other call under way."""
        transaction.writes[key] = Write(value)

    async def set_in_turn(self, transaction: StorageTransaction, key: Key, value: bytes | None) -> None:
        """The same, after the run's earlier calls on the key."""
        async with transaction.turn(key):
            transaction.writes[key] = Write(value)

    async def increment(
        self, transaction: StorageTransaction, key: Key, by: float, call: tuple[int, int]
    ) -> int | float:
        """The new number. Raises InvalidArgument if what is there is no number. `call` is the install and the call's number."""
        async with transaction.turn(key):
            own = transaction.writes.get(key)
            before: bytes | None = None
            if not isinstance(own, Write):
                entry = await self._entry_for(transaction, key)
                transaction.increments[call] = (key, entry.stamp)
                before = entry.value
            encoded = encode_number(number_of(before if own is None else own.apply(before)) + by)
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
        async with transaction.turn(key):
            if await self._get(transaction, key) is not None:
                return False
            transaction.writes[key] = Write(value)
            return True

    async def _get(self, transaction: StorageTransaction, key: Key) -> bytes | None:
        own = transaction.writes.get(key)
        if isinstance(own, Write):
            return own.value
        entry = await self._entry_for(transaction, key)
        transaction.reads.setdefault(key, entry.stamp)
        return entry.value if own is None else own.apply(entry.value)

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
                # What the database has is not known, so who reads a sum has to look there first.
                entry.is_hollow = isinstance(operation, Add)
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
            entry.base, entry.is_hollow = stored, False
            entry.read_at = self._clock()
            entry.recompute(next(self._stamps))
            self._added_bytes += len(stored.value or b"")
        self._prune()

    def read_anew(self, found: Mapping[Key, Stored]) -> None:
        """The database has other versions than it was thought to have."""
        for key, stored in found.items():
            entry = self._entries.get(key)
            if entry is not None:
                entry.base, entry.is_hollow = stored, False
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
            entry.value = entry.base.value
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
            if entry is None or entry.is_hollow or (not entry.pending and now - entry.read_at > FRESH_SECONDS):
                entry = await self._load(key)
                if entry.is_hollow:
                    continue  # it was long ago
            if entry.contended_until <= now:
                return entry
            if not await entry.line.join(transaction):
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
        reading = asyncio.get_running_loop().create_task(self._read(wanted))
        self._readings.add(reading)
        reading.add_done_callback(self._readings.discard)

    async def _read(self, keys: Sequence[Key]) -> None:
        entries = self._entries
        known = {key: entry.base for key in keys if (entry := entries.get(key)) is not None}
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
            entry = entries.get(key)
            if entry is None:
                entry = entries[key] = _Entry(stored, next(self._stamps), now)
            elif entry.base is known.get(key):
                # Else something was stored since, and what was found may be older.
                is_depended_on = bool(entry.pending) or any(key in unit.reads for unit in self._units)
                entry.fill(stored, next(self._stamps), is_depended_on=is_depended_on)
            entry.read_at = now
            self._added_bytes += len(stored.value or b"")
            self._loading.pop(key).set_result(entry)
        self._prune()

    def _prune(self) -> None:
        now = self._clock()
        if now < self._prune_at or (len(self._entries) <= KEPT_ENTRIES and self._added_bytes <= KEPT_BYTES):
            return
        self._prune_at = now + _PRUNE_SECONDS
        depended_on = {key for unit in self._units for key in unit.reads}
        for key, entry in list(self._entries.items()):
            if not entry.pending and entry.read_at < now - KEPT_SECONDS and key not in depended_on:
                del self._entries[key]
        held = sum(len(entry.value or b"") for entry in self._entries.values())
        for entry in self._entries.values():
            if held <= KEPT_BYTES // 2:
                break
            if not entry.pending and entry.read_at < now - FRESH_SECONDS:
                held -= len(entry.value or b"")
                entry.hollow()
        self._added_bytes = held

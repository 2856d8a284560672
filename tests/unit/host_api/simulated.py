"""A committer over a dict that another worker writes to as well, and that fails when it is told to."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from enum import Enum, auto
from typing import Any

from plugin_server.host_api.commit import Commitment, Committer, _Lost
from plugin_server.host_api.ledger import Ledger
from plugin_server.host_api.storage_values import MISSING, Key, Stored
from plugin_server.model.errors import DatabaseUnavailable


class Fault(Enum):
    NONE = auto()
    REFUSED = auto()
    """The transaction fails"""
    ANSWER_LOST = auto()
    """It is committed, and the worker does not hear of it"""
    UNREADABLE = auto()
    """The next reading fails"""
    FOREIGN = auto()
    """Another worker writes first"""
    TAKEN_OVER = auto()
    """Somebody else has one of the runs now"""
    UNSTORABLE = auto()
    """One unit makes every transaction fail that it is in"""


class SimulatedDatabase:
    """Storage, who has been stored (by token), and what happened in which order."""

    def __init__(self, faults: Sequence[tuple[Fault, int]] = ()) -> None:
        self.values: dict[Key, Stored] = {}
        self.recorded: set[Any] = set()
        self.history: list[tuple[str, Any]] = []
        """`("run", token)`, or `("foreign", (key, value))`"""
        self.faults = deque(faults)
        self.unstorable: dict[Any, int] = {}
        self._fails_reading = False
        self._versions = 0

    def put(self, key: Key, value: bytes | None) -> Stored:
        self._versions += 1
        stored = MISSING if value is None else Stored(value, self._versions)
        if value is None:
            self.values.pop(key, None)
        else:
            self.values[key] = stored
        return stored

    def foreign(self, key: Key, value: bytes | None) -> None:
        self.put(key, value)
        self.history.append(("foreign", (key, value)))

    def found(self, keys: Sequence[Key]) -> dict[Key, Stored]:
        return {key: self.values[key] for key in keys if key in self.values}

    async def read(self, keys: Sequence[Key]) -> Mapping[Key, Stored]:
        found = self.found(keys)
        for _ in range(3):
            await asyncio.sleep(0)
        if self._fails_reading:
            self._fails_reading = False
            raise DatabaseUnavailable("simulated: cannot read")
        return found

    def next_fault(self, members: Sequence[Commitment]) -> tuple[Fault, int]:
        fault, place = self.faults.popleft() if self.faults else (Fault.NONE, 0)
        if fault is Fault.UNREADABLE:
            self._fails_reading = True
        elif fault is Fault.FOREIGN:
            self.foreign((1, "abc"[place % 3]), None if place % 4 == 3 else str(1_000 + place).encode())
        elif fault is Fault.UNSTORABLE:
            self.unstorable[members[place % len(members)].token] = 3
        return fault, place


class SimulatedCommitter(Committer):
    def __init__(self, database: SimulatedDatabase, clock: Callable[[], float]) -> None:
        super().__init__(None, Ledger(database.read, clock=clock))  # type: ignore[arg-type]
        self.simulated = database

    async def _transact(self, members: Sequence[Commitment]) -> Mapping[Key, Stored]:
        database = self.simulated
        await asyncio.sleep(0)
        fault, place = database.next_fault(members)
        await asyncio.sleep(0)
        if fault is Fault.TAKEN_OVER:
            raise _Lost([members[place % len(members)]])
        for member in members:
            if database.unstorable.get(member.token, 0) > 0:
                database.unstorable[member.token] -= len(members) == 1
                raise ValueError("simulated: no database can store this")
        keys = sorted({key for member in members for key in (*member.unit.reads, *member.unit.writes)})
        found = database.found(keys)
        self._check_versions(members, found)
        if fault is Fault.REFUSED:
            raise DatabaseUnavailable("simulated: refused")
        written: dict[Key, Stored] = {}
        for member in members:
            assert member.token not in database.recorded
            for key, operation in member.unit.writes.items():
                written[key] = database.put(key, operation.apply(database.values.get(key, MISSING).value))
            database.recorded.add(member.token)
            database.history.append(("run", member.token))
        await asyncio.sleep(0)
        if fault is Fault.ANSWER_LOST:
            raise DatabaseUnavailable("simulated: no answer")
        return written

"""What one run reads and writes in storage, until it finishes and the ledger judges it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from plugin_server.host_api.storage_values import Key, Operation


class StorageTransaction:
    """What one run has read and wants to write."""

    __slots__ = ("_turns", "finished", "increments", "order", "reads", "tries", "writes")

    def __init__(self) -> None:
        self.reads: dict[Key, int] = {}
        """The stamp of the key's entry when it was read"""
        self.increments: dict[tuple[int, int], tuple[Key, int]] = {}
        """By install and number of the call: a read only if the app looks at the answer"""
        self.writes: dict[Key, Operation] = {}
        self.order = 0
        """Among all runs, by their first read"""
        self.tries = 0
        """How often it was stale before"""
        self.finished = asyncio.Event()
        self._turns: dict[Key, asyncio.Lock] = {}

    @property
    def is_empty(self) -> bool:
        return not (self.reads or self.writes or self.increments)

    def abandon(self) -> None:
        """It is over, and nobody has to wait for it."""
        self.finished.set()

    def again(self) -> StorageTransaction:
        """One for the same run, which was stale and begins again: in its old place among those that wait for each other."""
        self.abandon()
        following = StorageTransaction()
        following.order, following.tries = self.order, self.tries + 1
        return following

    def turn(self, key: Key) -> asyncio.Lock:
        """To be held by each call on a key, so that those of one run are answered in the order in which they were made."""
        turn = self._turns.get(key)
        if turn is None:
            turn = self._turns[key] = asyncio.Lock()
        return turn

    def drop(self, install_id: int) -> None:
        """Forget what one install read and wrote."""
        self.reads = {key: stamp for key, stamp in self.reads.items() if key[0] != install_id}
        self.writes = {key: operation for key, operation in self.writes.items() if key[0] != install_id}
        self.increments = {call: read for call, read in self.increments.items() if call[0] != install_id}

    def look_at_increments(self, unheard: Iterable[tuple[int, int]]) -> None:
        """All increments but these were looked at, so they are reads. Of two of one key the older one counts: it is stale first."""
        for call in unheard:
            self.increments.pop(call, None)
        for key, stamp in self.increments.values():
            self.reads[key] = min(stamp, self.reads.get(key, stamp))
        self.increments.clear()

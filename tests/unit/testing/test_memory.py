"""Storage in memory: what runs wrote is there for the next, and stale ones are told."""

from __future__ import annotations

import pytest

from plugin_server.model.errors import InvalidArgument
from plugin_server.testing.memory import MemoryStorage, StorageTransaction


async def test_what_a_run_wrote_is_kept_once_it_is_committed():
    storage, run = MemoryStorage(), StorageTransaction()
    storage.ledger.set(run, (1, "a"), b"[1]")
    await storage.ledger.increment(run, (1, "n"), 2, (1, 0))
    assert storage.of(1) == {}
    storage.commit(run)
    assert storage.of(1) == {"a": [1], "n": 2}
    assert storage.of(2) == {}
    later = StorageTransaction()
    assert await storage.ledger.get(later, (1, "n")) == b"2"
    storage.ledger.set(later, (1, "a"), None)
    storage.commit(later)
    assert storage.of(1) == {"n": 2}


async def test_a_run_that_read_what_another_changed_is_stale():
    storage, one, other = MemoryStorage(), StorageTransaction(), StorageTransaction()
    for run in (one, other):
        await storage.ledger.get(run, (1, "n"))
        storage.ledger.set(run, (1, "n"), b"1")
    storage.commit(one)
    assert storage.ledger.is_stale(other)


async def test_a_test_may_change_it_from_outside():
    storage = MemoryStorage()
    storage.write(1, {"a": 1, "b": {"c": None}})
    storage.write(1, {"a": None})
    assert storage.of(1) == {"b": {"c": None}}
    storage.clear()
    assert storage.of(1) == {}
    with pytest.raises(InvalidArgument, match=r"storage\['x'\]"):
        storage.write(1, {"x": {1}})

"""What the database is to a server's storage: a dict, under the same ledger."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from plugin_server.host_api.ledger import Ledger
from plugin_server.host_api.storage import encode_value
from plugin_server.host_api.storage_transaction import StorageTransaction
from plugin_server.host_api.storage_values import MISSING, Key, Stored
from sandbox import codec


class MemoryStorage:
    """The storage of all installs of a harness."""

    def __init__(self) -> None:
        self._rows: dict[Key, Stored] = {}
        self._versions = itertools.count(1)
        self.ledger = Ledger(self._read)

    def commit(self, transaction: StorageTransaction) -> None:
        """Keep what a run wrote. It must not be stale."""
        unit = self.ledger.finish(transaction)
        if unit is None:
            return
        written: dict[Key, Stored] = {}
        for key, operation in unit.writes.items():
            value = operation.apply(self._rows.get(key, MISSING).value)
            if value is None:
                self._rows.pop(key, None)
                written[key] = MISSING
            else:
                written[key] = self._rows[key] = Stored(value, next(self._versions))
        self.ledger.stored([unit], written)

    def write(self, install_id: int, values: Mapping[str, Any]) -> None:
        """Set keys from outside, None deletes. Raises InvalidArgument for what is no JSON."""
        transaction = StorageTransaction()
        for key, value in values.items():
            encoded = None if value is None else encode_value(f"storage[{key!r}]", value)
            self.ledger.set(transaction, (install_id, key), encoded)
        self.commit(transaction)

    def clear(self) -> None:
        """Delete all that is there."""
        for install_id, key in tuple(self._rows):
            self.write(install_id, {key: None})

    def of(self, install_id: int) -> dict[str, Any]:
        """What an install has stored."""
        return {
            key: codec.loads_of_any_depth(stored.value)
            for (install, key), stored in self._rows.items()
            if install == install_id and stored.value is not None
        }

    async def _read(self, keys: Sequence[Key]) -> Mapping[Key, Stored]:
        return {key: self._rows[key] for key in keys if key in self._rows}

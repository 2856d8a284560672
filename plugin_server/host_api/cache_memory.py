"""A cache in the memory of one process, for the harness."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from plugin_server.host_api.cache import Cache
from plugin_server.host_api.cache_operations import Entry, Operation, apply
from sandbox.codec import loads


class MemoryCache(Cache):
    """See Cache. `clock` gives the seconds since the epoch."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._entries: dict[tuple[str, str], Entry] = {}

    async def do(self, scope: str, key: str, operation: Operation) -> Any:
        """See Cache.do. Waits for nothing."""
        now_ms = self._now_ms()
        entry = self._entries.get((scope, key))
        after, answer = apply(None if entry is None or entry.is_gone(now_ms) else entry, operation, now_ms)
        if after is None:
            self._entries.pop((scope, key), None)
        else:
            self._entries[scope, key] = after
        return answer

    async def close(self) -> None:
        """See Cache.close. Nothing is ever under way."""

    def contents(self, scope: str) -> dict[str, Any]:
        """All that is there now: values, and lists with the head first."""
        now_ms = self._now_ms()
        return {
            key: list(entry.content) if isinstance(entry.content, tuple) else loads(entry.content)
            for (owner, key), entry in self._entries.items()
            if owner == scope and not entry.is_gone(now_ms)
        }

    def ttl_seconds(self, scope: str, key: str) -> float | None:
        """How long a key has left, None where it stays for ever or is not there."""
        entry = self._entries.get((scope, key))
        if entry is None or entry.expires_at_ms is None or entry.is_gone(self._now_ms()):
            return None
        return (entry.expires_at_ms - self._now_ms()) / 1000

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)

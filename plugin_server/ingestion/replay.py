"""After a crash: recorded results on their way out again, each after the earlier events of its key, which run anew."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from plugin_server.eventlog.port import InputRecord, OutputRecord
from plugin_server.lanes.lane import Finished


class Replay:
    """Of one lane. `recorded` and `held` are soon empty; nothing else is asked for an event then."""

    def __init__(self, recorded: Mapping[int, list[OutputRecord]]) -> None:
        self.recorded = dict(recorded)
        """By offset, not read yet"""
        self.held: dict[bytes | None, deque[Finished]] = {}
        """By key, in order: what waits for events that were read before it"""
        self._running: dict[bytes | None, deque[int]] = {}
        """By key, offsets of events that were read while there was something recorded"""

    def take(self, record: InputRecord) -> list[Finished]:
        """A record whose result is recorded: it may leave now, or is held."""
        records = self.recorded.pop(record.offset)
        finished = Finished(record.offset, len(record.value or b""), records, key=record.key)
        if not self._running.get(record.key):
            return [finished]
        self.held.setdefault(record.key, deque()).append(finished)
        return []

    def runs(self, record: InputRecord) -> None:
        """A record without one: those of its key that come after it wait for it."""
        self._running.setdefault(record.key, deque()).append(record.offset)

    def finished(self, record: InputRecord) -> list[Finished]:
        """An event has run. What may leave after it. To be called for each while anything is recorded or held."""
        running = self._running.get(record.key)
        if running is None or record.offset not in running:
            return []
        running.remove(record.offset)
        waiting = self.held.get(record.key)
        released: list[Finished] = []
        while waiting and not (running and running[0] < waiting[0].offset):
            released.append(waiting.popleft())
        if waiting is not None and not waiting:
            del self.held[record.key]
        return released

"""Events that run again because what their apps read had changed, and those of their keys that have to come after them.

Of each key only the first is on its way; what comes meanwhile waits for it, so that no event runs in vain.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable

from plugin_server.ingestion.pending import PendingEvent


class _Entry:
    __slots__ = ("event", "is_running")

    def __init__(self, event: PendingEvent) -> None:
        self.event = event
        self.is_running = False


class RunsAgain:
    """Of one lane. `submit` sends an event to its sandbox."""

    def __init__(self, submit: Callable[[PendingEvent], None]) -> None:
        self._submit = submit
        self.by_key: dict[bytes | None, list[_Entry]] = {}
        """Empty as a rule, so that nothing else need be asked for an event"""

    def is_behind(self, event: PendingEvent) -> bool:
        """It has run. Does an earlier event of its key run again, so that this one's run is void?"""
        entries = self.by_key.get(event.record.key)
        if entries is None:
            return False
        for entry in entries:
            if entry.event is event:
                entry.is_running = False
        return entries[0].event.record.offset < event.record.offset

    def add(self, event: PendingEvent) -> None:
        """Run it again, or, if earlier ones of its key wait, after them."""
        entries = self.by_key.setdefault(event.record.key, [])
        if not any(entry.event is event for entry in entries):
            insort(entries, _Entry(event), key=lambda entry: entry.event.record.offset)
        self._run_first(entries)

    def is_through(self, event: PendingEvent) -> None:
        """It need not run again, as far as is known: the next of its key may."""
        key = event.record.key
        entries = self.by_key.get(key)
        if entries is None or entries[0].event is not event:
            return
        del entries[0]
        if entries:
            self._run_first(entries)
        else:
            del self.by_key[key]

    def _run_first(self, entries: list[_Entry]) -> None:
        first = entries[0]
        if not first.is_running:
            first.is_running = True
            self._submit(first.event)

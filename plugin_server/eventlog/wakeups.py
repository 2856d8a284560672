"""Who waits for records of a topic is woken when some are committed in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable


class Wakeups:
    """One per process and log. Take the event first, look for records then, wait last: so none is missed."""

    def __init__(self) -> None:
        self._events: dict[str, asyncio.Event] = {}

    def next_of(self, topic: str) -> asyncio.Event:
        """Set when records are next committed to this topic."""
        return self._events.setdefault(topic, asyncio.Event())

    def records_committed(self, topics: Iterable[str]) -> None:
        """Wake all who wait for these topics."""
        for topic in set(topics):
            event = self._events.pop(topic, None)
            if event is not None:
                event.set()


async def wait_at_most(event: asyncio.Event, seconds: float) -> None:
    """Until the event is set or the time is over."""
    try:
        async with asyncio.timeout(max(seconds, 0)):
            await event.wait()
    except TimeoutError:
        return

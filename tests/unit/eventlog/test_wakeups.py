from __future__ import annotations

import asyncio

from plugin_server.eventlog.wakeups import Wakeups, wait_at_most


async def test_all_who_wait_for_a_topic_are_woken_once() -> None:
    wakeups = Wakeups()
    first, second, other = wakeups.next_of("a"), wakeups.next_of("a"), wakeups.next_of("b")
    wakeups.records_committed(["a", "a", "nobody waits for this"])
    assert first.is_set()
    assert second.is_set()
    assert not other.is_set()
    assert not wakeups.next_of("a").is_set()


async def test_waiting_ends_with_the_event_or_with_the_time() -> None:
    event = asyncio.Event()
    await wait_at_most(event, 0)
    await wait_at_most(event, -1)
    event.set()
    await wait_at_most(event, 3600)

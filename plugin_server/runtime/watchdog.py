"""Ticks every sandbox, for as long as it runs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Final, NoReturn

import structlog

from plugin_server.runtime.sandbox import Sandbox

TICK_SECONDS: Final = 0.02
_log = structlog.get_logger(__name__)


async def watch(sandboxes: Callable[[], Iterable[Sandbox]]) -> NoReturn:
    """Enforce the limits of all `sandboxes()` until cancelled. What the host sleeps through ages nobody."""
    last = time.monotonic()
    while True:
        await asyncio.sleep(TICK_SECONDS)
        now = time.monotonic()
        elapsed, last = min(now - last, 2 * TICK_SECONDS), now
        for sandbox in sandboxes():
            try:
                sandbox.tick(elapsed)
            except Exception:  # noqa: BLE001 - one sandbox's fault must not end the limits of all others
                _log.exception("watchdog_tick_failed", pid=sandbox.pid)
                sandbox.kill("its watchdog failed")

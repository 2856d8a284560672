"""Ticks every sandbox, for as long as it runs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import NoReturn

import structlog

from plugin_server.runtime.sandbox import Sandbox
from plugin_server.runtime.watch import TICK_SECONDS

_log = structlog.get_logger(__name__)


async def watch(sandboxes: Callable[[], Iterable[Sandbox]]) -> NoReturn:
    """Enforce the limits of all `sandboxes()` until cancelled. What the host sleeps through ages nobody."""
    last, pause = time.monotonic(), TICK_SECONDS
    while True:
        await asyncio.sleep(pause)
        now = time.monotonic()
        elapsed, last = min(now - last, 2 * TICK_SECONDS), now
        pause = TICK_SECONDS
        for sandbox in sandboxes():
            try:
                pause = min(pause, sandbox.tick(elapsed))
            except Exception:  # noqa: BLE001 - one sandbox's fault must not end the limits of all others
                _log.exception("watchdog_tick_failed", pid=sandbox.pid)
                sandbox.kill("its watchdog failed")

"""When a setupPlugin that failed is called again: 3, 6, 12 … 768 s later (PostHog, lazy.ts 2021), and then no more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

ATTEMPTS: Final = 10
FIRST_SECONDS: Final = 3.0


def retry_seconds(failures: int, attempts: int = ATTEMPTS) -> float | None:
    """The pause after that many failures in a row; None when it is given up."""
    return FIRST_SECONDS * 2 ** (failures - 1) if failures < attempts else None


class SetUpRetries:
    """Counts the failures of each install of one sandbox, and calls again when it is time. Ended with the sandbox."""

    def __init__(self, attempts: int = ATTEMPTS) -> None:
        self._attempts = attempts
        self._failures: dict[int, int] = {}
        self._timers: dict[int, asyncio.TimerHandle] = {}

    def failed(self, install_id: int, again: Callable[[], None]) -> None:
        """Its setupPlugin failed: `again` is called after the pause, if it is not given up."""
        self._failures[install_id] = self._failures.get(install_id, 0) + 1
        self._cancel(install_id)
        seconds = self.next_seconds(install_id)
        if seconds is not None:
            self._timers[install_id] = asyncio.get_running_loop().call_later(seconds, again)

    def succeeded(self, install_id: int) -> None:
        """The next failure is the first again."""
        self._failures.pop(install_id, None)
        self._cancel(install_id)

    def next_seconds(self, install_id: int) -> float | None:
        """The pause until it is called again; None when it has not failed, or was given up."""
        failures = self._failures.get(install_id, 0)
        return retry_seconds(failures, self._attempts) if failures else None

    def close(self) -> None:
        """Call nobody any more."""
        for install_id in tuple(self._timers):
            self._cancel(install_id)

    def _cancel(self, install_id: int) -> None:
        timer = self._timers.pop(install_id, None)
        if timer is not None:
            timer.cancel()

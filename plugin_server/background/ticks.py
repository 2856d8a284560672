"""When schedules run: at the start of each minute, hour and day of UTC, a few seconds off so that not all run at once.

Pure functions. A tick is known by the start of its period, whenever it really runs: ids that derive from it are the same
however often it is tried.
"""

from __future__ import annotations

import functools
import re
from typing import Final

PERIOD_MS: Final = {"runEveryMinute": 60_000, "runEveryHour": 3_600_000, "runEveryDay": 86_400_000}
JITTER_MS: Final = 5_000
_FIRST_RETRY_MS: Final = 5_000
_SPREAD: Final = 2_654_435_761
_WORDS: Final = re.compile(r"runEvery(Minute|Hour|Day)|run_every_(minute|hour|day)")


@functools.lru_cache(maxsize=1024)
def tasks_in(source: str) -> frozenset[str]:
    """Tasks that an app with this source may have: all that it has, and perhaps some that it only speaks of.

    So that the schedules of ten thousand projects are known without a sandbox for each.
    """
    return frozenset(f"runEvery{(camel or snake).capitalize()}" for camel, snake in _WORDS.findall(source))


def tick_of(task: str, run_at_ms: int) -> int:
    """The start of the period in which it is due."""
    return run_at_ms - run_at_ms % PERIOD_MS[task]


def next_run_ms(task: str, install_id: int, now_ms: int) -> int:
    """When it runs next, now being past: those that were missed do not count."""
    run_at_ms = tick_of(task, now_ms) + install_id * _SPREAD % JITTER_MS
    return run_at_ms if run_at_ms > now_ms else run_at_ms + PERIOD_MS[task]


def retry_ms(task: str, install_id: int, run_at_ms: int, now_ms: int) -> int | None:
    """When one that asked for another try gets it: after 5, 10, 20 … s, None when the next tick comes earlier.

    The pause is as long as it has been due, so nobody has to count.
    """
    tick = tick_of(task, run_at_ms)
    due_ms = tick + install_id * _SPREAD % JITTER_MS
    again_ms = now_ms + max(_FIRST_RETRY_MS, now_ms - due_ms)
    return again_ms if again_ms < min(next_run_ms(task, install_id, now_ms), tick + PERIOD_MS[task]) else None

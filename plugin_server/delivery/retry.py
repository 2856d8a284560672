"""Whether a delivery that failed is tried again, and when. Pure functions of what happened.

Backoff 5, 10, 20, 40, 80 … seconds as in PostHog (#10285), for as long as it may be kept, not five times: here a retry
holds nobody up. What an app raises without saying that another try may help is not tried again (PostHog #17162).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from plugin_server.runtime.replies import HookFailure

FIRST_SECONDS: Final = 5.0
LAST_SECONDS: Final = 3_600.0
_DOUBLINGS: Final = 10
_JITTER: Final = 0.1
"""Up to so much longer, so that what failed together does not come back together"""
_PASSING_KINDS: Final = frozenset({"retry", "timeout", "sandbox", "host"})
"""Of failures that have to do with the moment more than with the event"""
_ONCE_KINDS: Final = frozenset({"memory"})
"""Of failures that others in the sandbox may have had a part in, but hardly twice"""


@dataclass(frozen=True, slots=True)
class Again:
    """Try it again in so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Over:
    """It is not tried again: the app failed, and says nothing of another try."""


@dataclass(frozen=True, slots=True)
class Expired:
    """It was tried for as long as deliveries are kept, and becomes a dead letter."""


RetryDecision = Again | Over | Expired


def decide_retry(
    failure: HookFailure, attempts: int, age_seconds: float, *, keep_seconds: float, spread: float
) -> RetryDecision:
    """After `attempts` calls (1 or more) of a delivery that has waited for `age_seconds`; `spread` is a random number in [0, 1)."""
    if not is_retryable(failure, attempts):
        return Over()
    if age_seconds >= keep_seconds:
        return Expired()
    return Again(backoff_seconds(attempts, spread))


def is_retryable(failure: HookFailure, attempts: int) -> bool:
    """May the same call succeed later?"""
    if failure.retryable or failure.kind in _PASSING_KINDS:
        return True
    return failure.kind in _ONCE_KINDS and attempts <= 1


def backoff_seconds(attempts: int, spread: float) -> float:
    """The pause after so many calls that failed."""
    pause = FIRST_SECONDS * 2.0 ** min(max(attempts - 1, 0), _DOUBLINGS)
    return min(pause, LAST_SECONDS) * (1 + _JITTER * spread)

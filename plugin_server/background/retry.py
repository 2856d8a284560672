"""What becomes of a job that failed: tried again after a pause, or kept as dead. Pure functions of the job and the failure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

PLAIN_ATTEMPTS: Final = 5
"""Of a job that fails with an error of its own, a time-out or a killed sandbox: about a minute and a quarter in all"""
RETRYABLE_ATTEMPTS: Final = 12
"""Of one that says so (RetryError), or whose request went wrong on the network: about two and a half hours in all"""
FIRST_PAUSE_MS: Final = 5_000
LONGEST_PAUSE_MS: Final = 3_600_000
ERROR_CHARACTERS: Final = 2_000


@dataclass(frozen=True, slots=True)
class TryAgain:
    """At `run_at_ms`; `attempts` were made, of `of` in all."""

    run_at_ms: int
    attempts: int
    of: int


@dataclass(frozen=True, slots=True)
class GiveUp:
    """After so many attempts."""

    attempts: int


RetryDecision = TryAgain | GiveUp


def decide_retry(attempts_before: int, *, retryable: bool, now_ms: int) -> RetryDecision:
    """After one more attempt failed: 5, 10, 20, 40, 80 … s later, as long as there are attempts left."""
    attempts = attempts_before + 1
    allowed = RETRYABLE_ATTEMPTS if retryable else PLAIN_ATTEMPTS
    if attempts >= allowed:
        return GiveUp(attempts)
    return TryAgain(now_ms + min(FIRST_PAUSE_MS * 2 ** (attempts - 1), LONGEST_PAUSE_MS), attempts, allowed)


def storable_error(message: str) -> str:
    """As the database takes it: bounded, without NUL."""
    return message[:ERROR_CHARACTERS].replace("\0", "\ufffd")

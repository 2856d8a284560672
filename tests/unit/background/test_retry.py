from __future__ import annotations

from plugin_server.background.retry import (
    LONGEST_PAUSE_MS,
    PLAIN_ATTEMPTS,
    RETRYABLE_ATTEMPTS,
    GiveUp,
    TryAgain,
    decide_retry,
    storable_error,
)


def pauses(*, retryable: bool) -> tuple[list[float], int]:
    """In seconds, and the attempts after which the job is dead."""
    found: list[float] = []
    while True:
        match decide_retry(len(found), retryable=retryable, now_ms=1_000_000):
            case TryAgain(run_at_ms, attempts, _):
                assert attempts == len(found) + 1
                found.append((run_at_ms - 1_000_000) / 1000)
            case GiveUp(attempts):
                return found, attempts


def test_an_error_is_tried_again_after_5_10_20_40_seconds_and_no_more():
    assert pauses(retryable=False) == ([5, 10, 20, 40], PLAIN_ATTEMPTS)


def test_one_that_asks_for_it_is_tried_for_hours():
    found, attempts = pauses(retryable=True)
    assert found[:6] == [5, 10, 20, 40, 80, 160]
    assert attempts == RETRYABLE_ATTEMPTS
    assert max(found) <= LONGEST_PAUSE_MS / 1000
    assert 3_600 < sum(found) < 4 * 3_600


def test_an_error_fits_into_the_database():
    assert storable_error("a\0b") == "a\ufffdb"
    assert len(storable_error("x" * 100_000)) == 2_000

"""When a delivery that failed is tried again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugin_server.delivery.retry import LAST_SECONDS, Again, Expired, Over, backoff_seconds, decide_retry
from plugin_server.runtime.replies import FAILURE_KINDS, HookFailure

KEEP = 3_600.0


def failure(kind: str, *, retryable: bool = False) -> HookFailure:
    return HookFailure(1, kind, "no", None, retryable)


def test_waits_are_those_of_posthog_and_go_on_doubling() -> None:
    waits = [backoff_seconds(attempts, 0.0) for attempts in range(1, 9)]
    assert waits == [5, 10, 20, 40, 80, 160, 320, 640]


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
def test_no_wait_is_longer_than_an_hour_and_a_tenth(attempts: int, spread: float) -> None:
    wait = backoff_seconds(attempts, spread)
    assert 5 <= wait <= LAST_SECONDS * 1.1
    assert wait <= backoff_seconds(attempts + 1, spread)


def test_a_plain_error_is_not_tried_again() -> None:
    assert decide_retry(failure("app"), 1, 0, keep_seconds=KEEP, spread=0) == Over()


def test_what_the_app_or_the_network_says_may_pass_is_tried_again() -> None:
    assert decide_retry(failure("app", retryable=True), 1, 0, keep_seconds=KEEP, spread=0) == Again(5)
    assert decide_retry(failure("retry", retryable=True), 3, 0, keep_seconds=KEEP, spread=0) == Again(20)


@pytest.mark.parametrize("kind", ["timeout", "sandbox", "host"])
def test_what_is_of_the_moment_is_tried_again(kind: str) -> None:
    assert decide_retry(failure(kind), 7, 0, keep_seconds=KEEP, spread=0) == Again(320)


def test_memory_is_tried_again_once() -> None:
    assert decide_retry(failure("memory"), 1, 0, keep_seconds=KEEP, spread=0) == Again(5)
    assert decide_retry(failure("memory"), 2, 0, keep_seconds=KEEP, spread=0) == Over()


FAILURES = st.builds(failure, st.sampled_from(sorted(FAILURE_KINDS)), retryable=st.booleans())


@given(FAILURES, st.integers(1, 100), st.floats(0, 2 * KEEP))
def test_nothing_is_tried_again_for_longer_than_it_may_be_kept(failed: HookFailure, attempts: int, age: float) -> None:
    decision = decide_retry(failed, attempts, age, keep_seconds=KEEP, spread=0.5)
    if age >= KEEP:
        assert decision in (Over(), Expired())
    else:
        assert decision != Expired()

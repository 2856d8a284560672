"""How an install's deliveries fare, as a state machine."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from plugin_server.delivery.destination import (
    DEAD_SECONDS,
    FAILURES,
    HEALTHY,
    LAST_PROBE_SECONDS,
    STUCK_SECONDS,
    Destination,
    Health,
)


def dead(now: float = 0.0) -> Destination:
    destination = HEALTHY
    for _ in range(FAILURES):
        destination = destination.failed(now)
    assert destination.is_dead
    return destination


def test_failures_in_a_row_make_it_suspect_then_dead() -> None:
    destination = HEALTHY.failed(0)
    assert destination.health is Health.SUSPECT
    for _ in range(FAILURES - 2):
        destination = destination.failed(0)
        assert not destination.is_dead
    assert destination.failed(0).is_dead


def test_a_success_in_between_begins_anew() -> None:
    destination = HEALTHY
    for _ in range(10 * FAILURES):
        destination = destination.failed(0).failed(0).succeeded()
    assert destination is HEALTHY


def test_all_slots_taken_without_an_answer_make_it_suspect_then_dead() -> None:
    assert HEALTHY.stuck(STUCK_SECONDS / 2, 0) is HEALTHY
    suspect = HEALTHY.stuck(STUCK_SECONDS, 0)
    assert suspect.health is Health.SUSPECT
    assert suspect.stuck(DEAD_SECONDS, 0).is_dead


def test_one_probe_at_a_time_and_later_each_time() -> None:
    destination, now = dead(), 0.0
    pauses = []
    for _ in range(6):
        assert not destination.may_probe(now)
        pauses.append(destination.probe_at - now)
        now = destination.probe_at
        assert destination.may_probe(now)
        destination = destination.probing()
        assert not destination.may_probe(now)
        destination = destination.failed(now, was_probe=True)
    assert pauses == [5, 10, 20, 40, LAST_PROBE_SECONDS, LAST_PROBE_SECONDS]


def test_a_probe_that_arrives_makes_it_healthy() -> None:
    assert dead().probing().succeeded() is HEALTHY


def test_a_probe_that_says_nothing_is_followed_by_another() -> None:
    destination = dead().probing().probe_ended()
    assert destination.is_dead
    assert destination.may_probe(destination.probe_at)


@given(st.lists(st.sampled_from(["failed", "probe failed", "stuck", "ended"])))
def test_nothing_but_a_success_wakes_the_dead_and_probes_come_at_least_each_minute(steps: list[str]) -> None:
    destination, now = dead(), 0.0
    for step in steps:
        now += 1
        if destination.may_probe(now):
            destination = destination.probing()
        match step:
            case "failed":
                destination = destination.failed(now)
            case "probe failed" if destination.is_probing:
                destination = destination.failed(now, was_probe=True)
            case "stuck":
                destination = destination.stuck(100, now)
            case "ended" if destination.is_probing:
                destination = destination.probe_ended()
        assert destination.is_dead
        assert destination.probe_at <= now + LAST_PROBE_SECONDS

"""When schedules run: once a period, never in the past, missed ones once, retries inside their period."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugin_server.background.ticks import JITTER_MS, PERIOD_MS, next_run_ms, retry_ms, tasks_in, tick_of

TASKS = st.sampled_from(sorted(PERIOD_MS))
MOMENTS_MS = st.integers(0, 4_000_000_000_000)
INSTALLS = st.integers(1, 2**40)


@given(TASKS, INSTALLS, MOMENTS_MS)
def test_the_next_run_is_after_now_within_a_period_and_near_its_start(task, install, now_ms):
    run_ms = next_run_ms(task, install, now_ms)
    assert now_ms < run_ms <= now_ms + PERIOD_MS[task]
    assert run_ms - tick_of(task, run_ms) < JITTER_MS


@given(TASKS, INSTALLS, MOMENTS_MS, st.integers(0, 10**9))
def test_ticks_that_were_missed_are_one(task, install, now_ms, late_ms):
    due_ms = next_run_ms(task, install, now_ms)
    ran_ms = due_ms + late_ms
    again_ms = next_run_ms(task, install, ran_ms)
    assert tick_of(task, again_ms) > tick_of(task, due_ms)
    assert ran_ms < again_ms <= ran_ms + PERIOD_MS[task]


@given(TASKS, INSTALLS, MOMENTS_MS, st.integers(0, 100_000))
def test_a_retry_is_later_and_of_the_same_tick(task, install, now_ms, late_ms):
    run_ms = next_run_ms(task, install, now_ms)
    now_ms, pauses = run_ms + late_ms, []
    while (again_ms := retry_ms(task, install, run_ms, now_ms)) is not None:
        assert tick_of(task, again_ms) == tick_of(task, run_ms)
        assert again_ms - now_ms >= 5_000
        pauses.append(again_ms - now_ms)
        run_ms = now_ms = again_ms
        assert len(pauses) < 20
    assert pauses == sorted(pauses)


def test_a_minute_has_room_for_four_tries():
    run_ms = now_ms = next_run_ms("runEveryMinute", 1, 0)
    tries = [now_ms]
    while (again_ms := retry_ms("runEveryMinute", 1, run_ms, now_ms)) is not None:
        run_ms = now_ms = again_ms
        tries.append(now_ms)
    assert [each - tries[0] for each in tries] == [0, 5_000, 10_000, 20_000, 40_000]


@pytest.mark.parametrize(
    ("source", "tasks"),
    [
        ("def runEveryMinute(meta): pass", {"runEveryMinute"}),
        ("async def run_every_day(meta): pass", {"runEveryDay"}),
        ("runEveryHour = lambda meta: None\nrun_every_hour", {"runEveryHour"}),
        ("# mentions runEveryMinute only", {"runEveryMinute"}),
        ("def processEvent(event, meta): return event", set()),
        ("def runEveryWeek(meta): pass", set()),
    ],
)
def test_what_an_app_may_have_is_read_off_its_source(source, tasks):
    assert tasks_in(source) == tasks

"""meta.jobs on the host: units by the calendar, bad input with its remedy, nothing kept that could not be stored."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugin_server.host_api.calls import CallContext
from plugin_server.host_api.effects import JobRequest, RunEffects
from plugin_server.host_api.jobs import JOBS_PER_RUN, PAYLOAD_BYTES, make_jobs_handlers, run_at_ms
from plugin_server.model.errors import InvalidArgument, LimitReached
from plugin_server.model.origin import Origin
from plugin_server.model.project import App, Install, Project

INSTALL = Install(39, App("Importer", "v", "main.py", "", {}), 1, {})
PROJECT = Project(2, "p", "t", (INSTALL,))
NOW_MS = 1_795_435_200_000
UNITS = ["millisecond", "second", "minute", "hour", "day", "week", "month", "quarter", "year"]
MOMENTS_MS = st.integers(0, 2_500_000_000_000)


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


@pytest.mark.parametrize(
    ("now", "amount", "unit", "expected"),
    [
        ("2026-11-23T10:00", 3, "minutes", "2026-11-23T10:03"),
        ("2026-11-23T10:00", 3, "minute", "2026-11-23T10:03"),
        ("2026-11-23T10:00", 1.5, "hours", "2026-11-23T11:30"),
        ("2026-11-23T10:00", 2, "weeks", "2026-12-07T10:00"),
        ("2026-01-31T10:00", 1, "month", "2026-02-28T10:00"),
        ("2028-01-31T10:00", 1, "months", "2028-02-29T10:00"),
        ("2026-01-31T10:00", 2, "months", "2026-03-31T10:00"),
        ("2026-11-30T10:00", 1, "quarter", "2027-02-28T10:00"),
        ("2028-02-29T10:00", 1, "year", "2029-02-28T10:00"),
        ("2026-12-31T10:00", 1, "month", "2027-01-31T10:00"),
        ("2026-04-01T00:00", 0.5, "month", "2026-04-16T00:00"),
        ("2026-04-01T00:00", 0.5, "year", "2026-10-01T00:00"),
        ("2026-11-23T10:00", -5, "years", "2026-11-23T10:00"),
        ("2026-11-23T10:00", 0, "days", "2026-11-23T10:00"),
    ],
)
def test_run_in_goes_by_the_calendar(now, amount, unit, expected):
    assert run_at_ms(["in", amount, unit], ms(now)) == ms(expected)


@given(MOMENTS_MS, st.floats(0, 90, allow_nan=False), st.floats(0, 9, allow_nan=False), st.sampled_from(UNITS))
def test_more_is_never_earlier_and_the_plural_is_the_same(now_ms, amount, more, unit):
    earlier = run_at_ms(["in", amount, unit], now_ms)
    later = run_at_ms(["in", amount + more, f"{unit}s"], now_ms)
    assert now_ms <= earlier <= later
    assert run_at_ms(["in", amount, f"{unit}s"], now_ms) == earlier


@given(MOMENTS_MS, st.integers(1, 1199))
def test_months_keep_the_day_where_the_month_has_it(now_ms, months):
    now = datetime.fromtimestamp(now_ms / 1000, UTC)
    then = datetime.fromtimestamp(run_at_ms(["in", months, "months"], now_ms) / 1000, UTC)
    assert (then.year - now.year) * 12 + then.month - now.month == months
    assert then.day == now.day or (then.day < now.day and then.day >= 28)
    assert abs(then.microsecond - now.microsecond) < 1000
    assert (then.hour, then.minute, then.second) == (now.hour, now.minute, now.second)


@given(MOMENTS_MS, st.one_of(st.none(), st.text(), st.floats(), st.integers(), st.lists(st.one_of(st.text(), st.floats(), st.integers(), st.sampled_from(["in", "at", "days"])), max_size=4)))  # fmt: skip
def test_any_time_is_one_or_is_refused(now_ms, when):
    try:
        found = run_at_ms(when, now_ms)
    except InvalidArgument:
        return
    assert found is None or (type(found) is int and 0 <= found < 2**62)


def test_run_at_is_that_moment_and_without_an_offset_utc():
    assert run_at_ms(["at", "2026-11-23T10:00:00.250Z"], NOW_MS) == ms("2026-11-23T10:00") + 250
    assert run_at_ms(["at", "2026-11-23T12:00:00+02:00"], NOW_MS) == ms("2026-11-23T10:00")
    assert run_at_ms(["at", "2026-11-23T10:00:00"], NOW_MS) == ms("2026-11-23T10:00")
    assert run_at_ms(["at", "2026-11-23"], NOW_MS) == ms("2026-11-23T00:00")
    assert run_at_ms(["at", "0001-01-01T00:00:00+23:59"], NOW_MS) == 0
    assert run_at_ms(None, NOW_MS) is None


@pytest.mark.parametrize(
    ("when", "words"),
    [
        (["in", 3, "x"], "Unknown time unit: xs"),
        (["in", 3, "xs"], "Unknown time unit: xs"),
        (["in", 3, ""], "Unknown time unit: s"),
        (["in", 3, 4], "needs a unit"),
        (["in", "3", "days"], "a number of days"),
        (["in", True, "days"], "a number of days"),
        (["in", math.nan, "days"], "a number of days"),
        (["in", math.inf, "months"], "a number of months"),
        (["in", 101, "years"], "more than 100 years"),
        (["in", 1e300, "months"], "more than 100 years"),
        (["in", 10**400, "seconds"], "more than 100 years"),
        (["at", "tomorrow"], "ISO 8601"),
        (["at", "9999-12-31T00:00:00Z"], "more than 100 years"),
        (["at", "2" * 1000], "ISO 8601"),
        (["at", 5], "the time must be"),
        ("now", "the time must be"),
        (["in", 3], "the time must be"),
    ],
)
def test_a_bad_time_is_refused_with_the_remedy(when, words):
    with pytest.raises(InvalidArgument, match=words):
        run_at_ms(when, NOW_MS)


async def enqueue(effects: RunEffects, *arguments: object) -> None:
    handler = make_jobs_handlers(lambda: NOW_MS / 1000)["jobs.enqueue"]
    await handler(CallContext(PROJECT, INSTALL, 0, effects), list(arguments))


def effects() -> RunEffects:
    return RunEffects(PROJECT, Origin("events-0-1", "u", "onEvent"))


async def test_a_job_waits_among_the_effects_of_the_run():
    found = effects()
    await enqueue(found, "sync", {"page": 1}, None)
    await enqueue(found, "sync", None, ["in", 3, "minutes"])
    assert found.of(39).jobs == [
        JobRequest("sync", b'{"page":1}', None),
        JobRequest("sync", b"null", NOW_MS + 180_000),
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((5, {}, None), "name must be text"),
        (("", {}, None), "name must be text"),
        (("a" * 101, {}, None), "at most 100 characters"),
        (("a\0b", {}, None), "none of them NUL"),
        (("sync", "x" * PAYLOAD_BYTES, None), "put the data into storage"),
        (("sync", {1, 2}, None), "not JSON"),
        (("sync", {}), "needs a name"),
        (("sync", {}, ["in", 1, "x"]), "Unknown time unit: xs"),
    ],
)
async def test_a_bad_job_is_refused_and_nothing_is_kept(arguments, words):
    found = effects()
    with pytest.raises(InvalidArgument, match=words):
        await enqueue(found, *arguments)
    assert not found.jobs


async def test_one_run_starts_a_bounded_number_of_jobs():
    found = effects()
    for number in range(JOBS_PER_RUN):
        await enqueue(found, "sync", number, None)
    with pytest.raises(LimitReached, match="more than 1000"):
        await enqueue(found, "sync", 0, None)
    assert found.jobs == JOBS_PER_RUN

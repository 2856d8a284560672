"""`meta.jobs.name(payload).runNow() | runIn(n, unit) | runAt(when)`: takes the job; it is stored with the effects of the run.

Whether the app has a job of that name is checked where the app is, in its sandbox, at once and again when the job runs.
"""

from __future__ import annotations

import calendar
import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import orjson

from plugin_server.host_api.calls import CallContext, Handler
from plugin_server.host_api.effects import JobRequest
from plugin_server.model.errors import InvalidArgument, LimitReached

JOBS_PER_RUN: Final = 1_000
"""Of one install in one run"""
NAME_CHARACTERS: Final = 100
PAYLOAD_BYTES: Final = 2**20
AHEAD_YEARS: Final = 100
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
_UNIT_MS: Final = {
    "millisecond": 1,
    "second": 1_000,
    "minute": 60_000,
    "hour": 3_600_000,
    "day": 86_400_000,
    "week": 604_800_000,
}
_UNIT_MONTHS: Final = {"month": 1, "quarter": 3, "year": 12}
_MONTHS_AHEAD: Final = AHEAD_YEARS * 12
_ISO_CHARACTERS: Final = 64


def make_jobs_handlers(clock: Callable[[], float]) -> dict[str, Handler]:
    """The host calls of jobs, by name. `clock` gives seconds since the epoch."""

    async def enqueue(context: CallContext, arguments: list[Any]) -> None:
        if len(arguments) != 3:
            raise InvalidArgument("jobs: a job needs a name, a payload, and a time or none")
        name, payload, when = arguments
        jobs = context.effects.of(context.install.id).jobs
        if len(jobs) >= JOBS_PER_RUN:
            raise LimitReached(f"jobs: more than {JOBS_PER_RUN} started in one run; let a job start the next ones")
        checked = _checked_name(name)
        jobs.append(JobRequest(checked, encode_payload(checked, payload), run_at_ms(when, int(clock() * 1000))))

    return {"jobs.enqueue": enqueue}


def _checked_name(name: Any) -> str:
    if type(name) is not str or not name:
        raise InvalidArgument("jobs: a job's name must be text")
    if len(name) > NAME_CHARACTERS or "\0" in name:
        raise InvalidArgument(f"jobs: a job's name has at most {NAME_CHARACTERS} characters, none of them NUL")
    return name


def encode_payload(name: str, payload: Any) -> bytes:
    """As JSON. Raises InvalidArgument when it is too large or not JSON."""
    try:
        encoded = orjson.dumps(payload)
    except orjson.JSONEncodeError as error:
        raise InvalidArgument(f"jobs.{name}: the payload is not JSON: {error}") from None
    if len(encoded) > PAYLOAD_BYTES:
        raise InvalidArgument(
            f"jobs.{name}: the payload has {len(encoded)} bytes of JSON, at most {PAYLOAD_BYTES} are allowed; "
            "put the data into storage and give the job its key"
        )
    return encoded


def run_at_ms(when: Any, now_ms: int) -> int | None:
    """When the job is to run: None at once, ["in", n, unit] from now, ["at", ISO 8601 text].

    Months, quarters and years go by the calendar of UTC: a month after 31 January is the last day of February. A time
    without an offset is UTC; one that is past means at once. Raises InvalidArgument.
    """
    match when:
        case None:
            return None
        case ["in", amount, unit]:
            return _after(amount, unit, now_ms)
        case ["at", str() as text]:
            return _at(text, now_ms)
        case _:
            raise InvalidArgument("jobs: the time must be none, a number with a unit, or a date")


def _after(amount: Any, unit: Any, now_ms: int) -> int:
    if type(unit) is not str:
        raise InvalidArgument(f"jobs: runIn needs a unit like 'minutes', not {type(unit).__name__}")
    singular = unit.removesuffix("s")
    months, length_ms = _UNIT_MONTHS.get(singular), _UNIT_MS.get(singular)
    if months is None and length_ms is None:
        known = ", ".join(f"{name}s" for name in (*_UNIT_MS, *_UNIT_MONTHS))
        raise InvalidArgument(f"Unknown time unit: {singular[:40]}s. Known are {known}, each also without the s")
    if type(amount) is not int and (type(amount) is not float or not math.isfinite(amount)):
        raise InvalidArgument(f"jobs: runIn needs a number of {singular}s")
    if amount <= 0:
        return now_ms
    latest_ms = _add_months(now_ms, _MONTHS_AHEAD)
    if months is not None:
        run_ms = _after_months(now_ms, amount * months) if amount * months <= _MONTHS_AHEAD else math.inf
    else:
        assert length_ms is not None
        run_ms = now_ms + amount * length_ms
    if run_ms > latest_ms:
        raise InvalidArgument(f"jobs: runIn lies more than {AHEAD_YEARS} years ahead")
    return round(run_ms)


def _after_months(now_ms: int, months: float) -> float:
    whole = math.floor(months)
    start = _add_months(now_ms, whole)
    rest = months - whole
    return start + rest * (_add_months(now_ms, whole + 1) - start) if rest else start


def _add_months(now_ms: int, months: int) -> int:
    moment = _EPOCH + now_ms * _MILLISECOND
    year, month = divmod(moment.year * 12 + moment.month - 1 + months, 12)
    day = min(moment.day, calendar.monthrange(year, month + 1)[1])
    return (moment.replace(year=year, month=month + 1, day=day) - _EPOCH) // _MILLISECOND


def _at(text: str, now_ms: int) -> int:
    try:
        moment = datetime.fromisoformat(text if len(text) <= _ISO_CHARACTERS else "")
    except ValueError:
        message = f"jobs: runAt needs a datetime or ISO 8601 text like 2026-11-23T12:00:00Z, not {text[:40]!r}"
        raise InvalidArgument(message) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    run_ms = (moment - _EPOCH) // _MILLISECOND
    if run_ms > _add_months(now_ms, _MONTHS_AHEAD):
        raise InvalidArgument(f"jobs: runAt lies more than {AHEAD_YEARS} years ahead")
    return max(0, run_ms)

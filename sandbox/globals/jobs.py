"""`meta.jobs`: what an app has the host do later."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, ClassVar, Final

import orjson

from sandbox import codec
from sandbox.facade import Facade
from sandbox.globals.arguments import check_number, check_text
from sandbox.globals.named import NamedFacade
from sandbox.invocation import HostCall

_DAY: Final = 24 * 3600
UNITS: Final = {
    "milliseconds": 0.001,
    "seconds": 1,
    "minutes": 60,
    "hours": 3600,
    "days": _DAY,
    "weeks": 7 * _DAY,
    "months": 31 * _DAY,
    "quarters": 92 * _DAY,
    "years": 366 * _DAY,
}
"""Seconds in each, at most; the host counts months, quarters and years by the calendar"""
PAYLOAD_BYTES: Final = 2**20
_FURTHEST_SECONDS: Final = 100 * 366 * _DAY


class Jobs(NamedFacade):
    """`meta.jobs` of one install."""

    __slots__ = ()

    _kind: ClassVar[str] = "job"

    def _member(self, name: str) -> Callable[..., Job]:
        def job(payload: Any = None) -> Job:
            try:
                encoded = codec.dumps(payload)
            except codec.NotJson as error:
                raise codec.NotJson(f"jobs.{name}: the payload must be JSON: {error}") from None
            if len(encoded) > PAYLOAD_BYTES:
                raise ValueError(
                    f"jobs.{name}: the payload has more than {PAYLOAD_BYTES} bytes: keep it in meta.storage and give its key"
                )
            return Job(self, name, encoded)

        job.__name__ = job.__qualname__ = name
        return job


class Job(Facade):
    """A job with its payload as it was when it was made. Nothing is started before `runNow`, `runIn` or `runAt`."""

    __slots__ = ("_jobs", "_name", "_payload")

    _jobs: Jobs
    _name: str
    _payload: bytes

    def __init__(self, jobs: Jobs, name: str, payload: bytes) -> None:
        object.__setattr__(self, "_jobs", jobs)
        object.__setattr__(self, "_name", name)
        object.__setattr__(self, "_payload", payload)

    def runNow(self) -> HostCall:  # noqa: N802 - upstream's name
        """Start it as soon as there is room."""
        return self._enqueue("runNow", None)

    def runIn(self, number: float, unit: str) -> HostCall:  # noqa: N802 - upstream's name
        """Start it after that time: `runIn(3, "minutes")`."""
        what = f"jobs.{self._name}.runIn"
        check_number(what, "number", number)
        plural = check_text(what, "unit", unit)
        plural = plural if plural.endswith("s") else f"{plural}s"
        if plural not in UNITS:
            raise ValueError(f"Unknown time unit: {plural[:40]}; there are {', '.join(UNITS)}")
        if not 0 <= number * UNITS[plural] <= _FURTHEST_SECONDS:
            raise ValueError(f"{what}: the time must be from now on, and at most 100 years away")
        return self._enqueue("runIn", ["in", number, plural])

    def runAt(self, when: datetime | str) -> HostCall:  # noqa: N802 - upstream's name
        """Start it at that time, a datetime or ISO 8601 text; without an offset it is UTC. What is past starts at once."""
        return self._enqueue("runAt", ["at", _iso_utc(f"jobs.{self._name}.runAt", when)])

    run_now = runNow
    run_in = runIn
    run_at = runAt

    def __repr__(self) -> str:
        return f"<job {self._name!r}>"

    def _enqueue(self, how: str, when: list[Any] | None) -> HostCall:
        jobs = self._jobs
        arguments = [self._name, orjson.Fragment(self._payload), when]
        return jobs._context.start(  # noqa: SLF001 - of this module
            jobs._install,  # noqa: SLF001
            "jobs.enqueue",
            arguments,
            what=f"jobs.{self._name}.{how}",
        )


def _iso_utc(what: str, when: Any) -> str:
    if type(when) is str:
        try:
            moment = datetime.fromisoformat(when)
        except ValueError:
            raise ValueError(f"{what}: {when[:40]!r} is not ISO 8601 text, such as 2026-01-31T12:00:00Z") from None
    elif isinstance(when, datetime):
        moment = when
    else:
        raise TypeError(f"{what}: takes a datetime or ISO 8601 text, not {type(when).__name__}")
    try:
        if datetime.utcoffset(moment) is None:
            return datetime.isoformat(datetime.replace(moment, tzinfo=UTC))
        return datetime.isoformat(datetime.astimezone(moment, UTC))
    except (OverflowError, ValueError):
        raise ValueError(f"{what}: the time is before the year 1 or after the year 9999") from None

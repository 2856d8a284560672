"""datetime and time, on a clock that is handed in. Apps live in UTC: the machine's zone is not theirs to see."""

from __future__ import annotations

import datetime as real  # noqa: ICN001 - the classes below are the ones called datetime here
import time
from collections.abc import Callable
from typing import Any, NoReturn, Self

Clock = Callable[[], float]
"""Seconds since 1970."""


class _AnyDate(type):
    """isinstance(x, date) as with the real class: C code that works on ours may make the real one."""

    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, real.date)

    def __subclasscheck__(cls, kind: type) -> bool:
        return issubclass(kind, real.date)


class _AnyDatetime(type):
    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, real.datetime)

    def __subclasscheck__(cls, kind: type) -> bool:
        return issubclass(kind, real.datetime)


def is_shown(kind: type) -> bool:
    """Is this one of the classes in some install's `datetime`?"""
    return kind in (real.time, real.timedelta, real.timezone) or type(kind) in (_AnyDate, _AnyDatetime)


def is_plain_time(value: object) -> bool:
    """Is it of these classes, and not of one that an app derived from them? Showing it then runs no code of the app's."""
    kind = type(value)
    if kind is real.timedelta or kind is real.timezone:
        return kind is real.timedelta or _is_plain_zone(value)
    if kind is real.time or _is_ours(kind, _AnyDatetime, real.datetime):
        return value.tzinfo is None or _is_plain_zone(value.tzinfo)  # type: ignore[attr-defined]
    return _is_ours(kind, _AnyDate, real.date)


def _is_ours(kind: type, made_by: type, base: type) -> bool:
    return kind is base or (type(kind) is made_by and kind.__base__ is base)


def _is_plain_zone(zone: object) -> bool:
    # The second of its arguments is its name, which may be text of a class of the app's.
    return type(zone) is real.timezone and all(type(name) is str for name in zone.__getinitargs__()[1:])  # type: ignore[attr-defined]


def datetime_members(clock: Clock) -> dict[str, object]:
    """`datetime` for one install. Its classes are subclasses of the real ones, so values of either kind mix freely."""

    class date(real.date, metaclass=_AnyDate):  # noqa: N801 - the name that apps import
        __slots__ = ()

        def __repr__(self) -> str:
            return f"datetime.{super().__repr__()}"

        @classmethod
        def today(cls) -> Self:
            return cls.fromtimestamp(clock())

        @classmethod
        def fromtimestamp(cls, timestamp: float, /) -> Self:
            moment = real.datetime.fromtimestamp(timestamp, real.UTC)
            return cls(moment.year, moment.month, moment.day)

    class datetime(real.datetime, metaclass=_AnyDatetime):  # noqa: N801
        __slots__ = ()

        def __repr__(self) -> str:
            return f"datetime.{super().__repr__()}"

        @classmethod
        def now(cls, tz: real.tzinfo | None = None) -> Self:
            return cls.fromtimestamp(clock(), tz)

        @classmethod
        def today(cls) -> Self:
            return cls.fromtimestamp(clock())

        @classmethod
        def utcnow(cls) -> Self:
            return cls.fromtimestamp(clock())

        @classmethod
        def fromtimestamp(cls, timestamp: float, tz: real.tzinfo | None = None) -> Self:
            moment = super().fromtimestamp(timestamp, real.UTC if tz is None else tz)
            return moment.replace(tzinfo=None) if tz is None else moment

        @classmethod
        def utcfromtimestamp(cls, timestamp: float, /) -> Self:
            return cls.fromtimestamp(timestamp)

        @classmethod
        def strptime(cls, date_string: str, format: str, /) -> Self:  # noqa: A002
            return super().strptime(
                date_string, format
            )  # C imports _strptime through the caller's builtins: these are real

        def timestamp(self) -> float:
            return real.datetime.timestamp(self if self.tzinfo is not None else self.replace(tzinfo=real.UTC))

        def astimezone(self, tz: real.tzinfo | None = None) -> Self:
            aware = self if self.tzinfo is not None else self.replace(tzinfo=real.UTC)
            moment: Self = real.datetime.astimezone(aware, real.UTC if tz is None else tz)
            return moment

        def date(self) -> real.date:
            return date(self.year, self.month, self.day)

    return {
        "date": date,
        "datetime": datetime,
        "time": real.time,
        "timedelta": real.timedelta,
        "timezone": real.timezone,
        "UTC": real.UTC,
        "MINYEAR": real.MINYEAR,
        "MAXYEAR": real.MAXYEAR,
    }


def time_members(clock: Clock) -> dict[str, object]:
    """`time` for one install. The monotonic clocks start at zero: the machine's uptime is no app's business."""
    start = clock()

    def sleep(*_: Any) -> NoReturn:
        raise RuntimeError("time.sleep would hold up every other app; write await sleep(seconds) in an async hook")

    def now() -> float:
        return float(clock())

    def time_ns() -> int:
        return int(clock() * 1_000_000_000)

    def monotonic() -> float:
        return max(0.0, clock() - start)

    def gmtime(secs: float | None = None) -> time.struct_time:
        return time.gmtime(clock() if secs is None else secs)

    def strftime(format: str, t: Any = None) -> str:  # noqa: A002
        return time.strftime(format, gmtime() if t is None else t)

    return {
        "time": now,
        "time_ns": time_ns,
        "monotonic": monotonic,
        "perf_counter": monotonic,
        "gmtime": gmtime,
        "strftime": strftime,
        "sleep": sleep,
    }


def warm_up_dates() -> None:
    """The C library reads its zone once, and the strptime of both modules makes its tables."""
    time.localtime()
    real.datetime.strptime("2026-01-01Z", "%Y-%m-%d%z")
    real.datetime.now(real.UTC).strftime("%c %Z")

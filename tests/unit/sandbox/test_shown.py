"""Containers as text: as str() has them, bounded, and without a step of the app's own code."""

from __future__ import annotations

import datetime as real  # noqa: ICN001 - beside the classes that apps get
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.modules.times import datetime_members
from sandbox.shown import shown

TIMES = datetime_members(lambda: 1_767_225_600.0)
OURS, OUR_DATE = TIMES["datetime"], TIMES["date"]
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=8)
    | st.datetimes(timezones=st.none() | st.just(real.UTC))
    | st.dates()
    | st.times()
    | st.timedeltas()
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(SCALARS, inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.frozensets(SCALARS, max_size=4)
        | st.sets(SCALARS, max_size=4)
    ),
    max_leaves=20,
)


class Loud:
    def __repr__(self) -> str:
        raise AssertionError("code of the app ran")

    __str__ = __repr__


class LoudText(str):
    __slots__ = ()
    __repr__ = Loud.__repr__


class LoudDatetime(OURS):  # type: ignore[misc, valid-type]
    __repr__ = Loud.__repr__


class LoudDate(OUR_DATE):  # type: ignore[misc, valid-type]
    __repr__ = Loud.__repr__


class LoudZone(real.tzinfo):
    __repr__ = Loud.__repr__

    def utcoffset(self, _moment: Any) -> real.timedelta:
        return real.timedelta(hours=1)


class LoudDict(dict[Any, Any]):
    __repr__ = Loud.__repr__

    def items(self) -> Any:
        raise AssertionError("code of the app ran")


@given(VALUES, st.integers(1, 60))
def test_it_is_the_beginning_of_what_str_gives(value, characters):
    assert shown([value], 10_000) == str([value])
    assert shown({1: value}, characters) == str({1: value})[:characters]


@pytest.mark.parametrize(
    "loud",
    [
        Loud(),
        LoudText("x"),
        LoudDatetime(2026, 1, 1),
        LoudDate(2026, 1, 1),
        OURS(2026, 1, 1, tzinfo=LoudZone()),  # type: ignore[operator]
        OURS(2026, 1, 1, tzinfo=real.timezone(real.timedelta(hours=1), LoudText("x"))),  # type: ignore[operator]
        real.time(1, tzinfo=LoudZone()),
        real.timezone(real.timedelta(hours=1), LoudText("x")),
        LoudDict(a=1),
        Loud,
        len,
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_the_app_could_show_itself_is_not_shown(loud):
    assert shown({1: loud}, 1_000) is None
    assert shown([(loud,)], 1_000) is None
    if type(loud).__hash__ is not None:
        assert shown({loud: 1}, 1_000) is None


def test_times_of_the_app_are_shown_with_their_zone():
    zone = real.timezone(real.timedelta(hours=1), "X")
    assert shown({1: OURS(2026, 1, 2, tzinfo=real.UTC)}, 1_000) == (  # type: ignore[operator]
        "{1: datetime.datetime(2026, 1, 2, 0, 0, tzinfo=datetime.timezone.utc)}"
    )
    assert shown([OUR_DATE(2026, 1, 2), zone], 1_000) == str([OUR_DATE(2026, 1, 2), zone])  # type: ignore[operator]


def test_what_is_too_deep_contains_itself_or_is_too_long_a_number_is_not_shown():
    itself: list[Any] = [1]
    itself.append(itself)
    deep: Any = 1
    for _ in range(200):
        deep = [deep]
    for value in (itself, deep, {1: 10**5_000}):
        assert shown(value, 10_000) is None


def test_what_is_left_out_takes_no_time():
    shared: Any = {1: 2}
    for _ in range(90):
        shared = {1: shared, 2: shared}
    assert len(shown(shared, 10_000) or "") == 10_000
    assert shown({1: "x" * 10**6}, 20) == "{1: '" + "x" * 15

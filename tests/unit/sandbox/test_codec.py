"""JSON as the server reads it (leniently, bounded) and writes it (exactly, or not at all)."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import decimal
import math

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sandbox import codec
from sandbox.modules.digests import UUIDS

TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=10)
NUMBERS = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
EXACT = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=10,
)


class Text(str):
    __slots__ = ()


class Number(int):
    pass


class Real(float):
    pass


class Array(list):
    pass


class Table(dict):
    pass


@dataclasses.dataclass
class Record:
    field: int = 1


Pair = collections.namedtuple("Pair", "one two")  # noqa: PYI024 - what apps have

INEXACT = [
    Text("x"),
    Number(1),
    Real(1.5),
    Array([1]),
    Table(a=1),
    Record(),
    Pair(1, 2),
    collections.OrderedDict(a=1),
    collections.Counter("a"),
    collections.defaultdict(list),
    dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
    dt.date(2026, 1, 1),
    dt.time(1),
    dt.timedelta(1),
    decimal.Decimal(1),
    UUIDS["uuid4"](),
    b"x",
    bytearray(b"x"),
    {1},
    frozenset({1}),
    range(3),
    1j,
    math.nan,
    math.inf,
    -math.inf,
    2**64,
    -(2**63) - 1,
    10**400,
    "\ud800",
    "a\udfff",
    object(),
    len,
    int,
    iter([]),
    ...,
]


@given(EXACT)
def test_exact_values_come_back_as_they_were(value):
    again = codec.loads(codec.dumps(value))
    assert again == value
    assert orjson.dumps(again) == orjson.dumps(value)


@pytest.mark.parametrize("value", INEXACT, ids=lambda value: f"{type(value).__name__} {str(value)[:12]!a}")
def test_a_value_without_an_exact_form_is_refused_wherever_it_is(value):
    for holder in (value, [value], {"a": value}, (1, value), [{"a": [None, value]}]):
        with pytest.raises(codec.NotJson):
            codec.dumps(holder)


@pytest.mark.parametrize("key", [1, 1.5, True, None, b"x", (1,), Text("x"), dt.date(2026, 1, 1), "\ud800"])
def test_a_key_that_is_not_exactly_text_is_refused(key):
    with pytest.raises(codec.NotJson):
        codec.dumps({"a": {key: 1}})


def test_a_refusal_says_what_to_use_instead():
    for value, remedy in (
        (dt.date(2026, 1, 1), "isoformat"),
        ({1}, "sorted"),
        (b"x", "decode"),
        (2**64, "float or text"),
        ({1: 2}, r"str\(key\)"),
        (math.nan, "finite"),
        ("\ud800", "surrogate"),
        (collections.OrderedDict(), "dict"),
    ):
        with pytest.raises(codec.NotJson, match=remedy):
            codec.dumps([value])


def test_null_beside_a_finite_number_is_fine():
    assert codec.dumps({"a": None, "b": [1.5, None], "c": (None,)}) == b'{"a":null,"b":[1.5,null],"c":[null]}'


def test_a_cycle_is_refused():
    ring: list[object] = []
    ring.append({"ring": ring})
    with pytest.raises(codec.NotJson, match="contains itself"):
        codec.dumps(ring)


def test_tuples_become_lists():
    assert codec.dumps((1, (2,))) == b"[1,[2]]"


def nested(depth: int, core: str, opening: str = "[", closing: str = "]") -> str:
    return opening * depth + core + closing * depth


@pytest.mark.parametrize("core", ["", "1", '"[[["', "1,2"])
def test_a_hundred_levels_are_read_and_one_more_is_too_deep(core):
    value = codec.loads(nested(100, core))
    assert codec.loads(codec.dumps(value)) == value
    with pytest.raises(codec.TooDeep):
        codec.loads(nested(101, core).encode())
    with pytest.raises(codec.TooDeep):
        codec.dumps([value])


def test_a_hundred_levels_of_objects_are_read_and_one_more_is_too_deep():
    assert codec.loads(nested(100, "1", '{"a":', "}"))
    with pytest.raises(codec.TooDeep):
        codec.loads(nested(101, "{}", '{"a":', "}"))


@pytest.mark.parametrize("depth", [250, 300, 1_000, 1_100, 10_000, 200_000])
def test_any_depth_is_refused_and_never_an_accident(depth):
    with pytest.raises(codec.TooDeep):
        codec.loads(nested(depth, ""))
    with pytest.raises((codec.TooDeep, codec.InvalidJson)):
        codec.loads("[" * depth)
    value: object = 1
    for _ in range(min(depth, 10_000)):
        value = [value]
    with pytest.raises((codec.TooDeep, codec.NotJson)):
        codec.dumps(value)


def test_many_brackets_side_by_side_are_not_deep():
    assert codec.loads("[" + "[]," * 5_000 + "[]]")


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b'"\\ud800"', "\ufffd"),
        (b'"a\\ud800b"', "a\ufffdb"),
        (b'"\\udc00\\ud800"', "\ufffd\ufffd"),
        (b'"\\ud83d\\ude00"', "\U0001f600"),
        (b'"\\ud83d\\ud83d\\ude00"', "\ufffd\U0001f600"),
    ],
)
def test_a_lone_surrogate_becomes_the_replacement_character(raw, text):
    assert codec.loads(raw) == text
    assert codec.loads(b"{%b:[%b]}" % (raw, raw)) == {text: [text]}


@pytest.mark.parametrize(
    ("raw", "number"),
    [
        (b"18446744073709551615", 2**64 - 1),
        (b"18446744073709551616", float(2**64)),
        (b"-9223372036854775808", -(2**63)),
        (b"-9223372036854775809", -float(2**63)),
        (b"1" * 60, float("1" * 60)),
        (b"1E15", 1e15),
    ],
)
def test_an_integer_beyond_64_bits_becomes_a_float(raw, number):
    for text in (raw, raw + b' , "\\ud800"'):
        value = codec.loads(b"[%b]" % text)[0]
        assert (value, type(value)) == (number, type(number))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b" ",
        b"NaN",
        b"[Infinity]",
        b"-Infinity",
        b"1e400",
        b"9" * 400,
        b"9" * 5_000,
        b'["\\ud800", NaN]',
        b'["\\ud800", 1e400]',
        b'"\xff"',
        b'"\xed\xa0\x80"',
        b"\xef\xbb\xbf{}",
        b'"\x00"',
        b"{'a': 1}",
        b"[1,]",
        b"[1] 2",
        b"01",
        b'"\\x"',
        b"nul",
    ],
)
def test_what_is_not_json_is_refused(raw):
    with pytest.raises(codec.InvalidJson):
        codec.loads(raw)


@given(st.binary(max_size=40))
@example(b'{"a":"\\ud800"')
def test_any_bytes_are_read_or_refused(raw):
    try:
        value = codec.loads(raw)
    except (codec.InvalidJson, codec.TooDeep):
        return
    assert codec.loads(codec.dumps(value)) == value


@given(st.text(max_size=20), st.integers(0, 30))
def test_text_without_lone_surrogates_can_be_encoded_and_is_left_alone(text, cut):
    mixed = text[:cut] + "\ud800" + text[cut:]
    codec.dumps(codec.replace_surrogates(mixed))
    if text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text):
        assert codec.replace_surrogates(text) == text

"""What can be done to a key of a cache, and what it then holds: pure functions, with the semantics of Redis.

A key holds a value, which is JSON, or a list of texts, whose head is on the left. Whatever makes a list empty deletes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, NamedTuple, assert_never

from plugin_server.model.errors import InvalidArgument, LimitReached
from sandbox.codec import loads

LIST_ITEMS: Final = 10_000
"""In one list"""
RANGE_BYTES: Final = 4 * 2**20
"""Of one answer"""
_SMALLEST, _LARGEST = -(2**63), 2**63 - 1


@dataclass(frozen=True, slots=True)
class Get:
    """Answers [found, value]."""


@dataclass(frozen=True, slots=True)
class Set:
    """Replace what is there by this JSON. `ttl_ms` None: for ever."""

    value: bytes
    ttl_ms: int | None


@dataclass(frozen=True, slots=True)
class Increment:
    """Add one to an integer, 0 where there is none; the new one. When it expires does not change."""


@dataclass(frozen=True, slots=True)
class Expire:
    """Let it go after so long, at once if that is not positive; whether it was there."""

    ttl_ms: int


@dataclass(frozen=True, slots=True)
class Push:
    """Put each before the list's head, one after the other, so that the last is the new head; the new length."""

    items: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Range:
    """The items from `start` to `stop`, both included; negative ones count from the end."""

    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Length:
    """How many items the list has."""


@dataclass(frozen=True, slots=True)
class Remove:
    """Take out items that are equal, `count` from the head, -`count` from the tail, 0 all; how many went."""

    count: int
    item: str


@dataclass(frozen=True, slots=True)
class Pop:
    """Take up to `count` items from the head."""

    count: int


@dataclass(frozen=True, slots=True)
class Delete:
    """Answers nothing, whether it was there or not."""


Operation = Get | Set | Increment | Expire | Push | Range | Length | Remove | Pop | Delete
READS: Final = (Get, Range, Length)


class Entry(NamedTuple):
    """What a key holds: a value's JSON, or a list's items."""

    content: bytes | tuple[str, ...]
    expires_at_ms: int | None

    def is_gone(self, now_ms: int) -> bool:
        return self.expires_at_ms is not None and self.expires_at_ms <= now_ms


def apply(entry: Entry | None, operation: Operation, now_ms: int) -> tuple[Entry | None, Any]:
    """What the key holds afterwards, and the answer.

    Raises InvalidArgument for the wrong kind of key, LimitReached for a list or an answer that is too long.
    """
    match operation:
        case Get():
            return entry, [False, None] if entry is None else [True, loads(_value(entry))]
        case Set(value, ttl_ms):
            return Entry(value, None if ttl_ms is None else now_ms + ttl_ms), None
        case Increment():
            number = _incremented(b"0" if entry is None else _value(entry))
            return Entry(b"%d" % number, None if entry is None else entry.expires_at_ms), number
        case Expire(ttl_ms):
            if entry is None or ttl_ms <= 0:
                return None, entry is not None
            return entry._replace(expires_at_ms=now_ms + ttl_ms), True
        case Delete():
            return None, None
        case Push() | Range() | Length() | Remove() | Pop():
            items, answer = _on_list(() if entry is None else _items(entry), operation)
            if not items:
                return None, answer
            return Entry(items, None if entry is None else entry.expires_at_ms), answer
    assert_never(operation)


def _on_list(items: tuple[str, ...], operation: Push | Range | Length | Remove | Pop) -> tuple[tuple[str, ...], Any]:
    match operation:
        case Push(pushed):
            if len(items) + len(pushed) > LIST_ITEMS:
                raise list_full()
            return pushed[::-1] + items, len(items) + len(pushed)
        case Range(start, stop):
            first = start if start >= 0 else max(len(items) + start, 0)
            behind_last = (stop if stop >= 0 else max(len(items) + stop, -1)) + 1
            return items, _answer(items[first:behind_last])
        case Length():
            return items, len(items)
        case Remove(count, item):
            places = [place for place, found in enumerate(items) if found == item]
            gone = set(places[count:] if count < 0 else places[: count or len(places)])
            return tuple(kept for place, kept in enumerate(items) if place not in gone), len(gone)
        case Pop(count):
            return items[count:], _answer(items[:count])
    assert_never(operation)


def wrong_kind(is_list: bool) -> InvalidArgument:  # noqa: FBT001
    """The key holds a list, or a value, and the other was wanted."""
    held, calls = ("a list", "lpush, lrange, llen, lrem and lpop") if is_list else ("a value", "get, set and incr")
    return InvalidArgument(f"the key holds {held}: use {calls}, or delete it first")


def not_an_integer() -> InvalidArgument:
    """`incr` of something else, or of the largest one."""
    return InvalidArgument(
        "incr: the key holds no integer of 64 bits that could be incremented: set it to a number first"
    )


def list_full() -> LimitReached:
    """A push beyond LIST_ITEMS."""
    return LimitReached(f"lpush: a list has at most {LIST_ITEMS} items: take some out with lpop or lrem first")


def answer_too_large() -> LimitReached:
    """An answer beyond RANGE_BYTES."""
    return LimitReached(f"the items take more than {RANGE_BYTES} bytes: ask for fewer at a time")


def _value(entry: Entry) -> bytes:
    if isinstance(entry.content, tuple):
        raise wrong_kind(is_list=True)
    return entry.content


def _items(entry: Entry) -> tuple[str, ...]:
    if isinstance(entry.content, bytes):
        raise wrong_kind(is_list=False)
    return entry.content


def _incremented(raw: bytes) -> int:
    number = loads(raw)
    if type(number) is not int or not _SMALLEST <= number < _LARGEST:
        raise not_an_integer()
    return number + 1


def _answer(items: tuple[str, ...]) -> list[str]:
    if sum(len(item.encode()) for item in items) > RANGE_BYTES:
        raise answer_too_large()
    return list(items)

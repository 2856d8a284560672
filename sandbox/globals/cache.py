"""`meta.cache`: values that may be forgotten, and lists of text."""

from __future__ import annotations

from typing import Any, Final

from sandbox.globals.arguments import check_key, check_seconds
from sandbox.globals.host_facade import HostFacade
from sandbox.globals.storage import or_default
from sandbox.invocation import HostCall

PUSHED_AT_ONCE: Final = 1_000
_LIFE_SECONDS: Final = 10 * 366 * 24 * 3600
_ELEMENTS: Final = (str, int, float, bool)
_LPUSH_EXPECTS: Final = "cache.lpush expects a string value or an array of strings"


class Cache(HostFacade):
    """`meta.cache` of one install."""

    __slots__ = ()

    def get(self, key: str, default: Any = None) -> HostCall:
        """To be awaited: the value, or `default` if there is none."""
        return self._start("cache.get", [check_key("cache.get", key)], or_default(default))

    def set(self, key: str, value: Any, ttl: float | None = None) -> HostCall:
        """Keep a JSON value, for `ttl` seconds if given."""
        if ttl is not None and check_seconds("cache.set", "ttl", ttl, _LIFE_SECONDS) == 0:
            raise ValueError("cache.set: ttl must be more than 0 seconds; leave it out to keep the value")
        return self._start("cache.set", [check_key("cache.set", key), value, ttl])

    def incr(self, key: str) -> HostCall:
        """To be awaited: the number, one more than it was; a missing one counts as 0."""
        return self._start("cache.incr", [check_key("cache.incr", key)])

    def expire(self, key: str, seconds: float) -> HostCall:
        """To be awaited: is there such a value? It is forgotten after that time; after 0 seconds at once."""
        check_seconds("cache.expire", "seconds", seconds, _LIFE_SECONDS)
        return self._start("cache.expire", [check_key("cache.expire", key), seconds])

    def lpush(self, key: str, values: Any) -> HostCall:
        """Put text, or each of a list, in front of a list. To be awaited: its length now."""
        if type(values) is str:
            values = [values]
        elif type(values) is not list and type(values) is not tuple:
            raise TypeError(_LPUSH_EXPECTS)
        if len(values) > PUSHED_AT_ONCE:
            raise ValueError(f"Too many elements in array for cache.lpush. Maximum: {PUSHED_AT_ONCE}")
        if any(type(value) not in _ELEMENTS for value in values):
            raise TypeError(_LPUSH_EXPECTS)
        return self._start("cache.lpush", [check_key("cache.lpush", key), list(map(str, values))])

    def lrange(self, key: str, start: int, stop: int) -> HostCall:
        """To be awaited: a list's elements from `start` to `stop`, both included; negative ones count from its end."""
        if type(start) is not int or type(stop) is not int:
            raise TypeError("cache.lrange expects a number for the start and end indexes")
        return self._start("cache.lrange", [check_key("cache.lrange", key), start, stop])

    def llen(self, key: str) -> HostCall:
        """To be awaited: a list's length."""
        return self._start("cache.llen", [check_key("cache.llen", key)])

    def lrem(self, key: str, count: int, value: str) -> HostCall:
        """To be awaited: how many elements equal to `value` were removed: `count` from the front, -`count` from the end, or all for 0."""
        if type(count) is not int:
            raise TypeError("cache.lrem expects a number for the count argument")
        if type(value) not in _ELEMENTS:
            raise TypeError("cache.lrem expects a string for the element")
        return self._start("cache.lrem", [check_key("cache.lrem", key), count, str(value)])

    def lpop(self, key: str, count: int = 1) -> HostCall:
        """To be awaited: the first `count` elements of a list, which are removed."""
        if type(count) is not int:
            raise TypeError("cache.lpop expects a number for the count argument")
        if count < 0:
            raise ValueError("cache.lpop expects a count of 0 or more")
        return self._start("cache.lpop", [check_key("cache.lpop", key), count])

    def delete(self, key: str) -> HostCall:
        """Forget a value or a list."""
        return self._start("cache.delete", [check_key("cache.delete", key)])

    del_ = delete

"""`meta.cache`: small things that may be lost, shared by the installs of one app in one project, across all workers.

What is done to it is done at once and not with the invocation's commit, as with Redis upstream: an event that is run
again counts again.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Final

from plugin_server.host_api import cache_operations as operations
from plugin_server.host_api.cache_operations import Operation
from plugin_server.host_api.calls import CallContext, Handler
from plugin_server.model.errors import InvalidArgument, LimitReached
from sandbox.codec import NotJson, TooDeep, dumps

KEY_BYTES: Final = 4096
VALUE_BYTES: Final = 2**20
PUSHED_ITEMS: Final = 1000
ITEM_BYTES: Final = 64 * 1024
TTL_SECONDS: Final = 100 * 366 * 86_400
_LARGEST: Final = 2**63 - 1


class Cache(ABC):
    """Scopes do not see each other. Keys are text of any characters; values are JSON.

    Calls for one key take effect in the order in which they were made. Each raises InvalidArgument for a key that holds
    a list where a value is wanted or the other way round, LimitReached when it is full, Transient when it is away.
    A call that is cancelled may have taken effect.
    """

    @abstractmethod
    async def do(self, scope: str, key: str, operation: Operation) -> Any:
        """The answer to one operation."""

    @abstractmethod
    async def close(self) -> None:
        """Calls under way are cancelled."""

    async def get(self, scope: str, key: str) -> tuple[bool, Any]:
        """Whether there is a value, and the value."""
        found, value = await self.do(scope, key, operations.Get())
        return found, value

    async def set(self, scope: str, key: str, value: Any, ttl_seconds: float | None = None) -> None:
        """Replace what is there. Raises InvalidArgument for what is not JSON, LimitReached for more than VALUE_BYTES."""
        await self.do(scope, key, operations.Set(_encoded(value), _milliseconds_or_ever("set", ttl_seconds)))

    async def incr(self, scope: str, key: str) -> int:
        """Add one; the new number."""
        number: int = await self.do(scope, key, operations.Increment())
        return number

    async def expire(self, scope: str, key: str, seconds: float) -> bool:
        """Let it go after so long, at once if that is not positive; whether it was there."""
        was_there: bool = await self.do(scope, key, operations.Expire(_milliseconds("expire", seconds)))
        return was_there

    async def lpush(self, scope: str, key: str, items: Sequence[str]) -> int:
        """Put each before the head, one after the other; the list's new length."""
        length: int = await self.do(scope, key, operations.Push(tuple(items)))
        return length

    async def lrange(self, scope: str, key: str, start: int, stop: int) -> list[str]:
        """The items from `start` to `stop`, both included; negative ones count from the end."""
        items: list[str] = await self.do(scope, key, operations.Range(start, stop))
        return items

    async def llen(self, scope: str, key: str) -> int:
        """How many items the list has."""
        length: int = await self.do(scope, key, operations.Length())
        return length

    async def lrem(self, scope: str, key: str, count: int, item: str) -> int:
        """Take out equal items, `count` from the head, -`count` from the tail, 0 all; how many went."""
        gone: int = await self.do(scope, key, operations.Remove(count, item))
        return gone

    async def lpop(self, scope: str, key: str, count: int) -> list[str]:
        """Take up to `count` items from the head."""
        items: list[str] = await self.do(scope, key, operations.Pop(count))
        return items

    async def delete(self, scope: str, key: str) -> None:
        """Whether it is there or not."""
        await self.do(scope, key, operations.Delete())


def scope_of(context: CallContext) -> str:
    """All installs of one app in one project share a scope, whatever the app's version, as upstream."""
    return f"{context.project.id}/{context.install.app.name}"


def cache_handlers(cache: Cache, scope_of: Callable[[CallContext], str] = scope_of) -> dict[str, Handler]:
    """What answers `cache.*`."""

    def handler(method: str) -> Handler:
        async def answer(context: CallContext, arguments: list[Any]) -> Any:
            key, *rest = arguments or [None]
            return await cache.do(scope_of(context), _key(method, key), _operation(method, rest))

        return answer

    methods = ("get", "set", "incr", "expire", "lpush", "lrange", "llen", "lrem", "lpop", "delete")
    return {f"cache.{method}": handler(method) for method in methods}


def _operation(method: str, arguments: list[Any]) -> Operation:
    match method, arguments:
        case "get", []:
            return operations.Get()
        case "set", [value, ttl_seconds]:
            return operations.Set(_encoded(value), _milliseconds_or_ever(method, ttl_seconds))
        case "incr", []:
            return operations.Increment()
        case "expire", [seconds]:
            return operations.Expire(_milliseconds(method, seconds))
        case "lpush", [items]:
            return operations.Push(_items(items))
        case "lrange", [start, stop]:
            return operations.Range(_integer(method, "start", start), _integer(method, "stop", stop))
        case "llen", []:
            return operations.Length()
        case "lrem", [count, item]:
            return operations.Remove(_integer(method, "count", count), _item(method, item))
        case "lpop", [count]:
            return operations.Pop(_integer(method, "count", count, at_least=0))
        case "delete", []:
            return operations.Delete()
        case _:
            raise InvalidArgument(f"cache.{method}: {len(arguments)} arguments after the key are not what it takes")


def _key(method: str, key: Any) -> str:
    if type(key) is not str:
        raise InvalidArgument(f"cache.{method}: the key must be text, not {_kind(key)}")
    return _bounded(method, "the key", key, KEY_BYTES)


def _bounded(method: str, what: str, text: str, limit_bytes: int) -> str:
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise InvalidArgument(f"cache.{method}: {what} has a lone surrogate: replace that character") from None
    if size > limit_bytes:
        raise InvalidArgument(f"cache.{method}: {what} has {size} bytes; at most {limit_bytes} are allowed")
    return text


def _encoded(value: Any) -> bytes:
    try:
        encoded = dumps(value)
    except (NotJson, TooDeep) as error:
        raise InvalidArgument(f"cache.set: {error}") from None
    if len(encoded) > VALUE_BYTES:
        raise LimitReached(
            f"cache.set: the value takes {len(encoded)} bytes as JSON; at most {VALUE_BYTES} are allowed: store less, "
            "or split it over several keys"
        )
    return encoded


def _items(items: Any) -> tuple[str, ...]:
    given = items if type(items) is list else [items]
    if len(given) > PUSHED_ITEMS:
        raise LimitReached(
            f"cache.lpush: {len(given)} items at once; at most {PUSHED_ITEMS} are allowed: push in slices"
        )
    if not given:
        raise InvalidArgument("cache.lpush expects text or a list of texts, not an empty list")
    return tuple(_item("lpush", item) for item in given)


def _item(method: str, item: Any) -> str:
    """A number becomes text, as upstream."""
    if type(item) is int or (type(item) is float and math.isfinite(item)):
        return str(item)
    if type(item) is str:
        return _bounded(method, "an item", item, ITEM_BYTES)
    expected = "text or a list of texts" if method == "lpush" else "text"
    raise InvalidArgument(f"cache.{method} expects {expected}, not {_kind(item)}")


def _integer(method: str, name: str, number: Any, at_least: int = -_LARGEST) -> int:
    is_whole = type(number) is int or (type(number) is float and number.is_integer())
    whole: int = int(number) if is_whole else 0
    if not is_whole or not at_least <= whole <= _LARGEST:
        wanted = "a whole number" if at_least < 0 else f"a whole number from {at_least}"
        raise InvalidArgument(f"cache.{method} expects {wanted} as {name}, not {_kind(number)}")
    return whole


def _milliseconds_or_ever(method: str, seconds: Any) -> int | None:
    if seconds is None:
        return None
    milliseconds = _milliseconds(method, seconds)
    if milliseconds <= 0:
        raise InvalidArgument(f"cache.{method}: ttl must be more than 0 seconds; leave it out to keep the value")
    return milliseconds


def _milliseconds(method: str, seconds: Any) -> int:
    if type(seconds) not in (int, float) or not abs(seconds) <= TTL_SECONDS:
        raise InvalidArgument(f"cache.{method} expects a number of seconds up to {TTL_SECONDS}, not {_kind(seconds)}")
    milliseconds: int = math.ceil(seconds * 1000)
    return milliseconds


def _kind(value: Any) -> str:
    """What an argument is, in the app's words."""
    if value is None or type(value) in (bool, int, float):
        return str(value)[:40]
    names: dict[type, str] = {str: "text", list: "a list", dict: "a dict"}
    return names.get(type(value), type(value).__name__)

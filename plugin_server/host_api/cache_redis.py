"""The cache in Redis: one round trip for all the calls that came at the same time, in their order.

Values are JSON as Redis strings, so that INCR works on numbers; what Redis does not bound (a list's length, the size of
an answer) is bounded by a script. A lost connection is opened once more and the calls are sent again; one that Redis has
carried out but not answered then counts twice, as it would when the event is run again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, assert_never
from urllib.parse import quote

import structlog
from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError, RedisError, ResponseError

from plugin_server.host_api.cache import Cache
from plugin_server.host_api.cache_groups import Call, Groups, Place
from plugin_server.host_api.cache_operations import (
    LIST_ITEMS,
    RANGE_BYTES,
    Delete,
    Expire,
    Get,
    Increment,
    Length,
    Operation,
    Pop,
    Push,
    Range,
    Remove,
    Set,
    answer_too_large,
    list_full,
    not_an_integer,
    wrong_kind,
)
from plugin_server.model.errors import CacheUnavailable, ConfigurationError, LimitReached
from sandbox.codec import InvalidJson, TooDeep, loads

TIMEOUT_SECONDS: Final = 5.0
_IDLE_CHECK_SECONDS: Final = 30
_GROUP_CALLS: Final = 50
"""Answers are up to a megabyte each"""
_PREFIX: Final = "plugin-server:"
_FULL: Final = "LISTFULL"
_TOO_LARGE: Final = "TOOLARGE"

_PUSH: Final = f"""
if redis.call('LLEN', KEYS[1]) + #ARGV > {LIST_ITEMS} then return redis.error_reply('{_FULL} too many items') end
return redis.call('LPUSH', KEYS[1], unpack(ARGV))
"""
_BOUNDED: Final = f"""
local bytes = 0
for _, item in ipairs(items) do bytes = bytes + #item end
if bytes > {RANGE_BYTES} then return redis.error_reply('{_TOO_LARGE} too many bytes') end
"""
_RANGE: Final = f"""
local items = redis.call('LRANGE', KEYS[1], ARGV[1], ARGV[2])
{_BOUNDED}
return items
"""
_POP: Final = f"""
if ARGV[1] == '0' then redis.call('LLEN', KEYS[1]) return {{}} end
local items = redis.call('LRANGE', KEYS[1], 0, ARGV[1] - 1)
{_BOUNDED}
if #items > 0 then redis.call('LTRIM', KEYS[1], #items, -1) end
return items
"""

_log = structlog.get_logger(__name__)


class RedisCache(Cache):
    """See Cache. `url` is redis:// or rediss://. Connects when first used; raises CacheUnavailable when it is away."""

    def __init__(self, url: str) -> None:
        """Raises ConfigurationError for a URL that cannot be."""
        try:
            self._redis = Redis.from_url(
                url,
                socket_timeout=TIMEOUT_SECONDS,
                socket_connect_timeout=TIMEOUT_SECONDS,
                health_check_interval=_IDLE_CHECK_SECONDS,
                retry=Retry(NoBackoff(), 0),
                client_name="plugin-server",
            )
        except ValueError as error:
            raise ConfigurationError(f"CACHE_URL is not the URL of a Redis: {error}") from None
        self._groups = Groups(self._run, _GROUP_CALLS)
        self._is_full = False

    async def do(self, scope: str, key: str, operation: Operation) -> Any:
        """See Cache.do."""
        return await self._groups.call(Place(scope, key), operation)

    async def close(self) -> None:
        """See Cache.close."""
        await self._groups.close()
        await self._redis.aclose()

    async def check(self) -> str:
        """The server's version. Raises CacheUnavailable."""
        try:
            info = await self._redis.info("server")
        except (RedisError, OSError) as error:
            raise CacheUnavailable(f"the cache does not answer: {error}") from error
        return str(info["redis_version"])

    async def _run(self, calls: Sequence[Call]) -> Sequence[Any]:
        try:
            try:
                answers = await self._send(calls)
            except RedisConnectionError:
                answers = await self._send(calls)
        except (RedisError, OSError) as error:
            raise CacheUnavailable(f"the cache does not answer: {error}") from error
        return [self._answer(call.operation, answer) for call, answer in zip(calls, answers, strict=True)]

    async def _send(self, calls: Sequence[Call]) -> list[Any]:
        async with self._redis.pipeline(transaction=False) as pipeline:
            for call in calls:
                _add(pipeline, _key(call.place), call.operation)
            return await pipeline.execute(raise_on_error=False)

    def _answer(self, operation: Operation, answer: Any) -> Any:
        if isinstance(answer, ResponseError):
            return self._error(operation, answer)
        match operation:
            case Get():
                return [False, None] if answer is None else [True, _decoded(answer)]
            case Set() | Delete():
                return None
            case Expire():
                return bool(answer)
            case Range() | Pop():
                return [item.decode() for item in answer]
            case Increment() | Push() | Length() | Remove():
                return int(answer)
        assert_never(operation)

    def _error(self, operation: Operation, error: ResponseError) -> Exception:
        message = str(error)
        if "WRONGTYPE" in message:
            return wrong_kind(is_list=isinstance(operation, Get | Increment))
        if _FULL in message:
            return list_full()
        if _TOO_LARGE in message:
            return answer_too_large()
        if isinstance(operation, Increment) and ("integer" in message or "overflow" in message):
            return not_an_integer()
        if isinstance(error, OutOfMemoryError) or "OOM" in message:
            if not self._is_full:
                self._is_full = True
                _log.warning("cache_full", error=message, remedy="raise Redis's maxmemory or let it evict keys")
            return LimitReached("the cache is full: set less, or with a ttl, or ask the operator for more")
        return CacheUnavailable(f"the cache does not answer: {message}")


def _add(pipeline: Pipeline, key: bytes, operation: Operation) -> None:
    match operation:
        case Get():
            pipeline.execute_command("GET", key)
        case Set(value, None):
            pipeline.execute_command("SET", key, value)
        case Set(value, ttl_ms):
            pipeline.execute_command("SET", key, value, "PX", ttl_ms)
        case Increment():
            pipeline.execute_command("INCR", key)
        case Expire(ttl_ms):
            pipeline.execute_command("PEXPIRE", key, ttl_ms)
        case Push(items):
            pipeline.execute_command("EVAL", _PUSH, 1, key, *items)
        case Range(start, stop):
            pipeline.execute_command("EVAL", _RANGE, 1, key, _near(start), _near(stop))
        case Length():
            pipeline.execute_command("LLEN", key)
        case Remove(count, item):
            pipeline.execute_command("LREM", key, _near(count), item)
        case Pop(count):
            pipeline.execute_command("EVAL", _POP, 1, key, _near(count))
        case Delete():
            pipeline.execute_command("DEL", key)
        case _:
            assert_never(operation)


def _near(number: int) -> int:
    """The same to every list, and to Lua, whose numbers are floats."""
    return min(max(number, -LIST_ITEMS - 1), LIST_ITEMS + 1)


def _key(place: Place) -> bytes:
    """No scope begins as another's keys do."""
    return f"{_PREFIX}{quote(place.scope, safe='/')}:{place.key}".encode()


def _decoded(raw: bytes) -> Any:
    """What somebody else wrote there, and is not JSON, counts as nothing."""
    try:
        return loads(raw)
    except (InvalidJson, TooDeep):
        return None

"""One suite for all caches: in memory, in the database of either kind, in Redis, which says what is right."""

from __future__ import annotations

import asyncio
import itertools
import json
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis
from sqlalchemy import func, select

from plugin_server.database.engine import Database, sqlite_url
from plugin_server.database.migrate import migrate
from plugin_server.database.tables import cache as cache_table
from plugin_server.host_api import cache_operations as operations
from plugin_server.host_api.cache import VALUE_BYTES, Cache
from plugin_server.host_api.cache_database import DatabaseCache
from plugin_server.host_api.cache_memory import MemoryCache
from plugin_server.host_api.cache_redis import RedisCache
from plugin_server.model.errors import (
    AppError,
    CacheUnavailable,
    ConfigurationError,
    DatabaseUnavailable,
    InvalidArgument,
    LimitReached,
)
from tests.server import until
from tests.services.postgres import PostgresServer
from tests.services.redis import RedisServer

S = "2/url-cleaner"
SHORT_SECONDS = 0.05
KINDS = [
    "memory",
    "sqlite",
    pytest.param("postgres", marks=pytest.mark.postgres),
    pytest.param("redis", marks=pytest.mark.redis),
]


@pytest.fixture(params=KINDS)
async def cache(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Cache]:
    if request.param == "memory":
        yield MemoryCache()
        return
    if request.param == "redis":
        redis = RedisCache(request.getfixturevalue("redis_url"))
        yield redis
        await redis.close()
        return
    url = sqlite_url(tmp_path) if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    database = Database(url)
    await migrate(database)
    made = DatabaseCache(database)
    yield made
    await made.close()
    await database.close()


# --- values ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [None, True, 0, -1.5, 2**63, "", "ü\0\U0001f600", [], [1, ["x"]], {"a": {"b": None}}])
async def test_what_was_set_is_there(cache: Cache, value: Any) -> None:
    await cache.set(S, "k", value)
    assert await cache.get(S, "k") == (True, value)


async def test_nothing_was_there(cache: Cache) -> None:
    assert await cache.get(S, "k") == (False, None)
    assert await cache.llen(S, "k") == 0
    assert await cache.lrange(S, "k", 0, -1) == []
    assert await cache.lpop(S, "k", 5) == []
    assert await cache.lrem(S, "k", 0, "x") == 0
    assert await cache.expire(S, "k", 5) is False
    await cache.delete(S, "k")


async def test_deleted_is_gone(cache: Cache) -> None:
    await cache.set(S, "k", 1)
    await cache.lpush(S, "l", ["x"])
    await cache.delete(S, "k")
    await cache.delete(S, "l")
    assert await cache.get(S, "k") == (False, None)
    assert await cache.llen(S, "l") == 0


@pytest.mark.parametrize("key", ["", "a b", "a:b/c", "nul\0", "ümläut\U0001f600", "k" * 4096, "\1", "%2F"])
async def test_any_text_is_a_key(cache: Cache, key: str) -> None:
    await cache.set(S, key, 1)
    await cache.set(S, key + "'", 2)
    assert await cache.get(S, key) == (True, 1)


@pytest.mark.parametrize("other", ["2/url", "3/url-cleaner", "2/url-cleaner:k", "2/", ""])
async def test_scopes_do_not_see_each_other(cache: Cache, other: str) -> None:
    await cache.set(S, "k:k", 1)
    await cache.set(other, "k:k", 2)
    await cache.set(other, "k", 3)
    await cache.delete(other, "k:k")
    assert await cache.get(S, "k:k") == (True, 1)
    assert await cache.get(S, "k") == (False, None)


async def test_a_value_replaces_a_list(cache: Cache) -> None:
    await cache.lpush(S, "k", ["x"])
    await cache.set(S, "k", ["y"])
    assert await cache.get(S, "k") == (True, ["y"])


async def test_too_large_a_value_is_refused(cache: Cache) -> None:
    await cache.set(S, "k", "x" * (VALUE_BYTES - 2))
    with pytest.raises(LimitReached, match="store less"):
        await cache.set(S, "k", "x" * (VALUE_BYTES - 1))
    assert (await cache.get(S, "k"))[1] == "x" * (VALUE_BYTES - 2)


# --- counting -------------------------------------------------------------------------------------------------------


async def test_counting_starts_at_one(cache: Cache) -> None:
    assert [await cache.incr(S, "k") for _ in range(3)] == [1, 2, 3]
    assert await cache.get(S, "k") == (True, 3)


async def test_counting_goes_on_from_what_was_set(cache: Cache) -> None:
    await cache.set(S, "k", -2)
    assert [await cache.incr(S, "k") for _ in range(3)] == [-1, 0, 1]


@pytest.mark.parametrize("value", ["5", 1.5, 5.0, None, True, [1], {}, 2**63 - 1, 2**63])
async def test_what_is_no_integer_cannot_be_incremented(cache: Cache, value: Any) -> None:
    await cache.set(S, "k", value)
    with pytest.raises(InvalidArgument, match="no integer of 64 bits"):
        await cache.incr(S, "k")
    assert await cache.get(S, "k") == (True, value)


async def test_nobody_miscounts_when_many_count(cache: Cache) -> None:
    numbers = await asyncio.gather(*(cache.incr(S, f"k{number % 3}") for number in range(300)))
    assert sorted(numbers) == sorted(list(range(1, 101)) * 3)


async def test_calls_for_a_key_take_effect_in_order(cache: Cache) -> None:
    calls = [
        call
        for number in range(50)
        for call in (cache.set(S, "k", number), cache.get(S, "k"), cache.incr(S, "k"), cache.get(S, "other"))
    ]
    answers = await asyncio.gather(*calls)
    assert answers[1::4] == [(True, number) for number in range(50)]
    assert answers[2::4] == list(range(1, 51))


# --- time -----------------------------------------------------------------------------------------------------------


async def is_gone(cache: Cache, key: str) -> bool:
    return not (await cache.get(S, key))[0]


async def test_a_value_goes_after_its_time(cache: Cache) -> None:
    await cache.set(S, "k", 1, SHORT_SECONDS)
    await cache.set(S, "stays", 1, 1000)
    await until(lambda: is_gone(cache, "k"), "the value has gone")
    assert await cache.incr(S, "k") == 1
    assert await cache.get(S, "stays") == (True, 1)


async def test_expire_lets_a_counter_start_again(cache: Cache) -> None:
    await cache.incr(S, "k")
    assert await cache.expire(S, "k", SHORT_SECONDS) is True
    await cache.incr(S, "k")  # does not prolong it
    await until(lambda: is_gone(cache, "k"), "the counter has gone")
    assert await cache.incr(S, "k") == 1


@pytest.mark.parametrize("seconds", [0, -1])
async def test_expire_at_once_deletes(cache: Cache, seconds: float) -> None:
    await cache.lpush(S, "k", ["x"])
    assert await cache.expire(S, "k", seconds) is True
    assert await cache.lrange(S, "k", 0, -1) == []
    assert await cache.expire(S, "k", seconds) is False


async def test_setting_again_keeps_it_for_ever(cache: Cache) -> None:
    await cache.set(S, "k", 1, SHORT_SECONDS)
    await cache.set(S, "k", 2)
    await cache.set(S, "sooner", 1, SHORT_SECONDS)
    await until(lambda: is_gone(cache, "sooner"), "the other has gone")
    assert await cache.get(S, "k") == (True, 2)


# --- lists ----------------------------------------------------------------------------------------------------------


async def test_the_last_one_pushed_is_the_first_one_popped(cache: Cache) -> None:
    assert await cache.lpush(S, "k", ["1", "2", "3"]) == 3
    assert await cache.lpop(S, "k", 1) == ["3"]
    assert await cache.lrem(S, "k", 1, "2") == 1
    assert await cache.lrange(S, "k", 0, -1) == ["1"]


async def test_pushes_add_up(cache: Cache) -> None:
    assert await cache.lpush(S, "k", ["a string"]) == 1
    assert await cache.lpush(S, "k", ["an", "array\0ü"]) == 3
    assert await cache.llen(S, "k") == 3
    assert await cache.lrange(S, "k", 0, 2) == ["array\0ü", "an", "a string"]


async def test_an_emptied_list_is_no_list(cache: Cache) -> None:
    await cache.lpush(S, "k", ["1", "2"])
    assert await cache.lpop(S, "k", 10) == ["2", "1"]
    assert await cache.get(S, "k") == (False, None)
    await cache.lpush(S, "k", ["1"])
    await cache.lrem(S, "k", 0, "1")
    assert await cache.incr(S, "k") == 1


async def test_a_list_is_no_value_and_a_value_no_list(cache: Cache) -> None:
    await cache.lpush(S, "list", ["1"])
    await cache.set(S, "value", ["1"])
    for wrong in (cache.get(S, "list"), cache.incr(S, "list")):
        with pytest.raises(InvalidArgument, match=r"holds a list: use lpush.*or delete it first"):
            await wrong
    for other in (
        cache.lpush(S, "value", ["1"]),
        cache.lrange(S, "value", 0, -1),
        cache.llen(S, "value"),
        cache.lrem(S, "value", 0, "1"),
        cache.lpop(S, "value", 1),
        cache.lpop(S, "value", 0),
    ):
        with pytest.raises(InvalidArgument, match=r"holds a value: use get.*or delete it first"):
            await other
    assert await cache.get(S, "value") == (True, ["1"])
    assert await cache.llen(S, "list") == 1


async def test_a_list_has_an_end(cache: Cache) -> None:
    for _ in range(10):
        await cache.lpush(S, "k", ["x"] * 1000)
    with pytest.raises(LimitReached, match=r"at most 10000 items"):
        await cache.lpush(S, "k", ["x"])
    assert await cache.llen(S, "k") == 10_000


async def test_one_that_fails_spoils_no_other(cache: Cache) -> None:
    await cache.set(S, "text", "x")
    answers = await asyncio.gather(
        cache.incr(S, "k"),
        cache.incr(S, "text"),
        cache.lpush(S, "k", ["x"]),
        cache.incr(S, "k"),
        return_exceptions=True,
    )
    assert [answer if isinstance(answer, int) else type(answer) for answer in answers] == [
        1,
        InvalidArgument,
        InvalidArgument,
        2,
    ]


async def test_a_caller_who_is_cancelled_spoils_no_other(cache: Cache) -> None:
    calls = [asyncio.ensure_future(cache.incr(S, f"k{number}")) for number in range(20)]
    await asyncio.sleep(0)
    for call in calls[::2]:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    assert [await call for call in calls[1::2]] == [1] * 10
    await cache.incr(S, "k0")


keys = st.sampled_from(["a", "b"])
integers = st.one_of(st.integers(-4, 4), st.sampled_from([2**31, -(2**63), 2**63 - 1]))
items = st.sampled_from(["x", "y", "ü\0"])
values = st.one_of(st.integers(-(2**63), 2**63 - 1), st.sampled_from([0, "x", None, [1], 1.0]))
steps = st.one_of(
    st.just(operations.Get()),
    st.builds(operations.Set, values.map(lambda value: json.dumps(value).encode()), st.none()),
    st.just(operations.Increment()),
    st.builds(operations.Expire, st.sampled_from([-1, 0, 1_000_000])),
    st.builds(operations.Push, st.lists(items, min_size=1, max_size=4).map(tuple)),
    st.builds(operations.Range, integers, integers),
    st.just(operations.Length()),
    st.builds(operations.Remove, integers, items),
    st.builds(operations.Pop, integers.filter(lambda count: count >= 0)),
    st.just(operations.Delete()),
)


@given(done=st.lists(st.tuples(keys, steps), max_size=30))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_all_caches_answer_as_redis_does(redis_url: str, done: list[tuple[str, operations.Operation]]) -> None:
    redis, memory = RedisCache(redis_url), MemoryCache()
    scope = uuid.uuid4().hex
    try:
        for key, operation in done:
            answers = []
            for cache in (redis, memory):
                try:
                    answers.append(await cache.do(scope, key, operation))
                except AppError as error:
                    answers.append((type(error), str(error)))
            assert answers[0] == answers[1], operation
    finally:
        await redis.close()


# --- only in memory -------------------------------------------------------------------------------------------------


async def test_a_clock_that_stands_still_keeps_all() -> None:
    now = itertools.count(1000)
    cache = MemoryCache(lambda: 1000.0)
    await cache.set(S, "k", {"a": 1}, 5)
    await cache.lpush(S, "l", ["1", "2"])
    assert cache.contents(S) == {"k": {"a": 1}, "l": ["2", "1"]}
    assert cache.ttl_seconds(S, "k") == 5
    assert cache.ttl_seconds(S, "l") is None
    moving = MemoryCache(lambda: float(next(now)))
    await moving.set(S, "k", 1, 2)
    assert (await moving.get(S, "k"))[0]
    assert not (await moving.get(S, "k"))[0]
    assert moving.contents(S) == {}


# --- only in the database -------------------------------------------------------------------------------------------


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    made = Database(database_url)
    await migrate(made)
    yield made
    await made.close()


async def test_pruning_deletes_what_has_expired_and_nothing_else(database: Database) -> None:
    now = [1_000]
    cache = DatabaseCache(database, lambda: now[0])
    await asyncio.gather(*(cache.set(S, f"old{number}", 1, 1) for number in range(1200)))
    await cache.set(S, "young", 1, 100)
    await cache.set(S, "kept", 1)
    assert await cache.prune() == 0
    now[0] += 1000
    assert await cache.get(S, "old1") == (False, None)
    assert await cache.prune() == 1200
    async with database.read() as connection:
        assert (await connection.execute(select(func.count()).select_from(cache_table))).scalar_one() == 2
    await cache.close()


async def test_workers_count_together(database_url: str) -> None:
    databases = [Database(database_url) for _ in range(4)]
    await migrate(databases[0])
    caches = [DatabaseCache(database) for database in databases]
    # In opposite orders, so that locks taken as they come would wait for each other.
    numbers = await asyncio.gather(
        *(
            cache.incr(S, f"k{key}")
            for _ in range(10)
            for place, cache in enumerate(caches)
            for key in (range(8) if place % 2 else reversed(range(8)))
        )
    )
    assert sorted(numbers) == sorted(list(range(1, 41)) * 8)
    for cache, database in zip(caches, databases, strict=True):
        await cache.close()
        await database.close()


async def test_a_list_that_fills_the_database_is_refused(database: Database) -> None:
    cache = DatabaseCache(database)
    for _ in range(16):
        await cache.lpush(S, "k", ["x" * 65_536])
    with pytest.raises(LimitReached, match=r"take some items out.*CACHE_URL"):
        await cache.lpush(S, "k", ["x"])
    assert await cache.llen(S, "k") == 16
    await cache.close()


async def test_a_database_that_is_away_is_transient(own_postgres: PostgresServer) -> None:
    database = Database(own_postgres.create_database())
    await migrate(database)
    cache = DatabaseCache(database)
    await cache.incr(S, "k")
    own_postgres.kill()
    for lost in (cache.incr(S, "k"), cache.get(S, "k"), cache.prune()):
        with pytest.raises(DatabaseUnavailable):
            await lost
    own_postgres.start()
    assert await cache.incr(S, "k") == 2
    await cache.close()
    await database.close()


async def test_closing_cancels_what_waits(tmp_path: Path) -> None:
    database = Database(sqlite_url(tmp_path))
    await migrate(database)
    cache = DatabaseCache(database)
    async with database.write():
        waiting = asyncio.ensure_future(cache.incr(S, "k"))
        await asyncio.sleep(0)
        closing = asyncio.ensure_future(cache.close())
        await asyncio.wait([waiting])
    await closing
    assert waiting.cancelled()
    await database.close()


# --- only in Redis --------------------------------------------------------------------------------------------------


async def test_a_redis_that_is_away_is_transient_and_comes_back(own_redis: RedisServer) -> None:
    cache = RedisCache(own_redis.url)
    assert await cache.incr(S, "k") == 1
    own_redis.restart()
    assert await cache.incr(S, "k") == 2  # over the connection that was lost
    own_redis.kill()
    with pytest.raises(CacheUnavailable, match="the cache does not answer"):
        await cache.incr(S, "k")
    with pytest.raises(CacheUnavailable, match="the cache does not answer"):
        await cache.check()
    own_redis.start()
    assert await cache.incr(S, "k") == 3
    assert (await cache.check()).count(".") == 2
    await cache.close()


async def test_a_redis_that_hangs_is_transient(own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plugin_server.host_api.cache_redis.TIMEOUT_SECONDS", 0.2)
    cache = RedisCache(own_redis.url)
    await cache.incr(S, "k")
    own_redis.pause()
    with pytest.raises(CacheUnavailable, match="the cache does not answer"):
        await cache.incr(S, "k")
    own_redis.unpause()
    await cache.close()


async def test_a_full_redis_is_a_limit(own_redis: RedisServer) -> None:
    cache = RedisCache(own_redis.url)
    client = Redis.from_url(own_redis.url)
    await client.config_set("maxmemory", "1")
    for full in (cache.set(S, "k", 1), cache.lpush(S, "l", ["x"]), cache.incr(S, "n")):
        with pytest.raises(LimitReached, match="the cache is full"):
            await full
    assert await cache.get(S, "k") == (False, None)
    await client.aclose()
    await cache.close()


async def test_a_long_answer_is_refused(redis_url: str) -> None:
    cache = RedisCache(redis_url)
    for _ in range(65):
        await cache.lpush(S, "k", ["x" * 65_536])
    for long in (cache.lrange(S, "k", 0, -1), cache.lpop(S, "k", 65)):
        with pytest.raises(LimitReached, match="ask for fewer"):
            await long
    assert len(await cache.lpop(S, "k", 10)) == 10
    await cache.close()


async def test_what_somebody_else_wrote_to_redis_counts_as_nothing(redis_url: str) -> None:
    cache = RedisCache(redis_url)
    client = Redis.from_url(redis_url)
    await client.set(f"plugin-server:{S}:k", b"\xff{")
    assert await cache.get(S, "k") == (True, None)
    await client.aclose()
    await cache.close()


def test_a_wrong_url_is_said_to_be_one() -> None:
    with pytest.raises(ConfigurationError, match="CACHE_URL"):
        RedisCache("http://localhost")

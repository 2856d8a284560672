"""`meta.cache` and `meta.storage` as apps that were written for PostHog use them."""

from __future__ import annotations

import pytest

from plugin_server.testing import AppHarness
from tests.behaviours.hooks import EVENT, hook, messages


@pytest.mark.parametrize("name", ["cache", "storage"])
async def test_a_counter_that_set_up_begins_counts_each_event(name):
    source = f"""
async def setupPlugin(meta):
    await meta.{name}.set('counter', 0)

async def processEvent(event, meta):
    counter = await meta.{name}.get('counter', 999)
    await meta.{name}.set('counter', counter + 1)
    event['properties']['counter'] = counter + 1
    return event
"""
    async with AppHarness(source=source) as app:
        runs = [await app.run("processEvent", EVENT) for _ in range(3)]
        assert [run.event["properties"]["counter"] for run in runs] == [1, 2, 3]


async def test_the_cache_counts_from_nothing_and_from_nothing_again_once_it_has_expired():
    body = """
    n = [await meta.cache.incr('n') for _ in range(3)]
    there = [await meta.cache.expire('n', 0), await meta.cache.expire('nothing', 1)]
    n.append(await meta.cache.incr('n'))
    await meta.cache.set('m', 5, 1)
    await meta.cache.incr('k')
    await meta.cache.expire('k', 60)
    console.log(n, there, await meta.cache.get('missing'), await meta.cache.get('missing', 'default'))
    """
    async with AppHarness(source=hook("onEvent", body)) as app:
        run = await app.run("onEvent", EVENT)
        assert messages(run) == ["[1,2,3,1] [true,false] None default"]
        assert {key: round(left) for key, left in app.cache_ttl_seconds.items()} == {"m": 1, "k": 60}


async def test_lists_are_pushed_and_popped_at_their_front():
    body = """
    await meta.cache.lpush('l', 'a string')
    await meta.cache.lpush('l', ['an', 'array'])
    console.log(await meta.cache.llen('l'), await meta.cache.lrange('l', 0, 2))
    await meta.cache.expire('l', 0)
    console.log(await meta.cache.lrange('l', 0, 2))
    await meta.cache.lpush('n', ['1', '2', '3'])
    console.log(await meta.cache.lpop('n', 1), await meta.cache.lrem('n', 1, '2'), await meta.cache.lrange('n', 0, -1))
    """
    async with AppHarness(source=hook("onEvent", body)) as app:
        run = await app.run("onEvent", EVENT)
        assert run.error is None
        assert messages(run) == ['3 ["array","an","a string"]', "[]", '["3"] 1 ["1"]']


async def test_wrong_arguments_are_told_in_upstreams_words():
    body = """
    async def wrong(call, *arguments):
        try:
            await call(*arguments)
        except (TypeError, ValueError) as error:
            console.log(error)
    await wrong(meta.cache.lpush, 'l', 5)
    await wrong(meta.cache.lpush, 'l', None)
    await wrong(meta.cache.lpush, 'l', ['x'] * 1001)
    await wrong(meta.cache.lrange, 'l', '0', 1)
    await wrong(meta.cache.lrem, 'l', 'one', 'x')
    await wrong(meta.cache.lpop, 'l', 'one')
    await wrong(meta.cache.set, 'k', 1, 'soon')
    await wrong(meta.cache.set, 'k', 1, 0)
    await wrong(meta.cache.expire, 'k', 'soon')
    """
    async with AppHarness(source=hook("onEvent", body)) as app:
        lpush, none, many, lrange, lrem, lpop, *times = messages(await app.run("onEvent", EVENT))
        expects = "cache.lpush expects a string value or an array of strings"
        assert expects in lpush
        assert expects in none
        assert "Maximum: 1000" in many
        assert "cache.lrange expects a number for the start and end indexes" in lrange
        assert "cache.lrem expects a number for the count argument" in lrem
        assert "cache.lpop expects a number for the count argument" in lpop
        assert ["ttl" in times[0], "ttl must be more than 0" in times[1], "seconds" in times[2]] == [True] * 3
        assert app.cache == {}


async def test_storage_keeps_json_for_one_install_until_it_is_deleted():
    body = """
    mine = await meta.storage.get('k', 'nothing')
    await meta.storage.set('k', {'list': [1, 2.5, None, 'x'], 'nested': {'a': True}})
    kept = await meta.storage.get('k')
    await meta.storage.set('k', None)
    after_none = await meta.storage.get('k', 'gone')
    await meta.storage.set('k', 1)
    await meta.storage.del_('k')
    console.log(mine, kept, after_none, await meta.storage.get('k', 'gone'))
    await meta.storage.set('k', meta.config['value'])
    """
    source = hook("onEvent", body)
    async with AppHarness(source=[source, source], config={"value": "left"}) as app:
        run = await app.run("onEvent", EVENT)
        line = 'nothing {"list":[1,2.5,null,"x"],"nested":{"a":true}} gone gone'
        assert messages(run) == [line, line]  # the other install of the same code saw nothing of it
        assert app.storage == {1: {"k": "left"}, 2: {"k": "left"}}


async def test_a_cursor_is_set_once_and_counts():
    body = """
    first = await meta.utils.cursor.init('page', 5)
    second = await meta.utils.cursor.init('page', 100)
    console.log(first, second, await meta.utils.cursor.increment('page'), await meta.utils.cursor.increment('page', 10))
    """
    async with AppHarness(source=hook("onEvent", body)) as app:
        assert messages(await app.run("onEvent", EVENT)) == ["True False 6 16"]

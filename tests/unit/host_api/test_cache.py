"""What apps ask of the cache is checked before it gets there; whose it is, is decided by project and app."""

from __future__ import annotations

from typing import Any

import pytest

from plugin_server.host_api.cache import ITEM_BYTES, KEY_BYTES, PUSHED_ITEMS, VALUE_BYTES, cache_handlers, scope_of
from plugin_server.host_api.cache_memory import MemoryCache
from plugin_server.host_api.calls import CallContext
from plugin_server.host_api.effects import RunEffects
from plugin_server.model.errors import InvalidArgument, LimitReached
from plugin_server.model.origin import Origin
from plugin_server.model.project import App, Install, Project


def context(project_id: int = 2, app: str = "url-cleaner", install_id: int = 39, version: str = "1") -> CallContext:
    install = Install(install_id, App(app, version, "main.py", "", {}), 1, {})
    project = Project(project_id, "Acme", "phc_acme", (install,))
    return CallContext(project, install, 1, RunEffects(project, Origin("in-0-1", "u", "processEvent")))


async def call(name: str, *arguments: Any, cache: MemoryCache | None = None) -> Any:
    return await cache_handlers(cache or MemoryCache())[f"cache.{name}"](context(), list(arguments))


async def test_every_call_reaches_the_cache() -> None:
    cache = MemoryCache()
    calls: list[tuple[Any, ...]] = [
        ("set", "k", {"a": 1}, None),
        ("get", "k"),
        ("get", "missing"),
        ("incr", "n"),
        ("expire", "n", 1.5),
        ("lpush", "l", ["a", 1, 1.5]),
        ("llen", "l"),
        ("lrange", "l", 0, -1),
        ("lrem", "l", 0, 1),
        ("lpop", "l", 5.0),
        ("delete", "k"),
        ("get", "k"),
    ]
    answers = [await call(*arguments, cache=cache) for arguments in calls]
    assert answers == [
        None,
        [True, {"a": 1}],
        [False, None],
        1,
        True,
        3,
        3,
        ["1.5", "1", "a"],
        1,
        ["1.5", "a"],
        None,
        [False, None],
    ]


async def test_installs_of_an_app_share_a_cache_and_nobody_else_sees_it() -> None:
    handlers = cache_handlers(MemoryCache())
    await handlers["cache.set"](context(), ["k", 1, None])
    assert await handlers["cache.get"](context(install_id=40, version="2"), ["k"]) == [True, 1]
    for other in (context(project_id=3), context(app="other"), context(app="url-cleaner/k")):
        assert await handlers["cache.get"](other, ["k"]) == [False, None]


def test_scopes_of_projects_and_apps_differ() -> None:
    names = ["a", "1/a", "/a", ""]
    assert len({scope_of(context(project, app)) for project in (1, 11) for app in names}) == 8


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("get", [], "the key must be text, not None"),
        ("get", [5], "the key must be text, not 5"),
        ("get", [["k"]], "the key must be text, not a list"),
        ("get", ["k", 1], "are not what it takes"),
        ("set", ["k"], "are not what it takes"),
        ("get", ["k" * (KEY_BYTES + 1)], f"at most {KEY_BYTES} are allowed"),
        ("get", ["ü" * KEY_BYTES], f"at most {KEY_BYTES} are allowed"),
        ("get", ["\ud800"], "a lone surrogate"),
        ("set", ["k", 1, 0], "more than 0 seconds"),
        ("set", ["k", 1, -5], "more than 0 seconds"),
        ("set", ["k", 1, "5"], "expects a number of seconds"),
        ("set", ["k", 1, True], "expects a number of seconds"),
        ("set", ["k", 1, 1e300], "expects a number of seconds"),
        ("set", ["k", 1, float("nan")], "expects a number of seconds"),
        ("set", ["k", float("nan"), None], "NaN"),
        ("set", ["k", {1: 2}, None], "cache.set: "),
        ("expire", ["k", None], "expects a number of seconds"),
        ("lpush", ["k", None], "lpush expects text or a list of texts, not None"),
        ("lpush", ["k", [None]], "lpush expects text or a list of texts, not None"),
        ("lpush", ["k", [True]], "lpush expects text or a list of texts, not True"),
        ("lpush", ["k", {}], "lpush expects text or a list of texts, not a dict"),
        ("lpush", ["k", []], "not an empty list"),
        ("lpush", ["k", ["x" * (ITEM_BYTES + 1)]], "an item has"),
        ("lrange", ["k", "0", 1], "lrange expects a whole number as start, not text"),
        ("lrange", ["k", 0, 1.5], "lrange expects a whole number as stop, not 1.5"),
        ("lrange", ["k", 0, 2**64], "lrange expects a whole number as stop"),
        ("lrem", ["k", None, "x"], "lrem expects a whole number as count"),
        ("lrem", ["k", 1, None], "lrem expects text, not None"),
        ("lpop", ["k", True], "lpop expects a whole number from 0 as count, not True"),
        ("lpop", ["k", -1], "lpop expects a whole number from 0 as count"),
    ],
)
async def test_a_wrong_argument_is_named(name: str, arguments: list[Any], message: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await call(name, *arguments)
    assert message in str(caught.value)
    assert f"cache.{name}" in str(caught.value)


async def test_what_is_too_much_is_a_limit() -> None:
    with pytest.raises(LimitReached, match="push in slices"):
        await call("lpush", "k", ["x"] * (PUSHED_ITEMS + 1))
    with pytest.raises(LimitReached, match="split it over several keys"):
        await call("set", "k", "x" * VALUE_BYTES, None)

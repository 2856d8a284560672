"""storage.*: what a run reads and writes, and which arguments are refused, each with what to do about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from plugin_server.host_api.calls import CallContext
from plugin_server.host_api.effects import RunEffects
from plugin_server.host_api.ledger import Ledger
from plugin_server.host_api.storage import VALUE_BYTES, storage_handlers
from plugin_server.host_api.storage_values import Key, Stored
from plugin_server.model.errors import InvalidArgument
from plugin_server.model.origin import Origin
from plugin_server.model.project import App, Install, Project

INSTALL = Install(3, App("A", "0", "main.py", "", {}), 1, {})
PROJECT = Project(2, "p", "phc_p", (INSTALL,))


class Run:
    """Calls of one run, numbered in order."""

    def __init__(self, stored: Mapping[str, bytes] | None = None) -> None:
        rows = {(3, key): Stored(value, 1) for key, value in (stored or {}).items()}

        async def read(keys: Sequence[Key]) -> Mapping[Key, Stored]:
            return {key: rows[key] for key in keys if key in rows}

        self.handlers = storage_handlers(Ledger(read))
        self.effects = RunEffects(PROJECT, Origin("s", "u", "processEvent"))
        self.calls = 0

    async def __call__(self, name: str, *arguments: Any) -> Any:
        self.calls += 1
        context = CallContext(PROJECT, INSTALL, self.calls, self.effects)
        return await self.handlers[f"storage.{name}"](context, list(arguments))


async def test_a_missing_key_is_not_found_and_a_stored_null_cannot_be():
    run = Run({"a": b'{"n":[1,2.5,"x",null]}'})
    assert await run("get", "a") == [True, {"n": [1, 2.5, "x", None]}]
    assert await run("get", "b") == [False, None]
    await run("set", "a", None)
    assert await run("get", "a") == [False, None]


async def test_a_run_reads_what_it_wrote_and_deletes():
    run = Run()
    await run("set", "k", {"a": 1})
    assert await run("get", "k") == [True, {"a": 1}]
    await run("delete", "k")
    assert await run("get", "k") == [False, None]


async def test_increments_return_the_new_number_and_count_from_nothing():
    run = Run({"n": b"40", "f": b"0.5"})
    assert [await run("increment", "n", 2), await run("increment", "n", -1)] == [42, 41]
    assert await run("increment", "f", 0.25) == 0.75
    assert await run("increment", "new", 1) == 1
    await run("set", "n", 7)
    assert await run("increment", "n", 1) == 8


async def test_what_is_no_number_is_not_incremented():
    run = Run({"t": b'"text"'})
    with pytest.raises(InvalidArgument, match=r"storage\.increment.*not a number"):
        await run("increment", "t", 1)


async def test_set_if_absent_says_whether_it_was_set():
    run = Run({"there": b"1"})
    assert await run("set_if_absent", "there", 2) is False
    assert await run("set_if_absent", "new", 2) is True
    assert await run("set_if_absent", "new", 3) is False
    assert await run("get", "new") == [True, 2]


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("get", [5], r"key must be text, not int: use str"),
        ("get", [None], r"key must be text, not None"),
        ("get", ["a\0b"], r"NUL character.*remove it"),
        ("get", ["k" * 2049], r"2049 bytes, more than 2048: use a hash"),
        ("get", ["é" * 2049], r"4098 bytes"),
        ("get", ["\ud800"], r"surrogate"),
        ("get", [], r"0 arguments instead of 1"),
        ("set", ["k"], r"1 arguments instead of 2"),
        ("set", ["k", float("nan")], r"NaN"),
        ("set", ["k", {1}], r"set is not JSON: use sorted"),
        ("set", ["k", "x" * VALUE_BYTES], r"store it in parts"),
        ("set_if_absent", ["k", None], r"None is what an absent key has"),
        ("increment", ["k", "1"], r"by must be a finite number, not str"),
        ("increment", ["k", True], r"by must be a finite number, not bool"),
        ("increment", ["k", float("inf")], r"by must be a finite number"),
        ("delete", [["k"]], r"key must be text, not list"),
    ],
)
async def test_wrong_arguments_are_named_with_their_call_and_remedy(name, arguments, said):
    run = Run()
    with pytest.raises(InvalidArgument, match=rf"^storage\.{name}: .*{said}"):
        await run(name, *arguments)
    assert run.effects.storage.is_empty


async def test_the_longest_key_and_the_deepest_value_are_taken():
    run, deep = Run(), []
    for _ in range(99):
        deep = [deep]
    await run("set", "k" * 2048, deep)
    assert (await run("get", "k" * 2048))[1] == deep
    with pytest.raises(InvalidArgument, match="nested deeper"):
        await run("set", "k", [[deep]])

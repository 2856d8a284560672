"""Every program in `hostile` against the dialect and the globals, in process: what gets through here has only the jail left."""

from __future__ import annotations

import contextvars
import functools
import types
from collections.abc import Callable
from typing import Any, NoReturn

import pytest

from sandbox.environment import app_globals
from sandbox.facade import facade
from sandbox.globals.given import given_globals
from sandbox.globals.jobs import Jobs
from sandbox.globals.meta import make_meta
from sandbox.globals.metrics import Metrics
from sandbox.globals.named import declare
from sandbox.globals.response import Response
from sandbox.invocation import Context, Effects, HostCall
from sandbox.page import Page
from sandbox.policy import AppSyntaxError, compile_app
from tests.escape.language import hostile, hostile_globals, hostile_objects, hostile_syntax


def programs(*modules: types.ModuleType) -> dict[str, str]:
    return {
        name: program
        for module in modules
        for kind, group in vars(module).items()
        if kind.isupper() and kind not in ("SYNTAX", "PLACES", "HOST_CALLS") and isinstance(group, dict)
        for name, program in group.items()
    }


GLOBALS = programs(hostile_globals)
PROGRAMS = programs(hostile, hostile_syntax, hostile_objects) | GLOBALS


class Stop(BaseException):
    """Stands for the host's time-out."""


class Token:
    """What a host call yields to its driver: an object that apps must never see."""

    def __await__(self) -> Any:
        yield self


def stop() -> NoReturn:
    raise Stop


async def fetch(_url: str) -> None:
    await Token()


@functools.lru_cache(maxsize=1)
def compiled(program: str) -> types.CodeType:
    return compile_app(program, "app")


def stand_ins(log: list[str]) -> dict[str, object]:
    """Facades around host functions that are coroutines, which is what they must hide in the worst case."""
    storage = facade("storage", {"get": fetch, "set": fetch})
    api = facade("api", {"get": fetch, "post": fetch})
    return {
        "posthog": facade("posthog", {"capture": lambda name, properties=None: None, "api": api}),
        "console": facade("console", {"log": log.append}),
        "meta": facade("meta", {"config": {}, "storage": storage, "global": {}}, items=True),
        "fetch": fetch,
        "stop": stop,
    }


class Listening(Effects):
    def __init__(self, log: list[str]) -> None:
        super().__init__(1)
        self._log = log

    def log(self, install: int, level: str, message: str, source: str = "CONSOLE") -> None:
        self._log.append(message)


def given(log: list[str]) -> dict[str, object]:
    """What apps are given, in an event whose host calls wait for ever."""
    context = Context(lambda effects, install, name, _: HostCall(effects, name, (install, 0)), Page())
    context.effects = Listening(log)
    jobs, metrics = Jobs(context, 1), Metrics(context, 1)
    declare(jobs, {"work": ""})
    declare(metrics, {"counted": "sum"})
    answer = {"status": 200, "headers": {"a": "b"}, "url": "x", "body": {"text": "{}"}}
    return {
        **given_globals(1, context, 100, "1"),
        "meta": make_meta(1, context, {}, {}, jobs, metrics),
        "response": Response(answer),
        "stop": stop,
    }


def run(program: str, log: list[str], injected: Callable[[list[str]], dict[str, object]] = given) -> Any:
    """What `attack()` returns in a fresh install; None where it was refused or failed."""
    its_time = [True]
    namespace: dict[str, Any] = app_globals(injected(log), is_running=lambda: its_time[0])
    try:
        return contextvars.Context().run(attack, program, namespace)
    except AppSyntaxError as error:
        return None if "line" in error.message or "source" in error.message else error
    except (Exception, Stop):  # noqa: BLE001 - whatever ended it, it did not get through
        return None
    finally:
        its_time[0] = False  # what it left behind is collected in somebody else's
        for name in [name for name in namespace if name.isidentifier()]:
            del namespace[name]


def attack(program: str, namespace: dict[str, Any]) -> Any:
    try:
        exec(compiled(program), namespace)
        found = namespace["attack"]()
        if hasattr(found, "send"):
            found.send(None)
    except StopIteration as finished:
        return finished.value
    return found


CASES = [(name, given) for name in PROGRAMS]
CASES += [(name, stand_ins) for name in PROGRAMS.keys() - GLOBALS.keys()]


@pytest.mark.parametrize(("name", "injected"), sorted(CASES, key=lambda case: case[0]))
def test_hostile_program(name: str, injected: Callable[[list[str]], dict[str, object]]) -> None:
    log: list[str] = []
    # Twice, as two installs: the second must find nothing that the first left.
    found = [run(PROGRAMS[name], log, injected) for _ in range(2)]
    assert not any(found)
    assert log == []


@pytest.mark.parametrize("name", hostile.SYNTAX)
def test_source_that_cannot_be_compiled(name: str) -> None:
    with pytest.raises(AppSyntaxError) as caught:
        compile_app(hostile.SYNTAX[name], "app")
    assert 0 < len(caught.value.message) < 10_000


def test_the_runner_notices_what_gets_through() -> None:
    assert run("def attack():\n    return 'through'", []) == "through"

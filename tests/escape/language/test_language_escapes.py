"""Every program in `hostile` against the dialect and the globals, in process: what gets through here has only the jail left."""

from __future__ import annotations

import contextvars
import functools
import types
from typing import Any, NoReturn

import pytest

from sandbox.environment import app_globals
from sandbox.facade import facade
from sandbox.policy import AppSyntaxError, compile_app
from tests.escape.language import hostile, hostile_objects, hostile_syntax

MODULES = (hostile, hostile_syntax, hostile_objects)
PROGRAMS = {
    name: program
    for module in MODULES
    for kind, group in vars(module).items()
    if kind.isupper() and kind not in ("SYNTAX", "PLACES", "HOST_CALLS") and isinstance(group, dict)
    for name, program in group.items()
}


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


def run(program: str, log: list[str]) -> Any:
    """What `attack()` returns in a fresh install; None where it was refused or failed."""
    storage = facade("storage", {"get": fetch, "set": fetch})
    api = facade("api", {"get": fetch, "post": fetch})
    injected = {
        "posthog": facade("posthog", {"capture": lambda name, properties=None: None, "api": api}),
        "console": facade("console", {"log": log.append}),
        "meta": facade("meta", {"config": {}, "storage": storage, "global": {}}, items=True),
        "fetch": fetch,
        "stop": stop,
    }
    its_time = [True]
    namespace: dict[str, Any] = app_globals(injected, is_running=lambda: its_time[0])
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


@pytest.mark.parametrize("name", PROGRAMS)
def test_hostile_program(name: str) -> None:
    log: list[str] = []
    # Twice, as two installs: the second must find nothing that the first left.
    found = [run(PROGRAMS[name], log) for _ in range(2)]
    assert not any(found)
    assert log == []


@pytest.mark.parametrize("name", hostile.SYNTAX)
def test_source_that_cannot_be_compiled(name: str) -> None:
    with pytest.raises(AppSyntaxError) as caught:
        compile_app(hostile.SYNTAX[name], "app")
    assert 0 < len(caught.value.message) < 10_000


def test_the_runner_notices_what_gets_through() -> None:
    assert run("def attack():\n    return 'through'", []) == "through"

"""Every program in `hostile` against the dialect and the globals, in process: what gets through here has only the jail left."""

from __future__ import annotations

from typing import Any, NoReturn

import pytest

from sandbox.environment import app_globals, reset_shared_state
from sandbox.facade import facade
from sandbox.policy import AppSyntaxError, compile_app
from tests.escape.language import hostile

PROGRAMS = {
    name: program
    for group in (
        hostile.DUNDER_WALKS,
        hostile.FRAMES,
        hostile.FORMATTING,
        hostile.NAMES,
        hostile.CLASSES,
        hostile.CAPABILITIES,
        hostile.MUTATIONS,
    )
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
    reset_shared_state()
    namespace: dict[str, Any] = app_globals(injected)
    try:
        exec(compile_app(program, "app"), namespace)
        found = namespace["attack"]()
        if hasattr(found, "send"):
            found.send(None)
    except StopIteration as finished:
        return finished.value
    except AppSyntaxError as error:
        return None if "line" in error.message or "source" in error.message else error
    except (Exception, Stop):  # noqa: BLE001 - whatever ended it, it did not get through
        return None
    return found


@pytest.mark.parametrize("name", PROGRAMS)
def test_hostile_program(name: str) -> None:
    log: list[str] = []
    # Twice, as two installs: the second must find nothing that the first left.
    found = [run(PROGRAMS[name], log) for _ in range(2)]
    reset_shared_state()
    assert not any(found)
    assert log == []


@pytest.mark.parametrize("name", hostile.SYNTAX)
def test_source_that_cannot_be_compiled(name: str) -> None:
    with pytest.raises(AppSyntaxError) as caught:
        compile_app(hostile.SYNTAX[name], "app")
    assert 0 < len(caught.value.message) < 10_000


def test_the_runner_notices_what_gets_through() -> None:
    assert run("def attack():\n    return 'through'", []) == "through"

"""What authors write every day runs restricted as it runs in plain Python: same result, same error, same event afterwards."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import pytest

from sandbox.environment import app_globals
from sandbox.policy import compile_app
from tests.unit.sandbox.ordinary_programs import EVENTS, PROGRAMS


def outcomes(code: Any, namespace: dict[str, Any]) -> list[tuple[str, str, str]]:
    """For each event what `run` raised, or returned, and how it left the event."""
    exec(code, namespace)
    seen = []
    for original in EVENTS:
        event = copy.deepcopy(original)
        try:
            result = namespace["run"](event)
            if inspect.iscoroutine(result):
                result = finish(result)
            seen.append(("", repr(result), repr(event)))
        except Exception as error:  # noqa: BLE001 - the program's own
            seen.append((type(error).__name__, str(error), repr(event)))
    return seen


def finish(coroutine: Any) -> Any:
    try:
        coroutine.send(None)
    except StopIteration as finished:
        return finished.value
    raise AssertionError("nothing to wait for")


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_a_program_runs_as_in_plain_python(program: str) -> None:
    plain = outcomes(compile(program, "app", "exec", dont_inherit=True), {"__name__": "app"})
    assert outcomes(compile_app(program, "app"), app_globals({})) == plain
    assert len(set(plain)) > 1  # it looks at its event
    assert any(not error for error, _, _ in plain)  # and works for some


def test_there_are_many_of_them() -> None:
    assert len(PROGRAMS) >= 60

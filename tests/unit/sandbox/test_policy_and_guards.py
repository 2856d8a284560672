"""Contracts of compile_app, app_globals and the guards that the examples of the dialect do not show."""

from __future__ import annotations

import contextlib
import warnings
from typing import Any

import pytest

from sandbox.dialect import OPERATOR_METHODS
from sandbox.environment import app_globals
from sandbox.facade import facade
from sandbox.guards import AppType, is_app_callable
from sandbox.policy import SOURCE_LIMIT_BYTES, AppSyntaxError, compile_app


class LimitExceeded(Exception):
    """An error of the host."""


def run(program: str, **injected: object) -> dict[str, Any]:
    namespace: dict[str, Any] = app_globals(injected)
    exec(compile_app(program, "app.py"), namespace)
    return namespace


def problem(program: str) -> AppSyntaxError:
    with pytest.raises(AppSyntaxError) as caught:
        compile_app(program, "app.py")
    return caught.value


def test_several_problems_are_told_at_once_in_order_of_line() -> None:
    error = problem("x = 1\n_b = 2\nimport os\n_a = 3")
    assert error.line == 2
    assert [line.partition(":")[0] for line in error.message.splitlines()] == ["line 2", "line 3", "line 4"]


def test_many_problems_are_bounded() -> None:
    error = problem("\n".join(f"_{n} = {n}" for n in range(500)))
    assert error.message.endswith("… and 490 more")


def test_a_problem_with_an_endless_name_is_bounded() -> None:
    assert len(problem("_" + "a" * 200_000 + " = 1").message) <= 8000


def test_source_of_the_greatest_size_compiles() -> None:
    compile_app("x = 1\n".ljust(SOURCE_LIMIT_BYTES, "#"), "app.py")
    assert "256 KiB" in problem("x = 1\n".ljust(SOURCE_LIMIT_BYTES + 1, "#")).message


def test_warnings_of_the_compiler_stay_inside() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compile_app("x = '\\d'\ny = 1 is 1", "app.py")


def test_an_error_names_the_line_of_the_source() -> None:
    namespace = run("def f(x):\n    y: int = 1\n    x.a = y\n    return y\n")
    with pytest.raises(TypeError) as caught:
        namespace["f"](1)
    assert caught.traceback[-2].lineno == 2
    assert str(caught.traceback[-2].path).endswith("app.py")


def test_names_of_builtins_that_the_app_defines_itself_are_its_own() -> None:
    assert run("id = 5\ndef dir(x):\n    return x\nanswer = dir(id)")["answer"] == 5


def test_annotations_leave_nothing_to_evaluate() -> None:
    namespace = run(
        "from __future__ import annotations\nx: 'int' = 1\ndef f(a: 'b', *c: 'd') -> 'e':\n    pass\nclass A:\n    y: int = 1"
    )
    assert namespace["f"].__annotations__ == {}
    assert "__annotations__" not in namespace
    assert "__annotations__" not in vars(namespace["A"])


def test_injected_errors_can_be_caught_and_extended() -> None:
    program = "class Mine(LimitExceeded):\n    pass\ndef f(g):\n    try:\n        g()\n    except LimitExceeded as e:\n        return str(e)"
    namespace = run(program, LimitExceeded=LimitExceeded)

    def fail() -> None:
        raise LimitExceeded("too many")

    assert namespace["f"](fail) == "too many"
    assert issubclass(namespace["Mine"], LimitExceeded)
    assert type(namespace["Mine"]) is AppType


def test_print_goes_to_the_console() -> None:
    lines: list[str] = []
    run("print('a', 1, sep='-')\nprint()\nprint([1], end='')", console=facade("console", {"log": lines.append}))
    assert lines == ["a-1", "", "[1]"]


def test_print_without_a_console_is_silent() -> None:
    run("print('a')")


def test_globals_of_installs_are_apart() -> None:
    first, second = app_globals({}), app_globals({})
    assert first["__builtins__"] is not second["__builtins__"]


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("def hook(event, meta):\n    return event", True),
        ("async def hook(event, meta):\n    return event", True),
        ("hook = lambda event, meta: event", True),
        ("import functools\ndef deco(f):\n    @functools.wraps(f)\n    def inner(*a):\n        return f(*a)\n    return inner\n@deco\ndef hook(e, m):\n    return e", True),
        ("class Hook:\n    def __call__(self, event, meta):\n        return event\nhook = Hook()", False),
        ("class hook:\n    pass", False),
        ("class A:\n    def f(self):\n        pass\nhook = A().f", False),
        ("import functools\nhook = functools.partial(print, 1)", False),
        ("hook = print", False),
        ("hook = console.log", False),
        ("hook = 5", False),
    ],
)  # fmt: skip
def test_only_functions_written_in_the_source_are_app_callables(program: str, *, expected: bool) -> None:
    namespace = run(program, console=facade("console", {"log": lambda line: None}))
    assert is_app_callable(namespace["hook"]) is expected


def test_functions_of_the_host_are_no_app_callables() -> None:
    assert not is_app_callable(run)


def test_every_operator_method_can_be_defined() -> None:
    for method in OPERATOR_METHODS:
        compile_app(f"class A:\n    def {method}(self, *rest):\n        return 1", "app.py")


@pytest.mark.parametrize("kind", ["ValueError", "Stop"])
def test_exit_sees_errors_but_not_the_hosts_stop(kind: str) -> None:
    class Stop(BaseException):
        pass

    seen: list[object] = []
    program = "class C:\n    def __enter__(self):\n        return self\n    def __exit__(self, kind, error, trace):\n        seen(kind)\n        return True\ndef f(error):\n    with C():\n        raise_(error)"

    def raise_(error: BaseException) -> None:
        raise error

    namespace = run(program, seen=seen.append, raise_=raise_)
    with contextlib.nullcontext() if kind == "ValueError" else pytest.raises(Stop):
        namespace["f"](ValueError() if kind == "ValueError" else Stop())
    assert seen == [ValueError if kind == "ValueError" else None]


def test_type_shows_data_and_errors_and_hides_the_host() -> None:
    program = "class A:\n    pass\nanswer = [type(1) is int, type(A()) is A, type(A).__name__, type(console).__name__, type(print) == type(len), str(type(console))]"
    namespace = run(program, console=facade("console", {"log": lambda line: None}))
    assert namespace["answer"] == [True, True, "AppType", "console", False, "<class 'console'>"]

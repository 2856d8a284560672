"""What a child says besides an answer: kinds of failures, whether another try helps, increments that nobody looked at."""

from __future__ import annotations

from typing import Any

import pytest

from sandbox.globals.errors import FetchError, RetryError, is_retryable, refused
from sandbox.wire import REPLY_ERRORS
from tests.unit.sandbox.child import Child

WAITS = "async def onEvent(event, meta):\n    {}\n"


def failure_of(source: str, kind: str = "error") -> list[Any]:
    child = Child(source)
    child.invoke(1, "onEvent", {})
    if child.calls:
        child.refuse(child.calls[0][0], "no such luck", kind)
    failure: list[Any] = child.done[0][1]
    return failure


@pytest.mark.parametrize(
    ("kind", "name", "failure_kind", "retryable"),
    [
        ("error", "RuntimeError", "app", False),
        ("value", "ValueError", "app", False),
        ("limit", "LimitExceeded", "limit", False),
        ("fetch", "FetchError", "app", True),
        ("refused", "FetchError", "app", False),
        ("a kind of a later host", "RuntimeError", "app", False),
    ],
)
def test_a_host_call_that_fails_raises_by_the_kind_of_its_failure(kind, name, failure_kind, retryable):
    assert failure_of(WAITS.format("await sleep(1)"), kind) == [failure_kind, f"{name}: no such luck", 2, retryable]


def test_every_kind_of_reply_is_known():
    assert set(REPLY_ERRORS) == {"error", "value", "limit", "fetch", "refused"}


@pytest.mark.parametrize("kind", ["fetch", "refused"])
def test_a_fetch_error_can_be_caught_and_read(kind):
    child = Child(
        WAITS.format("try:\n        await sleep(1)\n    except FetchError as error:\n        print(str(error))")
    )
    child.invoke(1, "onEvent", {})
    child.refuse(child.calls[0][0], "no route", kind)
    assert child.done[0][1] is None
    assert child.done[0][3]["logs"] == [[1, "LOG", "no route", "CONSOLE"]]


@pytest.mark.parametrize(
    ("line", "failure"),
    [
        ("raise RetryError('busy')", ["retry", "RetryError: busy", 2, True]),
        ("raise RetryError", ["retry", "RetryError", 2, True]),
        ("raise FetchError('gone')", ["app", "FetchError: gone", 2, True]),
        ("raise LimitExceeded('much')", ["limit", "LimitExceeded: much", 2, False]),
        ("raise ValueError('no')", ["app", "ValueError: no", 2, False]),
    ],
)
def test_failures_say_whether_another_try_may_help(line, failure):
    assert failure_of(f"def onEvent(event, meta):\n    {line}\n") == failure


def test_a_subclass_of_retry_error_is_one():
    source = "class Busy(RetryError):\n    pass\ndef onEvent(event, meta):\n    raise Busy('later')\n"
    assert failure_of(source) == ["retry", "Busy: later", 4, True]
    source = "class Down(FetchError):\n    pass\ndef onEvent(event, meta):\n    raise Down('later')\n"
    assert failure_of(source) == ["app", "Down: later", 4, True]


def test_a_setup_that_asks_for_another_try_says_so():
    child = Child("def setupPlugin(meta):\n    raise RetryError('warming up')\n")
    child.invoke(1, "setupPlugin")
    assert child.done[0][1] == ["retry", "RetryError: warming up", 2, True]


def test_a_retry_error_in_the_chain_is_a_failure_of_that_app():
    child = Child("def processEvent(event, meta):\n    raise RetryError('busy')\n")
    child.run(("x", "ada", 1))
    assert child.rows[0][7]["failed"] == [[1, "retry", "RetryError: busy", 2, True]]


def test_whether_an_error_is_worth_another_try():
    assert is_retryable(RetryError())
    assert is_retryable(FetchError())
    assert not is_retryable(refused("private"))
    assert not is_retryable(ValueError())

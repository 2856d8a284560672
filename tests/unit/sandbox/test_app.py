"""Loading an install: its hooks are found, and what is wrong with it is said to its author."""

from __future__ import annotations

from typing import Any

import pytest

from sandbox.app import App, load_app
from sandbox.invocation import Context, HostCall
from sandbox.page import Page

HOOK = "def {0}(event, meta):\n    return event\n"


def load(source: str, failed: list[Any] | None = None) -> App:
    install = {"id": 39, "name": "Test", "file_name": "main.py", "source": source, "config": {}, "failed": failed}
    return load_app(install, {}, Context(lambda *_: HostCall(), Page()), 100, "1")


def test_hooks_are_found_by_both_spellings():
    app = load(HOOK.format("process_event") + HOOK.format("onEvent") + "def setup_plugin(meta):\n    pass\n")
    assert app.error is None
    assert set(app.hooks) == {"processEvent", "onEvent", "setupPlugin"}
    assert app.label == "Test (39)"


def test_hooks_may_be_async():
    assert set(load("async def process_event(event, meta):\n    return event\n").hooks) == {"processEvent"}


JOB = "def work(payload, meta):\n    pass\n"


def test_jobs_are_found_as_hooks_by_the_names_they_were_given():
    app = load(JOB + "async def other(payload, meta):\n    pass\njobs = {'sendMail': work, 'é \\ud800': other}\n")
    assert app.error is None
    assert set(app.hooks) == {"jobs.sendMail", "jobs.é \ufffd"}


@pytest.mark.parametrize("jobs", ["5", "[1]", "{}", "{'a': 5}", "'jobs'", "None"])
def test_a_variable_that_happens_to_be_called_jobs_is_the_apps_own(jobs):
    app = load(f"jobs = {jobs}\n" + HOOK.format("processEvent"))
    assert app.error is None
    assert set(app.hooks) == {"processEvent"}


@pytest.mark.parametrize(
    ("jobs", "message"),
    [
        ("{'a': work, 'b': 5}", "'b' must be a function"),
        ("{5: work}", "must be text"),
        ("{'': work}", "must be text"),
        ("{'n' * 101: work}", "at most 100 characters"),
        ("{str(number): work for number in range(101)}", "at most 100"),
        ("{'a\\0b': work}", "none of them NUL"),
    ],
)
def test_jobs_that_cannot_be_called_by_name_are_said_to_the_author(jobs, message):
    app = load(f"{JOB}jobs = {jobs}\n")
    assert app.error is not None
    assert (app.error.kind, app.hooks) == ("app", {})
    assert message in app.error.message


def test_a_hundred_jobs_are_allowed():
    app = load(JOB + "jobs = {str(number).rjust(100, 'n'): work for number in range(100)}\n")
    assert app.error is None
    assert len(app.hooks) == 100


@pytest.mark.parametrize(
    ("source", "kind", "message", "line"),
    [
        (HOOK.format("processEvent") + HOOK.format("process_event"), "app", "keep one", None),
        ("processEvent = 5\n", "app", "must be a function", None),
        ("def processEvent(event, meta)\n    return event\n", "compile", "", 1),
        ("x = 1\nimport os\n", "compile", "os", 2),
        ("x = 1\n\nraise ValueError('at load')\n", "app", "ValueError: at load", 3),
        ("posthog.capture('x')\n", "app", "only while a hook runs", 1),
        ("sleep(1)\n", "app", "only while a hook runs", 1),
        ("raise ValueError('\\ud800')\n", "app", "\ufffd", 1),
        ("raise LimitExceeded('mine')\n", "limit", "mine", 1),
        ("raise MemoryError()\n", "memory", "MemoryError", 1),
        ("\x00", "compile", "", None),
    ],
)
def test_what_is_wrong_with_an_app_is_said_with_its_line(source, kind, message, line):
    app = load(source)
    assert app.error is not None
    assert app.error.kind == kind
    assert message in app.error.message
    assert line is None or app.error.line == line
    assert not app.hooks


def test_an_app_that_killed_its_sandbox_is_not_tried_again():
    app = load("raise ValueError('again')\n", ["timeout", "took too long", 4, False])
    assert app.error is not None
    assert app.error.as_list() == ["timeout", "took too long", 4, False]


def test_a_long_message_is_cut():
    error = load("raise ValueError('x' * 5_000)\n").error
    assert error is not None
    assert len(error.message) == 1_000


def test_an_app_without_hooks_loads():
    app = load("x = 1\n")
    assert app.error is None
    assert app.hooks == {}

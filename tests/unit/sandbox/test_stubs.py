"""What sandbox/stubs/ says of an app's names is what there is, no more and no less, with the same parameters."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from typing import Any

import pytest

from docs.stub_pages import Stub, app_reference_page, parameters, read_stubs
from sandbox.globals.given import given_globals
from sandbox.globals.jobs import Jobs
from sandbox.globals.meta import make_meta
from sandbox.globals.metrics import Metrics
from sandbox.globals.named import declare
from sandbox.globals.response import Response
from sandbox.invocation import Context, HostCall
from sandbox.page import Page
from sandbox.wire import APP_HOOKS

GIVEN, HOOKS = read_stubs()
_CONTEXT = Context(lambda *_: HostCall(), Page())
_ATTACHMENT = {"content_type": "text/plain", "file_name": "a", "contents": b""}


def everything() -> dict[str, Any]:
    """An object of each class in the stubs, by its name there."""
    jobs, metrics = Jobs(_CONTEXT, 1), Metrics(_CONTEXT, 1)
    declare(jobs, {"work": ""})
    declare(metrics, {"n": "sum"})
    names = given_globals(1, _CONTEXT, 100, "1")
    meta: Any = make_meta(1, _CONTEXT, {}, {"a": _ATTACHMENT}, jobs, metrics)
    response = Response({"status": 200, "headers": {}, "url": "x", "body": {"text": ""}})
    posthog: Any = names["posthog"]
    return {
        "Posthog": posthog,
        "Api": posthog.api,
        "Console": names["console"],
        "Response": response,
        "Headers": response.headers,
        "Meta": meta,
        "Attachment": meta.attachments["a"],
        "Storage": meta.storage,
        "Cache": meta.cache,
        "Jobs": jobs,
        "Job": meta.jobs.work(),
        "Metrics": metrics,
        "Metric": meta.metrics.n,
        "Geoip": meta.geoip,
        "Utils": meta.utils,
        "Cursor": meta.utils.cursor,
    }


EVERYTHING = everything()
_SHAPES = {"ApiOptions", "FetchOptions", "MakesJob"}
"""Classes for type checkers alone"""


def methods(stub: Stub) -> Iterator[Any]:
    for kind in EVERYTHING:
        for name, function, _, _ in stub.members(kind):
            if function is not None:
                yield pytest.param(kind, name, parameters(function), id=f"{kind}.{name}")


def test_the_names_that_an_app_is_given_are_those_of_the_stubs():
    errors = {name for name in GIVEN.classes if name.endswith(("Error", "Exceeded"))}
    values = {name for name, (kind, _) in GIVEN.names.items() if kind != "TypeAlias"}
    assert given_globals(1, _CONTEXT, 100, "1").keys() == errors | values | GIVEN.functions.keys()
    assert GIVEN.classes.keys() == EVERYTHING.keys() | errors | _SHAPES


@pytest.mark.parametrize("kind", EVERYTHING)
def test_an_object_has_what_its_stub_has(kind):
    there = {name for name in dir(EVERYTHING[kind]) if not name.startswith("_")}
    if kind == "Meta":
        there.remove("global")  # a keyword: there by item alone
    assert there == {name for name, *_ in GIVEN.members(kind)}


@pytest.mark.parametrize(("kind", "name", "expected"), list(methods(GIVEN)))
def test_a_method_takes_what_its_stub_takes(kind, name, expected):
    assert list(inspect.signature(getattr(EVERYTHING[kind], name)).parameters) == expected


def test_functions_take_what_their_stubs_take():
    names = given_globals(1, _CONTEXT, 100, "1")
    for name, function in GIVEN.functions.items():
        found: Any = names[name]
        assert list(inspect.signature(found).parameters) == parameters(function)


def test_the_hooks_are_those_of_the_stubs():
    assert list(HOOKS.functions) == list(APP_HOOKS)
    assert set(HOOKS.names) == {"Event", "jobs", "metrics"}


def test_everything_in_the_stubs_is_described():
    for stub in (GIVEN, HOOKS):
        undescribed = [name for name, function in stub.functions.items() if not _text(function)]
        assert undescribed == []
    for kind in EVERYTHING:
        assert _text(GIVEN.classes[kind]), kind
        for name, _, member_kind, text in GIVEN.members(kind):
            assert text or member_kind in EVERYTHING, f"{kind}.{name}"


def test_the_reference_names_everything_in_the_stubs():
    page = app_reference_page()
    for name in (*GIVEN.functions, *HOOKS.functions):
        assert f"`{name}(" in page
    for kind in EVERYTHING:
        for name, function, member_kind, _ in GIVEN.members(kind):
            shown = f".{name}(" if function is not None else f".{name}`"
            assert shown in page, f"{kind}.{name} ({member_kind})"
    for name in ("RetryError", "FetchError", "LimitExceeded"):
        assert f"| `{name}` |" in page


def _text(node: Any) -> str:
    return ast.get_docstring(node) or ""

from __future__ import annotations

from typing import Any

import pytest

from plugin_server.host_api.calls import Handler, HostApi
from plugin_server.host_api.effects import RunEffects
from plugin_server.model.errors import AppError
from plugin_server.model.origin import Origin
from plugin_server.model.project import App, Install, Project
from plugin_server.runtime.replies import HostCallRequest


def request(name: str, arguments: list[Any]) -> HostCallRequest:
    return HostCallRequest(1, 1, 1, 0, name, arguments)


PROJECT = Project(2, "Acme", "phc_acme", (Install(1, App("A", "v", "main.py", "", {}), 1, {}),))


async def answer(handlers: dict[str, Handler], name: str, arguments: list[Any]) -> Any:
    effects = RunEffects(PROJECT, Origin("s", "u", "processEvent"))
    return await HostApi(handlers).answer(PROJECT, effects, request(name, arguments))


async def test_sleep_answers_nothing():
    assert await answer({}, "sleep", [0]) is None


async def test_a_handler_is_told_who_calls():
    async def whoami(context, arguments):
        return [context.project.id, context.install.id, context.number, *arguments]

    assert await answer({"whoami": whoami}, "whoami", ["x"]) == [2, 1, 0, "x"]


def test_answers_from_outside_are_those_that_a_buffer_does_not_hold():
    names = ["fetch", "api", "sleep", "cache.incr", "storage.get", "jobs.enqueue", "metrics"]
    assert [name for name in names if HostApi({}).is_outside(name)] == ["fetch", "api", "sleep", "cache.incr"]


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("sleep", []),
        ("sleep", [-1]),
        ("sleep", [3601]),
        ("sleep", ["1"]),
        ("sleep", [1, 2]),
        ("sleep", [None]),
        ("x" * 999, []),
    ],
)
async def test_what_the_host_cannot_do_is_the_apps_error(name, arguments):
    with pytest.raises(AppError, match=r"cannot do|sleep: seconds must be") as caught:
        await answer({}, name, arguments)
    assert len(str(caught.value)) < 100

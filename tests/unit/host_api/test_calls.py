from __future__ import annotations

from typing import Any

import pytest

from plugin_server.host_api.calls import HostApi
from plugin_server.model.errors import AppError
from plugin_server.runtime.replies import HostCallRequest


def request(name: str, arguments: list[Any]) -> HostCallRequest:
    return HostCallRequest(1, 1, 1, 0, name, arguments)


async def test_sleep_answers_nothing():
    assert await HostApi().answer(2, request("sleep", [0])) is None


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
    with pytest.raises(AppError, match="cannot do") as caught:
        await HostApi().answer(2, request(name, arguments))
    assert len(str(caught.value)) < 100

"""Clients for the network tests: names resolve to what a test says, never to anything outside this machine."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from plugin_server.host_api.egress import EgressRules, PrivateAccess, private_access
from plugin_server.host_api.http_client import AiohttpClient, HttpRequest, HttpResponse

LOCAL = private_access(["*.example"])
"""Names below .example may resolve to private addresses."""


class Names:
    """A resolver. A list of answers is given one after another, the last one for ever."""

    def __init__(self, **names: list[list[str]]) -> None:
        self.names = names
        self.asked: list[str] = []

    async def __call__(self, host: str) -> list[str]:
        self.asked.append(host)
        answers = self.names.get(host.split(".", maxsplit=1)[0], [["127.0.0.1"]])
        return answers.pop(0) if len(answers) > 1 else answers[0]


@contextlib.asynccontextmanager
async def http_client(**arguments: Any) -> AsyncIterator[AiohttpClient]:
    client = AiohttpClient(**{"resolve": Names(), "total_seconds": 30.0, **arguments})
    try:
        yield client
    finally:
        await client.close()


async def send(
    client: AiohttpClient,
    url: str,
    method: str = "GET",
    *,
    headers: dict[str, str] | None = None,
    body: bytes = b"",
    access: PrivateAccess = LOCAL,
    rules: EgressRules | None = None,
) -> HttpResponse:
    return await client.send(
        HttpRequest(method, url, headers or {}, body, "key-1"), rules or EgressRules(7, None, access)
    )

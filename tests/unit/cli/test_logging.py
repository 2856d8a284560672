"""What is logged of clients' faults: little, and nothing of what they sent."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import sys
from collections.abc import Iterator

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from plugin_server.cli.logging import set_up_logging
from plugin_server.settings import LogFormat, LogLevel

BAD_REQUESTS = [
    b"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer phx_secret\x01\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nAuthorization : Bearer phx_secret\r\n\r\n",
    b"GET /?token=phx_secret\xff HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\nContent-Length: 10\r\n\r\nphx_secret",
]


@pytest.fixture
def output(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    root, own, aiohttp_server = (
        logging.getLogger(),
        logging.getLogger("plugin_server"),
        logging.getLogger("aiohttp.server"),
    )
    before = root.handlers[:], root.level, own.level
    written = io.StringIO()
    monkeypatch.setattr(sys, "stderr", written)
    set_up_logging(LogLevel.INFO, LogFormat.JSON)
    yield written
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    own.setLevel(before[2])
    aiohttp_server.filters.clear()


async def ask(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    answer = await reader.read()
    writer.close()
    return answer


async def test_what_is_not_http_is_a_warning_without_what_was_sent(output: io.StringIO):
    async def handle(request: web.Request) -> web.Response:
        try:
            await request.read()
        except web.RequestPayloadError:
            return web.Response(status=400)
        return web.Response()

    app = web.Application()
    app.router.add_route("*", "/", handle)
    async with TestServer(app) as server:
        assert server.port is not None
        for request in BAD_REQUESTS * 3:
            assert b" 400 " in (await ask(server.port, request)).split(b"\r\n")[0]
    lines = [json.loads(line) for line in output.getvalue().splitlines()]
    assert 1 <= len(lines) <= 2
    assert {line["level"] for line in lines} == {"warning"}
    assert all("is not HTTP" in line["event"] for line in lines)
    assert "phx_secret" not in output.getvalue()
    assert "Traceback" not in output.getvalue()


async def test_a_fault_of_ours_keeps_its_traceback(output: io.StringIO):
    async def handle(_request: web.Request) -> web.Response:
        raise RuntimeError("ours")

    app = web.Application()
    app.router.add_get("/", handle)
    async with TestServer(app) as server:
        assert server.port is not None
        assert b" 500 " in (await ask(server.port, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))[:20]
    (line,) = map(json.loads, output.getvalue().splitlines())
    assert line["level"] == "error"
    assert "RuntimeError: ours" in line["exception"]

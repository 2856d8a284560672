"""Destinations of deliveries: real HTTP servers in the test's process, that can be told to hang or to fail."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
from aiohttp import web

from tests.server import free_port


class Destination:
    """Takes POSTs of JSON. `mode` is `work`, `fail` (answers 500) or `hang` (answers nothing)."""

    def __init__(self) -> None:
        self.mode = "work"
        self.port = free_port()
        self.calls = 0
        self.bodies: list[Any] = []
        """What it took"""
        self.keys: list[str] = []
        """Their Idempotency-Keys"""
        self.times: list[float] = []
        """When, on time.monotonic"""
        self.back = asyncio.Event()
        """Ends what hangs"""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def numbers(self) -> Counter[int]:
        """How often it took each event, by `n` of its properties; of batches, of each event in them."""
        events = [event for body in self.bodies for event in (body if type(body) is list else [body])]
        return Counter(event["properties"]["n"] for event in events)

    def work(self) -> None:
        """Answer again, also what hangs: those are cut off."""
        self.mode = "work"
        self.back.set()

    async def answer(self, request: web.Request) -> web.Response:
        self.calls += 1
        body = orjson.loads(await request.read())
        if self.mode == "hang":
            await self.back.wait()
            return web.Response(status=503)
        if self.mode == "fail":
            return web.Response(status=500)
        self.bodies.append(body)
        self.keys.append(request.headers.get("Idempotency-Key", ""))
        self.times.append(time.monotonic())
        return web.json_response({})


@asynccontextmanager
async def destinations(count: int) -> AsyncIterator[list[Destination]]:
    """So many, serving."""
    made = [Destination() for _ in range(count)]
    runners = []
    for destination in made:
        application = web.Application(client_max_size=64 * 2**20)
        application.router.add_post("/", destination.answer)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", destination.port).start()
        runners.append(runner)
    try:
        yield made
    finally:
        for destination in made:
            destination.work()
        for runner in runners:
            await runner.cleanup()


def sends_each(url: str) -> str:
    """An app that sends each event, and asks for another try when that fails."""
    return f"""
async def onEvent(event, meta):
    response = await fetch({url!r}, method='POST', json=event)
    if not response.ok:
        raise RetryError('answered ' + str(response.status))
"""


def sends_batches(url: str) -> str:
    """An app that sends batches."""
    return f"""
async def exportEvents(events, meta):
    response = await fetch({url!r}, method='POST', json=events)
    if not response.ok:
        raise RetryError('answered ' + str(response.status))
"""


def composes(url: str) -> str:
    """An app whose requests the host makes."""
    return f"""
def composeWebhook(event, meta):
    if event['event'] == 'not this one':
        return None
    return {{'url': {url!r}, 'body': event}}
"""

"""An HTTP server of which a test decides every byte."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True)
class Received:
    """One request; header names in lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


Answer = Callable[[Received, asyncio.StreamWriter], Awaitable[None]]


class RawServer:
    """Listens on 127.0.0.1. `answer` writes what is sent back; a connection lives until it, or the client, ends it."""

    def __init__(self, answer: Answer | None = None, ssl_context: ssl.SSLContext | None = None) -> None:
        self.answer: Answer = answer or reply(200, b"{}")
        self.requests: list[Received] = []
        self.connections = 0
        self.port = 0
        self.gone = asyncio.Event()
        """Set when a connection has ended"""
        self._ssl = ssl_context
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._ssl)
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def url(self, path: str = "/", host: str = "a.example") -> str:
        return f"http://{host}:{self.port}{path}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while True:
                received = await _read(reader)
                self.requests.append(received)
                await self.answer(received, writer)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            self.gone.set()
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def _read(reader: asyncio.StreamReader) -> Received:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.rstrip("\r\n").split("\r\n")
    method, target, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Received(method, target, headers, body)


def head(status: int, headers: Iterable[tuple[str, str]]) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
    return f"HTTP/1.1 {status} x\r\n{lines}\r\n".encode("latin-1")


def reply(status: int, body: bytes = b"", **headers: str) -> Answer:
    """Always this."""
    fields = [(name.replace("_", "-"), value) for name, value in headers.items()]
    whole = head(status, [("Content-Length", str(len(body))), *fields]) + body

    async def answer(received: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(whole if received.method != "HEAD" else whole[: len(whole) - len(body)])

    return answer


def raw(whole: bytes, *, ends: bool = True) -> Answer:
    """These bytes, and then the end of the connection or silence."""

    async def answer(_received: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(whole)
        await writer.drain()
        if ends:
            writer.close()

    return answer


def endless(start: bytes, more: bytes, pause_seconds: float = 0.0) -> Answer:
    """`more` again and again, until the client is gone."""

    async def answer(_received: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(start)
        while True:
            writer.write(more)
            await writer.drain()
            await asyncio.sleep(pause_seconds)

    return answer


def redirect(location: str, status: int = 302) -> Answer:
    return reply(status, b"go there", Location=location)

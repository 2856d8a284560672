"""Follows the output for a person: each event before and after, by a Unix socket in the data directory.

The socket's mode is 0600, so only the server's own user reads events through it. Nothing is traced while nobody follows.

Rejected: an HTTP path on the public port (events would be one proxy rule away from the world), and reading the topics
(they do not say which app changed what).
"""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from pathlib import Path
from typing import Any, Final

import orjson
from aiohttp import web

QUEUE_ENTRIES: Final = 2_000
_SOCKET_PATH_BYTES: Final = 100
"""Unix socket paths end at 108"""


def tail_socket_path(data_dir: Path) -> Path:
    """Where the server of this data directory listens, and `plugin-server tail` connects."""
    path = data_dir.absolute() / "tail.sock"
    if len(str(path).encode()) <= _SOCKET_PATH_BYTES:
        return path
    digest = hashlib.sha256(str(path).encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"plugin-server-{digest}.sock"


class TailHub:
    """Hands each entry to all who follow. One who is too slow misses entries, and is told how many."""

    def __init__(self) -> None:
        self._queues: dict[asyncio.Queue[dict[str, Any] | None], int] = {}

    @property
    def following(self) -> bool:
        return bool(self._queues)

    def close(self) -> None:
        """The server stops: let all followers go."""
        for queue in self._queues:
            while queue.full():
                queue.get_nowait()
            queue.put_nowait(None)

    def publish(self, entry: dict[str, Any]) -> None:
        """Never blocks."""
        for queue in self._queues:
            if queue.full():
                self._queues[queue] += 1
            else:
                queue.put_nowait(entry)

    def follow(self) -> asyncio.Queue[dict[str, Any] | None]:
        queue: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue(QUEUE_ENTRIES)
        self._queues[queue] = 0
        return queue

    def unfollow(self, queue: asyncio.Queue[dict[str, Any] | None]) -> None:
        del self._queues[queue]

    def take_missed(self, queue: asyncio.Queue[dict[str, Any] | None]) -> int:
        missed, self._queues[queue] = self._queues[queue], 0
        return missed


def tail_routes(hub: TailHub) -> list[web.RouteDef]:
    """`GET /` streams entries, one JSON object a line, until the client goes."""

    async def follow(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        queue = hub.follow()
        try:
            await response.prepare(request)
            await response.write(b'{"kind":"following"}\n')
            while True:
                entry = await queue.get()
                if entry is None:
                    return response
                missed = hub.take_missed(queue)
                if missed:
                    await response.write(orjson.dumps({"kind": "missed", "count": missed}) + b"\n")
                await response.write(orjson.dumps(entry) + b"\n")
        except ConnectionResetError:
            return response
        finally:
            hub.unfollow(queue)

    return [web.get("/", follow)]

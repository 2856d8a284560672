"""One sandbox process as the host sees it: frames in and out of its socket, and the page that it writes."""

from __future__ import annotations

import asyncio
import mmap
import time
from collections.abc import Callable
from typing import Final, NamedTuple, cast

from plugin_server.model.errors import ProtocolViolation
from plugin_server.runtime.fork_server import SandboxHandle
from sandbox.wire import BLOB_LIMIT_BYTES, HEAD_LIMIT_BYTES, HEADER, PAGE_BYTES, FrameKind, Word, encode_frame

_CPUCLOCK_SCHED: Final = 2

FrameHandler = Callable[[int, bytes, bytes], None]


class Running(NamedTuple):
    """What the page says: whose code runs now, if any's."""

    in_app: bool
    sequence: int
    install_id: int
    hook: int
    invocations: int
    line: int


class SandboxProcess(asyncio.Protocol):
    """Frames over the socket of one child.

    `on_frame(kind, head, blob)` is called for each whole frame; when it raises ProtocolViolation, or the frame is out
    of bounds, the child is killed. `on_lost(reason)` is called once, when the socket has closed.
    """

    def __init__(self, handle: SandboxHandle, on_frame: FrameHandler, on_lost: Callable[[str], None]) -> None:
        self._handle = handle
        self._on_frame = on_frame
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._needed = HEADER.size
        self._page = mmap.mmap(handle.page, PAGE_BYTES, prot=mmap.PROT_READ)
        self._words = memoryview(self._page).cast("I")
        self._kill_reason: str | None = None

    async def open(self) -> None:
        """Begin to read."""
        loop = asyncio.get_running_loop()
        await loop.create_unix_connection(lambda: self, sock=self._handle.connection)

    def send(self, kind: FrameKind, head: bytes, blob: bytes = b"") -> None:
        """Write a frame. What is sent to a child that has died is lost, as `on_lost` will say."""
        if self._transport is not None:
            self._transport.write(encode_frame(kind, head, blob))

    def kill(self, reason: str) -> None:
        """End the process; `on_lost` follows."""
        if self._kill_reason is None:
            self._kill_reason = reason
        self._handle.kill()
        if self._transport is not None:
            self._transport.abort()

    @property
    def pid(self) -> int:
        return self._handle.pid

    def running(self) -> Running:
        """What runs in it now, as it says itself: good for blame, not for trust."""
        words = self._words
        return Running(
            bool(words[Word.STATE]),
            words[Word.SEQUENCE],
            words[Word.INSTALL],
            words[Word.HOOK],
            words[Word.INVOCATIONS],
            words[Word.LINE],
        )

    def cpu_seconds(self) -> float:
        """CPU time that it has used; 0 once it has ended."""
        try:
            return time.clock_gettime((~self._handle.pid << 3) | _CPUCLOCK_SCHED)
        except OSError:
            return 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own does not derive from asyncio's

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        if len(buffer) < self._needed:
            return
        start = 0
        try:
            while len(buffer) - start >= HEADER.size:
                kind, head_length, blob_length = HEADER.unpack_from(buffer, start)
                if head_length > HEAD_LIMIT_BYTES or blob_length > BLOB_LIMIT_BYTES:
                    raise ProtocolViolation(f"a frame of {head_length} + {blob_length} bytes")
                end = start + HEADER.size + head_length + blob_length
                if len(buffer) < end:
                    self._needed = end - start
                    break
                split = start + HEADER.size + head_length
                with memoryview(buffer) as view:
                    head, blob = bytes(view[start + HEADER.size : split]), bytes(view[split:end])
                start = end
                self._needed = HEADER.size
                self._on_frame(kind, head, blob)
        except ProtocolViolation as violation:
            buffer.clear()
            self.kill(f"protocol violation: {violation}")
            return
        if start:
            del buffer[:start]

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._transport = None
        self._handle.kill()
        running_reason = self._kill_reason or "it ended by itself"
        self._on_lost(running_reason)

    def release(self) -> None:
        """Give the page and the descriptors back, once it is lost."""
        self._words.release()
        self._page.close()
        self._handle.release()

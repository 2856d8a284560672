"""One sandbox process as the host sees it: frames in and out of its socket, and the page that it writes."""

from __future__ import annotations

import asyncio
import mmap
import re
import signal
import time
from collections.abc import Callable
from typing import Final, NamedTuple, cast

from plugin_server.model.errors import ProtocolViolation
from plugin_server.runtime.fork_server import SandboxHandle
from sandbox.wire import (
    BLOB_LIMIT_BYTES,
    HEAD_LIMIT_BYTES,
    HEADER,
    OUT_OF_MEMORY_STATUS,
    PAGE_BYTES,
    FrameKind,
    Word,
    encode_frame,
)

_CPUCLOCK_SCHED: Final = 2
_EXIT_SECONDS: Final = 1.0
"""After its socket has closed, the fork server has this long to tell what it died of"""

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
    of bounds, the child is killed. `on_ended(reason)` is called once, when the socket has closed and the fork server
    has told what the process died of.
    """

    def __init__(self, on_frame: FrameHandler, on_ended: Callable[[str], None]) -> None:
        self._on_frame = on_frame
        self._on_ended = on_ended
        self._handle: SandboxHandle | None = None
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._needed = HEADER.size
        self._page: mmap.mmap | None = None
        self._words = memoryview(bytes(PAGE_BYTES)).cast("I")
        self._kill_reason: str | None = None
        self._closed = False
        self._status: int | None = None
        self._is_reaped = False
        self._has_violated = False
        self._overdue: asyncio.TimerHandle | None = None

    async def open(self, handle: SandboxHandle) -> None:
        """Begin to read. `exited` has to be told of its end. Raises OSError."""
        self._handle = handle
        self._page = mmap.mmap(handle.page, PAGE_BYTES, prot=mmap.PROT_READ)
        self._words = memoryview(self._page).cast("I")
        loop = asyncio.get_running_loop()
        await loop.create_unix_connection(lambda: self, sock=handle.connection)

    def exited(self, status: int | None) -> None:
        """The process has ended: an exit code, or minus a signal's number; None when it went with the fork server."""
        self._status = status
        self._is_reaped = True
        self._end_if_over()

    def send(self, kind: FrameKind, head: bytes, blob: bytes = b"") -> None:
        """Write a frame. What is sent to a child that has died is lost, as `on_lost` will say."""
        if self._transport is not None:
            self._transport.write(encode_frame(kind, head, blob))

    def kill(self, reason: str) -> None:
        """End the process; `on_lost` follows."""
        if self._kill_reason is None:
            self._kill_reason = reason
        if self._handle is not None:
            self._handle.kill()
        if self._transport is not None:
            self._transport.abort()

    def line(self, install_id: int) -> int | None:
        """The innermost line of that install's code that runs now, as the child says itself. Blocks for some milliseconds."""
        trace = self._handle.trace() if self._handle is not None else ""
        found = re.search(rf'File "<{install_id}>/[^"\n]*", line (\d{{1,9}})', trace)
        return int(found[1]) if found else None

    @property
    def in_mid_frame(self) -> bool:
        """It has begun a frame and not ended it."""
        return bool(self._buffer)

    @property
    def pid(self) -> int | None:
        return self._handle.pid if self._handle is not None else None

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
        if self._handle is None:
            return 0.0
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
            self._has_violated = True
            self.kill(f"protocol violation: {violation}")
            return
        if start:
            del buffer[:start]

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._transport = None
        self._closed = True
        assert self._handle is not None
        self._handle.kill()
        self._overdue = asyncio.get_running_loop().call_later(_EXIT_SECONDS, self._end)
        self._end_if_over()

    def _end_if_over(self) -> None:
        if self._closed and self._is_reaped:
            self._end()

    def _end(self) -> None:
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None
            self._on_ended(f"{self._kill_reason or 'it ended by itself'} ({self.cause})")

    @property
    def is_its_own_doing(self) -> bool:
        """It ended by itself, or said what it must not.

        It was not killed by somebody else or for want of memory on the host, nor lost with the fork server.
        """
        by_itself = self._kill_reason is None and self._status not in (None, -signal.SIGKILL, -signal.SIGTERM)
        return by_itself or self._has_violated

    @property
    def has_ended(self) -> bool:
        """Its socket has closed."""
        return self._closed

    @property
    def ran_out_of_memory(self) -> bool:
        """It ended itself because an app kept all the memory that there was."""
        return self._status == OUT_OF_MEMORY_STATUS

    @property
    def cause(self) -> str:
        """What it died of, in words."""
        status = self._status
        if status is None:
            return "no cause is known"
        if self.ran_out_of_memory:
            return "an app used up the memory (memory_bytes)"
        if status >= 0:
            return f"it exited with status {status}"
        match -status:
            case signal.SIGSYS:
                return "SIGSYS, a system call that apps must not make"
            case signal.SIGKILL:
                return "SIGKILL, by the server or for want of memory on the host"
            case signal.SIGSEGV | signal.SIGBUS | signal.SIGABRT | signal.SIGILL | signal.SIGFPE as number:
                return f"{signal.Signals(number).name}, the interpreter crashed"
            case number:
                return f"signal {number}"

    def release(self) -> None:
        """Give the page and the descriptors back, once it is lost."""
        self._words.release()
        if self._page is not None:
            self._page.close()
        if self._handle is not None:
            self._handle.release()

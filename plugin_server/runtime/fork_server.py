"""The host's end of the fork server: starts it, asks it for sandboxes, starts it again when it dies."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import orjson
import structlog

from plugin_server.model.errors import SandboxUnavailable
from sandbox.wire import PAGE_BYTES

_SPAWN_SECONDS: Final = 10.0
_MESSAGE_BYTES: Final = 4096
_BUFFER_BYTES: Final = 4 * 2**20
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class SandboxHandle:
    """A forked child: its process, the socket to it, the page that it writes (a descriptor to map)."""

    pid: int
    pidfd: int
    connection: socket.socket
    page: int

    def kill(self) -> None:
        """End the process at once. By descriptor, so never another process that got its number."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def release(self) -> None:
        """Give the descriptors back."""
        self.connection.close()
        os.close(self.pidfd)
        os.close(self.page)


class ForkServer:
    """One exec'ed, clean process that forks sandboxes. It dies with the host, and its sandboxes with it."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._control: socket.socket | None = None
        self._answer: asyncio.Future[tuple[int, int]] | None = None
        self._exit_callbacks: dict[int, Callable[[int], None]] = {}
        self._lock = asyncio.Lock()

    async def start(self) -> None:
        """Start the process. Raises SandboxUnavailable."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-I",
                "-m",
                "sandbox.fork_server",
                str(theirs.fileno()),
                env={},
                cwd="/",
                pass_fds=(theirs.fileno(),),
                stdin=asyncio.subprocess.DEVNULL,
            )
        except OSError as error:
            ours.close()
            raise SandboxUnavailable(f"the fork server cannot be started: {error}") from error
        finally:
            theirs.close()
        ours.setblocking(False)
        self._control = ours
        asyncio.get_running_loop().add_reader(ours.fileno(), self._read)

    async def spawn(self, memory_bytes: int, on_exit: Callable[[int], None]) -> SandboxHandle:
        """Fork a sandbox that may map `memory_bytes` more than the interpreter has.

        `on_exit(status)` is called once when it ends: an exit code, or minus a signal's number. Raises
        SandboxUnavailable; the fork server is then started again by the next call.
        """
        async with self._lock:
            if self._control is None:
                await self.start()
            ours, theirs = _make_connection()
            page = _make_page()
            try:
                pid, pidfd = await self._request(memory_bytes, theirs.fileno(), page)
            except (OSError, TimeoutError, EOFError) as error:
                ours.close()
                os.close(page)
                await self.stop()
                raise SandboxUnavailable(f"the fork server does not answer: {error!r}") from error
            finally:
                theirs.close()
            self._exit_callbacks[pid] = on_exit
            return SandboxHandle(pid, pidfd, ours, page)

    async def stop(self) -> None:
        """End the fork server and with it all sandboxes."""
        if self._control is not None:
            asyncio.get_running_loop().remove_reader(self._control.fileno())
            self._control.close()
            self._control = None
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    async def _request(self, memory_bytes: int, connection: int, page: int) -> tuple[int, int]:
        assert self._control is not None
        self._answer = asyncio.get_running_loop().create_future()
        socket.send_fds(self._control, [orjson.dumps({"fork": memory_bytes})], [connection, page])
        try:
            async with asyncio.timeout(_SPAWN_SECONDS):
                return await self._answer
        finally:
            self._answer = None

    def _read(self) -> None:
        assert self._control is not None
        try:
            raw, descriptors, _, _ = socket.recv_fds(self._control, _MESSAGE_BYTES, 1)
        except BlockingIOError:
            return
        except OSError:
            raw, descriptors = b"", []
        if not raw:
            self._lost()
            return
        message = orjson.loads(raw)
        if "pid" in message:
            if self._answer is not None and not self._answer.done():
                self._answer.set_result((message["pid"], descriptors[0]))
            return
        on_exit = self._exit_callbacks.pop(message["exited"], None)
        if on_exit is not None:
            on_exit(message["status"])

    def _lost(self) -> None:
        """It died; its sandboxes die with it, and each notices by its own socket."""
        assert self._control is not None
        _log.error("fork_server_died", remedy="it is started again; see the host's memory and process limits")
        asyncio.get_running_loop().remove_reader(self._control.fileno())
        self._control.close()
        self._control = None
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(EOFError("the fork server died"))
        callbacks, self._exit_callbacks = self._exit_callbacks, {}
        for on_exit in callbacks.values():
            on_exit(-signal.SIGKILL)


def _make_connection() -> tuple[socket.socket, socket.socket]:
    """Two ends that hold a batch's results, so that the child runs the next batch while the host is busy elsewhere."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    for end in ends:
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            end.setsockopt(socket.SOL_SOCKET, option, _BUFFER_BYTES)  # the kernel caps it
    return ends


def _make_page() -> int:
    if hasattr(os, "memfd_create"):
        page = os.memfd_create("sandbox-page", os.MFD_CLOEXEC)
    else:
        with tempfile.TemporaryFile() as file:
            page = os.dup(file.fileno())
    os.ftruncate(page, PAGE_BYTES)
    return page

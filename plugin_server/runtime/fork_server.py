"""The host's end of the fork server: starts it, asks it for sandboxes, starts it again when it dies."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson
import structlog

from plugin_server.model.errors import ConfigurationError, SandboxUnavailable
from sandbox.wire import PAGE_BYTES, TRACE_SIGNAL

_SPAWN_SECONDS: Final = 10.0
_TRACE_MILLISECONDS: Final = 20
_TRACE_BYTES: Final = 16 * 1024
_MESSAGE_BYTES: Final = 4096
_BUFFER_BYTES: Final = 4 * 2**20
_SECCOMP: Final = "seccomp"
_PROGRAM: Final = ("-m", "sandbox.fork_server")
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class SandboxHandle:
    """A forked child: its process, the socket to it, the page that it writes (a descriptor to map), the pipe of its traces."""

    pid: int
    pidfd: int
    connection: socket.socket
    page: int
    traces: int

    def kill(self) -> None:
        """End the process at once. By descriptor, so never another process that got its number."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def trace(self) -> str:
        """Where it is, innermost first, as it says itself; empty if it does not say so within some milliseconds, which this blocks."""
        with contextlib.suppress(OSError):
            signal.pidfd_send_signal(self.pidfd, TRACE_SIGNAL)
            poll = select.poll()
            poll.register(self.traces, select.POLLIN)
            if poll.poll(_TRACE_MILLISECONDS):
                time.sleep(0.001)  # the rest of it
                return os.read(self.traces, _TRACE_BYTES).decode("ascii", "replace")
        return ""

    def release(self) -> None:
        """Give the descriptors back."""
        self.connection.close()
        for descriptor in (self.pidfd, self.page, self.traces):
            os.close(descriptor)


@dataclass(frozen=True, slots=True)
class Confinement:
    """What confines sandboxes on this host, as the fork server found by trying (sandbox/self_test.py)."""

    results: tuple[tuple[str, str | None], ...]
    """What was tried, `mechanism` or `mechanism: call`, and why it is not well, or None"""
    landlock_abi: int
    user_id: int
    """Of sandboxes"""

    @property
    def problems(self) -> dict[str, str]:
        """By mechanism, the first that was found."""
        found: dict[str, str] = {}
        for tried, problem in self.results:
            if problem is not None:
                mechanism, _, call = tried.partition(": ")
                found.setdefault(mechanism, f"{call}: {problem}" if call else problem)
        return found

    def describe(self) -> str:
        """One line for the operator."""
        problems = self.problems
        shown = {
            "seccomp": "seccomp",
            "Landlock": f"Landlock (ABI {self.landlock_abi})",
            "no_new_privs": "no_new_privs",
            "rlimits": "rlimits",
            "user": f"uid {self.user_id}",
        }
        tried = {name.partition(": ")[0] for name, _ in self.results}
        working = ", ".join(text for name, text in shown.items() if name in tried and name not in problems)
        missing = "".join(f"; without {name} ({problem})" for name, problem in problems.items())
        return f"{working or 'unconfined'}{missing}"


class ForkServer:
    """One exec'ed, clean process that forks sandboxes. It dies with the host, and its sandboxes with it."""

    def __init__(self, *, allow_unconfined: bool = False, program: Sequence[str] = _PROGRAM) -> None:
        """`program`: arguments of `python -I`, before the number of the control socket.

        Only with `allow_unconfined` sandboxes are forked where seccomp does not work, then with all else that does.
        """
        self._allow_unconfined = allow_unconfined
        self._program = tuple(program)
        self._confinement: Confinement | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._control: socket.socket | None = None
        self._answers: dict[int, asyncio.Future[tuple[dict[str, Any], list[int]]]] = {}
        """What is asked, by number"""
        self._asked = 0
        self._exit_callbacks: dict[int, Callable[[int | None], None]] = {}
        self._lock = asyncio.Lock()

    @property
    def confinement(self) -> Confinement | None:
        """What the self-test found at the first start."""
        return self._confinement

    async def start(self) -> None:
        """Start the process, and at the first start try out what confines its children.

        Raises SandboxUnavailable, and ConfigurationError if seccomp does not work here, unless that is allowed.
        """
        await self._execute()
        if self._confinement is None:
            try:
                self._confinement = await self._try_confinement()
            except BaseException:
                await self.stop()
                raise

    async def _execute(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-I",
                *self._program,
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

    async def _try_confinement(self) -> Confinement:
        try:
            answer, _ = await self._ask({"self_test": True})
        except (OSError, TimeoutError, EOFError) as error:
            raise SandboxUnavailable(f"the fork server does not answer: {error!r}") from error
        report = answer["self_test"]
        confinement = Confinement(tuple(report["results"].items()), report["landlock_abi"], report["user_id"])
        problems = confinement.problems
        if _SECCOMP not in problems:
            if problems:
                _log.warning(
                    "sandbox_confinement_incomplete",
                    problems=problems,
                    remedy="seccomp holds without them; see the sandbox in docs/operations.md",
                )
            return confinement
        if not self._allow_unconfined:
            raise ConfigurationError(
                f"sandboxes cannot be confined: seccomp does not work on this host ({problems[_SECCOMP]}). Use Linux on "
                "x86_64 or aarch64 with CONFIG_SECCOMP_FILTER, and a container profile that allows prctl; or, to run only "
                "apps that you trust as you trust this server, set PLUGIN_SERVER_ALLOW_UNCONFINED_SANDBOX=true"
            )
        _log.warning(
            "sandbox_unconfined",
            problems=problems,
            remedy="apps can make any system call: run only such as you trust, or use a kernel with seccomp "
            "and remove PLUGIN_SERVER_ALLOW_UNCONFINED_SANDBOX",
        )
        return confinement

    async def spawn(self, memory_bytes: int, on_exit: Callable[[int | None], None]) -> SandboxHandle:
        """Fork a sandbox that may map `memory_bytes` more than the interpreter has.

        `on_exit(status)` is called once when it ends: an exit code, minus a signal's number, or None if it went with the fork server. Raises
        SandboxUnavailable; the fork server is then started again by the next call. Raises ConfigurationError as `start`.
        """
        async with self._lock:
            if self._control is None:
                await self.start()
            ours, theirs = _make_connection()
            page = _make_page()
            traces, written = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                message = {"fork": memory_bytes, "leave_out": self._left_out()}
                answer, (pidfd,) = await self._ask(message, theirs.fileno(), page, written)
            except asyncio.CancelledError:
                _close(ours, page, traces)
                raise
            except (OSError, TimeoutError, EOFError) as error:
                _close(ours, page, traces)
                await self.stop()
                raise SandboxUnavailable(f"the fork server does not answer: {error!r}") from error
            finally:
                theirs.close()
                os.close(written)
            pid = answer["pid"]
            self._exit_callbacks[pid] = on_exit
            return SandboxHandle(pid, pidfd, ours, page, traces)

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

    def _left_out(self) -> list[str]:
        """Only what is known not to work, so that a child in which it fails unforeseen does not run."""
        return [_SECCOMP] if self._confinement is not None and _SECCOMP in self._confinement.problems else []

    async def _ask(self, message: dict[str, Any], *descriptors: int) -> tuple[dict[str, Any], list[int]]:
        """Its answer, and the descriptors that came with it. Raises OSError, TimeoutError, EOFError."""
        assert self._control is not None
        self._asked += 1
        number = self._asked
        answer: asyncio.Future[tuple[dict[str, Any], list[int]]] = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        try:
            socket.send_fds(self._control, [orjson.dumps(message | {"number": number})], descriptors)
            async with asyncio.timeout(_SPAWN_SECONDS):
                return await answer
        finally:
            del self._answers[number]

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
        if "exited" not in message:
            answer = self._answers.get(message["number"])
            if answer is not None and not answer.done():
                answer.set_result((message, descriptors))
            else:
                _discard(descriptors)
            return
        if message["status"] == -signal.SIGSYS:
            _log.error(
                "sandbox_made_a_forbidden_call",
                pid=message["exited"],
                remedy="an app got out of the language's bounds and was stopped by seccomp: see which install "
                "sandbox_replaced names, remove it, and report how it did that",
            )
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
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(EOFError("the fork server died"))
        callbacks, self._exit_callbacks = self._exit_callbacks, {}
        for on_exit in callbacks.values():
            on_exit(None)


def _close(connection: socket.socket, *descriptors: int) -> None:
    connection.close()
    for descriptor in descriptors:
        os.close(descriptor)


def _discard(pidfds: Sequence[int]) -> None:
    """End sandboxes that nobody waits for any more."""
    for pidfd in pidfds:
        with contextlib.suppress(OSError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.close(pidfd)


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

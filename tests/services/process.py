"""A server for tests as a process of ours: a data directory and a port of its own, ended by its pid, restarted on both.

Where the tests run as root the server runs as another user: Postgres refuses root, and Redis has no need of it.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

START_SECONDS = 60.0


class ServiceUnavailableError(RuntimeError):
    """No such server can be started here; the message says what is missing."""


class LocalServer(ABC):
    """One server, its data gone after `close`. Raises ServiceUnavailableError."""

    name: ClassVar[str]
    users: ClassVar[tuple[str, ...]]
    """Who to be instead of root: the first that exists"""
    end_signal: ClassVar[signal.Signals]
    """Ends it in order, though clients are connected"""
    crash_signal: ClassVar[signal.Signals]
    """Ends it and all its children at once, with nothing tidied up"""

    def __init__(self) -> None:
        reason = self.why_unavailable()
        if reason is not None:
            raise ServiceUnavailableError(reason)
        self._directory = Path(tempfile.mkdtemp(prefix=f"{self.name.lower()}-for-tests-"))
        self._owner = _owner(self.users)
        if self._owner is not None:
            os.chown(self._directory, self._owner.pw_uid, self._owner.pw_gid)
        self._port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._is_prepared = False

    @classmethod
    @abstractmethod
    def why_unavailable(cls) -> str | None:
        """What is missing for such a server, None if nothing is."""

    @abstractmethod
    def _prepare(self) -> None:
        """Make the data directory, before the first start."""

    @abstractmethod
    def _command(self) -> Sequence[str]: ...

    @abstractmethod
    def _answers(self) -> bool:
        """Whether clients are served."""

    @property
    def pid(self) -> int | None:
        """Of the server's first process, None when it does not run."""
        return None if self._process is None else self._process.pid

    @property
    def _data(self) -> Path:
        return self._directory / "data"

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Start it, or start it again on the same port and data. Blocks until it answers."""
        if self._process is not None:
            message = f"{self.name} runs already"
            raise RuntimeError(message)
        if not self._is_prepared:
            self._prepare()
            self._is_prepared = True
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command(),
                cwd=self._directory,
                env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for pytest, which then ends the server by its pid
                user=None if self._owner is None else self._owner.pw_uid,
                group=None if self._owner is None else self._owner.pw_gid,
                extra_groups=None if self._owner is None else [],
            )
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            if self._answers():
                return
            time.sleep(0.02)
        message = f"{self.name} did not start within {START_SECONDS:g} s:\n{self.log_tail()}"
        raise ServiceUnavailableError(message)

    def stop(self) -> None:
        """Shut down in order; the data stays."""
        self._end(self.end_signal)

    def kill(self) -> None:
        """As a crash does it; the data stays."""
        self._end(self.crash_signal)

    def restart(self) -> None:
        """Crash and come back: same port, same data."""
        self.kill()
        self.start()

    def pause(self) -> None:
        """Freeze it: connections stay open and nothing answers."""
        self._signal_all(signal.SIGSTOP)

    def unpause(self) -> None:
        """Undo `pause`."""
        self._signal_all(signal.SIGCONT)

    def close(self) -> None:
        """End it and delete its data."""
        self.kill()
        shutil.rmtree(self._directory, ignore_errors=True)

    def log_tail(self, lines: int = 30) -> str:
        """The end of what the server printed."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-lines:]) if self._log.exists() else ""

    @property
    def _log(self) -> Path:
        return self._directory / "server.log"

    def _run(self, *command: str) -> None:
        """Run a tool as the server's user, to its end."""
        finished = subprocess.run(
            command,
            cwd=self._directory,
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8"},
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
            check=False,
            user=None if self._owner is None else self._owner.pw_uid,
            group=None if self._owner is None else self._owner.pw_gid,
            extra_groups=None if self._owner is None else [],
        )
        if finished.returncode:
            message = f"{command[0]} failed with status {finished.returncode}:\n{finished.stdout}{finished.stderr}"
            raise ServiceUnavailableError(message)

    def _signal_all(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        for pid in (self._process.pid, *_children(self._process.pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        self.unpause()
        process, self._process = self._process, None
        process.send_signal(number)
        try:
            process.wait(timeout=START_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _owner(users: Sequence[str]) -> pwd.struct_passwd | None:
    if os.geteuid() != 0:
        return None
    for user in (*users, "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(user)
    raise ServiceUnavailableError(f"root has none of the users {', '.join(users)}, nobody to run it as")


def _children(pid: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # pid (command) state ppid …, and the command may hold anything.
            if int(stat.read_text(errors="replace").rpartition(")")[2].split()[1]) == pid:
                found.append(int(stat.parent.name))
    return found


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])

"""Where attacks are performed: a pool whose apps are plain Python, a second project beside, and what they would like to get at."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

from plugin_server.host_api.calls import HostApi
from plugin_server.host_api.effects import RunEffects
from plugin_server.runtime.fork_server import ForkServer, SandboxHandle
from plugin_server.runtime.pool import SandboxPool
from tests.escape.process.attacks import EMPTY_HANDED, KILLED, attacking_app
from tests.sandbox.projects import Bench, Sink, project

PLAIN_FORK_SERVER = Path(__file__).with_name("plain_fork_server.py")
NOBODY = 65_534
PASSES = "def processEvent(event, meta):\n    event['properties']['passed'] = True\n    return event\n"
EVENTS, BAD = 5, 2
LIMITS = {"cpu_seconds": 0.3, "hook_seconds": 0.8, "memory_bytes": 100 * 2**20}


class WatchedForkServer(ForkServer):
    """Notes how each sandbox ended."""

    def __init__(self, program: tuple[str, ...]) -> None:
        super().__init__(program=program)
        self.ends: list[list[int]] = []
        """For each sandbox, in the order of their starts: its exit status, once it has one"""

    async def spawn(self, memory_bytes: int, on_exit: Callable[[int | None], None]) -> SandboxHandle:
        ended: list[int] = []
        self.ends.append(ended)

        def note(status: int) -> None:
            ended.append(status)
            on_exit(status)

        return await super().spawn(memory_bytes, note)


class Prey:
    """A secret file, listeners, shared memory and a process of the sandboxes' user. `changes` says what happened to them."""

    def __init__(self) -> None:
        self.secret = "s3cr3t-" + os.urandom(8).hex()
        self.directory = Path(tempfile.mkdtemp(prefix="prey-"))
        self.directory.chmod(0o777)
        self.secret_file = self.directory / "secret"
        self.secret_file.write_text(self.secret)
        self.secret_file.chmod(0o666)
        if (
            os.getuid() == 0
        ):  # to the sandboxes' user, so that only the ring stands between; an unprivileged host can tidy up
            os.chown(self.directory, NOBODY, NOBODY)
            os.chown(self.secret_file, NOBODY, NOBODY)
        os.environ["PREY_SECRET"] = self.secret
        self.tcp = socket.create_server(("127.0.0.1", 0))
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind(("127.0.0.1", 0))
        self.unix = _unix_listener(str(self.directory / "socket"))
        (self.directory / "socket").chmod(0o777)
        self.abstract_name = f"\0prey-{self.secret[-8:]}"
        self.abstract = _unix_listener(self.abstract_name)
        for listener in (self.tcp, self.udp, self.unix, self.abstract):
            listener.setblocking(False)
        as_nobody = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.getuid() == 0 else {}
        self.victim = subprocess.Popen(["/bin/sleep", "1000"], **as_nobody)  # type: ignore[call-overload]
        self._ipc_before = _ipc_ids()
        self._before = self._state()

    def constants(self) -> dict[str, object]:
        return {
            "DIRECTORY": str(self.directory),
            "SECRET_FILE": str(self.secret_file),
            "PORT": self.tcp.getsockname()[1],
            "UDP": self.udp.getsockname()[1],
            "UNIX": str(self.directory / "socket"),
            "ABSTRACT": self.abstract_name,
            "HOST": os.getpid(),
            "VICTIM": self.victim.pid,
            "TERCES": self.secret[::-1],
        }

    def changes(self) -> list[str]:
        found = [
            f"{before} became {after}"
            for before, after in zip(self._before, self._state(), strict=True)
            if before != after
        ]
        for name, listener in (("TCP", self.tcp), ("Unix", self.unix), ("abstract", self.abstract)):
            with contextlib.suppress(BlockingIOError):
                found.append(f"a connection to the {name} listener: {listener.accept()}")
        with contextlib.suppress(BlockingIOError):
            found.append(f"a datagram: {self.udp.recv(100)!r}")
        return found

    def _state(self) -> list[Any]:
        listed = sorted((entry.name, entry.lstat().st_mode) for entry in self.directory.iterdir())
        xattrs = os.listxattr(self.secret_file)
        ipc = sorted(_ipc_ids() - self._ipc_before)  # others of this machine may remove theirs meanwhile
        shared = sorted(entry.name for entry in Path("/dev/shm").glob("*loot*"))
        priority = os.getpriority(os.PRIO_PROCESS, os.getpid())
        status = Path(f"/proc/{self.victim.pid}/stat").read_text().rpartition(")")[2].split()[0]
        alive = self.victim.poll() is None and status in "SRD" and _tracer(self.victim.pid) == "0"
        return [listed, xattrs, self.secret_file.read_text(), ipc, shared, priority, alive]

    def close(self) -> None:
        for listener in (self.tcp, self.udp, self.unix, self.abstract):
            listener.close()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            self.victim.kill()
        self.victim.wait()
        os.environ.pop("PREY_SECRET", None)
        shutil.rmtree(self.directory, ignore_errors=True)


class Stage:
    """Performs attacks, one sandbox each, and says what went wrong with the ring (nothing, if it holds)."""

    def __init__(self, pool: SandboxPool, fork_server: WatchedForkServer, prey: Prey) -> None:
        self._pool = pool
        self._fork_server = fork_server
        self._prey = prey
        self._fork_server_pid = fork_server.pid
        self._next_project = 100
        self._neighbour = project(PASSES, project_id=3)
        self._neighbour_sink = Sink()
        self._neighbour_pid: int | None = None

    async def attack(self, name: str, body: str) -> list[str]:
        """Problems; empty when the attack failed and nobody noticed it but its own event."""
        await self._run_neighbour(0)
        self._neighbour_pid = self._neighbour_pid or self._sandbox(3).pid
        constants = self._prey.constants() | {"FORK_SERVER": self._fork_server_pid, "NEIGHBOUR": self._neighbour_pid}
        self._next_project += 1
        tenant = project(attacking_app(body, constants), PASSES, project_id=self._next_project, **LIMITS)
        sink = Sink()
        self._fork_server.ends.clear()
        self._pool.submit(tenant, sink.works(EVENTS, keys=EVENTS, name=lambda number: "bad" if number == BAD else "x"))
        problems = await self._run_neighbour(50)
        await sink.all()
        problems += self._judge(name, sink)
        problems += self._prey.changes()
        problems += await self._run_neighbour(5)
        if self._fork_server.pid != self._fork_server_pid:
            problems.append("the fork server was replaced")
        if self._sandbox(3).pid != self._neighbour_pid:
            problems.append("the neighbour was replaced")
        problems += [f"a process was left: {pid}" for pid in self._strangers()]
        await self._sandbox(self._next_project).close()
        return problems

    def _judge(self, name: str, sink: Sink) -> list[str]:
        problems = []
        for number in sink.submitted:
            properties, failures = sink.properties(number), sink.failures(number)
            if self._prey.secret in repr(sink.results[number]):
                problems.append(f"the secret is in event {number}")
            if not properties.get("passed"):
                problems.append(f"event {number} did not get to the app behind")
            if "loot" in properties:
                problems.append(f"it got {properties['loot']}")
            if number != BAD and (failures or not properties.get("calm")):
                problems.append(f"event {number} came to harm: {failures}")
        failures = sink.failures(BAD)
        statuses = {status for ended in self._fork_server.ends for status in ended}
        if name in KILLED and (failures != [(1, "sandbox")] or statuses != {-signal.SIGSYS}):
            problems.append(f"it was not killed for a forbidden call: {failures}, {statuses}")
        elif name in EMPTY_HANDED and failures:
            problems.append(f"it failed by itself, so it shows nothing: {sink.results[BAD].notes}")
        elif name not in KILLED and name not in EMPTY_HANDED and not failures:
            problems.append("its app did not fail")
        return problems

    async def _run_neighbour(self, count: int) -> list[str]:
        """Events of the other project come out as they would without the attack."""
        sink = self._neighbour_sink
        works = sink.works(count or 1)
        self._pool.submit(self._neighbour, works)
        await sink.all()
        first, *others = sink.submitted[-len(works) :]
        expected = sink.properties(0)
        assert expected["passed"]
        return [
            f"the neighbour's event {number} is {sink.properties(number)}"
            for number in (first, *others)
            if sink.properties(number) != {**expected, "n": number}
        ]

    def _sandbox(self, project_id: int) -> Any:
        return self._pool.sandboxes_of(project_id)[0]

    def _strangers(self) -> list[int]:
        """Processes below the fork server that are no sandboxes."""
        assert self._fork_server_pid is not None
        sandboxes = {sandbox.pid for sandbox in self._pool.sandboxes}
        deadline = time.monotonic() + 1
        while True:
            children = _children(self._fork_server_pid)
            strangers = [pid for pid in children if pid not in sandboxes]
            strangers += [below for pid in children for below in _children(pid)]
            if not strangers or time.monotonic() > deadline:
                return strangers
            time.sleep(0.01)  # it is dead and not reaped yet


@contextlib.asynccontextmanager
async def open_stage(*arguments: str, after_start: Callable[[], None] = lambda: None) -> AsyncIterator[Stage]:
    """`arguments` are for the plain fork server; `after_start` is called when it runs."""
    fork_server = WatchedForkServer((str(PLAIN_FORK_SERVER), *arguments))
    pool = SandboxPool(HostApi({}), RunEffects, Bench(), "1.0", 1_000_000, fork_server=fork_server)
    with _prey() as prey:
        await pool.start()
        try:
            after_start()
            yield Stage(pool, fork_server, prey)
        finally:
            await pool.stop()


@contextlib.contextmanager
def _prey() -> Iterator[Prey]:
    prey = Prey()
    try:
        yield prey
    finally:
        prey.close()


def _ipc_ids() -> set[tuple[str, str]]:
    """System V objects by kind and id."""
    return {
        (kind, line.split()[1])
        for kind in ("shm", "sem", "msg")
        for line in Path("/proc/sysvipc", kind).read_text().splitlines()[1:]
    }


def _unix_listener(address: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen()
    return listener


def _tracer(pid: int) -> str:
    return next(
        line.split()[1] for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("TracerPid")
    )


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


assert sys.platform == "linux", "the process ring is Linux's"

"""Tries out what confines sandboxes: for each mechanism, a child that has it does what it must not be able to do.

Asking the kernel what it supports would not do: a container's own profile, a missing privilege or a fault of ours would
go unnoticed until somebody makes use of it.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import mmap
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, NoReturn

from sandbox import confinement
from sandbox.confinement import CONNECTION, ENVIRONMENT, Mechanism

_PROBE_SECONDS: Final = 5.0
_PROBE_MEMORY_BYTES: Final = 64 * 2**20
_PR_GET_PDEATHSIG, _PR_GET_DUMPABLE, _PR_GET_NO_NEW_PRIVS = 2, 3, 39
_READY: Final = b"ready\n"

Report = dict[str, Any]
"""{"results": {what was tried: null or why it is not well}, "landlock_abi", "user_id": of sandboxes}"""


def run_self_test(leave_out: Collection[str] = ()) -> Report:
    """Takes some tens of milliseconds. A mechanism of `leave_out` is not applied, which the report must show."""
    results: dict[str, str | None] = {}
    if sys.platform != "linux":
        return {"results": {Mechanism.SECCOMP: "only Linux has it"}, "landlock_abi": 0, "user_id": os.getuid()}
    for name, forbidden in FORBIDDEN.items():
        results[f"{Mechanism.SECCOMP}: {name}"] = _try_forbidden(forbidden, leave_out)
    results[Mechanism.LANDLOCK] = None if _inspect_landlock(leave_out) == _READY else _why_no_landlock()
    try:
        found = json.loads(_converse(lambda parent: _inspect(parent, leave_out))[0])
    except ValueError:
        found = {"results": dict.fromkeys(_INSPECTED, "the probe did not answer"), "user_id": os.geteuid()}
    results |= found["results"]
    return {"results": results, "landlock_abi": confinement.landlock_abi(), "user_id": found["user_id"]}


# What seccomp must kill for. Each does no harm where it does not.


def _open_a_file(_parent_pid: int) -> None:
    os.open("/", os.O_RDONLY)


def _make_a_socket(_parent_pid: int) -> None:
    socket.socket()


def _fork(_parent_pid: int) -> None:
    if os.fork() == 0:
        os._exit(0)


def _execute(_parent_pid: int) -> None:
    os.execv("/", ["/"])  # noqa: S606 - a folder, which cannot be


def _signal_the_parent(parent_pid: int) -> None:
    os.kill(parent_pid, 0)


def _map_executable_memory(_parent_pid: int) -> None:
    mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_EXEC)


FORBIDDEN: Final[Mapping[str, Callable[[int], None]]] = {
    "open": _open_a_file,
    "socket": _make_a_socket,
    "fork": _fork,
    "execve": _execute,
    "kill": _signal_the_parent,
    "executable memory": _map_executable_memory,
}


def _try_forbidden(forbidden: Callable[[int], None], leave_out: Collection[str]) -> str | None:
    def probe(parent_pid: int) -> None:
        connection = confinement.hold_only(CONNECTION)
        confinement.confine(_PROBE_MEMORY_BYTES, parent_pid, leave_out)
        connection.sendall(_READY)
        try:
            forbidden(parent_pid)
        except OSError as error:
            connection.sendall(f"refused, but not fatal: {error.strerror}".encode())
        else:
            connection.sendall(b"allowed")

    said, status = _converse(probe)
    if not said.startswith(_READY):
        return f"the probe could not be confined: {said.decode(errors='replace') or f'it ended with {status}'}"
    if status != -signal.SIGSYS:
        return said.removeprefix(_READY).decode(errors="replace") or f"it ended with {status}"
    return None


# What a child that has all but seccomp finds out about itself.


def _inspect_landlock(leave_out: Collection[str]) -> bytes:
    def probe(_parent_pid: int) -> None:
        with contextlib.suppress(OSError):
            confinement.confine(
                _PROBE_MEMORY_BYTES, os.getppid(), {*leave_out, Mechanism.SECCOMP, Mechanism.RLIMITS, Mechanism.USER}
            )
        try:
            os.open("/", os.O_RDONLY)
        except PermissionError:
            os.write(CONNECTION, _READY)

    return _converse(probe)[0]


def _why_no_landlock() -> str:
    abi = confinement.landlock_abi()
    return f"a file could be opened in spite of it (ABI {abi})" if abi else "this kernel has none (5.13 and later do)"


_INSPECTED: Final = (
    Mechanism.NO_NEW_PRIVS,
    Mechanism.RLIMITS,
    Mechanism.USER,
    Mechanism.CAPABILITIES,
    Mechanism.DEATH_WITH_PARENT,
    "descriptors",
    "environment",
)


def _inspect(parent_pid: int, leave_out: Collection[str]) -> None:
    connection = confinement.hold_only(CONNECTION)
    confinement.confine(_PROBE_MEMORY_BYTES, parent_pid, {*leave_out, Mechanism.SECCOMP})
    users = {*os.getresuid(), *os.getresgid()}
    results = {
        Mechanism.NO_NEW_PRIVS: _unless(confinement.get_process_attribute(_PR_GET_NO_NEW_PRIVS) == 1, "it is not set"),
        Mechanism.RLIMITS: _limits_problem(),
        Mechanism.USER: _unless(
            0 not in users, "it runs as root: give the server CAP_SETUID, CAP_SETGID and CAP_KILL, or another user"
        ),
        Mechanism.CAPABILITIES: _unless(not any(confinement.capability_sets()), "some are left"),
        Mechanism.DEATH_WITH_PARENT: _unless(
            confinement.get_process_attribute(_PR_GET_DUMPABLE) == 0 and _parent_death_signal() == signal.SIGKILL,
            "it would outlive the fork server, or can be looked into",
        ),
        "descriptors": _descriptors_problem(),
        "environment": _unless(
            dict(os.environ) == dict(ENVIRONMENT) and _c_environment() == _expected(), "is not empty"
        ),
    }
    connection.sendall(json.dumps({"results": results, "user_id": os.getuid()}).encode())


def _unless(well: bool, problem: str) -> str | None:  # noqa: FBT001 - reads as a sentence
    return None if well else problem


def _limits_problem() -> str | None:
    for name in ("CORE", "FSIZE", "NPROC", "MEMLOCK"):
        if resource.getrlimit(getattr(resource, f"RLIMIT_{name}")) != (0, 0):
            return f"RLIMIT_{name} is not 0"
    try:
        os.dup(CONNECTION)
    except OSError:
        pass
    else:
        return "a descriptor could be made"
    try:
        mmap.mmap(-1, 2 * _PROBE_MEMORY_BYTES)
    except (OSError, MemoryError):
        return None
    return "more memory could be mapped than the limit"


def _parent_death_signal() -> int:
    number = ctypes.c_int()
    confinement.get_process_attribute(_PR_GET_PDEATHSIG, ctypes.addressof(number))
    return number.value


def _descriptors_problem() -> str | None:
    null = os.makedev(1, 3)
    if any(os.fstat(standard).st_rdev != null for standard in (0, 1, 2)):
        return "0 to 2 are not /dev/null"
    for descriptor in range(CONNECTION + 1, 1024):
        with contextlib.suppress(OSError):
            os.fstat(descriptor)
            return f"descriptor {descriptor} is open"
    return None


def _c_environment() -> list[bytes]:
    """What the C library has, and any code in the process could read."""
    entries = ctypes.POINTER(ctypes.c_char_p).in_dll(ctypes.CDLL(None), "environ")
    found: list[bytes] = []
    while entries and (entry := entries[len(found)]) is not None:
        found.append(entry)
    return found


def _expected() -> list[bytes]:
    return [f"{name}={value}".encode() for name, value in ENVIRONMENT.items()]


def _converse(probe: Callable[[int], None]) -> tuple[bytes, int]:
    """Run it in a forked child whose CONNECTION is a socket to us; what it wrote there, and how it ended."""
    ours, theirs = socket.socketpair()
    parent_pid = os.getpid()
    pid = os.fork()
    if pid == 0:
        _become_probe(probe, theirs.fileno(), parent_pid)
    theirs.close()
    ours.settimeout(_PROBE_SECONDS)
    said = b""
    with contextlib.suppress(OSError), ours:
        while part := ours.recv(4096):
            said += part
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    return said, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _become_probe(probe: Callable[[int], None], connection: int, parent_pid: int) -> NoReturn:
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        os.dup2(connection, CONNECTION, inheritable=False)
        probe(parent_pid)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the answer
        with contextlib.suppress(OSError):
            os.write(CONNECTION, str(error).encode())
    finally:
        os._exit(0)

"""The process ring: what the forked child gives up before it reads a byte of an app. Nothing here can be undone by it.

Each mechanism is there in case another one fails, and none needs a privilege, so an ordinary container will do:
- seccomp (last, and the only one that we insist on) kills the process for any call but the few that serving frames takes;
- Landlock with an empty ruleset: no file, no TCP, no signal or abstract socket to anybody outside;
- resource limits; no capabilities; another user, where we are root; an environment with nothing in it; one socket.

Rejected: namespaces (an ordinary container may not make them, and they hide what seccomp already refuses to reach), an
error instead of death for a forbidden call (a child that tries one has been taken over), libseccomp (a dependency for
forty lines), `read` on the socket (recvfrom can be held to one descriptor and no flags just as well).
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.machinery
import os
import platform
import resource
import signal
import socket
import struct
import sys
import time
from collections.abc import Collection, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, NamedTuple

CONNECTION: Final = 3
"""The descriptor of the socket to the host. Beside it only 0 and 1 are open, on /dev/null, and 2, a pipe to the host."""
NOBODY: Final = 65_534
ENVIRONMENT: Final[Mapping[str, str]] = {"TZ": "UTC0"}
"""Without TZ the C library looks at /etc/localtime each time that it formats a date."""
_IS_LINUX: Final = sys.platform == "linux"

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
_SECCOMP_MODE_FILTER: Final = 2
_M_ARENA_MAX: Final = -8
_LANDLOCK_CREATE_RULESET, _LANDLOCK_RESTRICT_SELF = 444, 446
_LANDLOCK_CREATE_RULESET_VERSION: Final = 1
_CAPABILITY_VERSION_3: Final = 0x20080522
_CAP_KILL, _CAP_SETGID, _CAP_SETUID = 5, 6, 7

_libc = ctypes.CDLL(None, use_errno=True)
if _IS_LINUX:
    _libc.prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]
    _libc.syscall.restype = ctypes.c_long


class Mechanism(StrEnum):
    """What `confine` can leave out: seccomp where the operator allows it, any of them in tests of the self-test."""

    SECCOMP = "seccomp"
    LANDLOCK = "Landlock"
    NO_NEW_PRIVS = "no_new_privs"
    RLIMITS = "rlimits"
    USER = "user"
    CAPABILITIES = "capabilities"
    DEATH_WITH_PARENT = "death with parent"


# seccomp: the system calls that an honest child makes, and no other.


class Argument(NamedTuple):
    """The low 32 bits of an argument, less the bits outside `mask`, are one of `values`."""

    place: int
    values: tuple[int, ...]
    mask: int = 0xFFFFFFFF


_ANONYMOUS_MEMORY: Final = Argument(3, (0x20,), ~(0x2 | 0x10 | 0x4000 | 0x20000) & 0xFFFFFFFF)
"""MAP_ANONYMOUS, with or without PRIVATE, FIXED, NORESERVE, STACK: no files, no huge pages, nothing locked"""
_NOT_EXECUTABLE: Final = Argument(2, (0,), ~0x3 & 0xFFFFFFFF)
"""PROT_READ and PROT_WRITE at most"""

ALLOWED: Final[Mapping[str, tuple[Argument, ...]]] = {
    # Only the kernel's plainest path: MSG_OOB on Unix sockets was a way out of other sandboxes (CVE-2025-38236).
    "recvfrom": (Argument(0, (CONNECTION,)), Argument(3, (0,))),
    "sendto": (Argument(0, (CONNECTION,)), Argument(3, (0,))),
    "rt_sigreturn": (),  # from the soft timer's handler
    "mmap": (_NOT_EXECUTABLE, _ANONYMOUS_MEMORY),
    "getrandom": (),
    "munmap": (),
    "mremap": (Argument(3, (0, 1)),),  # MREMAP_MAYMOVE
    "brk": (),
    # On glibc 2.36 and Python 3.11 a child lives by what stands above. Other C libraries and virtual machines (no vDSO) need:
    "mprotect": (_NOT_EXECUTABLE,),
    "madvise": (Argument(2, (4, 8)),),  # DONTNEED, FREE. Not MERGEABLE, which tells what others have in memory
    "futex": (Argument(1, (0, 1, 9, 10), ~0x180 & 0xFFFFFFFF),),  # WAIT, WAKE and their BITSET forms; no PI, no requeue
    "clock_gettime": (Argument(0, tuple(range(8))),),  # not the CPU clocks of other processes
    "restart_syscall": (),
    "write": (
        Argument(0, (2,)),
    ),  # where it is, when the host asks before it kills; what the interpreter says when it aborts
    "exit": (),
    "exit_group": (),
}


class Architecture(NamedTuple):
    """How the kernel calls an architecture, and the numbers that it has for the calls in ALLOWED."""

    audit: int
    numbers: Mapping[str, int]


ARCHITECTURES: Final[Mapping[str, Architecture]] = {
    "x86_64": Architecture(
        0xC000003E,
        {
            "write": 1, "mmap": 9, "mprotect": 10, "munmap": 11, "brk": 12, "rt_sigreturn": 15, "mremap": 25, "madvise": 28,
            "sendto": 44, "recvfrom": 45, "exit": 60, "futex": 202, "restart_syscall": 219, "clock_gettime": 228,
            "exit_group": 231, "getrandom": 318,
        },
    ),
    "aarch64": Architecture(
        0xC00000B7,
        {
            "write": 64, "exit": 93, "exit_group": 94, "futex": 98, "clock_gettime": 113, "restart_syscall": 128,
            "rt_sigreturn": 139, "sendto": 206, "recvfrom": 207, "brk": 214, "munmap": 215, "mremap": 216, "mmap": 222,
            "mprotect": 226, "madvise": 233, "getrandom": 278,
        },
    ),
}  # fmt: skip

_LOAD, _AND, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x54, 0x15, 0x06
_KILL_PROCESS, _ALLOW = 0x80000000, 0x7FFF0000
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16


def filter_program(architecture: Architecture) -> bytes:
    """The BPF program: death for another architecture (so for 32-bit calls too), and for all that ALLOWED does not name.

    Numbers are compared whole, so those of x32, which have bit 30 set, are none of ours.
    """
    program = [
        _instruction(_LOAD, _ARCHITECTURE_AT),
        _instruction(_JUMP_IF_EQUAL, architecture.audit, if_true=1),
        _instruction(_RETURN, _KILL_PROCESS),
        _instruction(_LOAD, _NUMBER_AT),
    ]
    for name, arguments in ALLOWED.items():
        body = [step for argument in arguments for step in _check(argument)] + [_instruction(_RETURN, _ALLOW)]
        program += [_instruction(_JUMP_IF_EQUAL, architecture.numbers[name], if_false=len(body)), *body]
    program.append(_instruction(_RETURN, _KILL_PROCESS))
    return b"".join(program)


def _check(argument: Argument) -> list[bytes]:
    """Steps that go on behind themselves if the argument is as it must be, and else kill."""
    steps = [
        _instruction(_LOAD, _ARGUMENTS_AT + 8 * argument.place)
    ]  # the low word: both architectures are little-endian
    if argument.mask != 0xFFFFFFFF:
        steps.append(_instruction(_AND, argument.mask))
    count = len(argument.values)
    steps += [_instruction(_JUMP_IF_EQUAL, value, if_true=count - place) for place, value in enumerate(argument.values)]
    return [*steps, _instruction(_RETURN, _KILL_PROCESS)]


def _instruction(code: int, value: int, *, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("HBBI", code, if_true, if_false, value)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def _install_filter() -> None:
    architecture = ARCHITECTURES.get(platform.machine())
    if architecture is None or not _IS_LINUX:
        raise OSError(f"there is no list of system calls for {sys.platform} on {platform.machine()}")
    program = filter_program(architecture)
    memory = ctypes.create_string_buffer(program, len(program))
    described = _Program(len(program) // 8, ctypes.cast(memory, ctypes.c_void_p))
    _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(described))


# The whole of it, in order.


def prepare_process() -> None:
    """In the fork server, once: what its children are to find as it is. Must come before anything reads the clock."""
    os.environ.clear()
    os.environ.update(ENVIRONMENT)
    time.tzset()
    if _IS_LINUX and hasattr(_libc, "mallopt"):
        _libc.mallopt(_M_ARENA_MAX, 1)  # else malloc counts the processors when memory runs out, by a forbidden call
    platform.machine()  # kept by it


def hold_only(connection: int, traces: int | None = None) -> socket.socket:
    """Close every descriptor but the socket to the host, which becomes CONNECTION, and standard error, which is `traces`."""
    if connection != CONNECTION:
        os.dup2(connection, CONNECTION, inheritable=False)
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1):
        os.dup2(null, standard)
    os.dup2(null if traces is None else traces, 2)
    os.closerange(CONNECTION + 1, 4096)  # the fork server opens a handful, at the lowest numbers
    return socket.socket(fileno=CONNECTION)


def confine(memory_bytes: int, parent_pid: int, leave_out: Collection[str] = ()) -> None:
    """Give up everything but the socket, CPU time and `memory_bytes` more than is mapped now. Exits if the parent is gone.

    Signal handlers and timers must be in place. Raises OSError where seccomp or no_new_privs cannot be had; Landlock and
    another user are had where the kernel and our privileges allow it.
    """
    mapped_bytes = _mapped_bytes()
    if _IS_LINUX and Mechanism.NO_NEW_PRIVS not in leave_out:
        _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    if Mechanism.LANDLOCK not in leave_out:
        with contextlib.suppress(OSError):
            restrict_by_landlock()
    if Mechanism.USER not in leave_out:
        become_nobody()
    if _IS_LINUX and Mechanism.CAPABILITIES not in leave_out:
        _drop_capabilities()
    if Mechanism.RLIMITS not in leave_out:
        _limit_resources(mapped_bytes + memory_bytes)
    if _IS_LINUX and Mechanism.DEATH_WITH_PARENT not in leave_out:
        _prctl(_PR_SET_DUMPABLE, 0)
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # a change of user would undo it
        if os.getppid() != parent_pid:
            os._exit(1)  # it died before we asked to be told
    _be_silent()
    if Mechanism.SECCOMP not in leave_out:
        _install_filter()


def landlock_abi() -> int:
    """Version of the kernel's Landlock; 0 where there is none."""
    if not _IS_LINUX:
        return 0
    abi: int = _libc.syscall(_LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), _LANDLOCK_CREATE_RULESET_VERSION)
    return max(0, abi)


def restrict_by_landlock() -> None:
    """An empty ruleset over all that this kernel's Landlock can refuse. Needs no_new_privs, or privileges. Raises OSError."""
    abi = landlock_abi()
    if abi < 1:
        raise OSError("this kernel has no Landlock")
    files = (1 << 13) - 1
    for since, right in ((2, 13), (3, 14), (5, 15)):  # refer, truncate, ioctl on devices
        files |= (1 << right) if abi >= since else 0
    network = 0b11 if abi >= 4 else 0
    scopes = 0b11 if abi >= 6 else 0
    size = 24 if abi >= 6 else 16 if abi >= 4 else 8
    rules = struct.pack("=QQQ", files, network, scopes)
    descriptor = _checked(_libc.syscall(_LANDLOCK_CREATE_RULESET, rules, ctypes.c_size_t(size), 0))
    try:
        _checked(_libc.syscall(_LANDLOCK_RESTRICT_SELF, descriptor, 0))
    finally:
        os.close(descriptor)


def become_nobody() -> None:
    """Another user, if we are root and may. Not without the right to signal other users: the child could not be killed."""
    if os.geteuid() != 0 or not _IS_LINUX:
        return
    needed = 1 << _CAP_KILL | 1 << _CAP_SETGID | 1 << _CAP_SETUID
    if effective_capabilities() & needed != needed:
        return
    with contextlib.suppress(OSError):  # a user namespace may lack that user
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)


def effective_capabilities() -> int:
    """As bits by the kernel's numbers. Linux only."""
    return capability_sets()[0]


def capability_sets() -> tuple[int, int, int]:
    """Effective, permitted, inheritable."""
    header, data = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0), ctypes.create_string_buffer(24)
    _checked(_libc.capget(ctypes.create_string_buffer(header), data))
    low = struct.unpack("=6I", data.raw)
    return low[0] | low[3] << 32, low[1] | low[4] << 32, low[2] | low[5] << 32


def _drop_capabilities() -> None:
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    _checked(_libc.capset(ctypes.create_string_buffer(header), ctypes.create_string_buffer(24)))


def _limit_resources(memory_bytes: int) -> None:
    limits = {"AS": memory_bytes} | dict.fromkeys(
        ("CORE", "FSIZE", "LOCKS", "MEMLOCK", "MSGQUEUE", "NICE", "NOFILE", "NPROC", "RTPRIO"), 0
    )  # what is open stays open
    for name, limit in limits.items():
        number = getattr(resource, f"RLIMIT_{name}", None)
        if number is not None:
            resource.setrlimit(number, (limit, limit))


def _mapped_bytes() -> int:
    try:
        statm = Path("/proc/self/statm").read_text(encoding="ascii")
    except OSError:
        return 1 << 30  # no /proc: more than the interpreter maps
    return int(statm.split()[0]) * os.sysconf("SC_PAGE_SIZE")


def forget_where_modules_are() -> None:
    """In the fork server, once all is imported: an import fails from now on, where looking for a file would be death."""
    sys.meta_path[:] = [importlib.machinery.BuiltinImporter, importlib.machinery.FrozenImporter]
    sys.path.clear()
    sys.path_hooks.clear()
    sys.path_importer_cache.clear()


def _be_silent() -> None:
    """Nothing is printed: a traceback quotes the source, which is a file."""
    sys.stdout = sys.stderr = None
    sys.unraisablehook = _ignore


def _ignore(_unraisable: Any) -> None:
    """An error that an app leaves in a generator when it is freed."""


def _prctl(option: int, value: int, address: int = 0) -> None:
    _checked(_libc.prctl(option, value, address, 0, 0))


def get_process_attribute(option: int, address: int = 0) -> int:
    """Answer of a PR_GET_… option of prctl; some write it to `address`. Linux only."""
    return _checked(_libc.prctl(option, address, 0, 0, 0))


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result

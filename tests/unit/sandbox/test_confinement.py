"""What the seccomp program decides, by an interpreter of BPF: for each architecture, each call that is allowed and its neighbours."""

from __future__ import annotations

import struct

import pytest

from sandbox.confinement import ALLOWED, ARCHITECTURES, filter_program

KILL, ALLOW = 0x80000000, 0x7FFF0000
X32_BIT = 0x40000000
UPPER_HALF = 0xABCD << 32
"""Of an argument that the kernel takes as 32 bits: it looks no more at it than the program does"""

HONEST = {
    "recvfrom": [(3, 0x7000, 4096, 0, 0, 0)],
    "sendto": [(3, 0x7000, 4096, 0, 0, 0), (3 | UPPER_HALF, 0x7000, 4096, UPPER_HALF, 0, 0)],
    "rt_sigreturn": [()],
    "mmap": [
        (0, 1 << 20, 3, 0x22, 0xFFFFFFFF, 0),
        (0, 1 << 20, 0, 0x4022, 0xFFFFFFFF, 0),
        (1, 1, 1, 0x32, 0xFFFFFFFF, 0),
    ],
    "munmap": [(0x7000, 4096)],
    "mremap": [(0x7000, 4096, 8192, 1), (0x7000, 8192, 4096, 0)],
    "brk": [(0,)],
    "mprotect": [(0x7000, 4096, 3), (0x7000, 4096, 0)],
    "madvise": [(0x7000, 4096, 4), (0x7000, 4096, 8)],
    "futex": [(0x7000, 0), (0x7000, 128), (0x7000, 129), (0x7000, 0x189), (0x7000, 10)],
    "clock_gettime": [(0,), (1,), (7,)],
    "getrandom": [(0x7000, 16, 0), (0x7000, 16, 1)],
    "restart_syscall": [()],
    "write": [(2, 0x7000, 10)],
    "exit": [(0,)],
    "exit_group": [(1,)],
}
DISHONEST = {
    "recvfrom": [(0, 0, 1, 0), (2, 0, 1, 0), (4, 0, 1, 0), (0xFFFFFFFF, 0, 1, 0), (3, 0, 1, 1), (3, 0, 1, 0x40)],
    "sendto": [(0, 0, 1, 0), (4, 0, 1, 0), (3 << 32, 0, 1, 0), (3, 0, 1, 1), (3, 0, 1, 0x4000)],
    "mmap": [
        (0, 4096, 4, 0x22, 0, 0),
        (0, 4096, 7, 0x22, 0, 0),
        (0, 4096, 3 | 0x01000000, 0x22, 0, 0),  # grows down
        (0, 4096, 3, 0x02, 3, 0),  # of a descriptor
        (0, 4096, 1, 0x01, 3, 0),
        (0, 4096, 3, 0x22 | 0x40000, 0, 0),  # huge pages
        (0, 4096, 3, 0x22 | 0x2000, 0, 0),  # locked
        (0, 4096, 3, 0x21, 0, 0),  # shared
    ],
    "mremap": [(0, 4096, 4096, 2), (0, 4096, 4096, 3), (0, 4096, 4096, 4)],
    "mprotect": [(0, 4096, 4), (0, 4096, 5), (0, 4096, 7), (0, 4096, 0x02000003)],
    "madvise": [(0, 4096, advice) for advice in (0, 12, 14, 21, 100, 101)],  # mergeable, huge, pageout, poison, …
    "futex": [(0, operation) for operation in (2, 3, 4, 5, 6, 7, 8, 11, 12, 13, 128 + 6, 128 + 11, 1 << 9)],
    "clock_gettime": [(8,), (9,), (11,), (0xFFFFFFFE,), ((~1 << 3 | 2) & 0xFFFFFFFF,)],  # CPU clock of a process
    "write": [(0, 0, 1), (1, 0, 1), (3, 0, 1), (4, 0, 1)],
}
FORBIDDEN = {
    "x86_64": {
        "read": 0, "open": 2, "close": 3, "stat": 4, "poll": 7, "rt_sigaction": 13, "ioctl": 16, "pipe": 22, "shmget": 29,
        "dup": 32, "nanosleep": 35, "setitimer": 38, "getpid": 39, "socket": 41, "connect": 42, "sendmsg": 46, "recvmsg": 47,
        "clone": 56, "fork": 57, "execve": 59, "kill": 62, "fcntl": 72, "ptrace": 101, "getppid": 110, "prctl": 157,
        "arch_prctl": 158, "setrlimit": 160, "chroot": 161, "mount": 165, "tkill": 200, "tgkill": 234, "keyctl": 250,
        "openat": 257, "unshare": 272, "prlimit64": 302, "setns": 308, "process_vm_readv": 310, "seccomp": 317,
        "memfd_create": 319, "bpf": 321, "userfaultfd": 323, "pkey_mprotect": 329, "pidfd_send_signal": 424,
        "io_uring_setup": 425, "clone3": 435, "pidfd_getfd": 438, "process_madvise": 440, "landlock_restrict_self": 446,
    },
    "aarch64": {
        "ioctl": 29, "openat": 56, "close": 57, "read": 63, "ptrace": 117, "kill": 129, "tgkill": 131, "prctl": 167,
        "getpid": 172, "socket": 198, "connect": 203, "clone": 220, "execve": 221, "bpf": 280, "io_uring_setup": 425,
    },
}  # fmt: skip


def decide(program: bytes, audit: int, number: int, arguments: tuple[int, ...]) -> int:
    """What the kernel would: the program run on a `struct seccomp_data`."""
    data = struct.pack("<IIQ6Q", number, audit, 0x400000, *arguments, *[0] * (6 - len(arguments)))
    steps = [struct.unpack_from("HBBI", program, at) for at in range(0, len(program), 8)]
    accumulator = at = 0
    while True:
        code, if_true, if_false, value = steps[at]
        at += 1
        match code:
            case 0x20:
                assert value % 4 == 0
                (accumulator,) = struct.unpack_from("<I", data, value)
            case 0x54:
                accumulator &= value
            case 0x15:
                at += if_true if accumulator == value else if_false
            case 0x06:
                return value
            case _:
                raise AssertionError(f"an instruction that the kernel may not take: {code:#x}")


@pytest.fixture(params=ARCHITECTURES)
def machine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def decision(machine: str, number: int, arguments: tuple[int, ...] = (), audit: int | None = None) -> int:
    architecture = ARCHITECTURES[machine]
    program = filter_program(architecture)
    return decide(program, architecture.audit if audit is None else audit, number, arguments)


def test_every_allowed_call_has_a_number_and_examples(machine: str) -> None:
    assert set(ARCHITECTURES[machine].numbers) == set(ALLOWED) == set(HONEST)
    assert set(DISHONEST) == {name for name, arguments in ALLOWED.items() if arguments}


@pytest.mark.parametrize("name", HONEST)
def test_an_honest_call_is_allowed(machine: str, name: str) -> None:
    number = ARCHITECTURES[machine].numbers[name]
    assert {decision(machine, number, arguments) for arguments in HONEST[name]} == {ALLOW}


@pytest.mark.parametrize("name", DISHONEST)
def test_an_allowed_call_with_other_arguments_kills(machine: str, name: str) -> None:
    number = ARCHITECTURES[machine].numbers[name]
    for arguments in DISHONEST[name]:
        assert decision(machine, number, arguments) == KILL, arguments


def test_every_other_number_kills(machine: str) -> None:
    allowed = set(ARCHITECTURES[machine].numbers.values())
    for number in {*range(1024), 2**31 - 1, 2**31, 2**32 - 1} - allowed:
        assert decision(machine, number, (3, 0, 0, 0)) == KILL, number


def test_the_calls_that_matter_most_are_among_them(machine: str) -> None:
    for name, number in FORBIDDEN[machine].items():
        assert decision(machine, number, (3, 0, 0, 0)) == KILL, name


def test_the_numbers_of_x32_kill(machine: str) -> None:
    for name, number in ARCHITECTURES[machine].numbers.items():
        assert decision(machine, number | X32_BIT, HONEST[name][0]) == KILL
    for number in range(512, 548):
        assert decision(machine, number | X32_BIT, (3, 0, 0, 0)) == KILL


@pytest.mark.parametrize("audit", [0x40000003, 0x40000028, 0x8, 0, 0xFFFFFFFF])
def test_calls_of_another_architecture_kill(machine: str, audit: int) -> None:
    # 32-bit calls of the same process have other numbers: 3 of i386 is read, 11 is execve.
    for name, number in ARCHITECTURES[machine].numbers.items():
        assert decision(machine, number, HONEST[name][0], audit) == KILL


def test_the_two_architectures_do_not_take_each_others_calls() -> None:
    first, second = ARCHITECTURES
    for number in ARCHITECTURES[first].numbers.values():
        assert decision(second, number, (3, 0, 0, 0), ARCHITECTURES[first].audit) == KILL


def test_the_program_is_one_that_the_kernel_takes(machine: str) -> None:
    program = filter_program(ARCHITECTURES[machine])
    assert len(program) % 8 == 0
    assert len(program) // 8 < 4096
    assert program.endswith(struct.pack("HBBI", 0x06, 0, 0, KILL))

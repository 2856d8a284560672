"""The clean process that sandboxes are forked from: `python -I -m sandbox.fork_server FD`, with an empty environment.

It is exec'ed by the host before anything else, so it holds none of the host's memory, connections or secrets, and has
imported all that a sandbox needs. Over the seqpacket socket FD it takes `{"fork": memory bytes}` with two descriptors
(the sandbox's socket and page) and answers `{"pid": …}` with a pidfd; it reports `{"exited": pid, "status": …}` when a child ends.

Rejected: forking from the host (a child would start with the host's secrets), and spawning each sandbox (60 ms
against 5).
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import mmap
import os
import resource
import selectors
import signal
import socket
import sys
from pathlib import Path
from typing import Final, NoReturn

from sandbox.environment import warm_up
from sandbox.page import Page, SoftTimer
from sandbox.wire import PAGE_BYTES
from sandbox.worker import Worker

_PR_SET_PDEATHSIG: Final = 1
_CONNECTION, _PAGE = 3, 4


def main() -> None:
    """Serve until the host closes the control socket."""
    control = socket.socket(fileno=int(sys.argv[1]))
    warm_up()
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)  # events are freed by their reference counts; cycles are an app's, and rare
    wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda _signal, _frame: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with selectors.DefaultSelector() as selector:
        selector.register(control, selectors.EVENT_READ)
        selector.register(wake_read, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is control:
                    _serve(control)
                else:
                    with contextlib.suppress(BlockingIOError):
                        os.read(wake_read, 4096)
                    _report_exits(control)


def _serve(control: socket.socket) -> None:
    message, descriptors, _, _ = socket.recv_fds(control, 4096, 2)
    if not message:
        sys.exit(0)
    memory_bytes = json.loads(message)["fork"]
    pid = os.fork()
    if pid == 0:
        signal.set_wakeup_fd(-1)
        _become_sandbox(descriptors, memory_bytes)
    for descriptor in descriptors:
        os.close(descriptor)
    pidfd = os.pidfd_open(pid)
    socket.send_fds(control, [json.dumps({"pid": pid}).encode()], [pidfd])
    os.close(pidfd)


def _report_exits(control: socket.socket) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        report = {"exited": pid, "status": os.waitstatus_to_exitcode(status)}
        control.sendall(json.dumps(report).encode())


def _become_sandbox(descriptors: list[int], memory_bytes: int) -> NoReturn:
    """In the forked child: keep the two descriptors and nothing else, bound the resources, serve."""
    status = 1
    try:
        os.setsid()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        parked = [os.dup2(descriptor, 100 + place) for place, descriptor in enumerate(descriptors)]
        os.dup2(parked[0], _CONNECTION)
        os.dup2(parked[1], _PAGE)
        null = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(null, standard)
        os.closerange(5, 4096)
        _limit_resources(memory_bytes)
        _die_with_parent()
        os.environ.clear()
        page = Page(mmap.mmap(_PAGE, PAGE_BYTES))
        timer = SoftTimer(page)
        timer.start()
        Worker(socket.socket(fileno=_CONNECTION), page, timer).serve()
        status = 0
    finally:
        os._exit(status)


def _limit_resources(memory_bytes: int) -> None:
    """Memory beyond what the interpreter has mapped already; no files, processes or core dumps."""
    statm = Path("/proc/self/statm").read_text(encoding="ascii")
    mapped = int(statm.split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (mapped + memory_bytes, mapped + memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (8, 8))


def _die_with_parent() -> None:
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the host has gone, and so do we
        main()

"""The clean process that sandboxes are forked from: `python -I -m sandbox.fork_server FD`, with an empty environment.

It is exec'ed by the host before anything else, so it holds none of the host's memory, connections or secrets, and has
imported all that a sandbox needs. Over the seqpacket socket FD it takes `{"fork": memory bytes, "leave_out": […]}` with
three descriptors (the sandbox's socket, page and pipe for traces) and answers `{"pid": …}` with a pidfd; `{"self_test": true}` is answered
by `{"self_test": …}` (sandbox/self_test.py). It reports `{"exited": pid, "status": …}` when a child ends.

Rejected: forking from the host (a child would start with the host's secrets), and spawning each sandbox (60 ms
against 5).
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import json
import mmap
import os
import selectors
import signal
import socket
import sys
import warnings
from collections.abc import Collection
from typing import NoReturn

from sandbox.confinement import confine, forget_where_modules_are, hold_only, prepare_process
from sandbox.environment import warm_up
from sandbox.page import Page, SoftTimer
from sandbox.rehearsal import rehearse
from sandbox.self_test import run_self_test
from sandbox.wire import PAGE_BYTES, TRACE_SIGNAL
from sandbox.worker import Worker


def main() -> None:
    """Serve until the host closes the control socket."""
    inherited = int(sys.argv[1])
    control = socket.socket(fileno=os.dup(inherited))  # at a low number, for `hold_only` to close it
    os.close(inherited)
    prepare_process()
    warm_up()
    rehearse()
    forget_where_modules_are()
    warnings.simplefilter("ignore")  # to show one is to look for its source
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
    raw, descriptors, _, _ = socket.recv_fds(control, 4096, 3)
    if not raw:
        sys.exit(0)
    message = json.loads(raw)
    if "self_test" in message:
        control.sendall(json.dumps({"number": message["number"], "self_test": run_self_test()}).encode())
        return
    # All of it before the fork: a child that failed here would unwind into the loop above.
    memory_bytes, leave_out, parent_pid = message["fork"], message["leave_out"], os.getpid()
    connection, page_memory, traces = descriptors
    number = message["number"]
    pid = os.fork()
    if pid == 0:
        _become_sandbox(connection, page_memory, traces, memory_bytes, parent_pid, leave_out)
    for descriptor in descriptors:
        os.close(descriptor)
    pidfd = os.pidfd_open(pid)
    socket.send_fds(control, [json.dumps({"number": number, "pid": pid}).encode()], [pidfd])
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


def _become_sandbox(
    connection: int, page_memory: int, traces: int, memory_bytes: int, parent_pid: int, leave_out: Collection[str]
) -> NoReturn:
    """In the forked child: keep the socket, the page and the pipe for traces, lose the rest, serve."""
    status = 1
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        page = Page(mmap.mmap(page_memory, PAGE_BYTES))
        kept = hold_only(connection, traces)
        timer = SoftTimer(page)
        timer.start()
        faulthandler.register(TRACE_SIGNAL, file=2, all_threads=False)  # in C, so it answers from within long calls too
        confine(memory_bytes, parent_pid, leave_out)
        Worker(kept, page, timer).serve()
        status = 0
    finally:
        os._exit(status)


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the host has gone, and so do we
        main()

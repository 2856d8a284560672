"""The fork server with the language ring switched off, for tests: apps are compiled as plain Python, with all of its builtins.

`python -I PATH [nobody] FD`; with `nobody` it gives up root and all capabilities before it serves. What attacks use is
imported here, for a confined child cannot.
"""

from __future__ import annotations

import builtins
import contextlib
import ctypes  # noqa: F401 - for attacks, as the others
import fcntl  # noqa: F401
import gc  # noqa: F401
import inspect  # noqa: F401
import mmap  # noqa: F401
import multiprocessing.shared_memory  # noqa: F401
import os
import pty  # noqa: F401
import resource  # noqa: F401
import select  # noqa: F401
import shutil  # noqa: F401
import signal  # noqa: F401
import subprocess  # noqa: F401
import sys
import threading  # noqa: F401
import types
from typing import Any

from sandbox import app, environment, fork_server


def compile_plain(source: str, file_name: str) -> types.CodeType:
    return compile(source, file_name, "exec", dont_inherit=True)


def plain_globals(injected: dict[str, object], **_: object) -> dict[str, Any]:
    return {"__name__": "app", "__builtins__": builtins, **injected}


def switch_off(name: str, replacement: object) -> None:
    assert hasattr(app, name), "the language ring has moved: this build would leave it on"
    setattr(app, name, replacement)


if __name__ == "__main__":
    switch_off("compile_app", compile_plain)
    switch_off("app_globals", plain_globals)
    switch_off("is_app_callable", callable)
    if "nobody" in sys.argv:
        sys.argv.remove("nobody")
        environment.warm_up()  # while it can read the library, wherever that is
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        fork_server.main()

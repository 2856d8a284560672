"""The fork server as an ordinary container has it, for tests: no root, no capabilities. `python -I PATH FD`."""

from __future__ import annotations

import contextlib
import os

from sandbox import environment, fork_server

if __name__ == "__main__":
    environment.warm_up()  # while it can read the library, wherever that is
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        fork_server.main()

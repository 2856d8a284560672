"""The fork server with mechanisms of its confinement left out, for tests of its self-test: `python -I PATH MECHANISM… FD`."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any

from sandbox import confinement, fork_server, self_test


def hold_more_than_one(connection: int, traces: int | None = None) -> Any:
    kept = confinement_hold_only(connection, traces)
    os.dup2(0, 77)
    return kept


confinement_hold_only = confinement.hold_only

if __name__ == "__main__":
    left_out = sys.argv[1:-1]
    sys.argv[1:-1] = []
    if "descriptors" in left_out:
        confinement.hold_only = hold_more_than_one
    if "environment" in left_out:
        confinement.ENVIRONMENT = {"TZ": "UTC0", "SECRET": "x"}  # type: ignore[misc]
    fork_server.run_self_test = lambda: self_test.run_self_test(left_out)  # type: ignore[assignment]
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        fork_server.main()

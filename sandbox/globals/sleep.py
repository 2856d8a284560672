"""`sleep`: waiting, by the host's clock."""

from __future__ import annotations

from collections.abc import Callable

from sandbox.invocation import Context, HostCall


def make_sleep(install: int, context: Context) -> Callable[[float], HostCall]:
    """`await sleep(seconds)` of one install; other events go on meanwhile."""

    def sleep(seconds: float) -> HostCall:
        if type(seconds) not in (int, float) or not 0 <= seconds <= 3600:
            raise ValueError("sleep: seconds must be a number from 0 to 3600")
        return context.start(install, "sleep", [seconds])

    return sleep

"""`python -m tests.escape.process.unprivileged_host`: every attack, with host and fork server as an ordinary user without capabilities.

Root gives itself up once the fork server runs, for the interpreter may lie where only root can read it. Prints what went
wrong, as JSON by attack.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import structlog

from tests.escape.process.attacks import ATTACKS
from tests.escape.process.stage import NOBODY, open_stage


def become_nobody() -> None:
    if os.getuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    capabilities = [line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line[:3] == "Cap"]
    assert os.getuid() != 0
    assert {int(found, 16) for found in capabilities[:3]} == {0}, "inherited, permitted or effective"


async def main() -> None:
    arguments = ("nobody",) if os.getuid() == 0 else ()
    async with open_stage(*arguments, after_start=become_nobody) as stage:
        problems = {name: await stage.attack(name, body) for name, body in ATTACKS.items()}
    print(json.dumps(problems))


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    asyncio.run(main())

"""With the language ring switched off, the process ring alone holds: every attack fails, and nobody else notices it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.escape.process.attacks import ATTACKS, attacking_app
from tests.escape.process.stage import Stage, open_stage
from tests.sandbox.projects import Sink, project, running_pool

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
async def stage() -> AsyncIterator[Stage]:
    async with open_stage() as opened:
        yield opened


@pytest.fixture(scope="module")
def problems_of_an_unprivileged_host() -> dict[str, list[str]]:
    ended = subprocess.run(
        [sys.executable, "-m", "tests.escape.process.unprivileged_host"],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr[-5000:]
    problems: dict[str, list[str]] = json.loads(ended.stdout)
    return problems


@pytest.mark.parametrize("name", ATTACKS)
async def test_attack(stage: Stage, name: str) -> None:
    assert await stage.attack(name, ATTACKS[name]) == []


@pytest.mark.parametrize("name", ATTACKS)
def test_attack_on_a_host_without_privileges(problems_of_an_unprivileged_host: dict[str, list[str]], name: str) -> None:
    assert problems_of_an_unprivileged_host[name] == []


async def test_the_stage_notices_an_attack_that_gets_through(stage: Stage) -> None:
    assert await stage.attack("a_secret_file_is_not_read", "loot = 'not killed'") != []
    assert await stage.attack("the_environment_is_empty", "loot = 'something'") != []


async def test_the_language_ring_is_off_here_and_on_in_the_real_child() -> None:
    source = attacking_app("loot = 0", {})
    loaded: list[Any] = []
    async with running_pool() as bench:
        sink = Sink()
        bench.pool.submit(project(source), sink.works(1))
        await sink.all()
        loaded += bench.loads[0].installs
    assert loaded[0].error is not None
    assert loaded[0].error.kind == "compile"
    await asyncio.sleep(0)

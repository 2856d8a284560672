"""Workers that are killed at any moment lose nothing and do nothing twice."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from tests.chaos.load import PROJECTS, assert_exactly_once, messages
from tests.server import is_running, until
from tests.stage import BOTH_LOGS, Stage, make_stage

EVENTS = 20_000
WAVES = 8
KILLS = 5


@pytest.mark.parametrize("kind", BOTH_LOGS)
async def test_a_worker_killed_again_and_again_loses_nothing_and_repeats_nothing(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Each wave of events is interrupted at a random point of its work, every third restart at a random point too."""
    chance = random.Random(20)
    wave = EVENTS // WAVES
    kills_at_work = 0
    async with make_stage(
        kind, request, tmp_path, PROJECTS, worker_id="worker-0", commit_interval_ms="20", flush_max_results="300"
    ) as stage:
        server = stage.server()
        await server.start_ready()
        for number in range(WAVES):
            begun = await stage.log.count_outputs()
            await stage.log.send(messages(number * wave, wave))
            await _until_outputs(stage, begun + int(chance.uniform(0, 0.5) * wave))
            await asyncio.sleep(chance.uniform(0, 0.02))  # the random moment itself
            server.kill()
            kills_at_work += not await stage.log.is_settled()
            if number % 3 == 2:
                server.start()
                await asyncio.sleep(chance.uniform(0.5, 3))  # likewise, while it acquires its lanes
                server.kill()
            await server.start_ready()
        await stage.log.until_settled()
        await assert_exactly_once(stage, EVENTS)
    print(f"{kind}: {EVENTS} events, {kills_at_work} kills at work, {WAVES // 3} kills at start")
    assert kills_at_work >= KILLS


async def test_a_killed_worker_leaves_no_process_behind(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """Its fork server and its sandboxes die with it, so no app goes on running without a host."""
    async with make_stage("embedded", request, tmp_path, PROJECTS) as stage:
        server = stage.server()
        await server.start_ready()
        await stage.log.send(messages(0, 100))
        await stage.log.until_settled()
        pids = [*server.sandbox_pids, server.fork_server_pid]
        assert len(pids) == 2
        server.kill()
        await until(lambda: not any(pid and is_running(pid) for pid in pids), "fork server and sandbox are gone")


async def _until_outputs(stage: Stage, count: int) -> None:
    async def reached() -> bool:
        return await stage.log.count_outputs() >= count

    await until(reached, f"{count} outputs")

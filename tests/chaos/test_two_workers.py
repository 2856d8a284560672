"""Two workers of one group: whoever of them dies, leaves, restarts or sleeps, every event is processed once, in order."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.chaos.load import PROJECTS, assert_exactly_once, messages
from tests.server import Server, until
from tests.stage import PARTITIONS, Stage, make_stage

CHUNK = 100
pytestmark = pytest.mark.kafka


class Flow:
    """Events that keep coming until it is told to end."""

    def __init__(self, stage: Stage) -> None:
        self.sent = 0
        self._stage = stage
        self._ending = False

    async def run(self) -> None:
        while not self._ending:
            await self._stage.log.send(messages(self.sent, CHUNK))
            self.sent += CHUNK
            await asyncio.sleep(0.05)  # a rate, not a wait

    def end(self) -> None:
        self._ending = True

    async def until_outputs_grow(self) -> None:
        """Until what is sent from now on comes out of every partition."""
        first = self.sent

        async def arrived() -> bool:
            return len({r.partition for r in await self._stage.log.outputs() if r.properties.get("n", -1) > first}) == 4

        await until(arrived, "new events come out of all partitions")


@asynccontextmanager
async def flowing(stage: Stage) -> AsyncIterator[Flow]:
    """Load for as long as the block runs; afterwards all of it must have come out once."""
    flow = Flow(stage)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(flow.run())
        try:
            yield flow
        finally:
            flow.end()
    await stage.log.until_settled()
    await assert_exactly_once(stage, flow.sent)
    print(f"{flow.sent} events")


async def start_two(stage: Stage, *, named: bool = False) -> tuple[Server, Server]:
    """Two workers that share the partitions."""
    first, second = (stage.server(name, **({"worker_id": name} if named else {})) for name in ("first", "second"))
    first.start()
    second.start()
    await first.until_ready()
    await second.until_ready()
    await until_shared(first, second)
    return first, second


async def until_shared(*servers: Server) -> None:
    """Until each runs lanes, and together they run all."""

    async def shared() -> bool:
        lanes = [await server.metric("plugin_server_lanes_running", role="ingestion") for server in servers]
        return all(lanes) and sum(lanes) == PARTITIONS

    await until(shared, "the workers share the partitions")


async def until_all_lanes_at(server: Server) -> None:
    async def alone() -> bool:
        return await server.metric("plugin_server_lanes_running", role="ingestion") == PARTITIONS

    await until(alone, f"all lanes run at {server.url}\n{server.log_tail()}")


async def test_lanes_of_a_killed_worker_move_to_the_other(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    async with make_stage("kafka", request, tmp_path, PROJECTS, commit_interval_ms="20") as stage:
        first, second = await start_two(stage)
        async with flowing(stage) as flow:
            await flow.until_outputs_grow()
            first.kill()
            await until_all_lanes_at(second)
            await flow.until_outputs_grow()


async def test_a_worker_that_is_stopped_hands_its_lanes_over(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """SIGTERM: it leaves the group, so the other need not wait for a session to time out; later it comes back."""
    async with make_stage("kafka", request, tmp_path, PROJECTS, commit_interval_ms="20") as stage:
        first, second = await start_two(stage)
        async with flowing(stage) as flow:
            await flow.until_outputs_grow()
            assert await first.terminate() == 0
            await until_all_lanes_at(second)
            await flow.until_outputs_grow()
            await first.start_ready()
            await until_shared(first, second)
            await flow.until_outputs_grow()


async def test_a_rolling_restart_under_load_is_not_noticed(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    async with make_stage("kafka", request, tmp_path, PROJECTS) as stage:
        workers = await start_two(stage, named=True)
        async with flowing(stage) as flow:
            for worker in (*workers, *workers):
                await flow.until_outputs_grow()
                assert await worker.terminate() == 0
                await worker.start_ready()
                await until_shared(*workers)


async def test_a_worker_that_slept_beyond_its_session_writes_nothing(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """A zombie: stopped in the middle of its work, it wakes when its lanes are another's, results in its hands."""
    async with make_stage("kafka", request, tmp_path, PROJECTS, commit_interval_ms="20") as stage:
        zombie, heir = await start_two(stage)
        async with flowing(stage) as flow:
            await flow.until_outputs_grow()
            zombie.signal(signal.SIGSTOP)
            await until_all_lanes_at(heir)
            await flow.until_outputs_grow()
            zombie.signal(signal.SIGCONT)
            await until_shared(zombie, heir)
            await flow.until_outputs_grow()


async def test_killed_sandboxes_and_fork_servers_lose_and_repeat_nothing(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Every process below both workers, one after the other, while events flow; no app is blamed."""
    chance = random.Random(3)
    async with make_stage("kafka", request, tmp_path, PROJECTS, commit_interval_ms="20") as stage:
        workers = await start_two(stage)
        async with flowing(stage) as flow:
            await flow.until_outputs_grow()
            for worker, target in itertools.product(workers, ("sandbox", "fork server", "sandbox")):
                await until(lambda worker=worker: bool(worker.sandbox_pids), "a sandbox runs")  # type: ignore[misc]
                await asyncio.sleep(chance.uniform(0, 0.1))  # the random moment itself
                victim = worker.sandbox_pids[0] if target == "sandbox" else worker.fork_server_pid
                assert victim is not None
                os.kill(victim, signal.SIGKILL)
                await until(
                    lambda worker=worker, victim=victim: (
                        bool(worker.sandbox_pids)  # type: ignore[misc]
                        and victim not in (*worker.sandbox_pids, worker.fork_server_pid)
                    ),
                    "a new sandbox runs",
                )
                await flow.until_outputs_grow()
        for worker in workers:
            assert await worker.metric("plugin_server_sandbox_restarts_total") >= 3
            assert await worker.metric("plugin_server_app_failures_total") == 0

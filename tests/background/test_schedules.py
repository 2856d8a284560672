"""Schedules on real databases: a tick once across all workers, missed ones once, never two of one install, failures alone."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from plugin_server.background.schedule_store import LEASE_MS
from plugin_server.background.ticks import next_run_ms
from plugin_server.database.tables import jobs
from plugin_server.model.errors import SandboxUnavailable
from plugin_server.runtime.work import Answered
from tests.background.stage import START, AppFailed, Call, Clock, Hooks, project, until, worker

MINUTE = "runEveryMinute"
SOURCE = f"def {MINUTE}(meta): pass"
BOTH = f"{SOURCE}\ndef runEveryHour(meta): pass"


async def nothing(call: Call) -> None:
    """Just return."""


async def test_the_rows_follow_the_projects_and_keep_their_time(database_url):
    clock = Clock()
    async with worker(database_url, Hooks({}), project(1, 2, source=BOTH), clock=clock) as stage:
        await stage.schedules.sync()
        first = await stage.next_ticks()
        assert set(first) == {(1, MINUTE), (1, "runEveryHour"), (2, MINUTE), (2, "runEveryHour")}
        clock.now += 3_000
        stage.projects = {2: project(1, 3, source=SOURCE), 5: project(4, project_id=5)}
        await stage.schedules.sync()
        assert await stage.next_ticks() == {
            (1, MINUTE): first[1, MINUTE],
            (3, MINUTE): next_run_ms(MINUTE, 3, clock.ms),
        }
        stage.projects = {7: project(1, project_id=7, source=SOURCE)}
        await stage.schedules.sync()
        assert await stage.next_ticks() == {(1, MINUTE): next_run_ms(MINUTE, 1, clock.ms)}


async def test_a_tick_runs_when_it_is_due_and_what_it_captures_and_starts_are_new_roots(database_url):
    async def run(call: Call) -> None:
        call.capture()
        await call.start("work")
        await call.count("ticks")

    clock = Clock()
    hooks = Hooks({1: {MINUTE: run}})
    async with worker(database_url, hooks, project(source=SOURCE), clock=clock) as stage:
        await stage.schedules.sync()
        assert await stage.tick() == 0
        for number in range(1, 4):
            clock.now = (await stage.next_ticks())[1, MINUTE] / 1000
            assert await stage.tick() == 1
            assert await stage.stored("ticks") == number
        assert len({each["uuid"] for each in await stage.sent()}) == 3
        assert hooks.calls[0].max_captures == 10_000
        assert {(row.lineage, row.link, row.share) for row in await stage.rows(jobs)} == {(None, 0, 999)}
        assert stage.counts.ticks == [(1, MINUTE)] * 3


async def test_ticks_that_were_missed_run_once(database_url):
    clock = Clock()
    hooks = Hooks({1: {MINUTE: nothing}})
    async with worker(database_url, hooks, project(source=SOURCE), clock=clock) as stage:
        await stage.schedules.sync()
        clock.now += 86_400
        assert await stage.tick() == 1
        assert await stage.tick() == 0
        assert len(hooks.calls) == 1
        assert (await stage.next_ticks())[1, MINUTE] == next_run_ms(MINUTE, 1, clock.ms)


async def test_three_workers_run_each_tick_once_and_no_two_of_one_install_at_a_time(database_url):
    ran: Counter[tuple[int, str]] = Counter()
    now_running: Counter[int] = Counter()

    async def run(call: Call) -> None:
        now_running[call.install_id] += 1
        assert now_running[call.install_id] == 1
        await asyncio.sleep(0.002)
        now_running[call.install_id] -= 1
        ran[call.install_id, call.hook] += 1

    installs = range(1, 21)
    apps = {install: {MINUTE: run, "runEveryHour": run} for install in installs}
    clock = Clock()
    tenant = project(*installs, source=BOTH)
    async with (
        worker(database_url, Hooks(apps), tenant, owner="a", clock=clock) as first,
        worker(database_url, Hooks(apps), tenant, owner="b", clock=clock) as second,
        worker(database_url, Hooks(apps), tenant, owner="c", clock=clock) as third,
    ):
        workers = (first, second, third)
        for stage in workers:
            await stage.schedules.sync()
        clock.now += 7_200
        for _ in range(3):
            await asyncio.gather(*(stage.tick() for stage in workers))
        assert ran == Counter({(install, task): 1 for install in installs for task in apps[install]})
        assert sum(len(stage.counts.ticks) for stage in workers) == 40


async def test_a_long_run_is_not_overtaken_by_its_next_tick_nor_by_another_task(database_url):
    goes_on = asyncio.Event()

    async def long(_call: Call) -> None:
        await goes_on.wait()

    clock = Clock(START + 600)
    hooks = Hooks({1: {MINUTE: long, "runEveryHour": nothing}})
    tenant = project(source=BOTH)
    async with (
        worker(database_url, hooks, tenant, owner="a", clock=clock) as first,
        worker(database_url, hooks, tenant, owner="b", clock=clock) as second,
    ):
        await first.schedules.sync()
        await second.schedules.sync()
        clock.now = (await first.next_ticks())[1, MINUTE] / 1000
        assert await first.schedules.claim_some() == 1
        for _ in range(70):
            clock.now += 60
            await first.ticks.renew([1], clock.ms)
            assert await second.tick() == 0
            assert await first.schedules.claim_some() == 0
        goes_on.set()
        await first.schedules.drain()
        assert await second.tick() == 1
        assert [call.hook for call in hooks.calls] == [MINUTE, "runEveryHour"]


async def test_the_ticks_of_a_killed_worker_are_taken_over_with_the_same_ids(database_url):
    async def for_ever(_call: Call) -> None:
        await asyncio.Event().wait()

    async def run(call: Call) -> None:
        call.capture()

    clock = Clock()
    tenant = project(source=SOURCE)
    async with (
        worker(database_url, Hooks({1: {MINUTE: for_ever}}), tenant, owner="a", clock=clock) as first,
        worker(database_url, Hooks({1: {MINUTE: run}}), tenant, owner="b", clock=clock) as second,
    ):
        await first.schedules.sync()
        await second.schedules.sync()
        clock.now = (await first.next_ticks())[1, MINUTE] / 1000
        assert await first.schedules.claim_some() == 1
        assert await second.tick() == 0
        clock.now += LEASE_MS / 1000 + 1
        assert await second.tick() == 1
        hung = list(first.schedules._running.values())
        for task in hung:
            task.cancel()
        await asyncio.gather(*hung, return_exceptions=True)
        origins = {call.effects.origin for stage in (first, second) for call in stage.hooks.calls}
        assert len(origins) == 1
        assert len(await second.sent()) == 1


async def test_a_tick_that_fails_harms_no_other_and_runs_again_at_the_next(database_url):
    async def fails(_call: Call) -> None:
        raise AppFailed("no good")

    clock = Clock()
    hooks = Hooks({1: {MINUTE: fails}, 2: {MINUTE: nothing}})
    async with worker(database_url, hooks, project(1, 2, source=SOURCE), clock=clock) as stage:
        await stage.schedules.sync()
        for _ in range(2):
            clock.now += 60
            assert await stage.tick() == 2
        assert stage.counts.failed_ticks == [(1, MINUTE, "app")] * 2
        assert stage.counts.ticks == [(2, MINUTE)] * 2
        assert await stage.log_lines() == ["runEveryMinute failed: no good"] * 2


async def test_a_tick_that_asks_for_it_is_tried_again_within_its_period(database_url):
    async def later(call: Call) -> None:
        call.capture()
        raise AppFailed("later", "retry", retryable=True)

    clock = Clock()
    hooks = Hooks({1: {MINUTE: later}})
    async with worker(database_url, hooks, project(source=SOURCE), clock=clock) as stage:
        await stage.schedules.sync()
        clock.now = start = (await stage.next_ticks())[1, MINUTE] / 1000
        tries = []
        for _ in range(6):
            tries.append(round(clock.now - start))
            await stage.tick()
            clock.now = (await stage.next_ticks())[1, MINUTE] / 1000
        assert tries == [0, 5, 10, 20, 40, 60]
        assert await stage.sent() == []
        assert len({call.effects.origin for call in hooks.calls}) == 2


@pytest.mark.parametrize(
    ("hooks", "stays"), [({"processEvent": nothing}, False), ({}, True)], ids=["only spoken of", "does not run"]
)
async def test_a_task_that_the_app_does_not_have_goes_unless_the_app_does_not_run(database_url, hooks, stays):
    clock = Clock()
    async with worker(database_url, Hooks({1: hooks}), project(source=f"# no {MINUTE} yet"), clock=clock) as stage:
        await stage.schedules.sync()
        clock.now += 60
        await stage.tick()
        assert bool(await stage.next_ticks()) is stays
        assert stage.counts.failed_ticks == ([(1, MINUTE, "app")] if stays else [])


async def test_what_is_away_leaves_the_tick_to_the_next_try(database_url):
    troubles = [SandboxUnavailable("no memory")]

    async def run(_call: Call) -> None:
        if troubles:
            raise troubles.pop()

    clock = Clock(START)
    async with worker(database_url, Hooks({1: {MINUTE: run}}), project(source=SOURCE), clock=clock) as stage:
        await stage.schedules.sync()
        clock.now += 60
        await stage.tick()
        assert stage.counts.ticks == []
        clock.now += LEASE_MS / 1000 + 1
        await stage.tick()
        assert stage.counts.ticks == [(1, MINUTE)]


async def test_run_syncs_starts_and_ends_when_drained(database_url):
    clock = Clock()
    hooks = Hooks({1: {MINUTE: nothing}})
    async with worker(database_url, hooks, project(source=SOURCE), clock=clock) as stage:
        await stage.schedules.sync()
        clock.now += 60
        running = asyncio.create_task(stage.schedules.run())
        await until(lambda: bool(stage.counts.ticks))
        await stage.schedules.drain()
        await running
        assert len(hooks.calls) == 1


@pytest.mark.parametrize("is_known", [True, False], ids=["before it is settled", "when it is stored"])
async def test_a_tick_that_is_found_stale_runs_again_and_is_answered_as_before(database_url, is_known):
    async def run(call: Call) -> None:
        await call.count("runs")
        if len(hooks.calls) == 1:
            call.effects.journal[1, 0] = Answered(b"digest", [True, "from outside"])
            await stage.change("runs", 10, is_known=is_known)

    clock = Clock()
    hooks = Hooks({1: {MINUTE: run}})
    async with worker(database_url, hooks, project(source=SOURCE), clock=clock) as stage:
        await stage.schedules.sync()
        clock.now += 60
        assert await stage.tick() == 1
        first, second = hooks.calls
        assert second.effects.journal is first.effects.journal
        assert second.effects.origin == first.effects.origin
        assert await stage.stored("runs") == 11
        assert stage.counts.ticks == [(1, MINUTE)]


async def test_what_was_being_claimed_when_the_worker_was_drained_is_given_back(database_url):
    clock = Clock()
    hooks = Hooks({1: {MINUTE: nothing}})
    tenant = project(source=SOURCE)
    async with (
        worker(database_url, hooks, tenant, owner="a", clock=clock) as first,
        worker(database_url, Hooks({1: {MINUTE: nothing}}), tenant, owner="b", clock=clock) as second,
    ):
        claim = first.ticks.claim

        async def claim_and_drain(*given: Any) -> Any:
            held = await claim(*given)
            await first.schedules.drain()
            return held

        first.ticks.claim = claim_and_drain
        await first.schedules.sync()
        await second.schedules.sync()
        clock.now += 60
        assert await first.tick() == 0
        assert hooks.calls == []
        assert await second.tick() == 1


async def test_an_install_that_is_just_being_given_back_is_not_claimed_and_forgotten(database_url):
    clock = Clock()
    hooks = Hooks({1: {MINUTE: nothing}})
    claimed = []
    async with worker(database_url, hooks, project(source=SOURCE), clock=clock) as stage:
        release = stage.ticks.release

        async def release_and_claim(installs: Any) -> None:
            await release(installs)
            clock.now += 60
            claimed.append(await stage.schedules.claim_some())

        await stage.schedules.sync()
        clock.now += 60
        stage.ticks.release = release_and_claim
        assert await stage.tick() == 1
        stage.ticks.release = release
        assert claimed == [0]
        assert await stage.tick() == 1
        assert len(hooks.calls) == 2

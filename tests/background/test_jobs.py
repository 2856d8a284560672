"""Jobs on real databases: run once, retried, kept when dead, taken over, fair; and nothing counts that was not stored."""

from __future__ import annotations

import asyncio
import multiprocessing
from collections import Counter
from typing import Any

import pytest
from sqlalchemy import update

from plugin_server.background.job_store import DEAD_KEPT_MS, DEAD_KEPT_PER_INSTALL, LEASE_MS, SEEN_ROWS, Done
from plugin_server.database.tables import jobs
from plugin_server.model.errors import DatabaseUnavailable, SandboxUnavailable
from plugin_server.model.lineage import Lineage
from plugin_server.runtime.work import Answered
from tests.background.stage import AppFailed, Call, Clock, Hooks, project, until, worker

ROOT = "018f0000-0000-7000-8000-00000000aaaa"


async def nothing(call: Call) -> None:
    """Just return."""


async def test_a_job_runs_once_and_what_it_did_is_stored_with_its_end(database_url):
    async def work(call: Call) -> None:
        call.capture()
        await call.count("runs")
        await call.start("next", {"page": 2})

    hooks = Hooks({1: {"jobs.work": work, "jobs.next": nothing}})
    async with worker(database_url, hooks) as stage:
        await stage.put_jobs(1)
        await stage.work()
        assert [call.hook for call in hooks.calls] == ["jobs.work", "jobs.next"]
        assert hooks.calls[1].payload == {"page": 2}
        assert await stage.rows() == []
        assert await stage.stored("runs") == 1
        assert len(await stage.sent()) == 1
        assert stage.counts.ran == [1, 1]


async def test_nothing_runs_before_its_time(database_url):
    clock = Clock()
    async with worker(database_url, Hooks({1: {"jobs.work": nothing}}), clock=clock) as stage:
        await stage.put_jobs(1, run_at_ms=clock.ms + 1_000)
        await stage.work()
        assert stage.counts.ran == []
        clock.now += 1
        await stage.work()
        assert stage.counts.ran == [1]


async def test_a_job_of_an_event_spends_its_share_and_one_of_a_person_makes_new_roots(database_url):
    async def work(call: Call) -> None:
        for _ in range(5):
            call.capture()

    hooks = Hooks({1: {"jobs.work": work}})
    async with worker(database_url, hooks) as stage:
        await stage.put_jobs(1, share=3, lineage=Lineage(ROOT, 1, (7,), 10).encode())
        await stage.work()
        assert (len(await stage.sent()), hooks.calls[0].max_captures) == (3, None)
        assert "5 captures" not in str(await stage.log_lines())
        assert any("2 captures were cut by budget" in line for line in await stage.log_lines())
        await stage.put_jobs(1, share=3)
        await stage.work()
        assert (len(await stage.sent()), hooks.calls[1].max_captures) == (8, 10_000)


async def test_a_failed_job_leaves_only_its_logs_is_tried_again_and_kept_when_dead(database_url):
    async def work(call: Call) -> None:
        call.capture()
        await call.count("runs")
        await call.start("next")
        raise AppFailed("no such table\0")

    clock = Clock()
    async with worker(database_url, Hooks({1: {"jobs.work": work}}), clock=clock) as stage:
        await stage.put_jobs(1)
        waits = []
        while await stage.left():
            await stage.work()
            [row] = await stage.rows()
            waits.append((row.run_at_ms - clock.ms) / 1000)
            clock.now += max(waits[-1], 0)
        assert waits == [5, 10, 20, 40, 0]
        assert (row.state, row.error, row.attempts, row.claimed_by) == ("dead", "no such table\ufffd", 5, None)
        assert await stage.sent() == []
        assert await stage.stored("runs") is None
        lines = await stage.log_lines()
        assert lines[1] == "jobs.work: attempt 1 of 5 failed, the next one is in 5 s"
        assert lines[-1].startswith("jobs.work: given up after 5 attempts")
        assert (len(stage.counts.failed), stage.counts.died) == (5, [1])


async def test_a_job_that_asks_for_it_is_tried_more_often(database_url):
    async def work(_call: Call) -> None:
        raise AppFailed("later, please", "retry", retryable=True)

    clock = Clock()
    async with worker(database_url, Hooks({1: {"jobs.work": work}}), clock=clock) as stage:
        await stage.put_jobs(1)
        for _ in range(7):
            await stage.work()
            clock.now = (await stage.rows())[0].run_at_ms / 1000
        assert (await stage.rows())[0].state == "waiting"
        assert stage.counts.failed == [(1, "retry")] * 7


async def test_a_job_that_the_app_does_not_have_is_dead_at_once_and_says_so(database_url):
    async with worker(database_url, Hooks({1: {"jobs.work": nothing}})) as stage:
        await stage.put_jobs(1, name="x")
        await stage.work()
        [row] = await stage.rows()
        assert (row.state, row.error) == ("dead", 'Task "x" not found for plugin "App1" with config id 1')
        assert row.error in await stage.log_lines()


async def test_a_job_of_an_app_that_does_not_run_waits_for_it(database_url):
    clock = Clock()
    hooks = Hooks({1: {}})
    async with worker(database_url, hooks, clock=clock) as stage:
        await stage.put_jobs(1)
        await stage.work()
        [row] = await stage.rows()
        assert (row.state, row.attempts) == ("waiting", 1)
        hooks.apps = {1: {"jobs.work": nothing}}
        clock.now += 5
        await stage.work()
        assert await stage.rows() == []


async def test_jobs_of_an_install_that_is_gone_wait_a_while_and_are_kept_dead(database_url):
    clock = Clock()
    async with worker(database_url, Hooks({1: {"jobs.work": nothing}}), project(1), clock=clock) as stage:
        await stage.put_jobs(3, install_id=9)
        await stage.work()
        assert await stage.left() == 3
        clock.now += 601
        await stage.work()
        assert {(row.state, row.error) for row in await stage.rows()} == {("dead", "install gone")}
        assert any("3 jobs were not run" in line for line in await stage.log_lines())


async def test_what_is_away_is_no_attempt_and_the_job_runs_when_it_is_back(database_url):
    troubles = [SandboxUnavailable("no memory"), RuntimeError("a bug of ours")]

    async def work(_call: Call) -> None:
        if troubles:
            raise troubles.pop()

    async with worker(database_url, Hooks({1: {"jobs.work": work}})) as stage:
        await stage.put_jobs(1)
        for _ in range(2):
            await stage.work()
            [row] = await stage.rows()
            assert (row.state, row.attempts, row.claimed_by) == ("waiting", 0, None)
            assert await stage.jobs.claim_some() == 0  # the project waits a while
            stage.jobs._pauses.clear()
        await stage.work()
        assert await stage.rows() == []


async def test_a_database_that_fails_a_commit_makes_the_job_run_again(database_url):
    async def work(call: Call) -> None:
        await call.count("runs")

    async with worker(database_url, Hooks({1: {"jobs.work": work}})) as stage:
        await stage.put_jobs(1)
        complete = stage.store.complete

        async def fails(connection, tokens):
            stage.store.complete = complete
            raise DatabaseUnavailable("gone for a moment")

        stage.store.complete = fails
        await stage.work()
        stage.jobs._pauses.clear()
        await stage.work()
        assert await stage.rows() == []
        assert await stage.stored("runs") == 1


async def test_many_jobs_that_count_with_get_and_set_count_right(database_url):
    async def work(call: Call) -> None:
        await call.count("runs")

    async with worker(database_url, Hooks({1: {"jobs.work": work}})) as stage:
        await stage.put_jobs(60)
        await stage.work()
        assert await stage.stored("runs") == 60
        assert await stage.rows() == []


@pytest.mark.postgres
async def test_ten_thousand_jobs_and_four_workers_run_each_once(postgres_url):
    seen: Counter[int] = Counter()

    async def work(call: Call) -> None:
        seen[call.payload] += 1
        call.capture()

    async with (
        worker(
            postgres_url, Hooks({1: {"jobs.work": work}, 2: {"jobs.work": work}}), project(1, 2), owner="a"
        ) as first,
        worker(postgres_url, first.hooks, project(1, 2), owner="b") as second,
        worker(postgres_url, first.hooks, project(1, 2), owner="c") as third,
        worker(postgres_url, first.hooks, project(1, 2), owner="d") as fourth,
    ):
        await first.put_jobs(8_000)
        await first.put_jobs(2_000, install_id=2)
        workers = (first, second, third, fourth)
        running = [asyncio.create_task(stage.jobs.run()) for stage in workers]
        await until(lambda: sum(len(stage.counts.ran) for stage in workers) == 10_000)
        await asyncio.gather(*(stage.jobs.drain() for stage in workers))
        await asyncio.gather(*running)
        assert set(seen.values()) == {1}
        assert len(seen) == 10_000
        assert len(await first.sent()) == 10_000
        assert await first.left() == 0
        assert all(stage.counts.ran for stage in workers)


async def test_the_jobs_of_a_killed_worker_are_taken_over_and_what_it_still_does_counts_for_nothing(database_url):
    goes_on = asyncio.Event()

    async def slow(call: Call) -> None:
        call.capture("from the first")
        await call.count("runs")
        await goes_on.wait()

    async def fast(call: Call) -> None:
        call.capture("from the second")
        await call.count("runs")

    clock = Clock()
    async with (
        worker(database_url, Hooks({1: {"jobs.work": slow}}), owner="first", clock=clock) as first,
        worker(database_url, Hooks({1: {"jobs.work": fast}}), owner="second", clock=clock) as second,
    ):
        await first.put_jobs(5)
        assert await first.jobs.claim_some() == 5
        await second.work()
        assert second.counts.ran == []
        clock.now += LEASE_MS / 1000 + 1  # the first one is stopped, and renews nothing
        await second.work()
        assert second.counts.ran == [1] * 5
        goes_on.set()
        await first.jobs.drain()
        assert first.counts.ran == []
        assert [each["data"].count("from the second") for each in await first.sent()] == [1] * 5
        assert await first.stored("runs") == 5


async def test_a_lease_that_is_renewed_is_not_taken_over(database_url):
    clock = Clock()
    hooks = Hooks({1: {"jobs.work": nothing}})
    async with worker(database_url, hooks, clock=clock) as first, worker(database_url, hooks, owner="b", clock=clock) as second:  # fmt: skip
        await first.put_jobs(2)
        claimed = await first.store.claim({1: 2}, clock.ms)
        clock.now += 50
        await first.store.renew([job.id for job in claimed], clock.ms)
        clock.now += 50
        assert await second.store.claim({1: 2}, clock.ms) == []
        clock.now += 50
        assert len(await second.store.claim({1: 2}, clock.ms)) == 2


async def test_a_worker_that_stops_gives_back_what_it_has_not_finished(database_url):
    started = asyncio.Event()

    async def for_ever(_call: Call) -> None:
        started.set()
        await asyncio.Event().wait()

    async with worker(database_url, Hooks({1: {"jobs.work": for_ever}})) as stage:
        await stage.put_jobs(3)
        running = asyncio.create_task(stage.jobs.run())
        await started.wait()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert {(row.claimed_by, row.claimed_until_ms, row.attempts) for row in await stage.rows()} == {(None, 0, 0)}


async def test_a_worker_that_is_drained_claims_no_more_and_finishes_what_runs(database_url):
    started, goes_on = asyncio.Event(), asyncio.Event()

    async def slow(_call: Call) -> None:
        started.set()
        await goes_on.wait()

    async with worker(database_url, Hooks({1: {"jobs.work": slow}})) as stage:
        await stage.put_jobs(3)
        running = asyncio.create_task(stage.jobs.run())
        await started.wait()
        draining = asyncio.create_task(stage.jobs.drain())
        [late] = await stage.put_jobs(1)
        done, _ = await asyncio.wait({running, draining}, timeout=0.05)
        assert not done
        goes_on.set()
        await asyncio.gather(running, draining)
        assert stage.counts.ran == [1] * 3
        assert [(row.id, row.claimed_by) for row in await stage.rows()] == [(late, None)]


def hang_on_jobs(url: str, claimed: Any) -> None:
    """The life of a worker process that is about to be killed."""

    async def live() -> None:
        async def for_ever(_call: Call) -> None:
            claimed.release()
            await asyncio.Event().wait()

        async with worker(url, Hooks({1: {"jobs.work": for_ever}}), owner="killed") as stage:
            await stage.jobs.run()

    asyncio.run(live())


@pytest.mark.postgres
async def test_a_worker_process_that_is_killed_loses_no_job(postgres_url):
    clock = Clock()
    async with worker(postgres_url, Hooks({1: {"jobs.work": nothing}}), clock=clock) as stage:
        await stage.put_jobs(10)
        context = multiprocessing.get_context("spawn")
        claimed = context.Semaphore(0)
        process = context.Process(target=hang_on_jobs, args=(postgres_url, claimed))
        process.start()
        for _ in range(10):
            await asyncio.to_thread(claimed.acquire)
        process.kill()
        await asyncio.to_thread(process.join)
        await stage.work()
        assert stage.counts.ran == []
        clock.now += LEASE_MS / 1000 + 1
        await stage.work()
        assert stage.counts.ran == [1] * 10
        assert await stage.rows() == []


async def test_jobs_that_hang_hold_back_no_other_install(database_url):
    hang = asyncio.Event()

    async def for_ever(_call: Call) -> None:
        await hang.wait()

    hooks = Hooks({1: {"jobs.work": for_ever}, 2: {"jobs.work": nothing}})
    async with worker(database_url, hooks, project(1, 2)) as stage:
        await stage.put_jobs(SEEN_ROWS + 500)  # so many that the other's are not among those that are looked at
        await stage.put_jobs(30, install_id=2)
        running = asyncio.create_task(stage.jobs.run())
        await until(lambda: len(stage.counts.ran) >= 30 and stage.jobs.in_flight <= 200)
        assert stage.counts.ran == [2] * 30
        assert stage.jobs.in_flight == 200
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_the_dead_are_bounded_by_age_and_number(database_url):
    clock = Clock()
    async with worker(database_url, Hooks({})) as stage:
        await stage.put_jobs(5, state="dead", run_at_ms=clock.ms - DEAD_KEPT_MS - 1)
        await stage.put_jobs(DEAD_KEPT_PER_INSTALL + 7, state="dead", install_id=2)
        await stage.put_jobs(1)
        assert await stage.store.prune(clock.ms) == 12
        assert (await stage.left("dead"), await stage.left()) == (DEAD_KEPT_PER_INSTALL, 1)


async def test_a_corrupt_lineage_stops_nobody(database_url):
    async def work(call: Call) -> None:
        call.capture()

    async with worker(database_url, Hooks({1: {"jobs.work": work}})) as stage:
        await stage.put_jobs(1, lineage=b"{")
        await stage.put_jobs(1)
        await stage.work()
        assert await stage.rows() == []
        assert len(await stage.sent()) == 1


async def test_a_completion_names_those_that_are_not_ours(database_url):
    async with worker(database_url, Hooks({})) as stage:
        mine, other = await stage.put_jobs(2)
        await stage.store.claim({1: 2}, stage.clock.ms)
        async with stage.database.write() as connection:
            await connection.execute(update(jobs).where(jobs.c.id == other).values(claimed_by="somebody"))
            assert await stage.store.complete(connection, [Done(mine), Done(other), Done("gone")]) == [
                Done(other),
                Done("gone"),
            ]


@pytest.mark.parametrize("is_known", [True, False], ids=["before it is settled", "when it is stored"])
async def test_a_job_that_is_found_stale_runs_again_and_is_answered_as_before(database_url, is_known):
    async def run(call: Call) -> None:
        await call.count("runs")
        if len(hooks.calls) == 1:
            call.effects.journal[1, 0] = Answered(b"digest", [True, "from outside"])
            await stage.change("runs", 10, is_known=is_known)

    hooks = Hooks({1: {"jobs.work": run}})
    async with worker(database_url, hooks) as stage:
        await stage.put_jobs(1)
        await stage.work()
        first, second = hooks.calls
        assert second.effects.journal is first.effects.journal
        assert second.effects.origin == first.effects.origin
        assert await stage.stored("runs") == 11
        assert stage.counts.ran == [1]


async def test_jobs_that_were_being_claimed_when_the_worker_was_drained_are_given_back(database_url):
    hooks = Hooks({1: {"jobs.work": nothing}})
    async with worker(database_url, hooks) as stage:
        claim = stage.store.claim

        async def claim_and_drain(*given: Any) -> Any:
            claimed = await claim(*given)
            await stage.jobs.drain()
            return claimed

        stage.store.claim = claim_and_drain
        await stage.put_jobs(3)
        await stage.jobs.run()
        assert hooks.calls == []
        assert [row.claimed_by for row in await stage.rows()] == [None] * 3

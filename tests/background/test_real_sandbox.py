"""Jobs and schedules in real sandboxes: what an app starts by `meta.jobs` runs, in chains, until it ends."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from plugin_server.host_api.captures import pace_ms
from plugin_server.host_api.jobs import make_jobs_handlers
from plugin_server.host_api.storage import storage_handlers
from plugin_server.model.lineage import Lineage
from tests.background.stage import START, Clock, Stage, project, worker
from tests.sandbox.projects import running_pool

ROOT = "018f0000-0000-7000-8000-00000000aaaa"
IMPORTER = """
PAGES = 200
ROWS = 25

async def page(payload, meta):
    number = payload["page"]
    for row in range(ROWS):
        posthog.capture("imported", {"distinct_id": "importer", "row": number * ROWS + row})
    await meta.storage.set("cursor", number)
    if number + 1 < PAGES:
        meta.jobs.page({"page": number + 1}).runNow()

jobs = {"page": page}
"""
MANY = """
def many(payload, meta):
    for number in range(payload["count"]):
        posthog.capture("x", {"distinct_id": "d", "n": number})

jobs = {"many": many}
"""
FAILING = """
def error(payload, meta):
    raise ValueError("no such page")

def later(payload, meta):
    raise RetryError("the other side is busy")

async def for_ever(payload, meta):
    while True:
        pass

jobs = {"error": error, "later": later, "for_ever": for_ever}
"""
SCHEDULED = """
async def runEveryMinute(meta):
    n = await meta.storage.get("n", 0)
    posthog.capture("tick", {"distinct_id": "clock", "n": n})
    await meta.storage.set("n", n + 1)

def processEvent(event, meta):
    return event
"""


class _Proxy:
    """Hooks of a Stage, whose ledger the pool's host calls need."""

    def __init__(self) -> None:
        self.pool: Any = None
        self.ledger: Any = None

    async def invoke(self, *arguments: Any, **options: Any) -> Any:
        return await self.pool.invoke(*arguments, **options)

    async def hooks(self, tenant: Any) -> Any:
        return await self.pool.hooks(tenant)


@contextlib.asynccontextmanager
async def sandboxed(url: str, tenant: Any, clock: Clock | None = None) -> AsyncIterator[Stage]:
    hooks = _Proxy()
    async with worker(url, hooks, tenant, clock=clock) as stage:
        handlers = {**make_jobs_handlers(stage.clock), **storage_handlers(stage.ledger)}
        async with running_pool(handlers=handlers) as bench:
            hooks.pool = bench.pool
            yield stage


async def test_a_paging_importer_of_5000_rows_over_200_chained_jobs_finishes(database_url):
    clock = Clock()
    async with sandboxed(database_url, project(source=IMPORTER), clock) as stage:
        await stage.put_jobs(1, name="page", payload=b'{"page":0}')
        ran = 0
        while await stage.left():
            await stage.work()
            ran = len(stage.counts.ran)
            if rows := await stage.rows():
                waits = (rows[0].run_at_ms - clock.ms) / 1000
                assert waits == pace_ms(ran) / 1000  # paced, and so bounded in rate
                clock.now += waits
        assert ran == 200
        rows = [each for each in await stage.sent() if '"imported"' in each["data"]]
        assert len({each["uuid"] for each in rows}) == len(rows) == 5_000
        assert await stage.stored("cursor") == 199
        assert clock.now - START < 2 * 3600


async def test_a_job_that_a_person_started_may_capture_thousands_and_one_of_an_event_its_share(database_url):
    async with sandboxed(database_url, project(source=MANY)) as stage:
        await stage.put_jobs(1, name="many", payload=b'{"count":3000}')
        await stage.work()
        assert len(await stage.sent()) == 3_000
        await stage.put_jobs(
            1, name="many", payload=b'{"count":60}', share=40, lineage=Lineage(ROOT, 0, (), 40).encode()
        )
        await stage.work()
        assert len(await stage.sent()) == 3_040
        assert stage.counts.failed == []


@pytest.mark.parametrize(("name", "kind"), [("error", "app"), ("later", "retry"), ("for_ever", "timeout")])
async def test_a_job_that_fails_is_told_to_its_owner_and_tried_again(database_url, name, kind):
    tenant = project(source=FAILING)
    tenant = type(tenant)(
        tenant.id,
        tenant.name,
        tenant.token,
        tenant.installs,
        limits=tenant.limits.model_copy(update={"cpu_seconds": 0.2}),
    )
    async with sandboxed(database_url, tenant) as stage:
        await stage.put_jobs(1, name=name, payload=b"null")
        await stage.work()
        [row] = await stage.rows()
        assert (row.state, row.attempts, row.run_at_ms) == ("waiting", 1, stage.clock.ms + 5_000)
        assert stage.counts.failed == [(1, kind)]
        lines = await stage.log_lines()
        assert any(line.startswith(f"jobs.{name} failed: ") for line in lines)
        assert any("the next one is in 5 s" in line for line in lines)


async def test_a_schedule_runs_each_minute_and_counts_right(database_url):
    clock = Clock()
    async with sandboxed(database_url, project(source=SCHEDULED), clock) as stage:
        await stage.schedules.sync()
        for _ in range(3):
            clock.now += 60
            assert await stage.tick() == 1
        assert await stage.stored("n") == 3
        assert len(await stage.sent()) == 3


async def test_a_job_that_the_app_does_not_have_is_refused_where_it_is_started_and_dead_where_it_runs(database_url):
    async with sandboxed(database_url, project(source=SCHEDULED)) as stage:
        await stage.put_jobs(1, name="gone")
        await stage.work()
        assert [row.error for row in await stage.rows()] == ['Task "gone" not found for plugin "App1" with config id 1']

"""Two workers on Kafka, Postgres and Redis, one of them killed again and again: each event counts once, each job runs, nothing is missed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.server import project, until
from tests.stage import envelope, make_stage

EVENTS = 600
COUNTS = """
async def processEvent(event, meta):
    if event['event'] == 'x':
        seen = await meta.storage.get('seen', 0)
        await meta.storage.set('seen', seen + 1)
        event['properties']['seen'] = seen + 1
        await meta.cache.incr('touched')
        if event['properties']['n'] % 20 == 0:
            await meta.jobs.tell({'n': event['properties']['n']}).runNow()
    return event

async def onEvent(event, meta):
    if event['event'] == 'x':
        meta.storage.increment('delivered')

async def tell(payload, meta):
    posthog.capture('told', {'n': payload['n'], 'delivered': await meta.storage.get('delivered', 0)})

jobs = {'tell': tell}
"""


@pytest.mark.kafka
async def test_each_event_counts_once_and_each_job_runs_while_workers_are_killed(
    request: pytest.FixtureRequest, tmp_path: Path, postgres_url: str, redis_url: str
):
    stage = make_stage("kafka", request, tmp_path, [project(2, COUNTS)], database_url=postgres_url, cache_url=redis_url)
    async with stage:
        workers = [stage.server("one"), stage.server("two")]
        for worker in workers:
            await worker.start_ready()
        for start in range(0, EVENTS, 200):
            await stage.log.send([envelope(2, n, f"d{n % 13}", n=n) for n in range(start, start + 200)])
            await until(lambda start=start: _count(stage, start), "some of them are through")
            victim = workers[(start // 200) % 2]
            victim.kill()
            victim.start()

        async def all_there() -> bool:
            names = Counter([record.json["event"] for record in await stage.log.outputs()])
            return names["x"] == EVENTS and names["told"] >= EVENTS // 20

        await until(all_there, "all events and all that the jobs captured")
        outputs = await stage.log.outputs()
        seen = [record.properties["seen"] for record in outputs if record.json["event"] == "x"]
        assert sorted(seen) == list(range(1, EVENTS + 1))
        told = {record.json["uuid"]: record.properties["n"] for record in outputs if record.json["event"] == "told"}
        assert sorted(told.values()) == list(range(0, EVENTS, 20))
        assert not await stage.log.dead_letters()


async def _count(stage, more_than: int) -> bool:
    return await stage.log.count_outputs() > more_than + 30

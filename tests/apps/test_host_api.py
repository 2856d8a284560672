"""What apps do by the host, on a whole server: the seed example, storage that counts once, posted events, other people's hosts."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.server import project, until
from tests.stage import BOTH_LOGS, Record, Stage, envelope, make_stage, running

SEED = """
async def processEvent(event, meta):
    if event['event'] == 'signed_up':
        posthog.capture('signup followed up', {'distinct_id': event['distinct_id'], 'timestamp': '2026-01-31T12:00:00Z'})
        posthog.capture('by nobody')
        res = await posthog.api.post('/api/projects/@current/annotations', {
            'host': 'https://app.posthog.com', 'data': {'content': 'New signup', 'scope': 'organization'}})
        body = await res.json()
        event['properties']['annotation'] = [res.status, res.ok, body['content'], body['scope']]
    return event
"""
COUNTER = """
async def processEvent(event, meta):
    seen = await meta.storage.get('seen', 0)
    await meta.storage.set('seen', seen + 1)
    meta.storage.increment('unheard')
    event['properties']['seen'] = seen + 1
    event['properties']['heard'] = await meta.storage.increment('heard')
    return event
"""
POSTS = """
async def processEvent(event, meta):
    if event['event'] == 'x':
        res = await fetch('https://app.posthog.com/capture/', method='POST', json={
            'api_key': 'phc_2', 'event': 'posted', 'distinct_id': 'eve', 'properties': {'a': 1}})
        event['properties']['answer'] = [res.status, await res.json()]
    return event
"""


async def outputs(stage: Stage, messages: list[dict[str, Any]]) -> list[Record]:
    """All events that come of these."""
    await stage.log.send(messages)
    await stage.log.until_settled()
    return await stage.log.outputs()


@pytest.mark.parametrize("log", BOTH_LOGS)
async def test_the_seed_example_works_as_written(log, request, tmp_path: Path):
    stage = make_stage(log, request, tmp_path, [project(2, SEED)])
    async with running(stage):
        by_name = {
            record.json["event"]: record for record in await outputs(stage, [envelope(2, 1, "ada", "signed_up")])
        }
        assert by_name["signed_up"].properties["annotation"] == [201, True, "New signup", "organization"]
        assert by_name["signup followed up"].json["distinct_id"] == "ada"
        assert by_name["signup followed up"].json["timestamp"] == "2026-01-31 12:00:00.000"
        assert by_name["by nobody"].json["distinct_id"] == "App Server"
        assert by_name["by nobody"].lineage["depth"] == 1


@pytest.mark.parametrize("log", BOTH_LOGS)
async def test_storage_counts_each_event_once_over_all_lanes(log, request, tmp_path: Path):
    stage = make_stage(log, request, tmp_path, [project(2, COUNTER)])
    count = 300
    async with running(stage):
        records = await outputs(stage, [envelope(2, number, f"d{number % 17}") for number in range(count)])
        for name in ("seen", "heard"):
            assert sorted(record.properties[name] for record in records) == list(range(1, count + 1))


@pytest.mark.parametrize("log", BOTH_LOGS)
async def test_what_an_app_posts_to_its_own_server_is_a_capture_of_its_event(log, request, tmp_path: Path):
    stage = make_stage(log, request, tmp_path, [project(2, POSTS)])
    async with running(stage):
        by_name = {record.json["event"]: record for record in await outputs(stage, [envelope(2, 1)])}
        assert by_name["x"].properties["answer"] == [200, {"status": 1}]
        assert by_name["posted"].lineage["depth"] == 1
        assert by_name["posted"].lineage["path"] == [201]
        assert by_name["posted"].json["distinct_id"] == "eve"


JOBS = """
async def pages(payload, meta):
    page = payload['page']
    for row in range(25):
        posthog.capture('row', {'distinct_id': 'importer', 'number': page * 25 + row})
    if page < 3:
        await meta.jobs.pages({'page': page + 1}).runNow()

jobs = {'pages': pages}

async def setupPlugin(meta):
    if await meta.storage.set_if_absent('started', True):
        await meta.jobs.pages({'page': 0}).runNow()

async def onEvent(event, meta):
    if event['event'] == 'again':
        meta.storage.increment('asked')
        await meta.jobs.answer({}).runNow()

def answer(payload, meta):
    posthog.capture('again')

jobs['answer'] = answer

def processEvent(event, meta):
    return event
"""


@pytest.mark.parametrize("log", BOTH_LOGS)
async def test_an_importer_pages_through_jobs_and_a_loop_through_a_job_ends(log, request, tmp_path: Path):
    stage = make_stage(log, request, tmp_path, [project(2, JOBS, loop_policy={"max_depth": 4, "max_visits": 32})])
    async with running(stage):
        await stage.log.send([envelope(2, 1, event="again")])

        async def all_there() -> bool:
            names = Counter([record.json["event"] for record in await stage.log.outputs()])
            return names["row"] == 100 and names["again"] == 5  # the first, and one at each depth

        await until(all_there, "the importer is through, and the loop at its end")
        rows = [record for record in await stage.log.outputs() if record.json["event"] == "row"]
        assert sorted(record.properties["number"] for record in rows) == list(range(100))
        assert {record.lineage["depth"] for record in rows} == {1}

        async def cut() -> bool:
            return [letter.header("reason") for letter in await stage.log.dead_letters()] == ["loop"]

        await until(cut, "what went on beyond the depth is a dead letter")

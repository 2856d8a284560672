"""What only a whole server shows: what its topics hold, deliveries after the chain, what is left of a stop."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.server import project, until
from tests.stage import envelope, make_stage

AUTHOR = """
metrics = {'set_up': 'sum'}

async def setupPlugin(meta):
    meta.metrics.set_up.increment(1)
    meta.global_['data'] = 'haha'

async def processEvent(event, meta):
    console.log('amogus', event['event'])
    event['properties'] |= {'processed': 'hell yes', 'down': await meta.storage.get('down')}
    meta.global_['data'] = 'hoho'
    if event['event'] == 'custom event':
        posthog.capture('captured')
    if event['event'] == 'bad':
        event['properties']['half'] = True
        raise ValueError('thrown in plugin')
    return event

async def onEvent(event, meta):
    console.info('onEvent', event['event'], event['properties'].get('processed'))

async def onSnapshot(event, meta):
    console.info('onSnapshot', event['properties']['$snapshot_data'])

async def teardownPlugin(meta):
    console.log('torn down', meta.global_['data'])
    await meta.storage.set('down', 'in the first life')
    posthog.capture('last words')
"""
OTHER = """
async def processEvent(event, meta):
    event['properties'].setdefault('by', []).append('other')
    event['properties']['fallen'] = await meta.storage.get('fallen')
    return None if event['event'] == 'dropped' else event

async def teardownPlugin(meta):
    await meta.storage.set('fallen', 'it failed')
    posthog.capture('never')
    await meta.jobs.work({}).runNow()
    raise ValueError('This Happened In The Teardown Palace')

def work(payload, meta):
    posthog.capture('never')

jobs = {'work': work}
"""
PALACE = "This Happened In The Teardown Palace"
STAMPS = ("$plugins_succeeded", "$plugins_failed")


async def test_an_event_through_a_server_and_what_a_stop_leaves(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    stage = make_stage("embedded", request, tmp_path, [project(2, AUTHOR, OTHER)])
    log = stage.log

    async def owners_lines(text: str) -> list[dict[str, Any]]:
        return [entry for entry in await log.log_entries() if text in entry["message"]]

    async with stage:
        server = stage.server()
        await server.start_ready()
        data = {"chunk": "x", "n": [1, 2.5, None]}
        forged = {name: ["App201 (201)"] for name in (*STAMPS, "$plugins_deferred")}
        await log.send(
            [
                envelope(2, 1, event="custom event", **forged),
                envelope(2, 2, event="bad"),
                envelope(2, 3, event="dropped"),
                envelope(2, 4, event="$snapshot", **{"$snapshot_data": data}),
            ]
        )
        await log.until_settled()

        async def delivered() -> bool:
            return len(await owners_lines("onEvent")) >= 3 and len(await owners_lines("onSnapshot")) >= 1

        await until(delivered, "all events are delivered")
        records = await log.outputs()
        by_name = {record.json["event"]: record for record in records}
        assert sorted(by_name) == ["$snapshot", "bad", "captured", "custom event"]
        assert len(records) == 4

        custom = by_name["custom event"].properties
        assert (custom["processed"], custom["by"]) == ("hell yes", ["other"])
        assert [custom[name] for name in STAMPS] == [["App201 (201)", "App202 (202)"], []]
        assert "$plugins_deferred" not in custom
        bad = by_name["bad"].properties
        assert [bad.get("processed"), bad.get("half"), bad["by"]] == [None, None, ["other"]]
        assert [bad[name] for name in STAMPS] == [["App202 (202)"], ["App201 (201)"]]
        captured = by_name["captured"].properties  # through all apps, its author included, without being awaited
        assert (captured["processed"], captured["by"], captured["distinct_id"]) == ("hell yes", ["other"], "App Server")
        snapshot = by_name["$snapshot"].properties
        assert snapshot == {"$snapshot_data": data, "$ip": "10.0.0.1"}

        [line] = await owners_lines("amogus custom event")
        assert (line["source"], line["type"], line["team_id"]) == ("CONSOLE", "LOG", 2)
        assert (line["plugin_id"], line["plugin_config_id"]) == (201, 201)
        assert line["instance_id"]
        assert len(await owners_lines("onEvent custom event hell yes")) == 1
        assert len(await owners_lines("onEvent bad None")) == 1
        assert len(await owners_lines("onEvent captured hell yes")) == 1
        assert await owners_lines("onEvent dropped") == await owners_lines("onEvent $snapshot") == []
        [seen] = await owners_lines("onSnapshot")
        assert json.loads(seen["message"].removeprefix("onSnapshot ")) == data
        assert {entry["type"] for entry in await owners_lines("thrown in plugin")} == {"ERROR"}
        assert await owners_lines("torn down") == []

        assert await server.terminate() == 0
        assert "torn down hoho" in {entry["message"] for entry in await owners_lines("torn down")}
        errors = await owners_lines(PALACE)
        assert {(entry["plugin_config_id"], entry["type"]) for entry in errors} == {(202, "ERROR")}
        counted = [record.json for record in await log.read(log.topics.app_metrics)]
        assert {(entry["plugin_config_id"], entry["metric_name"]) for entry in counted} == {(201, "set_up")}

        await server.start_ready()
        await log.send([envelope(2, 5, event="second life")])

        async def there() -> bool:
            await log.until_settled()
            return {"second life", "last words"} <= {record.json["event"] for record in await log.outputs()}

        await until(there, "the second life has its event, and that of the teardown")
        by_name = {record.json["event"]: record for record in await log.outputs()}
        assert by_name["second life"].properties["down"] == "in the first life"
        assert by_name["second life"].properties["fallen"] is None
        assert "never" not in by_name

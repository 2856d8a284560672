"""Several apps, one after another, and events that pass them by."""

from __future__ import annotations

from plugin_server.testing import AppHarness
from tests.behaviours.hooks import EVENT, hook

MARKS = (
    "def processEvent(event, meta):\n    event['properties'].setdefault('by', []).append({name!r})\n    return event\n"
)


async def test_apps_run_in_order_each_on_what_the_one_before_it_returned():
    async with AppHarness(source=[MARKS.format(name=name) for name in ("first", "second", "third")]) as app:
        for _ in range(3):
            run = await app.run("processEvent", EVENT)
            assert run.event["properties"]["by"] == ["first", "second", "third"]


async def test_an_app_that_fails_leaves_no_trace_in_the_event_not_even_what_it_changed_in_place():
    throws = "def processEvent(event, meta):\n    event['properties']['by'].append('half')\n    event['event'] = 'other'\n    raise ValueError('no')\n"
    async with AppHarness(source=[MARKS.format(name="first"), throws, MARKS.format(name="third")]) as app:
        run = await app.run("processEvent", EVENT)
        assert run.event == EVENT | {"properties": {"a": 1, "by": ["first", "third"]}}
        assert run.error.message == "ValueError: no"


async def test_team_and_uuid_cannot_be_changed_and_all_else_can():
    def changes(body: str) -> str:
        return hook("processEvent", f"event['properties']['changed'] = True\n{body}\nreturn event")

    given = EVENT | {"team_id": 2, "uuid": "018f0000-0000-7000-8000-000000000001"}
    async with AppHarness(source=[changes("event['team_id'] = 400"), changes("event['uuid'] = 'mine'")]) as app:
        run = await app.run("processEvent", given)
        assert run.event == given
        assert "tried to change event.team_id" in run.logs[0]["message"]
        assert "tried to change event.uuid" in run.logs[1]["message"]
    body = "event |= {'distinct_id': 'bob', 'event': 'other', 'timestamp': '2026-01-01T00:00:00Z', '$set': {'x': 1}}"
    async with AppHarness(source=hook("processEvent", f"{body}\nreturn event")) as app:
        run = await app.run("processEvent", given)
        assert run.error is None
        assert (run.event["distinct_id"], run.event["event"], run.event["$set"]) == ("bob", "other", {"x": 1})


async def test_waits_count_together_and_the_event_goes_on_as_it_was():
    body = "for n in range(20):\n    await sleep(0.05)\nevent['properties'] = {'passed': True}\nreturn event"
    async with AppHarness(source=hook("processEvent", body), limits={"hook_seconds": 0.2}) as app:
        run = await app.run("processEvent", EVENT)
        assert run.error.kind == "timeout"
        assert run.event == EVENT


async def test_snapshots_pass_all_apps_by_and_are_delivered_to_on_snapshot_alone():
    source = """
def processEvent(event, meta):
    event['properties']['changed'] = True
    return event

async def onEvent(event, meta):
    await meta.storage.increment('events')

async def onSnapshot(event, meta):
    await meta.storage.increment('snapshots')
    await meta.storage.set('got', event['properties']['$snapshot_data'])

def runEveryMinute(meta):
    posthog.capture('$snapshot', {'$snapshot_data': {'chunk': 'a', 'n': [1, 2.5, None]}})
    posthog.capture('pageview', {'$snapshot_data': 0})
"""
    data = {"chunk": "a", "n": [1, 2.5, None]}
    async with AppHarness(source=source) as app:
        snapshot = EVENT | {"event": "$snapshot", "properties": {"$snapshot_data": data}}
        run = await app.run("processEvent", snapshot)
        assert (run.event, run.error) == (snapshot, None)
        await app.run("runEveryMinute")
        first, second = await app.settle()
        assert ("changed" in first.run.event["properties"], "changed" in second.run.event["properties"]) == (
            False,
            True,
        )
        assert app.storage == {"events": 1, "snapshots": 1, "got": data}

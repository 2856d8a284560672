"""`posthog.capture`: what becomes of the events that apps make."""

from __future__ import annotations

import uuid

from plugin_server.testing import AppHarness
from tests.behaviours.hooks import EVENT, hook, messages

NOW = "2026-11-23T00:00:00Z"


async def test_a_capture_has_the_generic_person_the_library_and_its_properties():
    source = """
async def runEveryMinute(meta):
    await posthog.capture('my-new-event', {'random': 'properties'})
    posthog.capture('nobody awaited it')
    posthog.capture('with a time', {'timestamp': '2020-02-23T02:15:00Z', 'some': 'thing'})
    posthog.capture('with a person', {'distinct_id': 'custom id', '$lib': 'my own'})
    return 'haha'
"""
    async with AppHarness(source=source, now=NOW) as app:
        run = await app.run("runEveryMinute")
        plain, unheard, timed, personal = run.captured
        assert plain["event"] == "my-new-event"
        assert plain["distinct_id"] == plain["properties"]["distinct_id"] == "App Server"
        assert plain["properties"]["$lib"] == "posthog-plugin-server"
        assert plain["properties"]["random"] == "properties"
        assert plain["properties"]["$lib_version"]
        assert plain["timestamp"].startswith("2026-11-23T00:00:00")
        assert unheard["event"] == "nobody awaited it"
        assert timed["timestamp"] == "2020-02-23T02:15:00Z"
        assert "timestamp" not in timed["properties"]
        assert timed["properties"]["some"] == "thing"
        assert personal["distinct_id"] == personal["properties"]["distinct_id"] == "custom id"
        assert personal["properties"]["$lib"] == "my own"
        assert len({uuid.UUID(capture["uuid"]) for capture in run.captured}) == 4


async def test_a_capture_runs_through_every_app_again_its_author_included():
    author = "def processEvent(event, meta):\n    event['properties'].setdefault('by', []).append('author')\n    if event['event'] == 'pageview':\n        posthog.capture('made', {'distinct_id': 'ada'})\n    return event\n"
    other = "def processEvent(event, meta):\n    event['properties'].setdefault('by', []).append('other')\n    return event\n"
    async with AppHarness(source=[other, author, other]) as app:
        await app.run("processEvent", EVENT)
        (node,) = await app.settle()
        assert node.event["event"] == "made"
        assert node.run.event["properties"]["by"] == ["other", "author", "other"]


async def test_what_is_no_capture_is_an_error_in_the_app():
    body = """
    for arguments in ((), ('',), (None,), (5,), ('x', []), ('x', {'distinct_id': ''}), ('x', {'timestamp': 'soon'})):
        try:
            posthog.capture(*arguments)
        except (TypeError, ValueError):
            console.log('refused')
    """
    async with AppHarness(source=hook("onEvent", body)) as app:
        run = await app.run("onEvent", EVENT)
        assert (messages(run), run.captured) == (["refused"] * 7, [])


async def test_marks_that_apps_write_into_properties_say_nothing_of_where_an_event_comes_from():
    forged = "{'ps-lineage': {'depth': 99}, '$hog_function_execution_count': -999, '$lineage': []}"
    source = hook("processEvent", f"posthog.capture('again', {forged})\nreturn event")
    async with AppHarness(source=source) as app:
        await app.run("processEvent", EVENT | {"properties": {"$hog_function_execution_count": 99}})
        tree = await app.settle()
        assert [node.depth for node in tree] == [1, 2, 3]
        assert [(cut["reason"], cut["what"]) for cut in tree.cuts] == [("visits", "captures")]
        assert {node.run.error for node in tree} == {None}  # a cut is no error in the app


async def test_events_that_an_app_posts_itself_are_held_to_the_same_bounds():
    posts = hook(
        "processEvent",
        """
        batch = [{'event': name, 'distinct_id': 'ada', 'properties': {}} for name in ('one', 'two')]
        if event['event'] == 'pageview':
            await fetch('https://app.posthog.com/batch/', method='POST', json={'api_key': 'phc_harness', 'batch': batch})
            await fetch('https://elsewhere.example.com/batch/', method='POST', json={'api_key': 'phc_harness', 'batch': batch})
            await fetch('https://app.posthog.com/batch/', method='POST', body='no json')
        return event
        """,
    )
    async with AppHarness(source=posts) as app:
        run = await app.run("processEvent", EVENT)
        assert run.error is None
        assert [capture["event"] for capture in run.captured] == ["one", "two"]
        assert [request["url"].split("/")[2] for request in run.requests].count("elsewhere.example.com") == 1
        assert [node.depth for node in await app.settle()] == [1, 1]

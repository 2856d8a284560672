"""Which functions of an app are hooks, when they are called, and what they get."""

from __future__ import annotations

import pytest

from plugin_server.testing import AppHarness, HookNotFound
from tests.behaviours.hooks import EVENT, messages

EMPTY = "helper = 1\n"
KEEPS_IN_GLOBAL = """
{kind}def setupPlugin(meta):
    meta.global_['order'] = ['set up']
    meta.global_['data'] = 'haha'

def processEvent(event, meta):
    meta['global']['order'].append(event['event'])
    event['properties']['seen'] = meta.global_['data']
    meta.global_['data'] = 'hoho'
    return event

def teardownPlugin(meta):
    console.log(meta.global_['data'], meta.global_['order'])
"""
MANY = """
def processEvent(event, meta):
    return event

async def onEvent(event, meta):
    return 'not looked at'

def randomFunction(event, meta):
    return event

def runEveryHour(meta):
    return 'haha'

def x(payload, meta):
    return 'haha'

jobs = {'x': x}
"""


async def test_an_app_without_code_has_no_hooks_and_events_pass_it_by():
    async with AppHarness(source=[EMPTY, "def processEvent(event, meta):\n    return event\n"]) as app:
        assert app.setup_error is None
        assert app.hooks == {"processEvent"}
        assert (await app.run("processEvent", EVENT)).event == EVENT


async def test_functions_are_hooks_by_their_names_and_helpers_are_none():
    async with AppHarness(source=MANY) as app:
        assert app.hooks == {"processEvent", "onEvent", "runEveryHour", "jobs.x"}
        for name in ("randomFunction", "x", "runEveryMinute", "onAction"):
            with pytest.raises(HookNotFound):
                await app.run(name, EVENT)


@pytest.mark.parametrize("value", ["False", "{}"])
async def test_what_has_a_hooks_name_and_is_no_function_keeps_the_app_from_running_and_says_so(value):
    source = f"def setupPlugin(meta):\n    pass\nrunEveryMinute = {value}\n"
    async with AppHarness(source=source) as app:
        assert app.setup_error is not None
        assert "runEveryMinute must be a function" in app.setup_error.message
        assert (await app.run("processEvent", EVENT)).event == EVENT


@pytest.mark.parametrize("kind", ["", "async "])
async def test_what_set_up_keeps_in_global_is_there_for_events_and_for_the_teardown(kind):
    async with AppHarness(source=KEEPS_IN_GLOBAL.replace("{kind}", kind)) as app:
        first, second = await app.run("processEvent", EVENT), await app.run("processEvent", EVENT)
        assert (first.event["properties"]["seen"], second.event["properties"]["seen"]) == ("haha", "hoho")
        assert messages(await app.run("teardownPlugin")) == ['hoho ["set up","pageview","pageview"]']


@pytest.mark.parametrize("kind", ["", "async "])
async def test_process_event_changes_what_it_changes_and_nothing_else(kind):
    source = (
        f"{kind}def processEvent(event, meta):\n    event['properties']['processed'] = 'hell yes'\n    return event\n"
    )
    given = EVENT | {"ip": "1.2.3.4", "$set": {"b": [1, None, 2.5]}}
    async with AppHarness(source=source) as app:
        run = await app.run("processEvent", given)
        assert run.event == given | {"properties": {"a": 1, "processed": "hell yes"}}


async def test_process_event_wins_over_the_batch_and_alone_the_batch_gets_single_events():
    batch = "def processEventBatch(events, meta):\n    for event in events:\n        event['properties']['batch'] = len(events)\n    return events\n"
    single = "def processEvent(event, meta):\n    event['properties']['single'] = True\n    return event\n"
    for source, expected in ((batch, {"a": 1, "batch": 1}), (batch + single, {"a": 1, "single": True})):
        async with AppHarness(source=source) as app:
            assert (await app.run("processEvent", EVENT)).event["properties"] == expected


async def test_what_changes_the_event_and_does_not_return_it_drops_it_and_no_later_app_is_called():
    drops = "def processEvent(event, meta):\n    event['properties']['changed'] = True\n"
    counts = "def processEvent(event, meta):\n    meta.storage.increment('called')\n    return event\n"
    async with AppHarness(source=[counts, drops, counts]) as app:
        run = await app.run("processEvent", EVENT)
        assert (run.event, run.error) == (None, None)
        assert app.storage == {1: {"called": 1}, 2: {}, 3: {}}


async def test_other_falsy_answers_drop_nothing_but_are_the_apps_failure():
    sources = [f"def processEvent(event, meta):\n    return {value}\n" for value in ("False", "0", "''", "{}", "[]")]
    async with AppHarness(source=sources) as app:
        run = await app.run("processEvent", EVENT)
        assert run.event == EVENT
        assert [log["level"] for log in run.logs] == ["ERROR"] * 5


async def test_meta_has_config_with_secrets_attachments_as_bytes_and_an_empty_global(tmp_path):
    source = """
def processEvent(event, meta):
    maxmind = meta.attachments['maxmind']
    event['properties'] = {
        'config': meta.config,
        'global': meta.global_,
        'attachment': [maxmind.content_type, maxmind.file_name, list(maxmind.contents)],
        'same': meta['attachments']['maxmind']['contents'] == maxmind.contents,
        'members': [meta.cache, meta.storage, meta.geoip, meta.jobs, meta.metrics, meta.utils.cursor] != [],
    }
    return event
"""
    (tmp_path / "main.py").write_text(source)
    (tmp_path / "plugin.json").write_text(
        '{"name": "test-maxmind-plugin", "config": ['
        '{"key": "maxmind", "type": "attachment"},'
        '{"key": "localhostIP", "type": "string", "secret": true},'
        '{"key": "greeting", "type": "string", "default": "hello"}]}'
    )
    attachment = {"content_type": "application/octet-stream", "file_name": "test.mmdb", "contents": b"\x00\xff\x01"}
    async with AppHarness(
        tmp_path, config={"localhostIP": "94.224.212.175"}, attachments={"maxmind": attachment}
    ) as app:
        run = await app.run("processEvent", EVENT)
        assert run.error is None
        assert run.event["properties"] == {
            "config": {"localhostIP": "94.224.212.175", "greeting": "hello"},
            "global": {},
            "attachment": ["application/octet-stream", "test.mmdb", [0, 255, 1]],
            "same": True,
            "members": True,
        }


async def test_what_on_event_returns_and_a_schedule_answers_is_not_looked_at():
    async with AppHarness(source=MANY) as app:
        for run in (await app.run("onEvent", EVENT), await app.run("runEveryHour"), await app.run("jobs.x", None)):
            assert (run.error, run.value) == (None, None)

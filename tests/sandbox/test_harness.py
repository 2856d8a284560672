"""AppHarness: what authors of apps test with, on the real sandbox."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from plugin_server.model.errors import ConfigurationError
from plugin_server.testing import AppHarness, HookNotFound

EVENT = {"event": "x", "distinct_id": "ada", "properties": {"a": 1}}
PASSES = "def processEvent(event, meta):\n    return event\n"
EXAMPLES = Path(__file__).parents[2] / "examples"
PAGE = (EXAMPLES.parent / "docs" / "testing-apps.md").read_text("utf-8")
PROGRAMS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


async def test_an_event_comes_back_as_the_app_left_it_and_nothing_else_added():
    async with AppHarness(source=PASSES) as app:
        assert (await app.run("processEvent", EVENT)).event == EVENT
        bare = {"event": "x", "timestamp": "2026-01-01T00:00:00Z", "team_id": 13, "uuid": "u"}
        assert (await app.run("processEvent", bare)).event == bare


async def test_an_app_from_a_folder_runs_with_its_config_and_declared_defaults():
    async with AppHarness(EXAMPLES / "url-cleaner", config={}) as app:
        run = await app.run(
            "processEvent", {"event": "$pageview", "properties": {"$current_url": "https://x.io/?utm_source=a&b=1"}}
        )
        assert app.setup_error is None
        assert run.error is None
        assert run.event is not None


async def test_a_missing_app_is_said_to_be_missing():
    with pytest.raises(ConfigurationError):
        AppHarness("examples/there-is-no-such-app")
    with pytest.raises(ConfigurationError):
        AppHarness()


async def test_a_drop_is_none_and_no_error():
    async with AppHarness(source="def processEvent(event, meta):\n    return None\n") as app:
        run = await app.run("processEvent", EVENT)
        assert run.event is None
        assert run.error is None


@pytest.mark.parametrize(
    ("body", "kind", "line"),
    [
        ("1 / 0", "app", 2),
        ("return {1, 2}", "app", None),
        ("event['properties']['d'] = float('nan')\n    return event", "app", None),
        ("while True:\n        pass", "timeout", None),
        ("return sum(range(10 ** 12))", "timeout", 2),
        ("return 'x' * 10 ** 10", "memory", 2),
        ("for n in range(101):\n        posthog.capture('x')", "limit", 3),
        ("x = slice(0)\n    for _ in range(300_000):\n        x = slice(x)", "sandbox", None),
    ],
)
async def test_what_goes_wrong_has_a_kind_and_a_line_and_the_event_is_as_before(body, kind, line):
    async with AppHarness(source=f"def processEvent(event, meta):\n    {body}\n", limits={"cpu_seconds": 0.3}) as app:
        run = await app.run("processEvent", EVENT)
        assert run.error is not None
        assert run.error.kind == kind
        if line is not None:
            assert run.error.line == line
        assert run.event == EVENT
        assert run.captured == []
        assert (await app.run("processEvent", EVENT | {"event": "next"})).error is not None


async def test_an_app_that_does_not_compile_says_so_at_every_run_and_never_raises():
    async with AppHarness(source="import os\n") as app:
        assert app.setup_error is not None
        assert app.setup_error.kind == "compile"
        for hook in ("processEvent", "onEvent", "runEveryMinute"):
            run = await app.run(hook, *([EVENT] if hook != "runEveryMinute" else []))
            assert run.error == app.setup_error


async def test_source_that_is_no_text_does_not_compile():
    async with AppHarness(source="x = '\ud800'\n") as app:
        assert app.setup_error is not None
        assert app.setup_error.kind == "compile"


@pytest.mark.parametrize("value", ["\ud800", 2**70, {1: 2}, object()])
async def test_a_config_that_is_no_json_fails_its_app_and_stops_nobody(value):
    async with AppHarness(source=PASSES, config={"k": value}) as app:
        assert app.setup_error is not None
        assert "config" in app.setup_error.message


async def test_set_up_runs_once_and_its_failure_is_the_error_of_every_run():
    fails = "def setupPlugin(meta):\n    console.log('up')\n    raise ValueError(meta.config['name'])\n" + PASSES
    async with AppHarness(source=fails, config={"name": "no"}) as app:
        assert str(app.setup_error) == "ValueError: no (line 3)"
        assert app.setup_logs[0]["message"] == "up"
        run = await app.run("processEvent", EVENT)
        assert run.error == app.setup_error
        assert run.event == EVENT
    async with AppHarness(source=fails, setup=False) as app:
        assert app.setup_error is None
        assert (await app.run("processEvent", EVENT)).error is None


async def test_set_up_may_wait_for_the_host():
    waits = "async def setupPlugin(meta):\n    await sleep(0.01)\n    meta.global_['n'] = 5\ndef processEvent(event, meta):\n    event['properties']['n'] = meta.global_['n']\n    return event\n"
    async with AppHarness(source=waits) as app:
        run = await app.run("processEvent", EVENT)
        assert run.event["properties"] == {"a": 1, "n": 5}


async def test_other_hooks_run_with_their_arguments_and_meta():
    source = """
def onEvent(event, meta):
    console.log('on', event['event'], meta.config['k'])
def exportEvents(events, meta):
    console.log('export', [e['event'] for e in events])
def runEveryMinute(meta):
    posthog.capture('tick', {'n': 1})
def processEventBatch(events, meta):
    return [e for e in events if e['event'] != 'drop']
def composeWebhook(event, meta):
    return {'url': 'https://x.io', 'body': event['event']}
def add(payload, meta):
    console.log('job', payload['n'] + 1)
jobs = {'add': add}
"""
    async with AppHarness(source=source, config={"k": "v"}) as app:
        assert [log["message"] for log in (await app.run("onEvent", EVENT)).logs] == ["on x v"]
        assert [log["message"] for log in (await app.run("exportEvents", [EVENT, EVENT])).logs] == ['export ["x","x"]']
        assert [c["event"] for c in (await app.run("runEveryMinute")).captured] == ["tick"]
        batch = await app.run("processEventBatch", [EVENT, EVENT | {"event": "drop"}])
        assert [event["event"] for event in batch.event] == ["x"]
        assert (await app.run("composeWebhook", EVENT)).value == {"url": "https://x.io", "body": "x"}
        assert [log["message"] for log in (await app.run("jobs.add", {"n": 1})).logs] == ["job 2"]
        with pytest.raises(HookNotFound, match=r"jobs\.add"):
            await app.run("jobs.other", {})


async def test_captures_have_uuid_time_and_properties_and_failed_hooks_have_none():
    source = "def processEvent(event, meta):\n    posthog.capture('y', {'n': 1, 'timestamp': '2020-02-23T02:15:00Z'})\n    if event['event'] == 'bad':\n        1 / 0\n    return event\n"
    async with AppHarness(source=source) as app:
        (capture,) = (await app.run("processEvent", EVENT)).captured
        assert capture["event"] == "y"
        assert capture["timestamp"] == "2020-02-23T02:15:00Z"
        assert capture["properties"]["n"] == 1
        assert capture["properties"]["distinct_id"] == capture["distinct_id"] == "App Server"
        assert len(capture["uuid"]) == 36
        assert (await app.run("processEvent", EVENT | {"event": "bad"})).captured == []


async def test_the_clock_stands_still_where_it_is_told_to():
    source = "import time\nfrom datetime import datetime, timezone\ndef processEvent(event, meta):\n    event['properties'] = {'t': time.time(), 'd': datetime.now(timezone.utc).isoformat()}\n    posthog.capture('y')\n    return event\n"
    async with AppHarness(source=source, now="2026-11-23T00:00:00Z") as app:
        run = await app.run("processEvent", EVENT)
        assert run.event["properties"] == {"t": 1795392000.0, "d": "2026-11-23T00:00:00+00:00"}
        assert run.captured[0]["timestamp"] == "2026-11-23T00:00:00.000+00:00"


async def test_a_chain_of_apps_runs_in_order_and_tells_who_failed():
    adds = "def processEvent(event, meta):\n    event['properties']['n'] = event['properties'].get('n', 0) + 1\n    return event\n"
    async with AppHarness(source=[adds, "def processEvent(event, meta):\n    1 / 0\n", adds]) as app:
        run = await app.run("processEvent", EVENT)
        assert run.event["properties"]["n"] == 2
        assert run.error.kind == "app"


async def test_captures_are_fed_back_until_the_loop_guard_ends_them():
    source = "def processEvent(event, meta):\n    posthog.capture('again')\n    return event\n"
    async with AppHarness(source=source) as app:
        await app.run("processEvent", EVENT)
        tree = await app.settle()
        assert len(tree) == tree.depth == 3
        assert [cut["reason"] for cut in tree.cuts] == ["visits"]
        assert len(await app.settle()) == 0


async def test_an_events_lineage_decides_what_is_cut():
    source = "def processEvent(event, meta):\n    posthog.capture('again')\n    return event\n"
    deep = {"v": 1, "root": "018f0000-0000-7000-8000-000000000001", "depth": 10, "path": [7], "budget": 5}
    async with AppHarness(source=source, lineage=deep) as app:
        run = await app.run("processEvent", EVENT)
        assert run.captured == []
        assert [cut["reason"] for cut in run.cuts] == ["depth"]


@pytest.mark.parametrize("program", PROGRAMS)
async def test_the_programs_in_the_documentation_run(program):
    namespace: dict[str, Any] = {}
    exec(program.replace("asyncio.run(main())", ""), namespace)
    await namespace["main"]()


async def test_attachments_reach_the_app_as_bytes_with_their_type():
    source = "def processEvent(event, meta):\n    a = meta.attachments['f']\n    event['properties'] = [a.content_type, a.file_name, a.contents.decode()]\n    event['properties'] = {'a': event['properties']}\n    return event\n"
    for given, wanted in (
        (b"x", ["application/octet-stream", "f", "x"]),
        ("x", ["text/plain", "f", "x"]),
        ({"k": 1}, ["application/json", "f", '{"k": 1}']),
        ({"content_type": "text/csv", "file_name": "a.csv", "contents": "x"}, ["text/csv", "a.csv", "x"]),
    ):
        async with AppHarness(source=source, attachments={"f": given}) as app:
            assert (await app.run("processEvent", EVENT)).event["properties"]["a"] == wanted


@pytest.mark.parametrize("place", ["body", "setup"])
@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("sum(range(10 ** 12))", "timeout"),
        ("x = slice(0)\nfor _ in range(300_000):\n    x = slice(x)\nx = None", "sandbox"),
    ],
)
async def test_an_app_that_kills_its_sandbox_before_the_first_event_is_a_set_up_error(place, line, kind):
    lines = "".join(f"    {part}\n" for part in line.splitlines())
    source = f"def setupPlugin(meta):\n{lines}{PASSES}" if place == "setup" else f"{line}\n{PASSES}"
    async with AppHarness(source=source, limits={"cpu_seconds": 0.2}) as app:
        assert app.setup_error is not None
        assert app.setup_error.kind == kind

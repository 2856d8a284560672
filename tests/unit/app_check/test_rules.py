"""Each rule but the one on captures: rows where it speaks, with line and severity, and rows where it must not."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugin_server.app_check.check import check_app
from plugin_server.app_check.finding import Severity
from plugin_server.app_check.hooks import HOOKS
from plugin_server.registry.app_source import load_app
from plugin_server.registry.manifest import parse_manifest
from sandbox.policy import SOURCE_LIMIT_BYTES
from sandbox.wire import APP_HOOKS
from tests.unit.registry.test_examples import EXAMPLES

ERROR, WARNING, NOTE = Severity.ERROR, Severity.WARNING, Severity.NOTE
HOOK = "def processEvent(event, meta):\n    return event\n"

SPEAKS = [
    # Hooks.
    ("def processEvent(event):\n    return event", 1, ERROR, "called with (event, meta)"),
    ("def process_event(event, meta, more):\n    pass", 1, ERROR, "write def process_event(event, meta)"),
    ("async def onEvent(event, meta, *, x):\n    pass", 1, ERROR, "write async def onEvent(event, meta)"),
    ("def setupPlugin():\n    pass\n" + HOOK, 1, ERROR, "called with (meta)"),
    ("def processEvent(event, meta):\n    yield event", 1, ERROR, "has a yield"),
    (HOOK + "def process_event(event, meta):\n    pass", 3, ERROR, "keep one of them"),
    (HOOK + "def onevent(event, meta):\n    pass", 3, WARNING, "did you mean onEvent?"),
    ("def process_events(events, meta):\n    return events", 1, WARNING, "did you mean process_event?"),
    ("def processevent(event, meta):\n    return event", 1, WARNING, "did you mean processEvent?"),
    ("def ProcessEvent(event, meta):\n    return event", 1, WARNING, "did you mean processEvent?"),
    (HOOK + "def setup_plugins(meta):\n    pass", 3, WARNING, "did you mean setup_plugin?"),
    (HOOK + "def runEveryMinutes(meta):\n    pass", 3, WARNING, "did you mean runEveryMinute?"),
    ("def helper(x):\n    return x", None, WARNING, "no hook"),
    # Waiting.
    ("def processEvent(event, meta):\n    await sleep(1)\n    return event", 2, ERROR, "write async def instead of def processEvent"),
    ("def processEvent(event, meta):\n    async with x:\n        pass", 2, ERROR, "async def only"),
    ("async def send(x):\n    pass\nasync def onEvent(event, meta):\n    send(event)", 4, WARNING, "write await send(…)"),
    ("async def onEvent(event, meta):\n    sleep(1)", 2, WARNING, "write await sleep(…)"),
    ("class A:\n    async def send(self):\n        pass\n    async def go(self):\n        self.send()\n" + HOOK, 5, WARNING, "write await self.send(…)"),
    ("import time\ndef processEvent(event, meta):\n    time.sleep(1)\n    return event", 3, WARNING, "await sleep(seconds)"),
    ("from time import sleep as wait\ndef processEvent(event, meta):\n    wait(1)\n    return event", 3, WARNING, "await sleep(seconds)"),
    ("import time\ndef processEvent(event, meta):\n    end = time.time() + 1\n    while time.time() < end:\n        pass\n    return event", 4, WARNING, "watching the clock"),
    # State at the top of the file.
    ("COUNTS = {}\ndef processEvent(event, meta):\n    COUNTS[event['event']] = 1\n    return event", 3, NOTE, "COUNTS is changed"),
    ("from collections import Counter\nseen = Counter()\ndef processEvent(event, meta):\n    seen[event['event']] += 1\n    return event", 4, NOTE, "a restart forgets it"),
    ("queue = []\ndef add(event):\n    queue.append(event)\ndef processEvent(event, meta):\n    add(event)\n    return event", 3, NOTE, "queue is changed"),
    ("n = 0\ndef processEvent(event, meta):\n    global n\n    n += 1\n    return event", 4, NOTE, "n is changed"),
    # What cannot be read.
    ("def f(:", 1, ERROR, "invalid syntax"),
    ("(" * 5000 + ")" * 5000, 1, ERROR, "nested parentheses"),
    ("-" * 50_000 + "1", None, ERROR, "nested too deeply"),
    ("x = 1\0", None, ERROR, "null bytes"),
    ("#" * (SOURCE_LIMIT_BYTES + 1), None, ERROR, "split the app"),
]  # fmt: skip

SILENT = [
    HOOK,
    "async def process_event(event, meta):\n    return event",
    "def processEvent(event, meta, extra=None):\n    return event",
    "def processEvent(*args):\n    return args[0]",
    "def processEvent(event, *rest):\n    return event",
    "def setupPlugin(meta):\n    pass\n" + HOOK,
    "def setupPlugin(meta=None):\n    pass\n" + HOOK,
    "processEvent = lambda event, meta: event",
    "def handle(event, meta):\n    return event\nprocess_event = handle",
    "def process_events(events):\n    return events\ndef processEventBatch(events, meta):\n    return process_events(events)",
    "jobs = {'retry': lambda payload, meta: None}",
    "def runEveryDay(meta):\n    pass",
    "def processEvent(event, meta):\n    def inner():\n        yield 1\n    return {**event, 'n': list(inner())}",
    "def processEvent(event, meta):\n    async def inner():\n        await sleep(1)\n    return event",
    "async def send(x):\n    pass\nasync def onEvent(event, meta):\n    await send(event)",
    "async def send(x):\n    pass\nasync def onEvent(event, meta):\n    await gather(send(event), send(event))",
    "async def send(x):\n    pass\nasync def onEvent(event, meta):\n    waiting = send(event)\n    await waiting",
    "async def send(x):\n    pass\ndef onEvent(event, meta):\n    return send(event)",
    "async def onEvent(event, meta):\n    def send(x):\n        return x\n    send(event)",
    "async def send(x):\n    pass\ndef other(send):\n    send(1)\n" + HOOK,
    "async def onEvent(event, meta):\n    await sleep(1)",
    "import time\nasync def onEvent(event, meta):\n    while time.time() < 5:\n        await sleep(1)",
    "import time\ndef processEvent(event, meta):\n    event['properties']['at'] = time.time()\n    return event",
    "class Nap:\n    def sleep(self):\n        pass\ndef processEvent(event, meta):\n    Nap().sleep()\n    return event",
    "TABLE = {'a': 1}\ndef processEvent(event, meta):\n    event['properties']['n'] = TABLE.get('a')\n    return event",
    "TABLE = {}\nfor x in 'ab':\n    TABLE[x] = 1\n" + HOOK,
    "cache = {}\ndef setupPlugin(meta):\n    cache['x'] = 1\n" + HOOK,
    "items = []\ndef processEvent(event, meta):\n    items = []\n    items.append(1)\n    return event",
    "items = []\ndef add(items):\n    items.append(1)\n" + HOOK,
    "def counter():\n    n = 0\n    def step():\n        nonlocal n\n        n += 1\n    return step\n" + HOOK,
]  # fmt: skip


def manifest(*fields: dict[str, Any]) -> Any:
    return parse_manifest(json.dumps({"name": "x", "config": list(fields)}).encode(), "plugin.json")[0]


@pytest.mark.parametrize(("source", "line", "severity", "words"), SPEAKS)
def test_a_mistake_is_found(source: str, line: int | None, severity: Severity, words: str):
    (found,) = check_app(source)
    assert (found.line, found.severity) == (line, severity)
    assert words in found.message


@pytest.mark.parametrize("source", SILENT)
def test_what_is_right_is_left_alone(source: str):
    assert check_app(source) == []


@pytest.mark.parametrize(
    "body",
    [
        'return meta.config["greting"]',
        'return meta.config.get("greting", 1)',
        'return meta["config"]["greting"]',
        'config = meta.config\n    return config["greting"]',
        'return helper(meta.config)\ndef helper(config):\n    return config["greting"]',
        'return helper(meta)\ndef helper(meta):\n    return meta.config.get("greting")',
    ],
)
def test_a_config_key_that_is_not_declared_is_found(body: str):
    (found,) = check_app(f"def processEvent(event, meta):\n    {body}", manifest({"key": "greeting"}))
    assert 'declares no config key "greting"; did you mean greeting?' in found.message
    assert found.severity is WARNING


@pytest.mark.parametrize(
    "body",
    [
        'return meta.config["greeting"]',
        'return meta.config.get("greeting")',
        "return dict(meta.config)",
        "return [value for value in meta.config.values()]",
        'return [meta.config[key] for key in KEYS]\nKEYS = ["greeting"]',
        "key = event['properties']['key']\n    return meta.config[key]",
        "return json.dumps(meta.config)",
        'return event["properties"]["greeting"]',
        'return meta.attachments["greeting"]',
    ],
)
def test_declared_keys_and_reading_all_is_right(body: str):
    source = f"import json\ndef processEvent(event, meta):\n    {body}"
    assert check_app(source, manifest({"key": "greeting", "required": True})) == []


def test_a_required_key_that_is_never_read_is_found():
    (found,) = check_app(HOOK, manifest({"key": "a", "required": True}, {"key": "b"}))
    assert found.line is None
    assert 'requires the config key "a"' in found.message


@pytest.mark.parametrize("folder", sorted(path.name for path in EXAMPLES.iterdir() if path.is_dir()))
def test_the_examples_have_nothing_to_find(folder: str):
    loaded = load_app(folder, EXAMPLES)
    assert check_app(loaded.app.source, loaded.manifest) == []


def test_the_hooks_are_those_of_the_sandbox():
    assert tuple(HOOKS) == APP_HOOKS


def test_many_functions_that_call_each_other_are_read_in_time():
    calls = "".join(f"    f{n}(event, a or {n})\n" for n in range(30))
    source = "".join(f"def f{n}(event, a):\n{calls}" for n in range(30))
    started = time.perf_counter()
    check_app(source + "def processEvent(event, meta):\n    f0(event, 1)\n    return event")
    assert time.perf_counter() - started < 5


@given(st.text(alphabet="abcdefgh ().:=[]{}'\n*@,", max_size=60))
def test_any_text_has_findings_or_none(text: str):
    check_app(text)

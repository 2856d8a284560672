"""Which captures are reached for every event, and which for the very event that they make.

In a row's program `…` stands for `posthog.capture("seen", {"distinct_id": "x"})`; a program without `def` is the body of processEvent.
"""

from __future__ import annotations

import textwrap

import pytest

from plugin_server.app_check.check import check_app

CAPTURE = 'posthog.capture("seen", {"distinct_id": "x"})'

FINE = [
    # A condition on the event, in all its forms.
    'if event["event"] == "signup":\n    …',
    'if event["event"] != "seen":\n    …',
    'if "signup" == event["event"]:\n    …',
    'if event.get("event") in ("signup", "login"):\n    …',
    'if event["event"] not in ("seen", "other"):\n    …',
    'if event["event"].startswith("$"):\n    …',
    'if not event["event"].startswith("see"):\n    …',
    'name = event["event"]\nif name == "signup":\n    …',
    'if event["event"] == "signup" and meta.config["on"]:\n    …',
    'if meta.config["on"]:\n    if event["event"] == "signup":\n        …',
    'if event["properties"].get("plan"):\n    …',
    'properties = event.get("properties") or {}\nif "plan" in properties:\n    …',
    'if event["properties"]["amount"] > 5:\n    …',
    'url = event["properties"].get("$current_url", "")\nif "/checkout" in url:\n    …',
    'if (url := event["properties"].get("url")) and len(url) > 3:\n    …',
    '… if event["event"] == "signup" else None',
    'None if event["event"] != "signup" else …',
    'event["event"] == "signup" and …',
    'event["event"] != "signup" or …',
    'match event["event"]:\n    case "signup" | "login":\n        …',
    'match event:\n    case {"event": "signup"}:\n        …',
    'match event:\n    case {"properties": {"plan": str()}}:\n        …',
    'match event["event"]:\n    case "seen":\n        pass\n    case _:\n        …',
    'match event["event"]:\n    case name if name.endswith("up"):\n        …',
    'if event["event"] != "signup":\n    return event\n…',
    'if event["event"] == "seen":\n    return None\n…',
    'if event["event"] == "signup":\n    pass\nelse:\n    return event\n…',
    'if not event["properties"].get("email"):\n    return event\n…',
    'if meta.config["on"]:\n    if event["event"] != "signup":\n        return event\n    …',
    'with meta.lock:\n    if event["event"] != "signup":\n        return event\n…',
    'for bot in meta.config["bots"]:\n    if bot in event["properties"].get("agent", ""):\n        return event\n…',
    'is_bot = False\nfor bot in ("a", "b"):\n    if event["properties"].get("agent") == bot:\n        is_bot = True\nif not is_bot:\n    …',
    'try:\n    plan = event["properties"]["plan"]\nexcept KeyError:\n    return event\n…',
    'assert event["event"] == "signup"\n…',
    'for item in event["properties"].get("items", []):\n    …',
    'while event["properties"].get("n", 0) > 3:\n    …\n    break',
    '[… for item in event["properties"]["items"]]',
    '[… for x in (1, 2) if event["event"] == "signup"]',
    'try:\n    pass\nfinally:\n    if event["event"] == "signup":\n        …',
    'try:\n    total = float(event["properties"]["total"])\nexcept (KeyError, ValueError):\n    pass\nelse:\n    …',
    'try:\n    total = event["properties"]["total"]\n    …\nexcept KeyError:\n    pass',
    'if event["properties"].get("copied"):\n    return event\nposthog.capture(event["event"], {**event["properties"], "copied": True})',
    'if event["distinct_id"] not in meta.global_:\n    meta.global_[event["distinct_id"]] = True\n    …',
    # The condition is elsewhere.
    'def is_signup(event):\n    return event["event"] == "signup"\ndef processEvent(event, meta):\n    if is_signup(event):\n        …',
    'def track(event):\n    …\ndef processEvent(event, meta):\n    if event["event"] == "signup":\n        track(event)',
    'def track(event):\n    if event["event"] == "signup":\n        …\ndef processEvent(event, meta):\n    track(event)',
    'async def track(event):\n    …\nasync def onEvent(event, meta):\n    if event["event"] == "signup":\n        await gather(track(event))',
    'def on_signup(event):\n    …\nHANDLERS = {"signup": on_signup}\ndef processEvent(event, meta):\n    handler = HANDLERS.get(event["event"])\n    if handler:\n        handler(event)',
    'def on_signup(event):\n    …\nHANDLERS = {"signup": on_signup}\ndef processEvent(event, meta):\n    HANDLERS[event["event"]](event)',
    'class Tracker:\n    def wants(self, event):\n        return event["event"] == "signup"\n    def track(self, event):\n        if self.wants(event):\n            …\ntracker = Tracker()\ndef processEvent(event, meta):\n    tracker.track(event)',
    'def only(name):\n    def wrap(function):\n        def inner(event):\n            if event["event"] == name:\n                function(event)\n        return inner\n    return wrap\n@only("signup")\ndef track(event):\n    …\ndef processEvent(event, meta):\n    track(event)',
    'def processEventBatch(events, meta):\n    for event in events:\n        if event["event"] != "signup":\n            continue\n        …\n    return events',
    'def exportEvents(events, meta):\n    signups = [event for event in events if event["event"] == "signup"]\n    for event in signups:\n        if event["event"] == "signup":\n            …',
    'def exportEvents(events, meta):\n    total = 0\n    for event in events:\n        if event["event"] == "signup":\n            total += 1\n    if total:\n        …',
    'def process_event_batch(events, meta):\n    [… for event in events if event["event"] == "signup"]',
    'def exportEvents(events, meta):\n    for event in [event for event in events if event["event"] == "signup"]:\n        …',
    'def exportEvents(events, meta):\n    for event in filter(lambda event: event["event"] == "signup", events):\n        …',
    'def exportEvents(events, meta):\n    wanted = []\n    for event in events:\n        if event["event"] == "signup":\n            wanted.append(event)\n    for event in wanted:\n        …',
    'def exportEvents(events, meta):\n    if any(event["event"] == "signup" for event in events):\n        …',
    'async def track(event):\n    if event["event"] == "signup":\n        await …\nasync def exportEvents(events, meta):\n    await gather(*[track(event) for event in events])',
    'def read(event):\n    if event["event"] != "signup":\n        return None\n    return {"x": 1}\ndef onEvent(event, meta):\n    if read(event) is None:\n        return\n    …',
    'WANTED = "signup"\ndef onEvent(event, meta):\n    if event["event"] == WANTED:\n        …',
    'def processEvent(event, meta):\n    if event["event"] == meta.config["name"]:\n        …',
    # Captures that no hook for events reaches.
    "def setupPlugin(meta):\n    …",
    "def runEveryMinute(meta):\n    …",
    "def processEvent(event, meta):\n    return event\ndef unused(event):\n    …",
    "def processEvent(event, meta):\n    def later():\n        …\n    return event",
    "class Fake:\n    def capture(self, name, properties):\n        pass\nposthog = Fake()\ndef helper():\n    pass\ndef processEvent(event, meta):\n    return event",
    'def capture(name, properties):\n    return name\ndef processEvent(event, meta):\n    capture("seen", {})\n    return event',
    # Other names, with the captured one's own name shut out.
    'if event["event"] == "a" or event["event"] == "b":\n    …',
    'if event["event"] == "seen" and "copied" not in event["properties"]:\n    …',
    'if event["event"] != "signup":\n    return event\nposthog.capture("seen", {**event["properties"], "copied": True})',
    'posthog.capture(meta.config["to"]) if event["event"] != meta.config["to"] else None',
]  # fmt: skip

UNGUARDED = [
    "…",
    "await …",
    "if True:\n    …",
    'if meta.config["on"]:\n    …',
    'if meta.config.get("on") == "yes" and meta.config["x"]:\n    …',
    'if not meta.config["on"]:\n    return event\n…',
    "if event:\n    …",
    "if event is not None:\n    …",
    "if not event:\n    return event\n…",
    'if isinstance(event, dict) and event["properties"]:\n    …',
    'if "properties" in event:\n    …',
    'if event["event"] and event["distinct_id"]:\n    …',
    'if event["event"] == "signup":\n    pass\n…',
    'if event["event"] == "signup":\n    x = 1\nelse:\n    x = 2\n…',
    'for key in event["properties"]:\n    …',
    'for key, value in event["properties"].items():\n    …',
    "for x in (1, 2):\n    …",
    "try:\n    …\nexcept Exception:\n    pass",
    "try:\n    pass\nfinally:\n    …",
    'try:\n    x = event["properties"]["plan"]\nexcept KeyError:\n    x = None\n…',
    "with meta.lock:\n    …",
    "try:\n    console.log(event)\n    …\nexcept Exception:\n    pass",
    'try:\n    name = event["event"]\n    …\nexcept KeyError:\n    pass',
    'match meta.config["mode"]:\n    case "a":\n        …',
    "def exportEvents(events, meta):\n    for event in [event for event in events if event]:\n        …",
    "def exportEvents(events, meta):\n    copies = []\n    for event in events:\n        copies.append(event)\n    for event in copies:\n        …",
    "async def track(event):\n    await …\nasync def exportEvents(events, meta):\n    await gather(*[track(event) for event in events])",
    "match event:\n    case _:\n        …",
    "match event:\n    case dict():\n        …",
    'match event["event"]:\n    case "a":\n        pass\n…',
    "(lambda: …)()",
    '[… for key in ("a", "b")]',
    'event["properties"]["x"] = 1\n…',
    'x = event["event"]\n…',
    # Under other names.
    'capture = posthog.capture\ncapture("seen")',
    'p = posthog\np.capture("seen")',
    'getattr(posthog, "capture")("seen")',
    'p = c = posthog\nsend = c.capture\nsend("seen")',
    'capture = posthog.capture\ndef processEvent(event, meta):\n    capture("seen")',
    'from functools import partial\nsend = partial(posthog.capture, "seen")\ndef processEvent(event, meta):\n    send({})',
    # Through functions, methods, containers.
    "def track(event):\n    …\ndef processEvent(event, meta):\n    track(event)",
    "def one(event):\n    two(event)\ndef two(event):\n    …\ndef process_event(event, meta):\n    one(event)",
    'def track(client, event):\n    client.capture("seen")\ndef processEvent(event, meta):\n    track(posthog, event)',
    "def processEvent(event, meta):\n    def track():\n        …\n    track()\n    return event",
    "async def track(event):\n    …\nasync def onEvent(event, meta):\n    await gather(track(event), track(event))",
    'async def onEvent(event, meta):\n    await posthog.capture("seen")',
    "def onSnapshot(event, meta):\n    …",
    "def on_snapshot(event, meta):\n    …",
    "class Tracker:\n    def track(self, event):\n        …\ntracker = Tracker()\ndef processEvent(event, meta):\n    tracker.track(event)",
    'class Tracker:\n    def __init__(self, client):\n        self.client = client\n    def track(self):\n        self.client.capture("seen")\ndef processEvent(event, meta):\n    Tracker(posthog).track()',
    "class Base:\n    def track(self):\n        …\nclass Child(Base):\n    def track(self):\n        super().track()\ndef processEvent(event, meta):\n    Child().track()",
    "class Tracker:\n    @staticmethod\n    def track():\n        …\ndef processEvent(event, meta):\n    Tracker.track()",
    "STEPS = [lambda event: …]\ndef processEvent(event, meta):\n    for step in STEPS:\n        step(event)",
    "def logged(function):\n    def inner(*args):\n        return function(*args)\n    return inner\n@logged\ndef track(event):\n    …\ndef processEvent(event, meta):\n    track(event)",
    "def track(event):\n    …\ndef exportEvents(events, meta):\n    list(map(track, events))",
    "def processEventBatch(events, meta):\n    for event in events:\n        …\n    return events",
    "def process_event_batch(events, meta):\n    if not events:\n        return events\n    for number, event in enumerate(events):\n        …",
    "def export_events(events, meta):\n    [… for event in events]",
    "def handle(event, meta):\n    …\nprocessEvent = handle",
    "count = 0\ndef processEvent(event, meta):\n    global count\n    count += 1\n    if count % 100 == 0:\n        …",
    "import random\ndef processEvent(event, meta):\n    if random.random() < 0.1:\n        …",
    'def processEvent(event, meta):\n    if meta.global_.get("ready"):\n        …',
    'def track(event):\n    …\ndef processEvent(event, meta):\n    if event["event"] == "signup":\n        track(event)\n    track(event)',
]  # fmt: skip

LOOPS = [
    'if event["event"] == "seen":\n    …',
    'if "seen" == event.get("event"):\n    …',
    'if event["event"] in ("signup", "seen"):\n    …',
    'if event["event"] in {"seen"}:\n    …',
    'NAME = "seen"\ndef processEvent(event, meta):\n    if event["event"] == NAME:\n        posthog.capture(NAME)',
    'if event["event"] != "signup":\n    …',
    'if event["event"] == "signup":\n    return event\n…',
    'if event["event"] != "seen":\n    return event\n…',
    'if event["event"].startswith("se"):\n    …',
    'match event["event"]:\n    case "seen":\n        …',
    'match event:\n    case {"event": "seen"}:\n        …',
    'event["event"] == "seen" and …',
    '… if event["event"] == "seen" else None',
    'if event["event"] == "signup":\n    posthog.capture(event["event"])',
    'if event["event"] == meta.config["name"]:\n    posthog.capture(meta.config["name"])',
    'if event["event"] == "seen" and event["properties"].get("plan"):\n    posthog.capture("seen", event["properties"])',
    'if event["event"] == "seen" and event["properties"].get("plan"):\n    posthog.capture("seen", dict(event["properties"]))',
    'def track(name):\n    posthog.capture(name)\ndef processEvent(event, meta):\n    if event["event"] == "seen":\n        track("seen")',
    'def processEventBatch(events, meta):\n    for event in events:\n        if event["event"] == "seen":\n            …',
]  # fmt: skip


def captures_found(program: str) -> list[str]:
    source = program.replace("…", CAPTURE)
    if "def " not in source:
        source = f"async def processEvent(event, meta):\n{textwrap.indent(source, '    ')}\n    return event"
    messages = [finding.message for finding in check_app(source)]
    return [
        "loop" if "a loop in the making" in message else "unguarded"
        for message in messages
        if "a loop in the making" in message or "reached for every event" in message
    ]


@pytest.mark.parametrize("program", FINE)
def test_a_capture_under_a_condition_on_the_event_is_fine(program: str):
    assert captures_found(program) == []


@pytest.mark.parametrize("program", UNGUARDED)
def test_a_capture_for_every_event_is_found(program: str):
    assert captures_found(program) == ["unguarded"]


@pytest.mark.parametrize("program", LOOPS)
def test_a_capture_for_its_own_event_is_found(program: str):
    assert captures_found(program) == ["loop"]

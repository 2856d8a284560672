"""The semantics of a chain, by real apps loaded in this process."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from sandbox.app import App, Failure, load_app
from sandbox.chain import Chain, ChainLimits, Mode, invalid_row
from sandbox.event import InvalidEvent, open_envelope
from sandbox.invocation import Context, Effects, HostCall
from sandbox.page import HookTimeout, Page
from sandbox.wire import EventOutcome

UUID = "018f0000-0000-7000-8000-000000000001"
NOW = "2026-01-01T12:00:00Z"
PLAIN = Mode()
TRACED = Mode(trace=True)
WHOLE = Mode(whole=True)


class Bench:
    """A chain of apps, and what one event came to."""

    def __init__(self, *sources: str, event_bytes: int = 2**20, record_bytes: int = 1_000_000) -> None:
        self.started: list[tuple[str, list[Any]]] = []
        self.calls: list[HostCall] = []
        self.page = Page()
        self.context = Context(self.start_call, self.page)
        self.apps = [self.load(number, source) for number, source in enumerate(sources, 1)]
        self.chain = Chain(2, self.apps, ChainLimits(1, 2**20, event_bytes, record_bytes), self.page)
        self.effects = Effects(7)

    def load(self, number: int, source: str) -> App:
        install = {
            "id": number,
            "name": f"App{number}",
            "file_name": "main.py",
            "source": source,
            "config": {"key": "value"},
            "failed": None,
        }
        app = load_app(install, {}, self.context, 100, "9.9")
        assert app.error is None, app.error
        return app

    def start_call(self, effects: Effects, _install: int, name: str, arguments: list[Any]) -> HostCall:
        call = HostCall()
        self.started.append((name, orjson.loads(orjson.dumps(arguments))))
        self.calls.append(call)
        effects.calls.append(call)
        return call

    def begin(self, data: dict[str, Any] | None = None, failed: dict[int, Failure] | None = None, mode: Mode = PLAIN):
        raw = orjson.dumps(
            {"uuid": UUID, "distinct_id": "ada", "now": NOW, "data": orjson.dumps(data or {"event": "x"}).decode()}
        )
        if mode.opened:
            raw = orjson.dumps(open_envelope(raw, 2))
        return self.chain.run(self.chain.open(raw, mode), raw, self.effects, failed or {}, mode)

    def begin_called(self):
        """A chain that waits for its first host call."""
        running = self.begin()
        self.context.effects = self.effects
        assert type(next(running)) is HostCall
        return running

    def run(
        self, data: dict[str, Any] | None = None, failed: dict[int, Failure] | None = None, mode: Mode = PLAIN
    ) -> Row:
        """What the event came to; host calls are answered at once."""
        running = self.begin(data, failed, mode)
        self.context.effects = self.effects
        try:
            waited = next(running)
            while True:
                assert type(waited) is HostCall
                waited._finish("answer")
                waited = running.send(None)
        except StopIteration as stop:
            return Row(stop.value)
        finally:
            self.context.effects = None


class Row:
    """A row with what its blobs hold put where its lengths are."""

    def __init__(self, ended: tuple[list[Any], list[bytes]]) -> None:
        row, blobs = ended
        self.sequence, self.outcome, self.event, self.distinct_id, self.timestamp, self.elements, length, notes = row
        self.notes = orjson.loads(orjson.dumps(notes or {}))
        first, *rest = blobs
        assert length == len(first)
        self.properties = orjson.loads(first) if first else None
        for entry in (*self.notes.get("captures", ()), *self.notes.get("trace", ())):
            blob = rest.pop(0)
            assert entry[-1] == len(blob)
            entry[-1] = orjson.loads(blob)
        assert rest == []

    @property
    def failed(self) -> list[Any]:
        return [(entry[0], entry[1], entry[2]) for entry in self.notes.get("failed", [])]

    @property
    def messages(self) -> list[str]:
        return [message for _, _, message, _ in self.notes.get("logs", [])]


def adds(name: str) -> str:
    return f"def processEvent(event, meta):\n    event['properties'].setdefault('by', []).append({name!r})\n    return event\n"


def failing(line: str, before: str = "event['properties']['half'] = 1") -> str:
    return f"def processEvent(event, meta):\n    {before}\n    {line}\n"


def test_apps_run_in_order_each_on_what_the_last_returned():
    row = Bench(adds("one"), adds("two"), adds("three")).run()
    assert row.outcome == EventOutcome.EMIT
    assert row.properties["by"] == ["one", "two", "three"]
    assert row.properties["$plugins_succeeded"] == ["App1 (1)", "App2 (2)", "App3 (3)"]
    assert row.properties["$plugins_failed"] == []
    assert not row.notes


def test_no_app_with_the_hook_leaves_no_stamps():
    row = Bench("def onEvent(event, meta):\n    pass\n").run({"event": "x", "properties": {"a": 1}})
    assert row.properties == {"a": 1}


@pytest.mark.parametrize("mode", [PLAIN, TRACED])
def test_a_snapshot_goes_round_the_apps_and_is_not_stamped(mode):
    hook = "def processEvent(event, meta):\n    return None\n"
    row = Bench(hook).run({"event": "$snapshot", "properties": {"$snapshot_data": {"a": [1.0, None]}}}, mode=mode)
    assert row.outcome is EventOutcome.EMIT
    assert row.properties == {"$snapshot_data": {"a": [1.0, None]}}


def test_an_async_hook_adds_its_property_too():
    row = Bench("async def processEvent(event, meta):\n    event['properties']['a'] = 1\n    return event\n").run()
    assert row.properties["a"] == 1
    assert row.properties["$plugins_succeeded"] == ["App1 (1)"]


def test_an_async_hook_goes_on_with_the_answer_it_waited_for():
    source = """
async def processEvent(event, meta):
    before = event['event']
    await sleep(0.5)
    event['properties']['slept'] = before
    return event
"""
    bench = Bench(source, adds("two"))
    row = bench.run()
    assert bench.started == [("sleep", [0.5])]
    assert row.properties["slept"] == "x"
    assert row.properties["by"] == ["two"]


def test_a_call_that_nobody_awaits_holds_the_event_until_it_has_ended():
    bench = Bench("def processEvent(event, meta):\n    sleep(1)\n    return event\n", adds("two"))
    running = bench.begin()
    bench.context.effects = bench.effects
    assert next(running) is bench.calls[0]
    bench.calls[0]._finish(None)
    with pytest.raises(StopIteration) as stop:
        running.send(None)
    assert Row(stop.value.value).properties["by"] == ["two"]


def test_a_refused_call_raises_in_the_hook():
    source = """
async def processEvent(event, meta):
    try:
        await sleep(1)
    except Exception as error:
        event['properties']['error'] = str(error)
    return event
"""
    bench = Bench(source)
    running = bench.begin_called()
    bench.calls[0]._fail("no")
    with pytest.raises(StopIteration) as stop:
        running.send(None)
    assert Row(stop.value.value).properties["error"] == "no"


@pytest.mark.parametrize("ending", ["return None", "return", "event['properties']['a'] = 1"])
def test_none_drops_the_event_and_no_later_app_is_called(ending):
    bench = Bench(
        adds("one"), f"def processEvent(event, meta):\n    {ending}\n", "def processEvent(e, m):\n    console.log('!')"
    )
    row = bench.run()
    assert row.outcome == EventOutcome.DROP
    assert row.notes == {"dropped_by": 2}
    assert row.properties is None


@pytest.mark.parametrize("value", ["False", "0", "''", "[]", "{}"])
def test_only_none_drops(value):
    row = Bench(f"def processEvent(event, meta):\n    return {value}\n").run({"event": "x", "properties": {"a": 1}})
    assert row.outcome == EventOutcome.EMIT
    assert row.properties["a"] == 1
    assert row.properties["$plugins_failed"] == ["App1 (1)"]


def test_a_drop_keeps_the_failures_before_it():
    row = Bench(failing("raise ValueError('x')"), "def processEvent(event, meta):\n    return None\n").run()
    assert row.outcome == EventOutcome.DROP
    assert row.failed == [(1, "app", "ValueError: x")]


FAILURES = [
    ("raise ValueError('broken')", "ValueError: broken"),
    ("return 5", "int"),
    ("return [event]", "list"),
    ("return 'event'", "str"),
    ("event['team_id'] = 400\n    return event", "event.team_id"),
    ("event['team_id'] = True\n    return event", "event.team_id"),
    ("event['team_id'] = 2.0\n    return event", "event.team_id"),
    ("event['uuid'] = '018f0000-0000-7000-8000-000000000002'\n    return event", "event.uuid"),
    ("event['uuid'] = None\n    return event", "event.uuid"),
    ("event['properties'] = None\n    return event", "properties are not a dict"),
    ("event['properties'] = [1]\n    return event", "properties are not a dict"),
    ("del event['properties']\n    return event", "properties are not a dict"),
    ("event['distinct_id'] = ''\n    return event", "distinct_id"),
    ("event['distinct_id'] = 5\n    return event", "distinct_id"),
    ("del event['distinct_id']\n    return event", "distinct_id"),
    ("event['event'] = ''\n    return event", "name"),
    ("del event['event']\n    return event", "name"),
    ("event['properties']['x'] = {1, 2}\n    return event", "set is not JSON"),
    ("event['properties']['x'] = b'1'\n    return event", "bytes is not JSON"),
    ("event['properties']['x'] = float('nan')\n    return event", "NaN"),
    ("event['properties']['x'] = -float('inf')\n    return event", "NaN"),
    ("event['properties']['x'] = 2 ** 64\n    return event", "64 bits"),
    ("event['properties'][5] = 1\n    return event", "key"),
    ("event['properties']['x'] = '\\ud800'\n    return event", "surrogate"),
    ("event['properties']['x'] = event\n    return event", "contains itself"),
    ("event['extra'] = object()\n    return event", "not JSON"),
    ("event['properties']['x'] = posthog\n    return event", "not JSON"),
    ("event['properties']['x'] = 'x' * 2_000_000\n    return event", "more than"),
    ("event['properties']['x'] = '\"' * 400_000\n    return event", "too large for the event log"),
    (
        "for _ in range(101):\n        event['properties'] = {'p': event['properties']}\n    return event",
        "deeper than 100",
    ),
    ("for _ in range(300):\n        event['properties'] = {'p': event['properties']}\n    return event", "too deep"),
    ("event['extra'] = event['properties']\n    event['extra']['x'] = event\n    return event", "contains itself"),
    ("return processEvent", "function"),
    ("posthog.capture('')", "non-empty string"),
    ("console = 5\n    console.log('x')", "AttributeError"),
    ("raise MemoryError()", "MemoryError"),
    ("return (yield)", "generator"),
]


@pytest.mark.parametrize(("line", "message"), FAILURES, ids=[line[:60] for line, _ in FAILURES])
def test_a_failure_leaves_the_event_as_it_was_before_that_app(line, message):
    data = {"event": "x", "properties": {"a": {"b": [1]}}}
    middle = failing(line, "event['properties']['a']['b'].append('half')")
    row = Bench(adds("one"), middle, adds("three")).run(data)
    assert row.outcome == EventOutcome.EMIT
    assert row.properties == {
        "a": {"b": [1]},
        "by": ["one", "three"],
        "$plugins_succeeded": ["App1 (1)", "App3 (3)"],
        "$plugins_failed": ["App2 (2)"],
    }
    assert row.distinct_id == "ada"
    assert [install for install, _, _ in row.failed] == [2]
    assert message in row.failed[0][2]
    assert any("processEvent failed" in text for text in row.messages)


def test_a_failing_first_app_leaves_the_event_as_it_came():
    row = Bench(failing("raise ValueError('x')", "event['properties'].clear()")).run(
        {"event": "x", "properties": {"a": 1}}
    )
    assert row.properties == {"a": 1, "$plugins_succeeded": [], "$plugins_failed": ["App1 (1)"]}


def test_a_failure_names_the_innermost_line_of_the_app():
    source = "def inner():\n    raise KeyError('k')\n\ndef processEvent(event, meta):\n    inner()\n"
    row = Bench(source).run()
    assert row.notes["failed"] == [[1, "app", "KeyError: 'k'", 2, False]]
    assert row.messages == ["processEvent failed: KeyError: 'k' (line 2)"]


def test_an_error_that_cannot_be_printed_is_still_a_failure():
    source = """
class Odd(Exception):
    def __str__(self):
        raise ValueError('no')

def processEvent(event, meta):
    raise Odd()
"""
    assert Bench(source).run().failed == [(1, "app", "Odd")]


def test_a_lone_surrogate_in_an_error_does_not_reach_the_wire():
    row = Bench(failing("raise ValueError('a\\ud800')")).run()
    assert row.failed == [(1, "app", "ValueError: a\ufffd")]


def test_tuples_become_lists_and_other_names_are_text():
    source = """
def processEvent(event, meta):
    event['event'] = {'kind': 1}
    event['properties']['pair'] = (1, 2)
    event['distinct_id'] = 'eve'
    return event
"""
    row = Bench(source).run()
    assert row.event == '{"kind":1}'
    assert row.properties["pair"] == [1, 2]
    assert row.distinct_id == "eve"


def test_a_new_event_may_leave_out_team_and_uuid():
    source = """
def processEvent(event, meta):
    return {'event': 'new', 'distinct_id': event['distinct_id'], 'properties': {}}
"""
    bench = Bench(source, adds("two"))
    row = bench.run()
    assert row.event == "new"
    assert row.properties["by"] == ["two"]


@pytest.mark.parametrize("fails", [False, True])
def test_an_event_too_large_for_an_app_goes_on_as_it_came(fails):
    # 600,000 quotes take 1.2 MB as text in a message: no app may make such an event, but this one came so.
    data = {"event": "x", "properties": {"a": '"' * 600_000}}
    source = failing("raise ValueError('x')") if fails else "def processEvent(event, meta):\n    return event\n"
    row = Bench(source, source).run(data)
    assert row.outcome == EventOutcome.EMIT
    assert row.properties["a"] == data["properties"]["a"]
    assert row.properties["$plugins_failed"] == ["App1 (1)", "App2 (2)"]


def test_captures_of_a_failed_hook_vanish_and_its_logs_stay():
    capture = "def processEvent(event, meta):\n    posthog.capture('kept')\n    return event\n"
    source = failing("raise ValueError('x')", "posthog.capture('lost'); console.log('said')")
    row = Bench(capture, source, capture).run()
    assert [(entry[0], entry[1], entry[2]) for entry in row.notes["captures"]] == [(1, 0, "kept"), (3, 0, "kept")]
    assert row.messages[0] == "said"


def test_captures_and_logs_of_a_hook_that_drops_stay():
    row = Bench("def processEvent(event, meta):\n    posthog.capture('x')\n    console.log('y')\n").run()
    assert row.outcome == EventOutcome.DROP
    assert len(row.notes["captures"]) == 1
    assert row.messages == ["y"]


def test_an_install_that_failed_before_is_not_called():
    failure = Failure("timeout", "used more than 1 s", 3)
    row = Bench(adds("one"), adds("two")).run(failed={1: failure}, mode=TRACED)
    assert row.properties["by"] == ["two"]
    assert row.properties["$plugins_failed"] == ["App1 (1)"]
    assert row.notes["failed"] == [[1, "timeout", "used more than 1 s", 3, False]]
    assert [install for install, _ in row.notes["trace"]] == [0, 1, 2]


def test_a_trace_has_the_event_as_it_came_and_after_each_app():
    row = Bench(adds("one"), failing("raise ValueError('x')"), adds("three")).run(mode=TRACED)
    steps = [(install, event["properties"].get("by")) for install, event in row.notes["trace"]]
    assert steps == [(0, None), (1, ["one"]), (2, ["one"]), (3, ["one", "three"])]


def test_a_trace_ends_where_the_event_was_dropped():
    row = Bench(adds("one"), "def processEvent(event, meta):\n    pass\n").run(mode=TRACED)
    assert [install for install, _ in row.notes["trace"]] == [0, 1]


def test_the_page_names_the_app_whenever_it_runs_also_after_an_await():
    bench = Bench(
        "async def processEvent(event, meta):\n    await sleep(1)\n    console.log('after')\n    return event\n"
    )
    seen = []
    bench.effects = type("Watched", (Effects,), {"log": lambda *_: seen.append(bench.page.in_app)})(7)
    running = bench.begin_called()
    bench.page.leave()
    bench.calls[0]._finish(None)
    with pytest.raises(StopIteration):
        running.send(None)
    assert seen == [True]
    assert bench.page.install == 1
    assert bench.page.in_app  # until the caller has freed what the app left


def test_an_event_asked_for_whole_comes_as_the_apps_left_it():
    source = "def processEvent(event, meta):\n    posthog.capture('c')\n    event['own'] = [1]\n    return event\n"
    row = Bench(adds("one"), source).run({"event": "x", "$set": {"a": 1}, "properties": {"$elements": []}}, mode=WHOLE)
    assert row.outcome == EventOutcome.WHOLE
    assert [row.event, row.distinct_id, row.timestamp, row.elements] == ["", "", "", ""]
    assert row.properties == {
        "event": "x",
        "$set": {"a": 1},
        "properties": {"$elements": [], "by": ["one"]},
        "distinct_id": "ada",
        "now": NOW,
        "uuid": UUID,
        "team_id": 2,
        "own": [1],
    }
    assert row.notes["captures"][0][:3] == [2, 0, "c"]


@pytest.mark.parametrize("sources", [(), (failing("raise ValueError('x')"),)], ids=["no app", "failing app"])
def test_a_whole_event_that_no_app_changed_is_as_it_came(sources):
    row = Bench(*sources).run({"event": "x", "properties": {"a": 1}}, mode=WHOLE)
    assert row.outcome == EventOutcome.WHOLE
    assert row.properties["properties"] == {"a": 1}
    assert (row.properties["uuid"], row.properties["team_id"]) == (UUID, 2)


def test_a_whole_event_may_be_dropped_and_traced():
    row = Bench(adds("one"), "def processEvent(event, meta):\n    pass\n").run(mode=Mode(trace=True, whole=True))
    assert row.outcome == EventOutcome.DROP
    assert row.notes["dropped_by"] == 2
    assert [(install, event["properties"]) for install, event in row.notes["trace"]] == [(0, {}), (1, {"by": ["one"]})]


@pytest.mark.parametrize("mode", [Mode(opened=True), Mode(opened=True, whole=True, trace=True)])
def test_an_event_that_comes_opened_goes_the_same_way_and_a_failure_opens_it_anew(mode):
    bench = Bench(failing("raise ValueError('x')", "event['properties'].clear()"), adds("two"))
    row = bench.run({"event": "x", "properties": {"a": 1}}, mode=mode)
    properties = row.properties["properties"] if mode.whole else row.properties
    assert properties["a"] == 1
    assert properties["by"] == ["two"]
    assert row.failed == [(1, "app", "ValueError: x")]


def test_what_cannot_be_opened_is_said_in_its_row():
    chain = Bench(adds("one")).chain
    for raw, mode in ((b"[]", Mode(opened=True)), (b'{"data":"5"}', PLAIN)):
        with pytest.raises(InvalidEvent) as caught:
            chain.open(raw, mode)
        sequence, outcome, *fields, length, notes = invalid_row(7, caught.value)
        assert (sequence, outcome, length) == (7, EventOutcome.INVALID, 0)
        assert fields == ["", "", "", ""]
        assert notes == {"error": ["InvalidEvent", str(caught.value)]}


def test_stamps_of_an_earlier_segment_are_the_hosts_to_set():
    source = "def processEvent(event, meta):\n    event['properties']['$plugins_failed'] = ['mine']\n    return event\n"
    row = Bench(source).run(mode=Mode(whole=True, opened=True))
    assert row.properties["properties"] == {}


def test_a_timeout_that_an_app_slipped_past_is_still_its_failure():
    # The timer may strike where the interpreter drops exceptions, in a comparison inside a C function say.
    bench = Bench(adds("one"), adds("two"))
    running = bench.begin()
    bench.page.overran = "used more than 1 s of CPU time (cpu_seconds)"
    with pytest.raises(StopIteration) as stop:
        next(running)
    row = Row(stop.value.value)
    assert row.failed == [(1, "timeout", "used more than 1 s of CPU time (cpu_seconds)")]
    assert row.properties["by"] == ["two"]


def test_a_timeout_while_it_waits_is_that_apps_failure():
    source = "async def processEvent(event, meta):\n    await sleep(9)\n    return event\n"
    running = Bench(source, adds("two")).begin_called()
    with pytest.raises(StopIteration) as stop:
        running.throw(HookTimeout("ran longer than 1 s"))
    row = Row(stop.value.value)
    assert row.failed == [(1, "timeout", "ran longer than 1 s")]
    assert row.properties["by"] == ["two"]


@pytest.mark.parametrize("catch", ["except Exception:", "except:"])
def test_a_timeout_cannot_be_caught(catch):
    source = f"""
async def processEvent(event, meta):
    try:
        await sleep(9)
    {catch}
        pass
    return event
"""
    running = Bench(source).begin_called()
    with pytest.raises(StopIteration) as stop:
        running.throw(HookTimeout("too long"))
    assert Row(stop.value.value).failed == [(1, "timeout", "too long")]


def test_a_hook_that_is_given_up_ends_quietly_whatever_it_does_about_it():
    source = """
async def processEvent(event, meta):
    try:
        await sleep(9)
    finally:
        await sleep(9)
"""
    bench = Bench(source, adds("two"))
    running = bench.begin_called()
    running.close()
    assert bench.page.in_app  # until its driver has freed what is left of it
    assert bench.page.install == 1

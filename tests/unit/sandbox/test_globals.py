"""What apps call: posthog.capture, console, print, meta."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from sandbox.app import App, load_app
from sandbox.invocation import CAPTURE_BYTES, LOG_BYTES, LOG_LINES, Context, Effects, HostCall
from sandbox.page import Page
from sandbox.wire import HOOKS


class Bench:
    """One app with one hook, and the effects of a call."""

    def __init__(
        self, body: str, config: dict[str, Any] | None = None, attachments: dict[str, Any] | None = None
    ) -> None:
        self.page = Page()
        self.context = Context(lambda *_: HostCall(), self.page)
        lines = "".join(f"    {line}\n" for line in body.splitlines())
        install = {
            "id": 39,
            "name": "Test",
            "file_name": "main.py",
            "source": f"def processEvent(event, meta):\n{lines}",
            "config": config or {},
            "failed": None,
        }
        self.app: App = load_app(install, attachments or {}, self.context, 100, "1.2.3")
        assert self.app.error is None, self.app.error
        self.effects = Effects(1)

    def call(self, event: object = None) -> Any:
        self.context.effects = self.effects
        self.page.enter(1, 39, HOOKS.index("processEvent"))
        try:
            return self.app.hooks["processEvent"](event, self.app.meta)
        finally:
            self.context.effects = None
            self.page.leave()

    @property
    def captures(self) -> list[Any]:
        """Each with its properties in the place of their length."""
        pairs = list(zip(self.effects.captures, self.effects.capture_blobs, strict=True))
        assert all(entry[-1] == len(blob) for entry, blob in pairs)
        return [[*orjson.loads(orjson.dumps(entry[:-1])), orjson.loads(blob)] for entry, blob in pairs]


def captured(call: str) -> Any:
    bench = Bench(call)
    bench.call()
    return bench.captures[0]


def logged(call: str) -> Any:
    bench = Bench(call)
    assert bench.call() is None
    assert len(bench.effects.logs) == 1
    return bench.effects.logs[0]


def test_a_capture_of_nobody_is_the_servers_now():
    install, number, event, distinct_id, timestamp, properties = captured("posthog.capture('signed up')")
    assert (install, number, event, distinct_id, timestamp) == (39, 0, "signed up", "App Server", None)
    assert properties == {"$lib": "posthog-plugin-server", "$lib_version": "1.2.3", "distinct_id": "App Server"}


def test_properties_are_kept_and_distinct_id_with_them_but_not_timestamp():
    capture = captured(
        "posthog.capture('x', {'random': [1], 'distinct_id': 'custom id', 'timestamp': '2020-02-23T02:15:00Z'})"
    )
    assert capture[3:5] == ["custom id", "2020-02-23T02:15:00Z"]
    assert capture[5] == {
        "$lib": "posthog-plugin-server",
        "$lib_version": "1.2.3",
        "random": [1],
        "distinct_id": "custom id",
    }


@pytest.mark.parametrize(
    ("given", "expected"), [("5", "5"), ("1.5", "1.5"), ("None", "App Server"), ("'x' * 300", "x" * 300)]
)
def test_the_distinct_id_of_the_properties_is_that_of_the_event(given, expected):
    capture = captured(f"posthog.capture('x', {{'distinct_id': {given}}})")
    assert capture[3] == expected
    assert capture[5]["distinct_id"] == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("'2020-02-23'", "2020-02-23"),
        ("None", None),
        ("datetime(2020, 2, 23, 2, 15)", "2020-02-23T02:15:00"),
        ("datetime(2020, 2, 23, 2, 15, tzinfo=timezone.utc)", "2020-02-23T02:15:00+00:00"),
        ("'2020-02-23T02:15:00.' + '1' * 500", "2020-02-23T02:15:00.111111"),
        ("'2020-02-23\\ud80002:15:00'", "2020-02-23T02:15:00"),
    ],
)
def test_a_timestamp_is_iso_8601_text_or_a_datetime(given, expected):
    capture = captured(f"from datetime import datetime, timezone\nposthog.capture('x', {{'timestamp': {given}}})")
    assert capture[4] == expected


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ("", TypeError),
        ("''", TypeError),
        ("None", TypeError),
        ("5", TypeError),
        ("['x']", TypeError),
        ("'x', []", TypeError),
        ("'x', 'y'", TypeError),
        ("'x', {}, {}", TypeError),
        ("'x', {'a': {1}}", TypeError),
        ("'x', {'a': b''}", TypeError),
        ("'x', {'a': float('nan')}", TypeError),
        ("'x', {'a': 2 ** 64}", TypeError),
        ("'x', {1: 1}", TypeError),
        ("'x', {'distinct_id': ''}", TypeError),
        ("'x', {'distinct_id': []}", TypeError),
        ("'x', {'distinct_id': True}", TypeError),
        ("'x', {'distinct_id': 'a\\ud800'}", TypeError),
        ("'a\\ud800'", TypeError),
        ("'x', {'timestamp': 'yesterday'}", ValueError),
        ("'x', {'timestamp': 1582424100}", TypeError),
        ("'x', {'timestamp': []}", TypeError),
    ],
)
def test_wrong_arguments_raise_and_capture_nothing(arguments, error):
    bench = Bench(f"posthog.capture({arguments})")
    with pytest.raises(error):
        bench.call()
    assert bench.captures == []


def test_properties_nested_too_deep_raise():
    bench = Bench("x = 1\nfor _ in range(101):\n    x = [x]\nposthog.capture('x', {'a': x})")
    with pytest.raises(ValueError, match="deeper than 100"):
        bench.call()


def test_the_hundred_and_first_capture_raises_and_a_hundred_are_kept():
    bench = Bench(
        "for number in range(100):\n    posthog.capture('x', {'n': number})\n"
        "try:\n    posthog.capture('one more')\nexcept LimitExceeded as error:\n    return str(error)"
    )
    assert "more than 100 captures" in bench.call()
    assert [(capture[1], capture[5]["n"]) for capture in bench.captures] == [(number, number) for number in range(100)]


def test_captures_together_are_bounded_in_bytes():
    bench = Bench("for number in range(100):\n    posthog.capture('x', {'a': 'x' * 500_000})")
    with pytest.raises(Exception, match="take more than"):
        bench.call()
    assert 0 < sum(map(len, bench.effects.capture_blobs)) <= CAPTURE_BYTES
    assert len(bench.captures) == CAPTURE_BYTES // 500_000


def test_what_changes_after_a_capture_does_not_change_it():
    bench = Bench("p = {'a': [1]}\nposthog.capture('x', p)\np['a'].append(2)\np['b'] = 3\nreturn p")
    assert bench.call() == {"a": [1, 2], "b": 3}
    assert bench.captures[0][5]["a"] == [1]
    assert "b" not in bench.captures[0][5]


def test_a_capture_leaves_the_callers_properties_alone():
    bench = Bench("p = {'timestamp': '2020-02-23', 'distinct_id': 'a'}\nposthog.capture('x', p)\nreturn p")
    assert bench.call() == {"timestamp": "2020-02-23", "distinct_id": "a"}


def test_a_long_name_is_cut():
    assert captured("posthog.capture('n' * 300)")[2] == "n" * 200


def test_no_capture_outside_a_hook():
    bench = Bench("return posthog.capture")
    capture = bench.call()
    with pytest.raises(RuntimeError, match="only while a hook runs"):
        capture("x")


def test_captures_that_are_undone_take_their_properties_along():
    effects = Effects(1)
    for number in range(3):
        effects.capture([39, number, "x", "ada", None], b"{}" * number)
    effects.undo_captures(1)
    assert effects.captures == [[39, 0, "x", "ada", None, 0]]
    assert effects.capture_blobs == [b""]


def test_a_capture_may_be_awaited():
    context = Context(lambda *_: HostCall(), Page())
    install = {"id": 1, "name": "A", "file_name": "main.py", "config": {}, "failed": None}
    source = "async def processEvent(event, meta):\n    return await posthog.capture('x')\n"
    app = load_app(install | {"source": source}, {}, context, 100, "1")
    context.effects = Effects(1)
    with pytest.raises(StopIteration) as stop:
        app.hooks["processEvent"]({}, app.meta).send(None)
    assert stop.value.value is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("'a', 'b'", "a b"),
        ("", ""),
        ("'number =', 987", "number = 987"),
        ("ValueError('something')", "ValueError: something"),
        ("{'a': 1}", '{"a":1}'),
        ("[99, 79]", "[99,79]"),
        ("(1, 'x')", '[1,"x"]'),
        ("None, True, 1.5", "None True 1.5"),
        ("'a\\nb\\tc'", "a\nb\tc"),
        ("'a\\x1b[31mb\\x00'", "a\ufffd[31mb\ufffd"),
        ("'\\ud800'", "\ufffd"),
        ("{'a': {1}}", "{'a': {1}}"),
        ("{1: 'a', 2: [None, float('nan')]}", "{1: 'a', 2: [None, nan]}"),
        ("{'a': print}", "<dict that is not JSON>"),
        ("{1: 'x' * 20_000}", "{1: '" + "x" * 9_995),
        ("ValueError()", "ValueError"),
        ("ValueError('')", "ValueError"),
        ("ValueError(': ')", "ValueError: : "),
        ("'x' * 20_000", "x" * 10_000),
        ("'x' * 20_000, 'y'", "x" * 10_000),
    ],
)
def test_the_console_writes_its_arguments_as_one_line(arguments, message):
    for method in ("debug", "log", "info", "warn", "error"):
        assert logged(f"console.{method}({arguments})") == [39, method.upper(), message, "CONSOLE"]


def test_print_logs_at_level_log():
    assert logged("print('a', 5, {'b': 1}, sep='-')")[:3] == [39, "LOG", "a-5-{'b': 1}"]
    assert logged("print()")[:3] == [39, "LOG", ""]


def test_the_console_is_silent_outside_a_hook():
    bench = Bench("return console")
    assert bench.call().log("x") is None
    assert bench.effects.logs == []


def test_lines_of_one_event_are_bounded_in_number_and_said_to_be():
    bench = Bench("for number in range(5_000):\n    console.log(number)")
    bench.call()
    assert len(bench.effects.logs) == LOG_LINES + 1
    assert bench.effects.logs[-1] == [39, "WARN", "more log lines of this event were left out", "SYSTEM"]


def test_lines_of_one_event_are_bounded_in_bytes_and_said_to_be():
    bench = Bench("for number in range(500):\n    console.log('x' * 10_000)")
    bench.call()
    assert sum(len(message) for _, _, message, _ in bench.effects.logs) <= LOG_BYTES + 100
    assert [source for *_, source in bench.effects.logs].count("SYSTEM") == 1
    assert bench.effects.logs[-1][3] == "SYSTEM"


def test_meta_is_read_by_attribute_and_by_item():
    attachments = {"map": {"content_type": "text/plain", "file_name": "a.txt", "contents": b"abc"}}
    bench = Bench(
        "meta.global_['n'] = meta['global'].get('n', 0) + 1\n"
        "return [meta.config['key'], meta['config']['key'], meta.attachments['map'].contents, "
        "meta['attachments']['map']['file_name'], meta.global_['n']]",
        {"key": "value"},
        attachments,
    )
    assert bench.call() == ["value", "value", b"abc", "a.txt", 1]
    assert bench.call()[-1] == 2


def test_what_the_host_gives_cannot_be_written_to():
    for target in ("posthog.capture", "console.log", "meta.config", "meta.x"):
        with pytest.raises((AttributeError, TypeError)):
            Bench(f"{target} = 1").call()


@pytest.mark.parametrize("seconds", ["-1", "3601", "'1'", "None", "True", "float('nan')", "float('inf')", "10 ** 30"])
def test_sleep_takes_a_number_of_seconds_up_to_an_hour(seconds):
    with pytest.raises(ValueError, match="0 to 3600"):
        Bench(f"sleep({seconds})").call()

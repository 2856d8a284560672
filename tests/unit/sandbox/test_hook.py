"""Hooks outside of the chain, called one at a time by real apps loaded in this process."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import orjson
import pytest

from sandbox.app import App, Failure, load_app
from sandbox.hook import RefusedReturn, describe_under_watch, hook_index, invoke
from sandbox.invocation import Context, Effects, HostCall
from sandbox.page import HookTimeout, Page
from sandbox.wire import HOOKS, Word

ANSWERING = ["processEventBatch", "composeWebhook"]
OTHERS = ["setupPlugin", "teardownPlugin", "onEvent", "onSnapshot", "exportEvents", "runEveryMinute", "runEveryDay"]


class Bench:
    """One app, and what a call of its hook came to."""

    def __init__(self, source: str, limit_bytes: int = 2**20) -> None:
        self.page = Page()
        self.calls: list[HostCall] = []
        self.context = Context(self.start_call, self.page)
        self.limit_bytes = limit_bytes
        install = {"id": 39, "name": "Test", "file_name": "main.py", "source": source, "config": {}, "failed": None}
        self.app: App = load_app(install, {}, self.context, 100, "1")
        assert self.app.error is None, self.app.error
        self.effects = Effects(7)

    def start_call(self, effects: Effects, _install: int, _name: str, _arguments: list[Any]) -> HostCall:
        call = HostCall(effects)
        self.calls.append(call)
        effects.calls.append(call)
        return call

    def begin(self, hook: str, *arguments: Any) -> Generator[HostCall, None, tuple[Failure | None, bytes]]:
        self.context.effects = self.effects
        return invoke(self.app, hook, list(arguments), self.effects, self.page, self.limit_bytes)

    def call(self, hook: str, *arguments: Any) -> tuple[Failure | None, Any]:
        """Failure and answer of a hook that does not wait."""
        return ended(self.begin(hook, *arguments))

    @property
    def messages(self) -> list[str]:
        return [message for _, _, message, _ in self.effects.logs]


def ended(running: Generator[HostCall, None, tuple[Failure | None, bytes]]) -> tuple[Failure | None, Any]:
    with pytest.raises(StopIteration) as stop:
        next(running)
    failure, answer = stop.value.value
    assert type(answer) is bytes
    return failure, orjson.loads(answer)


def test_a_hook_gets_its_arguments_and_meta():
    bench = Bench("def composeWebhook(event, meta):\n    return {'url': 'x', 'body': [event, meta.config]}\n")
    assert bench.call("composeWebhook", {"a": 1}) == (None, {"url": "x", "body": [{"a": 1}, {}]})
    assert Bench("def setupPlugin(meta):\n    meta.global_['x'] = 1\n").call("setupPlugin") == (None, None)


@pytest.mark.parametrize("value", ["None", "5", "'text'", "{}", "[1]", "[None]"])
def test_a_batch_that_is_no_list_of_events_is_refused(value):
    failure, answer = Bench(f"def processEventBatch(events, meta):\n    return {value}\n").call("processEventBatch", [])
    assert failure is not None
    assert "return a list of events" in failure.message
    assert answer is None


@pytest.mark.parametrize("value", ["5", "'text'", "{}", "[]", "{'url': None}", "{'body': 'x'}", "False"])
def test_a_webhook_without_a_url_is_refused(value):
    failure, answer = Bench(f"def composeWebhook(event, meta):\n    return {value}\n").call("composeWebhook", {})
    assert failure is not None
    assert 'return a dict with "url"' in failure.message
    assert answer is None


@pytest.mark.parametrize(
    ("hook", "value"),
    [
        ("composeWebhook", "None"),
        ("composeWebhook", "{'url': 'x', 'body': (1, 2), 'headers': {}}"),
        ("processEventBatch", "[{'a': (1, 2)}]"),
        ("processEventBatch", "[]"),
    ],
)
def test_what_a_hook_answers_is_its_json(hook, value):
    expected = orjson.loads(orjson.dumps(eval(value)))
    assert Bench(f"def {hook}(x, meta):\n    return {value}\n").call(hook, []) == (None, expected)
    running = Bench(f"async def {hook}(x, meta):\n    return {value}\n").begin(hook, [])
    assert ended(running) == (None, expected)


@pytest.mark.parametrize("hook", OTHERS)
def test_what_other_hooks_return_is_not_looked_at(hook):
    bench = Bench(f"def {hook}(*args):\n    return object()\n")
    assert bench.call(hook, *([] if "Plugin" in hook or "Every" in hook else [{}])) == (None, None)
    assert bench.effects.logs == []


def test_a_job_is_called_by_its_name():
    source = "def work(payload, meta):\n    console.log(payload)\n    return object()\njobs = {'send mail': work}\n"
    bench = Bench(source)
    assert bench.call("jobs.send mail", "now") == (None, None)
    assert bench.messages == ["now"]
    assert bench.page._words[Word.HOOK] == HOOKS.index("job")


def test_the_page_names_each_hook_and_all_jobs_as_one():
    assert HOOKS[hook_index("jobs.anything")] == "job"
    assert [HOOKS[hook_index(name)] for name in (*ANSWERING, *OTHERS)] == [*ANSWERING, *OTHERS]


FAILURES = [
    ("raise ValueError('broken')", "app", "ValueError: broken"),
    ("1 / 0", "app", "ZeroDivisionError"),
    ("raise LimitExceeded('mine')", "limit", "LimitExceeded: mine"),
    ("raise MemoryError()", "memory", "memory_bytes"),
    ("return {1, 2}", "app", "set is not JSON"),
    ("return b'x'", "app", "bytes is not JSON"),
    ("return float('nan')", "app", "NaN"),
    ("return '\\ud800'", "app", "surrogate"),
    ("return 2 ** 64", "app", "64 bits"),
    ("return posthog", "app", "not JSON"),
    ("x = []\n    for _ in range(101):\n        x = [x]\n    return x", "app", "deeper than 100"),
    ("x = []\n    x.append(x)\n    return x", "app", "contains itself"),
    ("return [{'x': 'x' * 2_000_000}]", "app", "more than 1048576 bytes"),
]


@pytest.mark.parametrize("hook", ANSWERING)
@pytest.mark.parametrize(("line", "kind", "message"), FAILURES, ids=[line for line, _, _ in FAILURES])
def test_a_failing_hook_leaves_its_log_and_no_answer_and_no_capture(hook, line, kind, message):
    bench = Bench(f"def {hook}(x, meta):\n    posthog.capture('lost')\n    console.log('said')\n    {line}\n")
    failure, answer = bench.call(hook, {})
    assert failure is not None
    assert failure.kind == kind
    assert message in failure.message
    assert answer is None
    assert bench.effects.captures == []
    assert bench.effects.capture_blobs == []
    assert bench.messages == ["said", f"{hook} failed: {failure.located()}"]
    assert bench.effects.logs[1][::3] == [39, "PLUGIN"]


@pytest.mark.parametrize("hook", ANSWERING)
def test_a_generator_is_no_answer(hook):
    failure, answer = Bench(f"def {hook}(x, meta):\n    yield x\n").call(hook, {})
    assert failure is not None
    assert "generator is not JSON" in failure.message
    assert answer is None


@pytest.mark.parametrize(("size", "fails"), [(98, False), (99, True)])
def test_an_answer_is_bounded_by_the_limit_on_events(size, fails):
    bench = Bench(f"def processEventBatch(events, meta):\n    return [{{'x': 'x' * {size}}}]\n", limit_bytes=108)
    failure, answer = bench.call("processEventBatch", [])
    assert (failure is not None) is fails
    assert answer == (None if fails else [{"x": "x" * size}])


def test_a_failure_names_the_line_of_the_app():
    bench = Bench("def inner():\n    raise KeyError('k')\n\nasync def onEvent(event, meta):\n    inner()\n")
    assert bench.call("onEvent", {}) == (Failure("app", "KeyError: 'k'", 2), None)


def test_a_hook_that_awaits_goes_on_with_the_answer_while_the_page_names_it():
    source = """
async def composeWebhook(event, meta):
    posthog.capture('before')
    slept = await sleep(1)
    posthog.capture('after')
    return {'url': event, 'body': slept}
"""
    bench = Bench(source)
    running = bench.begin("composeWebhook", "e")
    assert next(running) is bench.calls[0]
    assert not bench.page.in_app
    bench.calls[0]._finish("answer")
    assert ended(running) == (None, {"url": "e", "body": "answer"})
    assert bench.page.in_app  # until the caller has freed what the app left
    assert bench.page.install == 39
    assert [capture[2] for capture in bench.effects.captures] == ["before", "after"]


def test_a_call_that_the_host_refuses_raises_in_the_hook():
    bench = Bench("async def onEvent(event, meta):\n    await sleep(1)\n")
    running = bench.begin("onEvent", {})
    next(running)
    bench.calls[0]._fail("no")
    assert ended(running) == (Failure("app", "RuntimeError: no", 2), None)


def test_a_hook_has_ended_when_its_calls_have_awaited_or_not():
    bench = Bench("def composeWebhook(event, meta):\n    sleep(1)\n    sleep(2)\n    return {'url': 'done'}\n")
    running = bench.begin("composeWebhook", {})
    assert next(running) is bench.calls[0]
    assert not bench.page.in_app
    bench.calls[0]._finish(None)
    assert next(running) is bench.calls[1]
    bench.calls[1]._finish(None)
    assert ended(running) == (None, {"url": "done"})
    assert bench.effects.calls == []


def test_an_answer_is_as_it_was_when_the_hook_returned():
    source = "kept = []\ndef composeWebhook(event, meta):\n    sleep(1)\n    kept.append(1)\n    return {'url': 'x', 'body': kept}\n"
    bench = Bench(source)
    running = bench.begin("composeWebhook", {})
    next(running)
    bench.app.hooks["composeWebhook"].__globals__["kept"].append("by another event")  # type: ignore[attr-defined]
    bench.calls[0]._finish(None)
    assert ended(running) == (None, {"url": "x", "body": [1]})


@pytest.mark.parametrize("waits", ["await sleep(9)", "sleep(9)"])
def test_a_hook_that_waits_too_long_fails_and_its_captures_vanish(waits):
    bench = Bench(f"async def onEvent(event, meta):\n    posthog.capture('lost')\n    {waits}\n")
    running = bench.begin("onEvent", {})
    next(running)
    with pytest.raises(StopIteration) as stop:
        running.throw(HookTimeout("ran longer than 1 s"))
    failure, answer = stop.value.value
    assert (failure.kind, failure.message, answer) == ("timeout", "ran longer than 1 s", b"null")
    assert bench.effects.captures == []
    assert bench.effects.calls == []
    assert bench.messages == [f"onEvent failed: {failure.located()}"]


@pytest.mark.parametrize("catch", ["except Exception:", "except:"])
def test_a_timeout_cannot_be_caught(catch):
    bench = Bench(f"async def onEvent(event, meta):\n    try:\n        await sleep(9)\n    {catch}\n        pass\n")
    running = bench.begin("onEvent", {})
    next(running)
    with pytest.raises(StopIteration) as stop:
        running.throw(HookTimeout("too long"))
    assert stop.value.value[0].kind == "timeout"


def test_a_hook_that_is_given_up_ends_quietly_whatever_it_does_about_it():
    bench = Bench(
        "async def onEvent(event, meta):\n    try:\n        await sleep(9)\n    finally:\n        await sleep(9)\n"
    )
    running = bench.begin("onEvent", {})
    next(running)
    running.close()
    assert bench.page.install == 39


def test_a_timeout_that_a_hook_slipped_past_is_still_its_failure():
    bench = Bench("def composeWebhook(event, meta):\n    return 1\n")
    bench.page.overran = "used more than 1 s of CPU time (cpu_seconds)"
    failure, answer = bench.call("composeWebhook", {})
    assert failure == Failure("timeout", "used more than 1 s of CPU time (cpu_seconds)", None)
    assert answer is None
    assert bench.page.overran == ""


def test_describing_a_failure_has_the_hooks_time_anew_and_may_use_it_up():
    bench = Bench("x = 1\n")
    seen: list[tuple[bool, int]] = []

    class Slow(Exception):
        def __str__(self) -> str:
            seen.append((bench.page.in_app, bench.page.invocations))
            raise HookTimeout("used more than 1 s")

    bench.page.enter(7, 39, 2)
    before = bench.page.invocations
    failure = describe_under_watch(Slow(), bench.app, bench.page, bench.effects, 2)
    assert failure == Failure("timeout", "used more than 1 s")
    assert seen == [(True, before + 1)]
    assert bench.page.in_app
    assert bench.page.invocations == before + 2


def test_a_refusal_is_described_without_the_name_of_its_class():
    bench = Bench("x = 1\n")
    failure = describe_under_watch(RefusedReturn("processEvent returned int"), bench.app, bench.page, bench.effects, 2)
    assert failure == Failure("app", "processEvent returned int", None)
    assert bench.page.in_app
    assert not bench.effects.ran_out


def test_running_out_of_memory_is_remembered_also_when_another_hook_fails_later():
    bench = Bench("x = 1\n")
    assert describe_under_watch(MemoryError(), bench.app, bench.page, bench.effects, 2).kind == "memory"
    assert bench.effects.ran_out
    describe_under_watch(ValueError(), bench.app, bench.page, bench.effects, 2)
    assert bench.effects.ran_out


def test_each_call_of_an_app_with_decimals_has_a_context_of_its_own():
    source = (
        "from decimal import Decimal, localcontext\ndef composeWebhook(event, meta):\n"
        "    return {'url': str(Decimal(1) / Decimal(3))}\n"
        "async def onEvent(event, meta):\n    with localcontext(prec=2):\n        await sleep(1)\n"
    )
    bench = Bench(source)
    running = bench.begin("onEvent", {})
    next(running)
    bench.effects = Effects(8)
    assert bench.call("composeWebhook", {})[1] == {"url": "0." + "3" * 28}

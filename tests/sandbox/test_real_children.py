"""Apps that misbehave in real child processes: their neighbours, their events and the host are none the worse."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from plugin_server.runtime.work import Work
from tests.sandbox.projects import Sink, project, raw_event, running_pool

PASSES = "def processEvent(event, meta):\n    event['properties']['passed'] = True\n    return event\n"


def on_bad(body: str) -> str:
    """An app that does it for every event named `bad`, and marks the others."""
    lines = "".join(f"        {line}\n" for line in body.splitlines())
    return (
        "KEPT = []\nasync def processEvent(event, meta):\n    if event['event'] == 'bad':\n"
        f"{lines}    event['properties']['calm'] = True\n    return event\n"
    )


HOSTILE = {
    "infinite_loop": ("while True:\n    pass", "timeout"),
    "infinite_loop_that_catches": ("while True:\n    try:\n        while True:\n            pass\n    except Exception:\n        pass", "timeout"),
    "infinite_loop_in_finally": ("try:\n    while True:\n        pass\nfinally:\n    while True:\n        pass", "timeout"),
    "infinite_loop_after_an_await": ("await sleep(0)\nwhile True:\n    pass", "timeout"),
    "long_call_into_c": ("sum(range(10 ** 12))", "timeout"),
    "long_call_into_c_after_an_await": ("await sleep(0)\nsum(range(10 ** 12))", "timeout"),
    "endless_recursion": ("def again():\n    return again()\nagain()", "app"),
    "memory_bomb": ("x = ['x' * 10_000_000 + str(n) for n in range(1_000)]", "memory"),
    "memory_bomb_that_doubles": ("x = 'x'\nwhile True:\n    x = x + x", "memory"),
    "regex_bomb": ("import re\nre.match('(a+)+$', 'a' * 60 + 'b')", "timeout"),
    "regex_bomb_after_an_await": ("import re\nawait sleep(0)\nre.sub('(a|a)*$', '', 'a' * 60 + 'b')", "timeout"),
    "iterators_so_nested_that_the_interpreter_crashes": ("x = iter([])\nfor _ in range(300_000):\n    x = map(str, x)\nlist(x)", "sandbox"),
    "objects_so_nested_that_to_free_them_crashes": ("x = slice(0)\nfor _ in range(300_000):\n    x = slice(x)\nx = None", "sandbox"),
    "an_error_that_crashes_when_it_is_freed": ("x = slice(0)\nfor _ in range(300_000):\n    x = slice(x)\nraise ValueError(x)", "sandbox"),
    "an_event_that_crashes_when_it_is_freed": ("x = slice(0)\nfor _ in range(300_000):\n    x = slice(x)\nevent['x'] = x", "sandbox"),
    "an_answer_that_crashes_when_it_is_freed": ("from collections import deque\nx = deque()\nfor _ in range(300_000):\n    x = deque([x])\nreturn x", "sandbox"),
    "what_crashes_when_it_is_freed_kept_by_a_closure": ("x = slice(0)\nfor _ in range(300_000):\n    x = slice(x)\nf = lambda: x\n1 / 0", "sandbox"),
    "an_event_that_grows_when_it_is_written": ("x = 'x' * 1000\nfor _ in range(8):\n    x = [x] * 100\nevent['properties']['x'] = x", "sandbox"),
    "a_capture_that_grows_when_it_is_written": ("x = 'x' * 1000\nfor _ in range(8):\n    x = [x] * 100\nposthog.capture('x', {'x': x})", "sandbox"),
    "a_log_line_that_grows_when_it_is_written": ("x = 'x' * 1000\nfor _ in range(8):\n    x = [x] * 100\nconsole.log(x)", "sandbox"),
    "a_key_whose_comparison_never_ends": ("class K:\n    def __hash__(self):\n        return hash('team_id')\n    def __eq__(self, other):\n        while True:\n            pass\nevent.pop('team_id')\nevent[K()] = 1", "app"),
    "an_error_whose_text_never_ends": ("class E(Exception):\n    def __str__(self):\n        while True:\n            pass\nraise E", "timeout"),
    "a_huge_power": ("x = 10 ** 10 ** 8", "timeout"),
    "a_context_manager_that_hides_the_time_out": ("class C:\n    def __enter__(self):\n        return self\n    def __exit__(self, *error):\n        raise ValueError\ntry:\n    with C():\n        while True:\n            pass\nexcept ValueError:\n    pass", "timeout"),
    "memory_that_is_kept": ("while True:\n    KEPT.append('x' * 100_000)", "memory"),
    "sleep_for_ever": ("await sleep(3600)", "timeout"),
    "sleep_for_ever_and_again": ("try:\n    await sleep(3600)\nfinally:\n    await sleep(3600)", "timeout"),
    "sleep_that_nobody_awaits": ("sleep(3600)", "timeout"),
    "many_short_sleeps": ("for _ in range(1000):\n    await sleep(0.2)", "timeout"),
}  # fmt: skip


async def test_memory_that_one_app_keeps_over_many_events_fails_no_other():
    keeps = "KEPT = []\ndef processEvent(event, meta):\n    KEPT.append('x' * 3_000_000)\n    return event\n"
    needs = "def processEvent(event, meta):\n    event['properties']['size'] = len('x' * 2_000_000)\n    return event\n"
    sink = Sink()
    async with running_pool() as bench:
        bench.pool.submit(project(keeps, needs, memory_bytes=100 * 2**20), sink.works(100))
        await sink.all()
        assert bench.restarts != []
    for number in sink.submitted:
        assert sink.failures(number) == []
        assert sink.properties(number)["size"] == 2_000_000


async def test_an_app_with_a_set_up_that_keeps_all_memory_fails_its_event_and_no_other():
    keeps = (
        "KEPT = []\ndef setupPlugin(meta):\n    KEPT.append('x' * 30_000_000)\ndef processEvent(event, meta):\n"
        "    while event['event'] == 'bad':\n        KEPT.append('x' * 100_000)\n    return event\n"
    )
    sink = Sink()
    async with running_pool() as bench:
        works = sink.works(20, name=lambda n: "bad" if n == 3 else "x")
        bench.pool.submit(project(keeps, PASSES, memory_bytes=100 * 2**20), works)
        await sink.all()
    assert [number for number in sink.submitted if sink.failures(number)] == [3]
    assert sink.failures(3) == [(1, "memory")]


@pytest.mark.parametrize("place", ["body", "setup"])
async def test_an_app_that_keeps_all_memory_before_the_first_event_does_not_run_and_the_others_do(place):
    body = "    while True:\n        KEPT.append('x' * 100_000)\n"
    source = (
        f"KEPT = []\ndef setupPlugin(meta):\n{body}{PASSES}" if place == "setup" else f"KEPT = []\nif True:\n{body}"
    )
    ready = "def setupPlugin(meta):\n    meta.global_['n'] = len('x' * 5_000_000)\n" + PASSES
    sink = Sink()
    async with running_pool() as bench:
        bench.pool.submit(project(ready, source, ready, memory_bytes=100 * 2**20), sink.works(20))
        await sink.all()
        errors = {entry.install_id: entry.error and entry.error.kind for entry in bench.loads[-1].installs}
    assert errors == {1: None, 2: "memory", 3: None}
    assert all(sink.properties(number)["passed"] and not sink.failures(number) for number in sink.submitted)


@pytest.mark.parametrize("name", HOSTILE)
async def test_only_the_misbehaving_app_fails_and_only_for_that_event(name):
    body, kind = HOSTILE[name]
    sink = Sink()
    limits = {"cpu_seconds": 0.2, "hook_seconds": 0.6, "memory_bytes": 100 * 2**20}
    async with running_pool() as bench:
        bad = {7, 23}
        bench.pool.submit(
            project(on_bad(body), PASSES, **limits), sink.works(40, name=lambda n: "bad" if n in bad else "x")
        )
        await sink.all()
        for number in sink.submitted:
            properties = sink.properties(number)
            assert properties["passed"]
            assert ("calm" not in properties) == (number in bad)
            assert sink.failures(number) == ([(1, kind)] if number in bad else [])
            assert properties["$plugins_failed"] == (["App1 (1)"] if number in bad else [])


async def test_a_neighbouring_project_does_not_notice():
    sink, other = Sink(), Sink()
    async with running_pool() as bench:
        for _ in range(20):
            bench.pool.submit(
                project(on_bad("sum(range(10 ** 12))"), cpu_seconds=0.2),
                sink.works(5, name=lambda n: "bad" if n == 3 else "x"),
            )
            bench.pool.submit(project(PASSES, project_id=3), other.works(50))
            await asyncio.sleep(0)
        await other.all()
        await sink.all()
        assert bench.restarts == [2]
        assert all(not other.failures(number) for number in other.submitted)


async def kill_between_hooks(sandbox):
    """Stop the child to look where it is: one that dies in a hook's own code is that hook's doing, for all the host knows."""
    while True:
        os.kill(sandbox.pid, signal.SIGSTOP)
        if not sandbox._process.running().in_app:
            os.kill(sandbox.pid, signal.SIGKILL)
            return
        os.kill(sandbox.pid, signal.SIGCONT)
        await asyncio.sleep(0)


async def test_a_killed_child_is_replaced_and_its_events_run_again():
    sink = Sink()
    async with running_pool() as bench:
        tenant = project(PASSES, "async def processEvent(event, meta):\n    await sleep(0.01)\n    return event\n")
        for round_number in range(1, 6):
            bench.pool.submit(tenant, sink.works(400, keys=40))
            await sink.until(400 * (round_number - 1) + 30)
            await kill_between_hooks(bench.sandbox())
        await sink.all()
        assert len(bench.restarts) == 5
        assert all(not sink.failures(number) for number in sink.submitted)


async def test_a_killed_fork_server_is_started_again_and_nothing_is_lost():
    sink, other = Sink(), Sink()
    async with running_pool() as bench:
        bench.pool.submit(project(PASSES), sink.works(300))
        bench.pool.submit(project(PASSES, project_id=3), other.works(300))
        await sink.until(10)
        first = bench.pool._fork_server.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        bench.pool.submit(project(PASSES), sink.works(300))
        bench.pool.submit(project(PASSES, project_id=3), other.works(300))
        await sink.all()
        await other.all()
        bench.pool.submit(project(PASSES, project_id=4), [Work((10_000, "a"), raw_event(10_000, "a"), sink)])
        await sink.until(601)
        assert bench.pool._fork_server.pid != first


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ("while True:\n    pass\n", "timeout"),
        ("sum(range(10 ** 12))\n", "timeout"),
        ("def setupPlugin(meta):\n    while True:\n        pass\n", "timeout"),
        ("x = ['x' * 10_000_000 + str(n) for n in range(1_000)]\n", "memory"),
        ("raise ValueError('\\ud800')\n", "app"),
        ("def f(:\n", "compile"),
    ],
)
async def test_an_app_that_cannot_load_is_left_out_and_the_others_run(body, kind):
    sink = Sink()
    async with running_pool() as bench:
        bench.pool.submit(project(body + PASSES, PASSES, cpu_seconds=0.2, memory_bytes=100 * 2**20), sink.works(20))
        await sink.all()
        errors = {entry.install_id: entry.error and entry.error.kind for entry in bench.loads[-1].installs}
        assert errors == {1: kind, 2: None}
        assert sink.properties(3)["$plugins_succeeded"] == ["App2 (2)"]


async def test_other_keys_overtake_an_event_that_waits_and_its_own_key_does_not():
    sink = Sink()
    async with running_pool() as bench:
        waits = on_bad("await sleep(0.3)")
        bench.pool.submit(project(waits), sink.works(60, keys=6, name=lambda n: "bad" if n == 0 else "x"))
        await sink.all()
        first = sink.sequence.index(0)
        assert set(sink.sequence[:first]) == {number for number in sink.submitted if number % 6}
        assert sink.order["d0"] == list(range(0, 60, 6))


async def test_events_that_queue_behind_their_key_are_not_blamed_for_it():
    # Each waits well within its own time; together, one after the other, they take several times as long.
    sink = Sink()
    async with running_pool() as bench:
        each = "async def processEvent(event, meta):\n    await sleep(0.3)\n    return event\n"
        bench.pool.submit(project(PASSES, each, hook_seconds=0.8), sink.works(10, keys=1))
        await sink.all()
        assert bench.restarts == []
        assert all(not sink.failures(number) for number in sink.submitted)


async def test_an_event_as_large_as_a_record_passes_through_apps_that_fail_on_it():
    sink = Sink()
    large = '"' * 240_000  # four bytes each in the record that brings it
    async with running_pool() as bench:
        tenant = project(
            "def processEvent(event, meta):\n    return event\n", "def processEvent(event, meta):\n    1 / 0\n"
        )
        small = project(PASSES, project_id=3, event_bytes=1_024)
        for number, tenant_number in enumerate((tenant, small)):
            sink.submitted.append(number)
            bench.pool.submit(
                tenant_number, [Work((number, f"d{number}"), raw_event(number, f"d{number}", large=large), sink)]
            )
        await sink.all()
        assert sink.properties(0)["large"] == large
        assert sink.failures(1) == [(1, "app")]
        assert bench.restarts == []


async def test_text_that_no_frame_can_carry_does_not_end_the_child():
    sink = Sink()
    body = """
try:
    posthog.capture('\\ud800')
except TypeError:
    pass
posthog.capture('x', {'timestamp': '2020-01-01\\ud80012:00:00'})
console.log('\\ud800')
raise ValueError('\\ud800')
"""
    async with running_pool() as bench:
        bench.pool.submit(project(on_bad(body)), sink.works(10, name=lambda n: "bad" if n == 4 else "x"))
        await sink.all()
        assert sink.failures(4) == [(1, "app")]
        assert bench.restarts == []


async def test_captures_larger_than_a_frame_do_not_end_the_child():
    sink = Sink()
    body = "for _ in range(100):\n    posthog.capture('x', {'distinct_id': 'd' * 1_000_000})"
    async with running_pool() as bench:
        bench.pool.submit(project(on_bad(body)), sink.works(10, name=lambda n: "bad" if n == 4 else "x"))
        await sink.all()
        assert sink.failures(4) == [(1, "limit")]
        assert bench.restarts == []


async def test_events_of_a_sink_that_has_closed_are_not_run():
    closed, sink = Sink(), Sink()
    closed.closed = True
    async with running_pool() as bench:
        bench.pool.submit(project(PASSES), closed.works(50))
        bench.pool.submit(project(PASSES), sink.works(5))
        await sink.all()
        assert closed.results == {}


async def test_sequence_numbers_begin_again_before_the_page_runs_out_of_bits():
    sink = Sink()
    async with running_pool() as bench:
        tenant = project(PASSES)
        bench.pool.submit(tenant, sink.works(5))
        await sink.all()
        bench.sandbox()._in_flight._next_sequence = 2**32 - 3
        bench.pool.submit(tenant, sink.works(50))
        await sink.all()
        assert bench.restarts == []


@pytest.mark.parametrize(
    "body",
    [
        "event['properties']['$elements_chain'] = 'x' * 900_000",
        "event['distinct_id'] = 'x' * 900_000",
        "posthog.capture('y', {'distinct_id': 'x' * 700_000})",
        "for n in range(1000):\n    console.log('\U0001f600' * 60)",
    ],
)
async def test_what_apps_make_long_beside_the_properties_ends_no_sandbox(body):
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    sink = Sink()
    async with running_pool() as bench:
        bench.pool.submit(
            project(f"def processEvent(event, meta):\n{lines}    return event\n"), sink.works(120, keys=120)
        )
        await sink.until(120)
        assert bench.restarts == []
    assert all(not sink.failures(number) for number in sink.submitted)


async def test_cpu_time_of_one_event_counts_over_its_waits():
    spins = (
        "async def processEvent(event, meta):\n    for _ in range(40):\n        sum(range(1_000_000))\n"
        "        await sleep(0)\n    return event\n"
    )
    sink = Sink()
    async with running_pool() as bench:
        bench.pool.submit(project(spins, cpu_seconds=0.2), sink.works(1))
        await sink.all()
    assert sink.failures(0) == [(1, "timeout")]

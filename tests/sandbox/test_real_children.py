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
        "async def processEvent(event, meta):\n    if event['event'] == 'bad':\n"
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
    "sleep_for_ever": ("await sleep(3600)", "timeout"),
    "sleep_for_ever_and_again": ("try:\n    await sleep(3600)\nfinally:\n    await sleep(3600)", "timeout"),
    "sleep_that_nobody_awaits": ("sleep(3600)", "timeout"),
    "many_short_sleeps": ("for _ in range(1000):\n    await sleep(0.2)", "timeout"),
}  # fmt: skip


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
        errors = {entry.install_id: entry.error and entry.error.kind for entry in bench.loaded[-1].installs}
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
            bench.pool.submit(tenant_number, [Work((number, "a"), raw_event(number, "a", large=large), sink)])
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
        bench.sandbox()._next_sequence = 2**32 - 3
        bench.pool.submit(tenant, sink.works(50))
        await sink.all()
        assert bench.restarts == []

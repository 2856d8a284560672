"""Which apps share a process, when a process ends, and what apps are told of it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import Any

import orjson
import pytest

from plugin_server.model.project import App, Install, Isolation, Limits, Project, SandboxPlan
from plugin_server.runtime import pool as pool_module
from tests.sandbox.projects import PATIENCE_SECONDS, Bench, Sink, running_pool

PASSES = "def processEvent(event, meta):\n    return event\n"


def adds(name: str) -> str:
    return (
        "def processEvent(event, meta):\n"
        f"    event['properties'].setdefault('by', []).append('{name}')\n"
        f"    console.log('{name}')\n"
        f"    posthog.capture('{name}')\n"
        "    return event\n"
    )


def tenant(
    *sources: str,
    isolation: Isolation = Isolation.PROJECT,
    processes: int = 1,
    project_id: int = 2,
    **limits: Any,
) -> Project:
    installs = tuple(
        Install(project_id * 100 + number, App(f"App{number}", "0", "main.py", source, {}), number, {})
        for number, source in enumerate(sources, 1)
    )
    plan = SandboxPlan(isolation, processes)
    return Project(project_id, "p", f"phc_{project_id}", installs, limits=Limits(**limits), sandbox=plan)


def pids(bench: Bench, *project_ids: int) -> list[int]:
    return sorted({sandbox.pid or 0 for project_id in project_ids for sandbox in bench.pool.sandboxes_of(project_id)})


async def until(condition: Any) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():  # noqa: ASYNC110 - what it waits for tells nobody
            await asyncio.sleep(0.01)


async def test_each_install_has_a_process_of_its_own_and_the_event_comes_out_as_from_one():
    sinks = [Sink(), Sink()]
    broken = "def processEvent(event, meta):\n    1 / 0\n"
    sources = (adds("one"), broken, adds("three"), PASSES)
    async with running_pool() as bench:
        bench.pool.submit(tenant(*sources, project_id=2), sinks[0].works(50))
        bench.pool.submit(tenant(*sources, project_id=3, isolation=Isolation.INSTALL), sinks[1].works(50))
        for sink in sinks:
            await sink.all()
        assert len(pids(bench, 2)) == 1
        assert len(pids(bench, 3)) == 4
    for number in range(50):
        together, apart = (sink.results[number] for sink in sinks)
        assert apart._replace(notes=None, properties="") == together._replace(notes=None, properties="")
        assert sinks[0].properties(number)["by"] == ["one", "three"]
        texts = [sink.results[number].properties.replace("(30", "(20") for sink in sinks]
        assert orjson.loads(texts[0]) == orjson.loads(texts[1])
        notes = [result.notes for result in (together, apart)]
        assert [[line.message for line in note.logs] for note in notes if note] == [
            ["one", "processEvent failed: ZeroDivisionError: division by zero (line 2)", "three"]
        ] * 2
        assert [[capture.event for capture in note.captures] for note in notes if note] == [["one", "three"]] * 2


async def test_a_drop_in_the_middle_of_isolated_installs_is_a_drop():
    sink = Sink()
    drops = "def processEvent(event, meta):\n    return None if event['event'] == 'bad' else event\n"
    async with running_pool() as bench:
        project = tenant(PASSES, drops, adds("x"), isolation=Isolation.INSTALL)
        bench.pool.submit(project, sink.works(10, name=lambda n: "bad" if n % 2 else "x"))
        await sink.until(10)
    assert [sink.results[n].outcome.name for n in range(4)] == ["EMIT", "DROP", "EMIT", "DROP"]
    assert sink.results[1].notes is not None
    assert sink.results[1].notes.dropped_by == 202


async def test_isolated_installs_see_what_earlier_ones_made_of_the_event():
    sink = Sink()
    renames = (
        "def processEvent(event, meta):\n    event['distinct_id'] = 'new'\n    del event['now']\n    return event\n"
    )
    reads = "def processEvent(event, meta):\n    event['properties']['seen'] = event['distinct_id']\n    return event\n"
    async with running_pool() as bench:
        bench.pool.submit(tenant(renames, reads, isolation=Isolation.INSTALL), sink.works(30))
        await sink.all()
    assert all(sink.properties(n)["seen"] == "new" and sink.results[n].distinct_id == "new" for n in range(30))


async def test_a_project_of_several_processes_spreads_its_events_and_keeps_the_order_of_each_key():
    sink = Sink()
    async with running_pool() as bench:
        works = sink.works(600, keys=40)
        for work in works:
            work.key = work.item[1]
        bench.pool.submit(tenant(adds("x"), processes=3), works)
        await sink.all()
        assert len(pids(bench, 2)) == 3


async def test_projects_that_share_run_in_one_process_and_have_their_own_limits_and_globals():
    sinks = {number: Sink() for number in (2, 3, 4)}
    spins = "def processEvent(event, meta):\n    while event['event'] == 'bad':\n        pass\n    return event\n"
    async with running_pool() as bench:
        for number, sink in sinks.items():
            project = tenant(
                spins, adds("x"), isolation=Isolation.SHARED, project_id=number, cpu_seconds=0.1 if number == 3 else 5
            )
            bench.pool.submit(project, sink.works(40, name=lambda n, p=number: "bad" if n == 7 and p == 3 else "x"))
        for sink in sinks.values():
            await sink.all()
        assert len(pids(bench, 2, 3, 4)) == 1
    assert sinks[3].failures(7) == [(301, "timeout")]
    assert all(not sink.failures(n) for number, sink in sinks.items() for n in range(40) if (number, n) != (3, 7))


async def test_one_of_those_that_share_a_process_kills_it_and_only_its_event_bears_it():
    sinks = {number: Sink() for number in (2, 3)}
    crashes = "def processEvent(event, meta):\n    if event['event'] == 'bad':\n        sum(range(10 ** 12))\n    return event\n"
    async with running_pool() as bench:
        for number, sink in sinks.items():
            project = tenant(crashes, adds("x"), isolation=Isolation.SHARED, project_id=number, cpu_seconds=0.1)
            bench.pool.submit(project, sink.works(40, name=lambda n, p=number: "bad" if n == 7 and p == 3 else "x"))
        for sink in sinks.values():
            await sink.all()
        assert sorted(bench.restarts) == [2, 3]
    assert sinks[3].failures(7) == [(301, "timeout")]
    assert [n for number, sink in sinks.items() for n in range(40) if sink.failures(n)] == [7]


CLEANS = """
def setupPlugin(meta):
    console.log('up')
def teardownPlugin(meta):
    console.log('down')
def processEvent(event, meta):
    return event
"""


async def test_the_longest_idle_sandbox_is_ended_and_its_apps_clean_up(monkeypatch):
    monkeypatch.setattr(pool_module, "_EVICT_SECONDS", 0.05)
    sinks = {number: Sink() for number in (2, 3, 4)}
    async with running_pool(max_sandboxes=2) as bench:
        for number, sink in sinks.items():
            bench.pool.submit(tenant(CLEANS, project_id=number), sink.works(5))
            await sink.all()
            await asyncio.sleep(0.01)
        await until(lambda: not bench.pool.sandboxes_of(2))
        assert all(bench.pool.sandboxes_of(number) for number in (3, 4))
        assert [line.message for line in bench.logs] == ["down"]
        bench.pool.submit(tenant(CLEANS, project_id=2), sinks[2].works(5))
        await sinks[2].all()


async def test_a_busy_sandbox_is_not_ended_for_another(monkeypatch):
    monkeypatch.setattr(pool_module, "_EVICT_SECONDS", 0.02)
    waits = "async def processEvent(event, meta):\n    await sleep(0.4)\n    return event\n"
    sinks = {number: Sink() for number in (2, 3)}
    async with running_pool(max_sandboxes=1) as bench:
        for number, sink in sinks.items():
            bench.pool.submit(tenant(waits, project_id=number), sink.works(3))
        for sink in sinks.values():
            await sink.all()
        assert bench.restarts == []


async def test_apps_clean_up_when_the_server_stops_and_one_that_hangs_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(pool_module, "_TEAR_DOWN_SECONDS", 0.5)
    hangs = "async def teardownPlugin(meta):\n    await sleep(600)\n" + PASSES
    sink = Sink()
    async with running_pool() as bench:
        bench.pool.submit(tenant(CLEANS, project_id=2), sink.works(1))
        bench.pool.submit(tenant(hangs, project_id=3), [])
        await sink.all()
        await bench.pool.load(tenant(hangs, project_id=3))
    assert [line.message for line in bench.logs] == ["down"]


@pytest.mark.parametrize("isolation", [Isolation.PROJECT, Isolation.SHARED])
async def test_an_install_that_costs_sandbox_after_sandbox_gets_its_own_and_order_is_kept(isolation):
    sink = Sink()
    kills = "def processEvent(event, meta):\n    if event['event'] == 'bad':\n        sum(range(10 ** 12))\n    return event\n"
    project = tenant(adds("one"), kills, adds("three"), isolation=isolation, cpu_seconds=0.2)
    async with running_pool() as bench:
        for start in range(5):
            bench.pool.submit(project, sink.works(20, name=lambda n, s=start: "bad" if n == 20 * s + 3 else "x"))
            await sink.all()
        assert bench.moves == [202]
        await until(lambda: len(pids(bench, 2)) == 2)
        bench.pool.submit(project, sink.works(50, name=lambda n: "bad" if n == 120 else "x"))
        bystander = next(
            place.sandbox.pid for place in bench.pool._tenants[2].route.places if place.chain.installs[0].id == 201
        )
        await sink.all()
        assert bystander in pids(bench, 2)
        os.kill(bystander or 0, 0)
    bad = {3, 23, 43, 63, 83, 120}
    for number in sink.submitted:
        assert sink.properties(number)["by"] == ["one", "three"]
        assert sink.failures(number) == ([(202, "timeout")] if number in bad else [])


async def test_events_of_isolated_installs_that_wait_do_not_stop_others():
    sink = Sink()
    waits = "async def processEvent(event, meta):\n    if event['event'] == 'slow':\n        await sleep(0.5)\n    return event\n"
    async with running_pool() as bench:
        project = tenant(waits, adds("x"), isolation=Isolation.INSTALL)
        bench.pool.submit(project, sink.works(20, keys=20, name=lambda n: "slow" if n == 0 else "x"))
        await sink.all()
    assert sink.sequence[-1] == 0


async def test_killing_the_fork_server_blames_and_moves_nobody():
    spins = "def processEvent(event, meta):\n    sum(range(300_000))\n    return event\n"
    sink = Sink()
    async with running_pool() as bench:
        bench.pool.submit(tenant(spins, spins), sink.works(200))
        for _ in range(2):
            await asyncio.sleep(0.3)
            while bench.sandbox()._process is None:  # noqa: ASYNC110 - a loaded machine takes its time to start one
                await asyncio.sleep(0.02)
            with contextlib.suppress(ProcessLookupError):  # the one before this has not been replaced yet
                os.kill(bench.pool._fork_server.pid or 2**22, signal.SIGKILL)
        await sink.all()
        assert bench.moves == []
        assert len(bench.restarts) > 1
    assert not [number for number in sink.submitted if sink.failures(number)]


async def test_a_body_that_keeps_all_memory_but_does_not_fail_stops_neither_its_project_nor_those_that_share():
    hog = (
        "KEPT = []\nsize = 1 << 24\nwhile size > 8:\n    try:\n        while True:\n            KEPT.append('x' * size)\n"
        "    except MemoryError:\n        size //= 2\n"
    )
    sinks = {number: Sink() for number in (2, 3)}
    async with running_pool() as bench:
        for number, sources in ((2, (adds("x"), hog)), (3, (adds("x"),))):
            project = tenant(
                *sources, isolation=Isolation.SHARED, project_id=number, memory_bytes=100 * 2**20, cpu_seconds=5
            )
            bench.pool.submit(project, sinks[number].works(30))
        for sink in sinks.values():
            await sink.all()
    assert all(sink.properties(n)["by"] == ["x"] and not sink.failures(n) for sink in sinks.values() for n in range(30))


async def test_a_teardown_that_is_given_up_does_not_haunt_those_that_share(monkeypatch):
    monkeypatch.setattr(pool_module, "_TEAR_DOWN_SECONDS", 0.2)
    lingers = (
        "async def teardownPlugin(meta):\n    await sleep(20)\ndef processEvent(event, meta):\n"
        "    if event['event'] == 'bad':\n        sum(range(10 ** 12))\n    return event\n"
    )
    sinks = {number: Sink() for number in (2, 3)}
    async with running_pool() as bench:
        for turn in range(5):
            for number, sink in sinks.items():
                project = tenant(lingers, adds("x"), isolation=Isolation.SHARED, project_id=number, cpu_seconds=0.05)
                bad = {20 * turn + 3} if number == 2 else set()
                bench.pool.submit(project, sink.works(20, name=lambda n, bad=bad: "bad" if n in bad else "x"))
            for sink in sinks.values():
                await sink.all()
        assert bench.moves == [201]
        os.kill(bench.sandbox(3).pid or 0, signal.SIGKILL)
        await until(lambda: bench.sandbox(3).pid is None)
        before = len(bench.restarts)
        bench.pool.submit(project, sinks[3].works(50))
        await sinks[3].all()
        assert len(bench.restarts) - before <= 2
    assert not [number for number in sinks[3].submitted if sinks[3].failures(number)]

"""A setupPlugin that fails is called again after a while; nobody else waits for it."""

from __future__ import annotations

import asyncio

import pytest

from plugin_server.runtime import setup_retries
from tests.sandbox.projects import PATIENCE_SECONDS, Bench, Sink, project, running_pool

MARKS = (
    "def processEvent(event, meta):\n    event['properties'].setdefault('by', []).append({name!r})\n    return event\n"
)
CALM = MARKS.format(name="calm")


def fails(times: int) -> str:
    """An app whose set-up fails so often in one process."""
    return (
        f"TRIES = []\ndef setupPlugin(meta):\n    TRIES.append(1)\n    if len(TRIES) <= {times}:\n"
        f"        raise ValueError('not yet')\n{MARKS.format(name='late')}"
    )


async def until_loads(bench: Bench, count: int) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while len(bench.loads) < count:  # noqa: ASYNC110 - a process answers in its own time
            await asyncio.sleep(0.01)


async def test_other_apps_are_not_held_up_and_the_error_says_when_it_is_tried_again():
    sink = Sink()
    async with running_pool() as bench:
        bench.pool.submit(project(fails(1), CALM), sink.works(20))
        await sink.all()
        (loaded,) = bench.loads
        assert [entry.error.message if entry.error else None for entry in loaded.installs] == [
            "ValueError: not yet: setupPlugin failed, retrying in 3 s",
            None,
        ]
    assert all(sink.properties(number)["by"] == ["calm"] for number in sink.submitted)


async def test_an_app_that_was_set_up_at_last_runs_from_then_on(monkeypatch):
    monkeypatch.setattr(setup_retries, "FIRST_SECONDS", 0.05)
    sink = Sink()
    async with running_pool() as bench:
        tenant = project(fails(2), CALM)
        bench.pool.submit(tenant, sink.works(1))
        await sink.all()
        await until_loads(bench, 3)
        assert [load.installs[0].error is None for load in bench.loads] == [False, False, True]
        assert "retrying in 0.1 s" in bench.loads[1].installs[0].error.message  # type: ignore[union-attr]
        bench.pool.submit(tenant, sink.works(10))
        await sink.all()
        assert [install_id for install_id, _ in bench.set_ups] == [1]
    assert sink.properties(0)["by"] == ["calm"]
    assert all(sink.properties(number)["by"] == ["late", "calm"] for number in range(1, 11))


async def test_it_is_given_up_in_the_end_and_says_so(monkeypatch):
    monkeypatch.setattr(setup_retries, "FIRST_SECONDS", 0.0001)
    sink = Sink()
    async with running_pool() as bench:
        bench.pool.submit(project(fails(1_000), CALM), sink.works(1))
        await sink.all()
        await until_loads(bench, setup_retries.ATTEMPTS)
        assert bench.loads[-1].installs[0].error.message.endswith("it is not tried again")  # type: ignore[union-attr]
        await asyncio.sleep(0.2)
        assert len(bench.loads) == setup_retries.ATTEMPTS


@pytest.mark.parametrize("end", ["stop", "kill"])
async def test_the_pause_ends_with_the_sandbox(monkeypatch, end):
    monkeypatch.setattr(setup_retries, "FIRST_SECONDS", 0.3)
    sink = Sink()
    async with running_pool() as bench:
        bench.pool.submit(project(fails(1), CALM), sink.works(1))
        await sink.all()
        if end == "kill":
            bench.sandbox().kill("a test")
            await asyncio.sleep(0.5)
            assert len(bench.loads) == 1  # nobody has asked for it since
            bench.pool.submit(project(fails(1), CALM), sink.works(1))
            await sink.all()
            assert len(bench.loads) == 2
    await asyncio.sleep(0.4)
    assert len(bench.loads) == (1 if end == "stop" else 2)

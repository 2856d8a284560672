"""Calls of hooks outside of a chain: nothing counts before it is settled, of a failed one nothing but its logs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from plugin_server.host_api.captures import Captures, Parent
from plugin_server.host_api.commit import Outcome
from plugin_server.host_api.effects import JobRequest, RunEffects
from plugin_server.host_api.invoke import Invoker
from plugin_server.host_api.logs import LogEntries
from plugin_server.model.errors import DatabaseUnavailable, HookMissing
from plugin_server.model.lineage import Lineage
from plugin_server.model.origin import Origin
from plugin_server.model.project import App, Install, Project
from plugin_server.runtime.replies import Capture, HookFailure, LogLine
from plugin_server.runtime.work import Answered, InvocationResult
from tests.unit.host_api.simulated import SimulatedCommitter, SimulatedDatabase

PROJECT = Project(2, "Acme", "phc_acme", (Install(1, App("A", "v", "main.py", "", {}), 1, {}),))
ORIGIN = Origin("job-7", "7", "jobs.mail")
PARENT = Parent("7", "job-7", Lineage("7"), malformed_lineage=False, share=100, hook="jobs.mail", link=0)
K = (1, "k")


class Bench:
    """Hooks that do what the test says."""

    def __init__(self) -> None:
        self.database = SimulatedDatabase()
        self.committer = SimulatedCommitter(self.database, lambda: 0.0)
        self.metrics: list[tuple[int, Any]] = []
        self.cuts: list[Any] = []

        def on_cuts(_project: Project, cuts: Any) -> None:
            self.cuts += cuts

        captures = Captures("ingestion", "letters", 100_000, lambda: 0.0)
        self.invoker = Invoker(self, self.committer, captures, LogEntries("logs", "w"), self, lambda: 0.0, on_cuts)  # type: ignore[arg-type]
        self.results: list[Any] = []
        self.effects: list[RunEffects] = []
        self.arguments: list[bytes] = []

    def add(self, _project: Project, install_id: int, metrics: Any) -> None:
        """MetricsSink."""
        self.metrics.append((install_id, list(metrics)))

    async def hooks(self, _project: Project) -> Any:
        """Hooks."""
        return {1: frozenset({"jobs.mail"})}

    async def invoke(
        self, _project: Project, install_id: int, hook: str, arguments: bytes, effects: RunEffects, **given: Any
    ) -> InvocationResult:
        """Hooks: count in storage, start a job."""
        assert (install_id, hook) == (1, "jobs.mail")
        self.arguments.append(arguments)
        self.effects.append(effects)
        self.given = given
        found = await self.committer.ledger.get(effects.storage, K)
        self.committer.ledger.set(effects.storage, K, str(int(found or b"0") + 1).encode())
        effects.of(1).jobs.append(JobRequest("mail", b"{}", None))
        effects.of(1).metrics.append(("sent", "increment", 1.0))
        result = self.results.pop(0) if self.results else done()
        if isinstance(result, Exception):
            raise result
        return result

    async def call(self, **given: Any) -> Any:
        return await self.invoker.call(PROJECT, 1, "jobs.mail", [{"to": "ada"}], ORIGIN, **given)


def done(failure: HookFailure | None = None) -> InvocationResult:
    return InvocationResult(failure, 5, (Capture(1, 0, "x", "ada", None, {}),), (LogLine(1, "INFO", "hi", "CONSOLE"),))


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    storing = asyncio.create_task(made.committer.run())
    yield made
    storing.cancel()
    await asyncio.gather(storing, return_exceptions=True)


async def test_nothing_counts_before_it_is_settled_and_all_of_it_in_one_commitment(bench):
    called = await bench.call(max_captures=9)
    assert bench.arguments == [b'[{"to":"ada"}]']
    assert bench.given == {"max_captures": 9}
    assert (called.value, called.failure, called.leaves_effects) == (5, None, True)
    assert (bench.database.values, bench.metrics) == ({}, [])
    commitment = bench.invoker.settle(called, PARENT, None, "token")
    assert [record.topic for record in commitment.outbox] == ["ingestion", "logs"]
    assert [job.name for job in commitment.jobs] == ["mail"]
    assert await bench.invoker.store([commitment]) == [Outcome.STORED]
    assert bench.database.values[K].value == b"1"
    assert bench.database.recorded == {"token"}
    assert bench.metrics == [(1, [("sent", "increment", 1.0)])]


async def test_of_a_failed_hook_only_the_logs_are_left(bench):
    failure = HookFailure(1, "app", "no", 3)
    bench.results = [InvocationResult(failure, None, (), (LogLine(1, "ERROR", "no", "PLUGIN"),))]
    called = await bench.call()
    assert not called.leaves_effects
    commitment = bench.invoker.settle(called, PARENT, None, "token")
    assert await bench.invoker.store([commitment]) == [Outcome.STORED]
    assert [record.topic for record in commitment.outbox] == ["logs"]
    assert bench.database.values == {}
    assert bench.metrics == []
    assert [record.topic for record in bench.invoker.log_records(PROJECT, called)] == ["logs"]


async def test_what_is_away_is_raised_and_nobody_waits_for_the_call(bench):
    class Away(Bench):
        async def invoke(self, *given: Any, **more: Any) -> InvocationResult:
            result = await super().invoke(*given, **more)
            self.effects[-1].note_trouble(1, DatabaseUnavailable("gone"))
            return result

    away = Away()
    with pytest.raises(DatabaseUnavailable, match="gone"):
        await away.call()
    assert away.effects[0].storage.finished.is_set()


@pytest.mark.parametrize("error", [HookMissing("none"), DatabaseUnavailable("gone"), asyncio.CancelledError()])
async def test_a_call_that_did_not_end_is_abandoned(bench, error):
    async def fail(*given: Any, **_more: Any) -> InvocationResult:
        bench.effects.append(given[4])
        raise error

    bench.invoke = fail
    with pytest.raises(type(error)):
        await bench.call()
    assert bench.effects[0].storage.finished.is_set()


async def test_a_stale_call_is_made_again_with_what_it_was_answered_from_outside(bench):
    first, second = await bench.call(), await bench.call()
    second.effects.journal[1, 0] = Answered(b"d", [True, 1])
    await bench.invoker.store([bench.invoker.settle(first, PARENT, None, "first")])
    assert bench.invoker.is_stale(second)
    assert second.effects.storage.finished.is_set()
    again = await bench.call(previous=second)
    assert again.effects.journal is second.effects.journal
    assert not bench.invoker.is_stale(again)
    assert await bench.invoker.store([bench.invoker.settle(again, PARENT, None, "again")]) == [Outcome.STORED]
    assert bench.database.values[K].value == b"2"


async def test_a_call_that_became_stale_before_it_was_settled_is_not_stored(bench):
    first, second = await bench.call(), await bench.call()
    assert not bench.invoker.is_stale(second)
    await bench.invoker.store([bench.invoker.settle(first, PARENT, None, "first")])
    assert await bench.invoker.store([bench.invoker.settle(second, PARENT, None, "second")]) == [Outcome.STALE]
    assert bench.database.recorded == {"first"}
    assert len(bench.metrics) == 1


async def test_one_that_is_stale_when_it_is_stored_is_not_counted(bench):
    called = await bench.call()
    commitment = bench.invoker.settle(called, PARENT, None, "token")
    bench.database.put(K, b"5")
    assert await bench.invoker.store([commitment]) == [Outcome.STALE]
    assert bench.metrics == []
    assert bench.cuts == []


async def test_cuts_are_told_with_the_run_that_counts(bench):
    parent = replace(PARENT, lineage=Lineage("7", depth=1_000))
    commitment = bench.invoker.settle(await bench.call(), parent, None, "token")
    assert bench.cuts == []
    assert await bench.invoker.store([commitment]) == [Outcome.STORED]
    assert bench.cuts

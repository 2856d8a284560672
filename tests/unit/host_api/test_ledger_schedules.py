"""Runs that overlap in every way, on a database that fails in every way: the outcome is that of some order, each run once."""

from __future__ import annotations

import asyncio
import random
from typing import Any, NamedTuple
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from plugin_server.host_api import contended as contended_module
from plugin_server.host_api import ledger as ledger_module
from plugin_server.host_api.commit import Outcome
from plugin_server.host_api.storage_transaction import StorageTransaction
from plugin_server.host_api.storage_values import Key
from plugin_server.model.errors import DatabaseUnavailable
from tests.unit.host_api.simulated import Fault, SimulatedCommitter, SimulatedDatabase

PATIENCE_SECONDS = 30


class Step(NamedTuple):
    """One call of a hook. `heard`: the hook looks at the answer of an increment."""

    name: str
    key: Key
    heard: bool = True


NAMES = ["get", "count", "set", "delete", "increment", "set_if_absent"]
steps = st.builds(Step, st.sampled_from(NAMES), st.sampled_from([(1, "a"), (1, "b"), (1, "c")]), st.booleans())
scripts = st.lists(st.lists(steps, min_size=1, max_size=4), min_size=1, max_size=12)
faults = st.lists(st.tuples(st.sampled_from(Fault), st.integers(0, 11)), max_size=8)


class Model:
    """Storage without any concurrency."""

    def __init__(self) -> None:
        self.values: dict[Key, bytes] = {}

    def put(self, key: Key, value: bytes | None) -> None:
        if value is None:
            self.values.pop(key, None)
        else:
            self.values[key] = value

    def play(self, script: list[Step], name: str) -> list[Any]:
        """What a run sees that is alone."""
        seen: list[Any] = []
        for step in script:
            before = self.values.get(step.key)
            after: bytes | None = before
            answer: Any = None
            match step.name:
                case "get":
                    answer = before
                case "count":
                    answer, after = before, _counted(before)
                case "set":
                    after = name.encode()
                case "delete":
                    after = None
                case "increment":
                    answer = int(before or b"0") + 1
                    after = str(answer).encode()
                    answer = answer if step.heard else None
                case "set_if_absent":
                    answer = before is None
                    after = before if before is not None else b"7"
            self.put(step.key, after)
            seen.append(answer)
        return seen


def _counted(before: bytes | None) -> bytes:
    return str(int(before or b"0") + 1).encode()


class World:
    def __init__(self, scripts: list[list[Step]], faults: list[tuple[Fault, int]], seed: int) -> None:
        self.random = random.Random(seed)
        self.database = SimulatedDatabase(faults)
        self.now = 0.0
        self.committer = SimulatedCommitter(self.database, self.clock)
        self.ledger = self.committer.ledger
        self.scripts = scripts
        self.random = random.Random(seed)
        self.seen: dict[str, list[Any]] = {}
        """Of the run that was stored"""
        self.read_only: dict[str, list[Any]] = {}

    def clock(self) -> float:
        """Each look at it may be long after the last."""
        self.now += self.random.choice([0.0, 0.0, 0.0, 0.01, 0.3, 2.0])
        return self.now

    async def pause(self) -> None:
        for _ in range(self.random.randrange(6)):
            await asyncio.sleep(0)

    async def run_all(self) -> None:
        storing = asyncio.create_task(self.committer.run())
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await asyncio.gather(*(self.run(str(100 + place)) for place in range(len(self.scripts))))
        finally:
            storing.cancel()
            await asyncio.gather(storing, return_exceptions=True)

    async def run(self, name: str) -> None:
        """One event: tried until it is stored, as a lane does."""
        script = self.scripts[int(name) - 100]
        transaction = StorageTransaction()
        while name not in self.database.recorded:  # else a replay finds it recorded
            await self.pause()
            try:
                seen, unheard = await self.play(transaction, script, name)
            except DatabaseUnavailable:
                transaction.abandon()
                transaction = StorageTransaction()
                continue
            transaction.look_at_increments(unheard)
            if self.ledger.is_stale(transaction):
                transaction = transaction.again()
                continue
            if self.random.random() < 0.05:  # its lane is lost, and another takes it up: nobody finishes this run
                transaction = StorageTransaction()
                continue
            commitment = self.committer.add(transaction, token=name)
            if commitment is None:
                self.read_only[name] = seen
                return
            self.seen[name] = seen
            if self.random.random() < 0.1:
                await self.pause()
                self.committer.withdraw([commitment])
            try:
                await self.pause()
                await self.committer.store([commitment])
            except DatabaseUnavailable:
                transaction = StorageTransaction()
                continue
            match commitment.decided.result():
                case Outcome.STORED:
                    assert name in self.database.recorded
                    return
                case Outcome.STALE:
                    transaction = transaction.again()
                case Outcome.LOST:
                    transaction = StorageTransaction()

    async def play(
        self, transaction: StorageTransaction, script: list[Step], name: str
    ) -> tuple[list[Any], list[tuple[int, int]]]:
        seen: list[Any] = []
        unheard: list[tuple[int, int]] = []
        for number, step in enumerate(script):
            await self.pause()
            answer: Any = None
            match step.name:
                case "get":
                    answer = await self.ledger.get(transaction, step.key)
                case "count":
                    answer = await self.ledger.get(transaction, step.key)
                    await self.pause()
                    await self.ledger.set_in_turn(transaction, step.key, _counted(answer))
                case "set":
                    await self.ledger.set_in_turn(transaction, step.key, name.encode())
                case "delete":
                    await self.ledger.set_in_turn(transaction, step.key, None)
                case "increment":
                    answer = await self.ledger.increment(transaction, step.key, 1, (1, number))
                    if not step.heard:
                        answer = None
                        unheard.append((1, number))
                case "set_if_absent":
                    answer = await self.ledger.set_if_absent(transaction, step.key, b"7")
            seen.append(answer)
        return seen, unheard

    def check(self) -> None:
        model = Model()
        stored = [token for kind, token in self.database.history if kind == "run"]
        assert len(stored) == len(set(stored))
        assert set(stored) | set(self.read_only) == {str(100 + place) for place in range(len(self.scripts))}
        for kind, what in self.database.history:
            if kind == "foreign":
                model.put(*what)
            else:
                assert model.play(self.scripts[int(what) - 100], what) == self.seen[what]
        assert {key: stored.value for key, stored in self.database.values.items()} == model.values
        assert self.ledger._units == {}
        assert self.committer._pending == {}


# The same schedules each time: a change is judged by its own doing. Others are tried at one's desk, without this line.
@settings(derandomize=True, max_examples=150, deadline=None)
@given(scripts, faults, st.integers(0, 2**32))
def test_whatever_happens_runs_behave_as_if_one_came_after_the_other_and_each_counts_once(scripts, faults, seed):
    async def live() -> None:
        world = World(scripts, faults, seed)
        await world.run_all()
        world.check()

    with (
        patch.object(contended_module, "WAIT_SECONDS", 0.001),
        patch.object(ledger_module, "_PRUNE_SECONDS", 0.0),
        patch.object(ledger_module, "KEPT_ENTRIES", 1),
        patch.object(ledger_module, "KEPT_SECONDS", 3.0),
        patch.object(ledger_module, "KEPT_BYTES", 8),
    ):
        asyncio.run(live())

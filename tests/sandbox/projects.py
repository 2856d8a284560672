"""What the tests of real sandboxes share: projects of inline apps, events, and a sink that counts."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import orjson

from plugin_server.host_api.calls import Handler, HostApi
from plugin_server.host_api.effects import RunEffects
from plugin_server.model.origin import Origin
from plugin_server.model.project import App, Install, Limits, Project
from plugin_server.runtime.fork_server import ForkServer
from plugin_server.runtime.pool import SandboxPool
from plugin_server.runtime.replies import ChainResult, Loaded, LogLine
from plugin_server.runtime.sandbox import Sandbox
from plugin_server.runtime.work import InvocationResult, Work

PATIENCE_SECONDS = 60


def project(*sources: str, project_id: int = 2, **limits: Any) -> Project:
    installs = tuple(
        Install(number, App(f"App{number}", "0", "main.py", source, {}), number, {})
        for number, source in enumerate(sources, 1)
    )
    return Project(project_id, f"project {project_id}", f"phc_{project_id}", installs, limits=Limits(**limits))


def raw_event(number: int, distinct_id: str, name: str = "x", **properties: Any) -> bytes:
    data = orjson.dumps({"event": name, "properties": {"n": number, **properties}}).decode()
    uuid = f"018f0000-0000-7000-8000-{number:012}"
    return orjson.dumps({"uuid": uuid, "distinct_id": distinct_id, "now": "2026-01-01T00:00:00Z", "data": data})


class Sink:
    """Takes results. An item is (number, distinct_id)."""

    def __init__(self) -> None:
        self.closed = False
        self.results: dict[int, ChainResult] = {}
        self.delivered: Counter[int] = Counter()
        self.order: dict[str, list[int]] = {}
        self.sequence: list[int] = []
        self.submitted: list[int] = []
        self.effects: dict[tuple[int, str], RunEffects] = {}
        self._changed = asyncio.Event()

    def deliver(self, results: Sequence[tuple[tuple[int, str], ChainResult]], *, has_delivery: bool) -> None:
        for (number, distinct_id), result in results:
            self.delivered[number] += 1
            self.results[number] = result
            self.order.setdefault(distinct_id, []).append(number)
            self.sequence.append(number)
        self._changed.set()

    def effects_of(self, item: tuple[int, str]) -> RunEffects:
        """Of the event; it names no project here, and nothing that is made of effects asks for it."""
        return self.effects.setdefault(item, RunEffects(project(), Origin(f"events-0-{item[0]}", "", "processEvent")))

    def works(self, count: int, keys: int = 5, name: Callable[[int], str] = lambda _: "x") -> list[Work[Any]]:
        """The next `count` events, over so many distinct ids."""
        first = len(self.submitted)
        numbers = range(first, first + count)
        self.submitted += numbers
        return [
            Work((number, f"d{number % keys}"), raw_event(number, f"d{number % keys}", name(number)), self)
            for number in numbers
        ]

    async def until(self, count: int) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while len(self.results) < count:
                self._changed.clear()
                await self._changed.wait()

    async def all(self) -> None:
        """Until every event that was submitted is here; each once, in order per distinct id."""
        await self.until(len(self.submitted))
        assert self.delivered == Counter(self.submitted)
        for numbers in self.order.values():
            assert numbers == sorted(numbers)

    def properties(self, number: int) -> dict[str, Any]:
        return orjson.loads(self.results[number].properties)  # type: ignore[no-any-return]

    def failures(self, number: int) -> list[tuple[int, str]]:
        notes = self.results[number].notes
        return [] if notes is None else [(failure.install_id, failure.kind) for failure in notes.failures]


class Bench:
    """A pool, and what it said (SandboxReport)."""

    def __init__(self) -> None:
        self.pool: SandboxPool
        self.loads: list[Loaded] = []
        self.restarts: list[int] = []
        self.moves: list[int] = []
        self.logs: list[LogLine] = []
        self.set_ups: list[tuple[int, InvocationResult]] = []
        self.problems: list[dict[str, Any]] = []

    def sandbox(self, project_id: int = 2) -> Sandbox:
        return self.pool.sandboxes_of(project_id)[0]

    def loaded(self, project: Project, loaded: Loaded) -> None:
        self.loads.append(loaded)

    def set_up(self, project: Project, install_id: int, result: InvocationResult, effects: Any) -> None:
        self.set_ups.append((install_id, result))

    def torn_down(self, project: Project, logs: Sequence[LogLine]) -> None:
        self.logs += logs

    def restarted(self, project: Project) -> None:
        self.restarts.append(project.id)

    def moved(self, project: Project, install_id: int) -> None:
        self.moves.append(install_id)


@contextlib.asynccontextmanager
async def running_pool(
    fork_server: ForkServer | None = None, handlers: Mapping[str, Handler] | None = None, **options: Any
) -> AsyncIterator[Bench]:
    """A started pool. Whatever goes wrong in the loop (a callback that raises, a task that nobody asks) fails the test."""
    bench = Bench()
    bench.pool = SandboxPool(
        HostApi(handlers or {}), RunEffects, bench, "1.0", 1_000_000, fork_server=fork_server, **options
    )
    loop = asyncio.get_running_loop()
    previous = loop.get_exception_handler()
    loop.set_exception_handler(lambda _loop, context: bench.problems.append(context))
    await bench.pool.start()
    try:
        yield bench
    finally:
        await bench.pool.stop()
        await asyncio.sleep(0)
        loop.set_exception_handler(previous)
    assert bench.problems == []

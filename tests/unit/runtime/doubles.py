"""What the runtime's tests stand on: projects without files, sinks that keep what they get, sandboxes that only take."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import orjson

from plugin_server.model.errors import Transient
from plugin_server.model.project import App, Install, Limits, Project
from plugin_server.runtime.chain import Chain
from plugin_server.runtime.replies import ChainResult, HookFailure, LoadedInstall
from plugin_server.runtime.work import Invocation, Journal, Work
from sandbox.wire import EventOutcome

RECORD_BYTES = 100_000
NOW = "2026-01-01T00:00:00Z"


def install(number: int, **fields: Any) -> Install:
    return Install(number, App(f"App{number}", "0", "main.py", "", {}), number, **{"config": {}} | fields)


def project(*installs: int | Install, project_id: int = 2, **limits: Any) -> Project:
    made = tuple(install(entry) if isinstance(entry, int) else entry for entry in installs)
    return Project(project_id, "p", f"t{project_id}", made, limits=Limits.model_validate(limits))


def chain(*installs: int | Install, number: int = 1, project_id: int = 2, **options: Any) -> Chain:
    """A chain whose apps all have a processEvent and work."""
    tenant = project(*installs, project_id=project_id)
    made = Chain(number, tenant, tenant.installs, RECORD_BYTES, **options)
    made.known = tuple(LoadedInstall(entry.id, frozenset({"processEvent"}), None) for entry in tenant.installs)
    return made


class Effects:
    """RunEffects that keep what they were told."""

    def __init__(self) -> None:
        self.journal: Journal = {}
        self.left_out: dict[int, HookFailure] = {}
        self.forgotten: list[int] = []
        self.trouble: tuple[int, Transient] | None = None

    def forget(self, install_ids: Iterable[int]) -> None:
        self.forgotten += install_ids

    def note_trouble(self, install_id: int, error: Transient) -> None:
        self.trouble = install_id, error


def invocation(made: Chain, install_id: int = 1, hook: str = "onEvent") -> Invocation:
    return Invocation(made, install_id, hook, b"[]", Effects())


class Sink:
    """Keeps what became of its events, and the effects of each."""

    def __init__(self) -> None:
        self.closed = False
        self.effects: dict[Any, Effects] = {}
        self.delivered: list[tuple[Any, ChainResult]] = []
        self.has_delivery: list[bool] = []

    def deliver(self, results: Sequence[tuple[Any, ChainResult]], *, has_delivery: bool) -> None:
        assert not self.closed
        self.delivered += results
        self.has_delivery += [has_delivery] * len(results)

    def effects_of(self, item: Any) -> Effects:
        return self.effects.setdefault(item, Effects())

    @property
    def items(self) -> list[Any]:
        return [item for item, _ in self.delivered]

    @property
    def results(self) -> list[ChainResult]:
        return [result for _, result in self.delivered]


class TakingSandbox:
    """In the place of a Sandbox: takes events, and answers when it is told to."""

    def __init__(self) -> None:
        self.taken: list[tuple[Chain, Work[Any]]] = []

    def submit(self, chain: Chain, works: Sequence[Work[Any]]) -> None:
        assert works
        self.taken += [(chain, work) for work in works]

    @property
    def works(self) -> list[Work[Any]]:
        return [work for _, work in self.taken]

    def answer(self, *results: ChainResult, has_delivery: bool = False) -> None:
        """The oldest events, as a sandbox would give them back: those of one sink together."""
        works = [self.taken.pop(0)[1] for _ in results]
        by_sink: dict[int, tuple[Any, list[tuple[Any, ChainResult]]]] = {}
        for work, result in zip(works, results, strict=True):
            by_sink.setdefault(id(work.sink), (work.sink, []))[1].append((work.item, result))
        for sink, delivered in by_sink.values():
            if not sink.closed:
                sink.deliver(delivered, has_delivery=has_delivery)


def uuid_of(number: int) -> str:
    return f"018f0000-0000-7000-8000-{number:012}"


def envelope(number: int = 1, distinct_id: str = "ada", **data: Any) -> bytes:
    fields = {"event": "x", "properties": {"n": number}} | data
    return orjson.dumps(
        {"uuid": uuid_of(number), "distinct_id": distinct_id, "now": NOW, "data": orjson.dumps(fields).decode()}
    )


def emitted(properties: str = "{}") -> ChainResult:
    return ChainResult(EventOutcome.EMIT, "x", "ada", "2026-01-01 00:00:00.000", "", properties, None)

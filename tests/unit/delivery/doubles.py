"""What the tests of delivery stand on: hooks that end when told, a database that takes rows when told, a lane that notes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from plugin_server.delivery.caller import Caller
from plugin_server.delivery.event import make_decode
from plugin_server.delivery.letters import DeadLetters
from plugin_server.delivery.parcel import Parcel
from plugin_server.delivery.parking import ParkedLimits
from plugin_server.delivery.queue import InstallQueue, QueueServices
from plugin_server.delivery.webhook import Webhook
from plugin_server.eventlog.port import Headers, OutputRecord
from plugin_server.host_api.calls import CallContext
from plugin_server.host_api.captures import Parent
from plugin_server.host_api.commit import Outcome
from plugin_server.host_api.effects import RunEffects
from plugin_server.host_api.invoke import Called
from plugin_server.lanes.lane import Finished
from plugin_server.metrics import Metrics
from plugin_server.model.origin import Origin
from plugin_server.model.project import App, Install, Project
from plugin_server.outputs.events import compose_event
from plugin_server.registry.registry import Registry
from plugin_server.runtime.replies import Capture, HookFailure

DEAD_LETTERS = "dead letters"
RETRY = HookFailure(1, "retry", "not now", None, retryable=True)
PLAIN = HookFailure(1, "app", "ValueError: no", 3)


def install(number: int, **config: Any) -> Install:
    return Install(number, App(f"App{number}", f"v{number}", "main.py", "# onEvent", {}), number, config)


def project_of(*installs: Install, project_id: int = 2) -> Project:
    return Project(project_id, f"project {project_id}", f"phc_{project_id}", installs)


class Record(NamedTuple):
    """An InputRecord."""

    offset: int
    value: bytes | None
    key: bytes | None = None
    headers: Headers = ()
    timestamp: int = 0


def record(
    number: int, name: str = "x", *, project_id: int = 2, budget: int | None = 500, chain: str = "", **properties: Any
) -> Record:
    """An event as ingestion leaves it."""
    uuid = f"018f0000-0000-7000-8000-{number:012d}"
    value = compose_event(
        name,
        "ada",
        "2026-01-02 03:04:05.678",
        chain,
        orjson.dumps({"n": number, **properties}).decode(),
        uuid=uuid,
        project_id=project_id,
        created_at="2026-01-02 03:04:06.000",
        captured_at="2026-01-02T03:04:06Z",
        historical_migration=False,
    )
    headers = [("ps-source", f"in-0-{number}".encode())]
    if budget is not None:
        lineage = {"v": 1, "root": uuid, "depth": 0, "path": [], "budget": budget}
        headers.append(("ps-lineage", orjson.dumps(lineage)))
    return Record(number, value, f"phc_{project_id}:ada".encode(), headers)


class Hooks:
    """The Invoker. A call waits until `end` says how it ends, or ends at once as `answer` has it."""

    def __init__(self) -> None:
        self.apps: dict[int, dict[int, frozenset[str]]] = {}
        """Hooks by project and install"""
        self.calls: list[tuple[int, str, Any, Origin]] = []
        self.answer: HookFailure | str | None = "wait"
        self.captures: tuple[Capture, ...] = ()
        self.value: Any = None
        self.stale = 0
        """So many calls whose reads are stale"""
        self.outcomes: list[Outcome | Exception] = []
        """Of what is stored; stored when there are none left"""
        self.settled: list[tuple[Parent, Any]] = []
        self._waiting: list[tuple[int, asyncio.Future[HookFailure | None]]] = []

    async def exports(self, project: Project) -> Mapping[int, frozenset[str]]:
        return self.apps.get(project.id, {})

    async def call(
        self,
        project: Project,
        install_id: int,
        hook: str,
        arguments: Sequence[Any] | bytes,
        origin: Origin,
        *,
        max_captures: int | None = None,
        previous: Called | None = None,
    ) -> Called:
        del max_captures, previous
        assert isinstance(arguments, bytes)
        self.calls.append((install_id, hook, orjson.loads(arguments), origin))
        failure: HookFailure | None
        if self.answer == "wait":
            ended: asyncio.Future[HookFailure | None] = asyncio.get_running_loop().create_future()
            self._waiting.append((install_id, ended))
            failure = await ended
        else:
            assert not isinstance(self.answer, str)
            failure = self.answer
        captures = () if failure is not None else self.captures
        return Called(install_id, failure, self.value, captures, (), RunEffects(project, origin))

    def is_stale(self, called: Called) -> bool:
        self.stale -= 1
        return self.stale >= 0

    def log_records(self, project: Project, called: Called) -> list[OutputRecord]:
        return []

    def settle(self, called: Called, parent: Parent, completion: Any = None, token: Any = None) -> Any:
        self.settled.append((parent, token))
        return token

    async def store(self, commitments: Sequence[Any]) -> list[Outcome]:
        outcome = self.outcomes.pop(0) if self.outcomes else Outcome.STORED
        if isinstance(outcome, Exception):
            raise outcome
        return [outcome]

    async def end(self, failure: HookFailure | None = None, count: int = 1, install_id: int | None = None) -> None:
        """End the oldest calls that wait."""
        await settled()
        ending = [pair for pair in self._waiting if install_id in (None, pair[0])][:count]
        assert len(ending) == count
        for pair in ending:
            self._waiting.remove(pair)
            pair[1].set_result(failure)
        await settled()

    @property
    def under_way(self) -> int:
        return len([ended for _, ended in self._waiting if not ended.done()])


class ParkingLot:
    """Parking. Rows are in the database when `store_all` says so."""

    def __init__(self) -> None:
        self.limits = ParkedLimits(1_000, 10**9, 3_600.0)
        self.store = "the store"
        self.full: str | None = None
        self.half_full = False
        self.rows: list[tuple[Parcel, str, float, bool]] = []
        """Delivery, error, delay, and whether it is under way"""
        self.gone = 0
        self.trouble: str | None = None
        self._pending: list[asyncio.Future[None]] = []

    def why_full(self, parcel: Parcel, size: int) -> str | None:
        return self.full

    def is_half_full(self, install_id: int) -> bool:
        return self.half_full

    def park(
        self, parcel: Parcel, body: bytes, *, error: str, delay_seconds: float, is_claimed: bool = False
    ) -> asyncio.Future[None]:
        assert orjson.loads(body)
        parked: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pending.append(parked)
        self.rows.append((parcel, error, delay_seconds, is_claimed))
        return parked

    def removed(self, install_id: int, events: int, size: int) -> None:
        self.gone += events

    def next_try(self, install_id: int, at_ms: int) -> None:
        """Nothing."""

    async def store_all(self) -> None:
        pending, self._pending = self._pending, []
        for parked in pending:
            parked.set_result(None)
        await settled()


class CommittedRows:
    """The Committer, for what becomes of rows."""

    def __init__(self) -> None:
        self.ends: list[Any] = []
        self.outbox: list[OutputRecord] = []

    def add(self, transaction: Any, *, outbox: Sequence[OutputRecord], token: Any, **_: Any) -> Any:
        self.ends.append(token)
        self.outbox += outbox
        return token

    async def store(self, commitments: Sequence[Any]) -> None:
        """They are stored."""


class Lane:
    """FinishedEvents."""

    def __init__(self) -> None:
        self.closed = False
        self.is_full = False
        self.done: list[Finished] = []

    def finished(self, events: Sequence[Finished]) -> None:
        self.done += events

    def fail(self, error: Exception) -> None:
        raise error

    @property
    def offsets(self) -> list[int]:
        return sorted(event.offset for event in self.done)


class Marks:
    """DeliveredMarks: those in `had` were delivered before."""

    def __init__(self) -> None:
        self.is_lost = False
        self.had: set[tuple[int, int, str]] = set()

    def has(self, offset: int, install_id: int, hook: str) -> bool:
        return (offset, install_id, hook) in self.had


class Bench:
    """Queues with everything they need, on a clock that stands still."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.hooks = Hooks()
        self.parking = ParkingLot()
        self.committer = CommittedRows()
        self.metrics = Metrics()
        self.letters = DeadLetters(DEAD_LETTERS, 1_000_000)
        self.recovered: list[int] = []
        self.webhooks: list[Webhook] = []
        self.webhook_answer: int | Exception = 200
        self.caller = Caller(self.hooks, self._send)
        self.queues: dict[int, InstallQueue] = {}

    async def _send(self, context: CallContext, webhook: Webhook) -> int:
        self.webhooks.append(webhook)
        if isinstance(self.webhook_answer, Exception):
            raise self.webhook_answer
        return self.webhook_answer

    def queue(self, install_id: int = 1) -> InstallQueue:
        if install_id not in self.queues:
            services = QueueServices(
                self.caller,
                self.parking,  # type: ignore[arg-type]
                self.committer,  # type: ignore[arg-type]
                self.letters,
                self.metrics,
                self.recovered.append,
                lambda: self.now,
            )
            self.queues[install_id] = InstallQueue(install_id, services)
        return self.queues[install_id]

    def tick(self, seconds: float) -> None:
        """Time passes."""
        self.now += seconds
        for queue in self.queues.values():
            queue.tick()

    async def close(self) -> None:
        for queue in self.queues.values():
            await queue.close()

    def count(self, outcome: str, hook: str = "onEvent", install_id: int = 1) -> float:
        labels = {"install_id": str(install_id), "hook": hook, "outcome": outcome}
        return self.metrics.registry.get_sample_value("plugin_server_deliveries_total", labels) or 0


def decode_for(*projects: Project) -> Any:
    """The step, for these projects."""
    return make_decode(Registry(projects), "out", 0)


async def settled() -> None:
    """Let every task go as far as it can."""
    for _ in range(20):
        await asyncio.sleep(0)

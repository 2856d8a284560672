"""What the lane's tests stand on: a log in memory that keeps the port's promises, and apps that answer when told."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from plugin_server.eventlog.port import OutputRecord, Position
from plugin_server.eventlog.position_codec import decode_position, encode_checked
from plugin_server.host_api.captures import Captures
from plugin_server.host_api.commit import Commitment, Outcome
from plugin_server.host_api.ledger import Ledger
from plugin_server.host_api.logs import LogEntries
from plugin_server.host_api.storage_transaction import StorageTransaction
from plugin_server.host_api.storage_values import MISSING, Key, Stored
from plugin_server.ingestion.decode import make_decode
from plugin_server.ingestion.emit import Emitter
from plugin_server.ingestion.processor import IngestionProcessor
from plugin_server.ingestion.report import IngestionReport
from plugin_server.lanes.lane import Lane, LaneLimits
from plugin_server.metrics import Metrics
from plugin_server.model.project import App, Install, Project
from plugin_server.outputs.topics import make_topics
from plugin_server.registry.registry import Registry
from plugin_server.runtime.replies import ChainResult, Notes
from plugin_server.runtime.work import Work
from sandbox.wire import EventOutcome

TOPICS = make_topics("")
RECORD_BYTES = 100_000
NOW = 1_767_225_600.0


def app(name: str) -> App:
    return App(name, "v1", "main.py", "", {})


WITH_APPS = Project(2, "Acme", "phc_acme", (Install(39, app("Ping"), 1, {}), Install(40, app("Pong"), 2, {})))
WITHOUT_APPS = Project(3, "Bare", "phc_bare")


class Record(NamedTuple):
    """An InputRecord."""

    offset: int
    value: bytes | None
    key: bytes | None = None
    headers: Sequence[tuple[str, bytes]] = ()
    timestamp: int = 1_767_225_600_000


def uuid_of(number: int) -> str:
    return f"018f0000-0000-7000-8000-{number:012}"


def message(number: int, distinct_id: str = "ada", token: str = "phc_acme", **fields: Any) -> bytes:
    data = {"event": "x", "properties": {"n": number}}
    envelope = {
        "uuid": uuid_of(number),
        "distinct_id": distinct_id,
        "token": token,
        "now": "2026-01-01T00:00:00Z",
        "data": orjson.dumps(data).decode(),
    }
    return orjson.dumps(envelope | fields)


class Partition:
    """The broker's side of one partition: what was written, and what is committed."""

    def __init__(self, records: Sequence[Record]) -> None:
        self.records = list(records)
        self.committed = Position(records[0].offset if records else 0)
        self.output: list[OutputRecord] = []
        self.commits = 0


class MemoryLaneLog:
    """A LaneLog. `commit_fault` and `fetch_fault` are raised by the next call; `commit_fault_after` once it has committed."""

    partition = 0

    def __init__(self, partition: Partition) -> None:
        self.store = partition
        self.position = decode_position(partition.committed.next, encode_checked(partition.committed))
        self.place = self.position.next
        self.commit_fault: Exception | None = None
        self.fetch_fault: Exception | None = None
        self.is_committed_first = False
        self.may_commit = asyncio.Event()
        self.may_commit.set()
        self.fetches = 0
        self.ours = True
        self._dead = False
        self._more = asyncio.Event()

    def feed(self, *records: Record) -> None:
        self.store.records += records
        self._more.set()

    async def fetch(self, max_records: int, timeout_seconds: float) -> Sequence[Record]:
        assert not self._dead
        del timeout_seconds
        if self.fetch_fault is not None:
            raise self.fetch_fault
        found = [record for record in self.store.records if record.offset >= self.place][:max_records]
        self.fetches += 1
        if not found:
            self._more.clear()
            await self._more.wait()
            return []
        await asyncio.sleep(0)
        self.place = found[-1].offset + 1
        return found

    async def commit(self, records: Sequence[OutputRecord], position: Position) -> None:
        assert not self._dead
        encode_checked(position)
        self._dead = True
        await self.may_commit.wait()
        if self.commit_fault is not None and not self.is_committed_first:
            raise self.commit_fault
        self.store.output += records
        self.store.committed = position
        self.store.commits += 1
        if self.commit_fault is not None:
            raise self.commit_fault
        self.position = position
        self._dead = False

    async def resume(self) -> bool:
        return self.ours and not self._dead and self.position == self.store.committed

    async def close(self) -> None:
        self._dead = True


class Apps:
    """Holds what it is given until it is told what became of it."""

    def __init__(self) -> None:
        self.held: list[Work[Any]] = []
        self.most_held = 0

    def submit(self, project: Project, works: Sequence[Work[Any]]) -> None:
        assert project.installs
        self.held += works
        self.most_held = max(self.most_held, len(self.held))

    def finish(
        self, places: Sequence[int], notes: Notes | None = None, outcome: EventOutcome = EventOutcome.EMIT
    ) -> None:
        """Deliver those at these places, in this order."""
        works = [self.held[place] for place in places]
        for work in works:
            self.held.remove(work)
        for work in works:
            if not work.sink.closed:
                work.sink.deliver([(work.item, result_of(work, notes, outcome))], has_delivery=False)

    def finish_all(self, notes: Notes | None = None, outcome: EventOutcome = EventOutcome.EMIT) -> None:
        self.finish(range(len(self.held)), notes, outcome)


def result_of(work: Work[Any], notes: Notes | None, outcome: EventOutcome) -> ChainResult:
    if outcome is not EventOutcome.EMIT:
        return ChainResult(outcome, "", "", "", "", "", notes)
    envelope = orjson.loads(work.raw)
    data = orjson.loads(envelope["data"])
    properties = orjson.dumps(data["properties"]).decode()
    return ChainResult(
        outcome, data["event"], envelope["distinct_id"], "2026-01-01 00:00:00.000", "", properties, notes
    )


class Follower:
    def __init__(self) -> None:
        self.following = False
        self.entries: list[dict[str, Any]] = []

    def publish(self, entry: dict[str, Any]) -> None:
        orjson.dumps(entry)
        self.entries.append(entry)


class MemoryCommitter:
    """A Committer over a dict: it stores when asked to, and records what it completed. `fault` is raised by the next store."""

    def __init__(self) -> None:
        self.values: dict[Key, Stored] = {}
        self.ledger = Ledger(self._read, clock=lambda: 0.0)
        self.completed: list[Any] = []
        self.jobs: list[Any] = []
        self.fault: Exception | None = None
        self._pending: list[Commitment] = []
        self._versions = 0

    async def _read(self, keys: Sequence[Key]) -> dict[Key, Stored]:
        return {key: self.values[key] for key in keys if key in self.values}

    def add(self, transaction: StorageTransaction, **given: Any) -> Commitment | None:
        unit = self.ledger.finish(transaction, always=given.get("always", False) or bool(given.get("jobs")))
        if unit is None:
            return None
        commitment = Commitment(unit, given.get("jobs", ()), (), given.get("completion"), given.get("token"))
        self._pending.append(commitment)
        return commitment

    async def store(self, commitments: Sequence[Commitment]) -> None:
        await asyncio.sleep(0)
        if self.fault is not None:
            raise self.fault
        pending, self._pending = self._pending, []
        written: dict[Key, Stored] = {}
        for commitment in pending:
            for key, operation in commitment.unit.writes.items():
                value = operation.apply(written.get(key, self.values.get(key, MISSING)).value)
                self._versions += 1
                written[key] = MISSING if value is None else Stored(value, self._versions)
            self.completed.append(commitment.token)
            self.jobs += commitment.jobs
        self.values |= written
        self.ledger.stored([commitment.unit for commitment in pending], written)
        for commitment in pending:
            commitment.decide(Outcome.STORED)

    def withdraw(self, commitments: Sequence[Commitment]) -> None:
        gone = set(commitments)
        self._pending = [each for each in self._pending if each not in gone]
        for unit in self.ledger.withdraw([commitment.unit for commitment in gone]):
            next(each for each in self._pending if each.unit is unit).decide(Outcome.STALE)
            self._pending = [each for each in self._pending if each.unit is not unit]


class Counted:
    """CountMetrics: what was counted, one after another."""

    def __init__(self) -> None:
        self.added: list[tuple[str, str, float]] = []

    def add(self, project: Project, install_id: int, metrics: Sequence[tuple[str, str, float]]) -> None:
        del project, install_id
        self.added += metrics


class Bench:
    """A lane over a partition; `restart` acquires it anew, as another worker would."""

    def __init__(
        self, partition: Partition, *, window_events: int = 10_000, window_bytes: int = 2**26, flush: int = 5_000
    ):
        self.partition = partition
        self.limits = LaneLimits(0.0, flush, window_events, window_bytes)
        self.metrics = Metrics()
        self.follower = Follower()
        self.counted = Counted()
        self.decode = make_decode(Registry([WITH_APPS, WITHOUT_APPS]), RECORD_BYTES)
        self.captures = Captures(TOPICS.ingestion, TOPICS.dead_letters, RECORD_BYTES, lambda: NOW)
        self.logs = LogEntries(TOPICS.log_entries, "worker")
        self.restart()

    def restart(
        self, committer: Any = None, results: Any = None, recorded: Mapping[int, list[OutputRecord]] | None = None
    ) -> None:
        self.log = MemoryLaneLog(self.partition)
        self.apps = Apps()
        self.emitter = emitter(self.captures, self.logs)
        report = IngestionReport(self.metrics, TOPICS.events, self.follower)
        self.committer = committer or MemoryCommitter()
        self.lane = Lane(
            self.log,
            lambda lane: IngestionProcessor(
                lane,
                self.decode,
                self.apps,
                self.emitter,
                self.committer,
                results,
                recorded or {},
                self.counted,
                report,
                source_of=lambda offset: f"{TOPICS.ingestion}-6-{offset}",
            ),
            self.committer,
            self.limits,
            report,
            clock=lambda: 0.0,
        )

    def start(self) -> None:
        self.task = asyncio.get_running_loop().create_task(self.lane.run())

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def settle(self, turns: int = 30) -> None:
        """Let the lane's tasks do what they can."""
        for _ in range(turns):
            await asyncio.sleep(0)

    def emitted(self) -> list[int]:
        """Numbers of the events in the output, in order."""
        return [
            orjson.loads(orjson.loads(record.value)["properties"])["n"]
            for record in self.partition.output
            if record.topic == TOPICS.events
        ]

    def letters(self) -> list[dict[str, str]]:
        return [
            {name: content.decode() for name, content in record.headers}
            for record in self.partition.output
            if record.topic == TOPICS.dead_letters
        ]


def emitter(captures: Captures, logs: LogEntries, record_bytes: int = RECORD_BYTES) -> Emitter:
    return Emitter(
        TOPICS, captures, logs, source_partition=6, output_partitions=4, record_bytes=record_bytes, clock=lambda: NOW
    )

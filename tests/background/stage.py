"""What the tests of jobs and schedules share: a worker's parts on a real database, with hooks that are plain functions."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any

import orjson
from sqlalchemy import func, insert, select

from plugin_server.background.job_store import JobStore
from plugin_server.background.job_worker import JobWorker
from plugin_server.background.schedule_store import ScheduleStore
from plugin_server.background.schedule_worker import ScheduleWorker
from plugin_server.database.engine import Database
from plugin_server.database.errors import database_errors
from plugin_server.database.migrate import migrate
from plugin_server.database.tables import jobs, outbox, schedules, storage
from plugin_server.host_api.calls import CallContext
from plugin_server.host_api.captures import Captures
from plugin_server.host_api.commit import Committer, read_stored
from plugin_server.host_api.effects import RunEffects
from plugin_server.host_api.invoke import Invoker
from plugin_server.host_api.jobs import make_jobs_handlers
from plugin_server.host_api.ledger import Ledger
from plugin_server.host_api.logs import LogEntries
from plugin_server.host_api.storage_transaction import StorageTransaction
from plugin_server.model.errors import HookMissing
from plugin_server.model.project import App, Install, Project
from plugin_server.runtime.replies import Capture, HookFailure, LogLine
from plugin_server.runtime.work import InvocationResult

START = 1_795_435_200.0
PATIENCE_SECONDS = 60
TOPIC, LETTERS, LOGS = "ingestion", "letters", "logs"


class Clock:
    """Stands still until it is moved."""

    def __init__(self, now: float = START) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    @property
    def ms(self) -> int:
        return int(self.now * 1000)


class AppFailed(Exception):
    """What a hook of these tests raises to fail."""

    def __init__(self, message: str = "it went wrong", kind: str = "app", *, retryable: bool = False) -> None:
        super().__init__(message)
        self.kind = kind
        self.retryable = retryable


class Call:
    """One call of a hook, and what it may do."""

    def __init__(
        self, project: Project, install_id: int, hook: str, arguments: bytes, effects: RunEffects, ledger: Ledger
    ) -> None:
        self.install_id = install_id
        self.hook = hook
        self.payload = next(iter(orjson.loads(arguments)), None)
        self.effects = effects
        self.ledger = ledger
        self.max_captures: int | None = None
        self.captured: list[Capture] = []
        self._project = project

    def capture(self, event: str = "captured", distinct_id: str = "ada") -> None:
        self.captured.append(Capture(self.install_id, len(self.captured), event, distinct_id, None, {}))

    async def start(self, name: str, payload: Any = None, when: Any = None) -> None:
        install = next(install for install in self._project.installs if install.id == self.install_id)
        handler = make_jobs_handlers(lambda: START)["jobs.enqueue"]
        await handler(CallContext(self._project, install, 0, self.effects), [name, payload, when])

    async def count(self, key: str) -> None:
        """As an app that does not know `increment`."""
        place = (self.install_id, key)
        found = await self.ledger.get(self.effects.storage, place)
        await asyncio.sleep(0)
        self.ledger.set(self.effects.storage, place, orjson.dumps((orjson.loads(found) if found else 0) + 1))


Hook = Callable[[Call], Awaitable[None]]


class Hooks:
    """Runs hooks that are plain functions (Hooks of the Invoker). By install and name."""

    def __init__(self, apps: Mapping[int, Mapping[str, Hook]]) -> None:
        self.apps = apps
        self.ledger: Ledger
        self.calls: list[Call] = []

    async def invoke(
        self,
        project: Project,
        install_id: int,
        hook: str,
        arguments: bytes,
        effects: RunEffects,
        *,
        max_captures: int | None = None,
    ) -> InvocationResult:
        run = self.apps.get(install_id, {}).get(hook)
        if run is None:
            raise HookMissing(f"no {hook}")
        call = Call(project, install_id, hook, arguments, effects, self.ledger)
        call.max_captures = max_captures
        self.calls.append(call)
        try:
            await run(call)
        except AppFailed as error:
            failure = HookFailure(install_id, error.kind, str(error), 3, error.retryable)
            line = LogLine(install_id, "ERROR", f"{hook} failed: {error}", "PLUGIN")
            return InvocationResult(failure, None, tuple(call.captured), (line,))
        return InvocationResult(None, None, tuple(call.captured), ())

    async def hooks(self, project: Project) -> Mapping[int, frozenset[str]]:
        del project
        return {install_id: frozenset(hooks) for install_id, hooks in self.apps.items()}


class Counts:
    """JobReport and ScheduleReport."""

    def __init__(self) -> None:
        self.ran: list[int] = []
        self.failed: list[tuple[int, str]] = []
        self.died: list[int] = []
        self.lags: list[int] = []
        self.ticks: list[tuple[int, str]] = []
        self.failed_ticks: list[tuple[int, str, str]] = []

    def job_ran(self, install_id: int, late_ms: int) -> None:
        self.ran.append(install_id)

    def job_failed(self, install_id: int, kind: str) -> None:
        self.failed.append((install_id, kind))

    def job_died(self, install_id: int) -> None:
        self.died.append(install_id)

    def job_lag(self, milliseconds: int) -> None:
        self.lags.append(milliseconds)

    def tick_ran(self, install_id: int, task: str) -> None:
        self.ticks.append((install_id, task))

    def tick_failed(self, install_id: int, task: str, kind: str) -> None:
        self.failed_ticks.append((install_id, task, kind))


class Stage:
    """One worker on a database. Several may share one."""

    def __init__(self, url: str, owner: str, projects: Sequence[Project], hooks: Any, clock: Clock) -> None:
        self.database = Database(url)
        self.projects = {project.id: project for project in projects}
        self.hooks = hooks
        self.clock = clock
        self.counts = Counts()
        self.ledger = Ledger(self._read)
        hooks.ledger = self.ledger
        self.committer = Committer(self.database, self.ledger)
        self.captures = Captures(TOPIC, LETTERS, 1_000_000, clock)
        self.invoker = Invoker(hooks, self.committer, self.captures, LogEntries(LOGS, owner), _NoMetrics(), clock)
        self.store = JobStore(self.database, owner)
        self.jobs = JobWorker(self.store, self.invoker, self.projects.get, self.counts, clock=clock)
        self.ticks = ScheduleStore(self.database, owner)
        self.schedules = ScheduleWorker(self.ticks, self.invoker, self._projects, self.counts, clock=clock)

    def _projects(self) -> list[Project]:
        return list(self.projects.values())

    async def _read(self, keys: Any) -> Any:
        with database_errors():
            async with self.database.read() as connection:
                return await read_stored(connection, keys)

    async def put_jobs(self, count: int, **columns: Any) -> list[str]:
        """Waiting jobs, due at the start."""
        base = {
            "project_id": 2,
            "install_id": 1,
            "name": "work",
            "state": "waiting",
            "run_at_ms": int(START * 1000),
            "share": 1_000,
            "created_at_ms": int(START * 1000),
            **columns,
        }
        base["lineage"] = columns.get("lineage")
        numbers = list(itertools.islice(_NUMBERS, count))
        rows = [
            {"payload": b"%d" % number, **base, "id": f"018f0000-0000-7000-8000-{number:012}"} for number in numbers
        ]
        async with self.database.write() as connection:
            await connection.execute(insert(jobs), rows)
        return [row["id"] for row in rows]

    async def rows(self, table: Any = jobs) -> list[Any]:
        async with self.database.read() as connection:
            return list((await connection.execute(select(table))).all())

    async def left(self, state: str = "waiting") -> int:
        async with self.database.read() as connection:
            query = select(func.count()).select_from(jobs).where(jobs.c.state == state)
            return int((await connection.execute(query)).scalar_one())

    async def sent(self, topic: str = TOPIC) -> list[Any]:
        """Records in the outbox."""
        return [orjson.loads(row.value) for row in await self.rows(outbox) if row.topic == topic]

    async def log_lines(self) -> list[str]:
        return [entry["message"] for entry in await self.sent(LOGS)]

    async def stored(self, key: str, install_id: int = 1) -> Any:
        async with self.database.read() as connection:
            found = await read_stored(connection, [(install_id, key)])
        return orjson.loads(found[install_id, key].value or b"null") if found else None

    async def change(self, key: str, value: Any, *, is_known: bool) -> None:
        """Write a key that is not there yet, as another run of this worker does, or (not `is_known`) one of another worker."""
        if is_known:
            run = StorageTransaction()
            self.ledger.set(run, (1, key), orjson.dumps(value))
            commitment = self.committer.add(run)
            assert commitment is not None
            await self.committer.store([commitment])
        else:
            row = {"install_id": 1, "key": key, "value": orjson.dumps(value), "version": 7}
            async with self.database.write() as connection:
                await connection.execute(insert(storage), [row])

    async def work(self) -> None:
        """Claim and run what is due now, and what that starts, until nothing is."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while await self.jobs.claim_some() or self.jobs.in_flight:
                await until(lambda: not self.jobs.in_flight)
                self.jobs._due.clear()
                await self.jobs._release_returned()

    async def tick(self) -> int:
        """Run the tasks that are due now; of how many installs."""
        held = await self.schedules.claim_some()
        async with asyncio.timeout(PATIENCE_SECONDS):
            while self.schedules._running:
                await asyncio.wait(list(self.schedules._running.values()))
        return held

    async def next_ticks(self) -> dict[tuple[int, str], int]:
        return {(row.install_id, row.task): row.next_run_at_ms for row in await self.rows(schedules)}


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what happens in the same loop."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():  # noqa: ASYNC110 - whatever it is, nobody says so
            await asyncio.sleep(0.001)


_NUMBERS = itertools.count(1)


class _NoMetrics:
    def add(self, project: Project, install_id: int, metrics: Any) -> None:
        pass


def project(*install_ids: int, project_id: int = 2, source: str = "", **options: Any) -> Project:
    installs = tuple(
        Install(number, App(f"App{number}", "v", "main.py", source, {}), number, {}) for number in install_ids or (1,)
    )
    return Project(project_id, f"project {project_id}", f"phc_{project_id}", installs, **options)


@contextlib.asynccontextmanager
async def worker(
    url: str, hooks: Any, *projects: Project, owner: str = "worker", clock: Clock | None = None
) -> AsyncIterator[Stage]:
    """A worker whose committer runs."""
    stage = Stage(url, owner, projects or (project(),), hooks, clock or Clock())
    await migrate(stage.database)
    committing = asyncio.create_task(stage.committer.run())
    try:
        yield stage
    finally:
        committing.cancel()
        await asyncio.gather(committing, return_exceptions=True)
        await stage.database.close()

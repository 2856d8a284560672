"""`plugin-server check`: what has to be right before the server can work, each tried for real."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Final

import typer
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from plugin_server.cli.record_limit import require_record_limit
from plugin_server.database.engine import Database, sqlite_url
from plugin_server.eventlog.kafka import KafkaEventLog
from plugin_server.host_api.calls import HostApi
from plugin_server.host_api.effects import RunEffects
from plugin_server.model.errors import ConfigurationError, PluginServerError
from plugin_server.model.origin import Origin
from plugin_server.model.project import App, Install, Limits, LoopPolicy, Project
from plugin_server.outputs.topics import make_topics
from plugin_server.registry.registry import load_registry
from plugin_server.runtime.fork_server import ForkServer
from plugin_server.runtime.pool import SandboxPool
from plugin_server.runtime.replies import ChainResult, HookFailure, Loaded
from plugin_server.runtime.work import SandboxReport, Work
from plugin_server.settings import Settings

_SANDBOX_SECONDS: Final = 30.0
_PROBE_APP: Final = "def processEvent(event, meta):\n    event['properties']['seen'] = True\n    return event\n"
_PROBE_EVENT: Final = (
    b'{"uuid":"018f0000-0000-7000-8000-000000000000","distinct_id":"check","data":"{\\"event\\":\\"check\\"}",'
    b'"now":"2026-01-01T00:00:00Z"}'
)

Check = Callable[[], Awaitable[str]]


async def run_checks(settings: Settings, environ: Mapping[str, str]) -> bool:
    """Try each part and print a line for it; whether all are well."""
    checks: dict[str, Check] = {
        "projects": lambda: _check_projects(settings, environ),
        "event log": lambda: _check_event_log(settings),
        "database": lambda: _check_database(settings),
        "sandbox": lambda: _check_sandbox(settings),
    }
    typer.echo("ok      settings")
    well = True
    for name, check in checks.items():
        try:
            typer.echo(f"ok      {name}: {await check()}")
        except PluginServerError as error:
            well = False
            typer.secho(f"FAILED  {name}: {error}", fg=typer.colors.RED)
    return well


async def _check_projects(settings: Settings, environ: Mapping[str, str]) -> str:
    if settings.projects_file is None:
        return "none (PROJECTS_FILE is not set)"
    registry = load_registry(settings.projects_file, environ)
    collected = _Collected()
    async with _pool(collected, settings) as pool:
        for project in registry.projects:
            try:
                async with asyncio.timeout(_SANDBOX_SECONDS):
                    await pool.load(project)
            except TimeoutError:
                message = f"the apps of {project.name} did not load in {_SANDBOX_SECONDS:g} s"
                raise ConfigurationError(message) from None
    problems = [
        f"{install.label} in {project.name}: {error.message}"
        for project in registry.projects
        for install in project.installs
        if (error := collected.errors.get(install.id)) is not None
    ]
    if problems:
        raise ConfigurationError("apps that do not load: " + "; ".join(problems))
    installs = sum(len(project.installs) for project in registry.projects)
    return f"{len(registry.projects)} projects, {installs} installs, all of them load"


async def _check_event_log(settings: Settings) -> str:
    if settings.kafka_brokers is None:
        return f"embedded, in {settings.data_dir}"
    event_log = KafkaEventLog(settings.kafka_brokers, worker_id=None)
    topics = make_topics(settings.topic_prefix)
    try:
        await event_log.start()
        await event_log.ensure_topics(topics.all, settings.topic_partitions)
        await require_record_limit(event_log, settings.record_bytes)
        return f"Kafka at {settings.kafka_brokers}, {event_log.partition_count(topics.ingestion)} partitions"
    finally:
        await event_log.stop()


async def _check_database(settings: Settings) -> str:
    if settings.database_url is None:
        try:
            settings.data_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(f"DATA_DIR cannot be made: {error}") from error
    database = Database(settings.database_url or sqlite_url(settings.data_dir))
    try:
        async with database.write() as connection:
            await connection.execute(text("SELECT 1"))
    except (SQLAlchemyError, OSError) as error:
        detail = str(getattr(error, "orig", error)).split("\n", 1)[0]
        raise ConfigurationError(f"the database does not answer: {detail}") from error
    finally:
        await database.close()
    return "SQLite" if database.is_sqlite else "Postgres"


async def _check_sandbox(settings: Settings) -> str:
    app = App("check", "0", "main.py", _PROBE_APP, {})
    project = Project(1, "check", "check", (Install(1, app, 1, {}),), LoopPolicy(), Limits())
    sink = _OneResult()
    async with _pool(_Collected(), settings) as pool:
        pool.submit(project, [Work("event", _PROBE_EVENT, sink)])
        try:
            async with asyncio.timeout(_SANDBOX_SECONDS):
                result = await sink.result
        except TimeoutError:
            raise ConfigurationError("a sandbox did not answer; its limits on this host may be too low") from None
        if '"seen":true' not in result.properties:
            raise ConfigurationError(f"a sandbox did not run its app: {result.notes}")
        return f"an app ran in a child process; {pool.confinement}"


class _Collected:
    """Takes what is reported of sandboxes (SandboxReport)."""

    def __init__(self) -> None:
        self.errors: dict[int, HookFailure | None] = {}
        """By install; one that several sandboxes loaded is here once"""

    def loaded(self, project: Project, loaded: Loaded) -> None:
        del project
        self.errors |= {entry.install_id: entry.error for entry in loaded.installs}

    def set_up(self, project: Project, install_id: int, result: object, effects: object) -> None: ...

    def torn_down(self, project: Project, logs: object) -> None: ...

    def restarted(self, project: Project) -> None: ...

    def moved(self, project: Project, install_id: int) -> None: ...


class _OneResult:
    """Takes one event's result."""

    closed = False

    def effects_of(self, item: Project) -> RunEffects:
        return RunEffects(item, Origin("check", "check", "processEvent"))

    def __init__(self) -> None:
        self.result: asyncio.Future[ChainResult] = asyncio.get_running_loop().create_future()

    def deliver(self, results: object, *, has_delivery: bool) -> None:
        del has_delivery
        assert isinstance(results, list)
        self.result.set_result(results[0][1])


@asynccontextmanager
async def _pool(report: SandboxReport, settings: Settings) -> AsyncIterator[SandboxPool]:
    """A pool for as long as the block runs."""
    fork_server = ForkServer(allow_unconfined=settings.allow_unconfined_sandbox)
    pool = SandboxPool(HostApi({}), RunEffects, report, "check", settings.record_bytes, fork_server=fork_server)
    await pool.start()
    try:
        yield pool
    finally:
        await pool.stop()

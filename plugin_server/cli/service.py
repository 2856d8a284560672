"""The composition root: builds every part from the settings, starts and stops them in order. It decides nothing else."""

from __future__ import annotations

import asyncio
import os
import platform
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from importlib.metadata import version
from typing import Final

import structlog
from aiohttp import web

from plugin_server.admin.api.auth import AccessTokens, Authenticator
from plugin_server.admin.api.events import RecentEvents
from plugin_server.admin.api.handler import OwnApi
from plugin_server.admin.api.routes import api_routes
from plugin_server.admin.health import health_routes
from plugin_server.admin.tail import TailHub, tail_routes, tail_socket_path
from plugin_server.capture.endpoints import capture_routes
from plugin_server.cli.delivery_role import DeliveryLanes
from plugin_server.cli.effects import Effects
from plugin_server.cli.host_calls import HostCalls
from plugin_server.cli.ingestion_role import IngestionLanes
from plugin_server.cli.jobs_role import JobsRole
from plugin_server.cli.record_limit import require_record_limit
from plugin_server.cli.sandbox_report import OwnersReport
from plugin_server.database.engine import Database, sqlite_url
from plugin_server.database.migrate import migrate
from plugin_server.delivery.deliveries import Deliveries
from plugin_server.eventlog.embedded import EmbeddedEventLog
from plugin_server.eventlog.kafka import KafkaEventLog
from plugin_server.eventlog.port import EventLog, OutputRecord
from plugin_server.eventlog.wakeups import Wakeups
from plugin_server.host_api.effects import RunEffects
from plugin_server.host_api.logs import LogEntries
from plugin_server.ingestion.report import IngestionReport
from plugin_server.lanes.supervisor import LaneSupervisor
from plugin_server.metrics import Metrics
from plugin_server.model.errors import ConfigurationError, DatabaseUnavailable, EventLogUnavailable, Transient
from plugin_server.model.project import Isolation, Project
from plugin_server.outputs.topics import make_topics
from plugin_server.registry.registry import Registry, load_registry
from plugin_server.runtime.fork_server import ForkServer
from plugin_server.runtime.pool import SandboxPool
from plugin_server.settings import DeliveryGuarantee, Role, Settings

_START_BACKOFF_SECONDS: Final = 0.5
_LAST_START_BACKOFF_SECONDS: Final = 10.0
_PRUNE_SECONDS: Final = 600.0
_WATCH_SECONDS: Final = 5.0
_WITH_SANDBOXES: Final = frozenset({Role.INGESTION, Role.DELIVERY, Role.JOBS})
SiteMaker = Callable[[web.AppRunner], web.BaseSite]
_log = structlog.get_logger(__name__)


class Service:
    """One server process. `run` is all of its life."""

    def __init__(self, settings: Settings, environ: Mapping[str, str]) -> None:
        """Read the projects. Raises ConfigurationError."""
        self._settings = settings
        self._registry = load_registry(settings.projects_file, environ) if settings.projects_file else Registry()
        self._metrics = Metrics()
        self._topics = make_topics(settings.topic_prefix)
        self._hub = TailHub()
        self._logs = LogEntries(self._topics.log_entries, _instance_id(settings))
        self._not_started: str | None = "starting"
        self._log_trouble: str | None = None
        self._supervisors: dict[str, LaneSupervisor] = {}
        self._deliveries: Deliveries | None = None
        self._draining: list[Callable[[], Awaitable[None]]] = []
        """What finishes the work of roles without lanes"""
        self._wakeups = Wakeups()
        self._database: Database
        self._own_api: OwnApi
        self._port: int
        """On which it listens"""
        self._fork_server = ForkServer(allow_unconfined=settings.allow_unconfined_sandbox)
        """Of all roles: one for a process"""
        self._stopping = asyncio.Event()

    @property
    def registry(self) -> Registry:
        return self._registry

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT, then finish what is under way, at most for `shutdown_seconds`.

        A dependency that is away is waited for: the process is alive and not ready meanwhile.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        async with AsyncExitStack() as stack:
            _make_data_dir(self._settings)
            self._database = Database(self._settings.database_url or sqlite_url(self._settings.data_dir))
            stack.push_async_callback(self._database.close)
            event_log = self._make_event_log()
            self._own_api = OwnApi(self._database, RecentEvents(event_log, self._topics.events), self._registry.by_id)
            await self._serve_http(stack, event_log)
            working = asyncio.create_task(self._work(event_log), name="work")
            stopping = asyncio.create_task(self._stopping.wait(), name="stopping")
            await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
            _log.info("stopping", shutdown_seconds=self._settings.shutdown_seconds)
            stopping.cancel()
            self._not_started = "stopping"
            self._hub.close()
            if not working.done():
                await self._drain()
                working.cancel()
            await asyncio.gather(working, stopping, return_exceptions=True)
            if working.done() and not working.cancelled() and (error := working.exception()):
                raise _alone(error)
        _log.info("stopped")

    async def _work(self, event_log: EventLog) -> None:
        """Bring up what processes events, and keep it up."""
        await self._connect(event_log)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(event_log.stop)
            tasks = await stack.enter_async_context(asyncio.TaskGroup())
            tasks.create_task(self._watch_log(event_log), name="watch-log")
            if isinstance(event_log, EmbeddedEventLog):
                tasks.create_task(self._prune(event_log), name="prune")
            effects = Effects(
                self._database, event_log, self._topics, self._settings.record_bytes, self._logs, self._metrics
            )
            effects.start(tasks)
            stack.push_async_callback(effects.drain)
            calls = HostCalls(
                self._settings,
                self._database,
                effects.ledger,
                self._own_api.answer,
                (self._settings.http_host, self._port),
            )
            stack.push_async_callback(calls.close)
            tasks.create_task(calls.prune_cache(), name="prune-cache")
            if not _WITH_SANDBOXES.isdisjoint(self._settings.roles):
                await self._fork_server.start()
                stack.push_async_callback(self._fork_server.stop)
            if Role.INGESTION in self._settings.roles:
                await self._start_ingestion(stack, tasks, event_log, effects, calls)
            if Role.DELIVERY in self._settings.roles:
                await self._start_delivery(stack, tasks, effects, calls)
            if Role.JOBS in self._settings.roles:
                await self._start_jobs(stack, tasks, event_log, effects, calls)
            await self._serve_tail(stack)
            self._not_started = None
            _log.info("started", roles=[str(role) for role in self._settings.roles], topics=self._topics.ingestion)
            await asyncio.Event().wait()

    async def _start_ingestion(
        self,
        stack: AsyncExitStack,
        tasks: asyncio.TaskGroup,
        event_log: EventLog,
        effects: Effects,
        calls: HostCalls,
    ) -> None:
        pool = await self._start_pool(stack, tasks, event_log, effects, calls)
        group = f"{self._settings.consumer_group}-ingestion"
        lanes = IngestionLanes(
            self._settings,
            group,
            self._topics,
            self._registry,
            event_log,
            self._database,
            pool,
            effects,
            self._logs,
            IngestionReport(self._metrics, self._topics.events, self._hub),
        )
        supervisor = LaneSupervisor(event_log, lanes.make, self._metrics, Role.INGESTION)
        self._supervisors[Role.INGESTION] = supervisor
        await event_log.join(group, self._topics.ingestion, supervisor)
        tasks.create_task(supervisor.run(), name="ingestion-lanes")

    async def _start_delivery(
        self, stack: AsyncExitStack, tasks: asyncio.TaskGroup, effects: Effects, calls: HostCalls
    ) -> None:
        event_log = self._make_event_log()
        stack.push_async_callback(event_log.stop)
        await self._connect(event_log)
        pool = await self._start_pool(stack, tasks, event_log, effects, calls)
        group = f"{self._settings.consumer_group}-delivery"
        lanes = DeliveryLanes(
            self._settings,
            group,
            self._topics,
            self._registry,
            self._database,
            pool,
            effects,
            calls,
            self._metrics,
            _instance_id(self._settings),
        )
        stack.push_async_callback(lanes.deliveries.close)
        supervisor = LaneSupervisor(event_log, lanes.make, self._metrics, Role.DELIVERY)
        self._supervisors[Role.DELIVERY] = supervisor
        self._deliveries = lanes.deliveries
        await event_log.join(group, self._topics.events, supervisor)
        tasks.create_task(lanes.deliveries.run(), name="deliveries")
        tasks.create_task(supervisor.run(), name="delivery-lanes")

    async def _start_jobs(
        self,
        stack: AsyncExitStack,
        tasks: asyncio.TaskGroup,
        event_log: EventLog,
        effects: Effects,
        calls: HostCalls,
    ) -> None:
        pool = await self._start_pool(stack, tasks, event_log, effects, calls)
        role = JobsRole(self._registry, self._database, pool, effects, self._metrics, _instance_id(self._settings))
        self._draining.append(role.drain)
        role.start(tasks)

    async def _connect(self, event_log: EventLog) -> None:
        delay = _START_BACKOFF_SECONDS
        while True:
            try:
                await migrate(self._database)
                await event_log.start()
                await event_log.ensure_topics(self._topics.all, self._settings.topic_partitions)
                await require_record_limit(event_log, self._settings.record_bytes)
                return
            except Transient as error:
                what = "database" if isinstance(error, DatabaseUnavailable) else "event log"
                self._not_started = f"{what}: {error}"
                _log.warning("dependency_unavailable", error=str(error), retry_seconds=delay)
                await event_log.stop()
                await asyncio.sleep(delay)
                delay = min(delay * 2, _LAST_START_BACKOFF_SECONDS)

    async def _drain(self) -> None:
        try:
            async with asyncio.timeout(self._settings.shutdown_seconds * 0.7):
                await asyncio.gather(
                    *(supervisor.drain() for supervisor in self._supervisors.values()),
                    *(drain() for drain in self._draining),
                )
        except TimeoutError:
            _log.warning("shutdown_left_events", remedy="they are read again after the next start; nothing is lost")

    async def _watch_log(self, event_log: EventLog) -> None:
        """Ask the log now and then: an idle worker would not notice that it has gone."""
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            try:
                async with asyncio.timeout(_WATCH_SECONDS):
                    await event_log.record_limit_bytes()
                self._log_trouble = None
            except (EventLogUnavailable, TimeoutError) as error:
                self._log_trouble = str(error) or f"no answer within {_WATCH_SECONDS:g} s"

    async def _prune(self, event_log: EmbeddedEventLog) -> None:
        while True:
            await asyncio.sleep(_PRUNE_SECONDS)
            try:
                await event_log.prune(self._settings.embedded_retention_hours * 3600)
            except EventLogUnavailable as error:
                _log.warning("prune_failed", error=str(error), retry_seconds=_PRUNE_SECONDS)

    def _make_event_log(self) -> EventLog:
        """One for each consumer group that this worker is a member of."""
        settings = self._settings
        if settings.kafka_brokers is not None:
            return KafkaEventLog(
                settings.kafka_brokers,
                worker_id=settings.worker_id,
                exactly_once=settings.delivery_guarantee is DeliveryGuarantee.EXACTLY_ONCE,
                events_lost=lambda _partition, count: self._metrics.events_lost.inc(count),
            )
        if not settings.uses_sqlite:
            raise ConfigurationError(
                "PLUGIN_SERVER_DATABASE_URL without PLUGIN_SERVER_KAFKA_BROKERS must be SQLite, which holds the embedded log: "
                "unset PLUGIN_SERVER_DATABASE_URL, or set PLUGIN_SERVER_KAFKA_BROKERS"
            )
        return EmbeddedEventLog(self._database, settings.data_dir, wakeups=self._wakeups)

    async def _start_pool(
        self,
        stack: AsyncExitStack,
        tasks: asyncio.TaskGroup,
        event_log: EventLog,
        effects: Effects,
        calls: HostCalls,
    ) -> SandboxPool:
        """The sandboxes of one role. They end with `stack`, then what is still to be told of them is."""
        report = OwnersReport(event_log, self._logs, self._metrics, tasks, effects.settle_setup)
        stack.push_async_callback(report.drain)
        shared = [p.limits.memory_bytes for p in self._registry.projects if p.sandbox.isolation is Isolation.SHARED]
        pool = SandboxPool(
            calls.api,
            RunEffects,
            report,
            version("plugin-server"),
            self._settings.record_bytes,
            fork_server=self._fork_server,
            owns_fork_server=False,
            is_traced=lambda: self._hub.following,
            max_sandboxes=self._settings.max_sandboxes,
            shared_memory_bytes=max(shared, default=None),
        )
        await pool.start()
        stack.push_async_callback(pool.stop)
        return pool

    async def _serve_http(self, stack: AsyncExitStack, event_log: EventLog) -> None:
        settings = self._settings
        application = web.Application()
        application.add_routes(
            health_routes(
                health=dict,
                readiness=self._readiness,
                metrics=self._metrics.registry,
                public_url=settings.public_url,
            ),
        )
        if Role.CAPTURE in settings.roles:
            application.add_routes(
                capture_routes(
                    self._find_project,
                    self._counted(event_log),
                    topic=self._topics.ingestion,
                    record_bytes=settings.record_bytes,
                ),
            )
        if Role.ADMIN in settings.roles:
            key = settings.secret_key.get_secret_value() if settings.secret_key is not None else None
            authenticator = Authenticator(AccessTokens(key), lambda: self._registry.projects, time.time)
            application.add_routes(api_routes(self._own_api.answer, authenticator.projects_of))
        try:
            runner = await _listen(
                stack, application, lambda runner: web.TCPSite(runner, settings.http_host, settings.http_port)
            )
            self._port = runner.addresses[0][1]
        except OSError as error:
            where = f"{settings.http_host}:{settings.http_port}"
            raise ConfigurationError(
                f"cannot listen on {where} ({error.strerror}): end what uses it, or set PLUGIN_SERVER_HTTP_HOST and PLUGIN_SERVER_HTTP_PORT"
            ) from error

    async def _serve_tail(self, stack: AsyncExitStack) -> None:
        """Let `plugin-server tail` in. Only once the data directory is known to be ours: the socket replaces an old one."""
        tail = web.Application()
        tail.add_routes(tail_routes(self._hub))
        socket_path = tail_socket_path(self._settings.data_dir)
        socket_path.unlink(missing_ok=True)
        previous_mask = os.umask(0o177)
        try:
            await _listen(stack, tail, lambda runner: web.UnixSite(runner, str(socket_path)))
        finally:
            os.umask(previous_mask)
        stack.callback(socket_path.unlink, missing_ok=True)

    def _counted(self, event_log: EventLog) -> Callable[[list[OutputRecord]], Awaitable[None]]:
        """`produce` for the capture endpoints, with its count."""

        async def produce(records: list[OutputRecord]) -> None:
            await event_log.produce(records)
            self._metrics.http_captured.inc(len(records))

        return produce

    async def _find_project(self, token: str) -> Project | None:
        if self._not_started is not None:
            raise EventLogUnavailable(f"not ready: {self._not_started}")
        return self._registry.by_token(token)

    def _readiness(self) -> dict[str, str | None]:
        checks: dict[str, str | None] = {"start": self._not_started, "event_log": self._log_trouble}
        for role, supervisor in self._supervisors.items():
            checks["lanes" if role == Role.INGESTION else f"{role} lanes"] = supervisor.not_ready()
        if self._deliveries is not None:
            checks["deliveries"] = self._deliveries.not_ready()
        return checks


def _alone(error: BaseException) -> BaseException:
    """The error that a group of one holds: what a person should read."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _make_data_dir(settings: Settings) -> None:
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"DATA_DIR cannot be made: {error}") from error


async def _listen(stack: AsyncExitStack, application: web.Application, make_site: SiteMaker) -> web.AppRunner:
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=2.0)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await make_site(runner).start()
    return runner


def _instance_id(settings: Settings) -> str:
    return settings.worker_id or f"{platform.node()}-{os.getpid()}"

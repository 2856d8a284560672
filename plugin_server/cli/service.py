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

from plugin_server.admin.health import health_routes
from plugin_server.admin.tail import TailHub, tail_routes, tail_socket_path
from plugin_server.capture.endpoints import capture_routes
from plugin_server.cli.record_limit import require_record_limit
from plugin_server.cli.sandbox_report import OwnersReport
from plugin_server.database.engine import Database, sqlite_url
from plugin_server.eventlog.embedded import EmbeddedEventLog
from plugin_server.eventlog.kafka import KafkaEventLog
from plugin_server.eventlog.port import EventLog, LaneLog, OutputRecord
from plugin_server.host_api.calls import HostApi
from plugin_server.host_api.captures import Captures
from plugin_server.host_api.logs import LogEntries
from plugin_server.ingestion.decode import make_decode
from plugin_server.ingestion.emit import Emitter
from plugin_server.ingestion.lane import IngestionLane, LaneLimits
from plugin_server.ingestion.report import LaneReport
from plugin_server.ingestion.supervisor import LaneSupervisor
from plugin_server.metrics import Metrics
from plugin_server.model.errors import ConfigurationError, EventLogUnavailable
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
        self._supervisor: LaneSupervisor | None = None
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
            event_log = self._make_event_log(stack)
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
            if Role.INGESTION in self._settings.roles:
                report = OwnersReport(event_log, self._logs, self._metrics, tasks)
                stack.push_async_callback(report.drain)
                pool = self._make_pool(report)
                await pool.start()
                stack.push_async_callback(pool.stop)
                self._supervisor = LaneSupervisor(event_log, self._lane_factory(event_log, pool), self._metrics)
                await event_log.join(
                    f"{self._settings.consumer_group}-ingestion", self._topics.ingestion, self._supervisor
                )
                tasks.create_task(self._supervisor.run(), name="lanes")
            await self._serve_tail(stack)
            self._not_started = None
            _log.info("started", roles=[str(role) for role in self._settings.roles], topics=self._topics.ingestion)
            await asyncio.Event().wait()

    async def _connect(self, event_log: EventLog) -> None:
        delay = _START_BACKOFF_SECONDS
        while True:
            try:
                await event_log.start()
                await event_log.ensure_topics(self._topics.all, self._settings.topic_partitions)
                await require_record_limit(event_log, self._settings.record_bytes)
                return
            except EventLogUnavailable as error:
                self._not_started = f"event log: {error}"
                _log.warning("event_log_unavailable", error=str(error), retry_seconds=delay)
                await event_log.stop()
                await asyncio.sleep(delay)
                delay = min(delay * 2, _LAST_START_BACKOFF_SECONDS)

    async def _drain(self) -> None:
        if self._supervisor is None:
            return
        try:
            async with asyncio.timeout(self._settings.shutdown_seconds * 0.7):
                await self._supervisor.drain()
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

    def _make_event_log(self, stack: AsyncExitStack) -> EventLog:
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
                "DATABASE_URL without KAFKA_BROKERS must be SQLite, which holds the embedded log: "
                "unset DATABASE_URL, or set KAFKA_BROKERS"
            )
        database = Database(settings.database_url or sqlite_url(settings.data_dir))
        stack.push_async_callback(database.close)
        return EmbeddedEventLog(database, settings.data_dir)

    def _make_pool(self, report: OwnersReport) -> SandboxPool:
        shared = [p.limits.memory_bytes for p in self._registry.projects if p.sandbox.isolation is Isolation.SHARED]
        return SandboxPool(
            HostApi(),
            report,
            version("plugin-server"),
            self._settings.record_bytes,
            fork_server=ForkServer(allow_unconfined=self._settings.allow_unconfined_sandbox),
            is_traced=lambda: self._hub.following,
            max_sandboxes=self._settings.max_sandboxes,
            shared_memory_bytes=max(shared, default=None),
        )

    def _lane_factory(self, event_log: EventLog, pool: SandboxPool) -> LaneFactory:
        report = LaneReport(self._metrics, self._topics.events, self._hub)
        return LaneFactory(self._settings, self._registry, event_log, pool, self._logs, report)

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
        try:
            await _listen(
                stack, application, lambda runner: web.TCPSite(runner, settings.http_host, settings.http_port)
            )
        except OSError as error:
            where = f"{settings.http_host}:{settings.http_port}"
            raise ConfigurationError(
                f"cannot listen on {where} ({error.strerror}): end what uses it, or set HTTP_HOST and HTTP_PORT"
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
        if self._supervisor is not None:
            checks["lanes"] = self._supervisor.not_ready()
        return checks


class LaneFactory:
    """Makes the lane of a partition that was acquired. What all lanes of a worker share lives here."""

    def __init__(
        self,
        settings: Settings,
        registry: Registry,
        event_log: EventLog,
        pool: SandboxPool,
        logs: LogEntries,
        report: LaneReport,
    ) -> None:
        self._topics = make_topics(settings.topic_prefix)
        self._settings = settings
        self._event_log = event_log
        self._pool = pool
        self._decode = make_decode(registry, settings.record_bytes)
        self._captures = Captures(self._topics.ingestion, self._topics.dead_letters, settings.record_bytes, time.time)
        self._logs = logs
        self._report = report
        self._limits = LaneLimits(
            commit_interval_seconds=settings.commit_interval_ms / 1000,
            flush_max_results=settings.flush_max_results,
            window_events=settings.lane_window_events,
            window_bytes=settings.lane_window_bytes,
        )

    def __call__(self, log: LaneLog) -> IngestionLane:
        emitter = Emitter(
            self._topics,
            self._captures,
            self._logs,
            source_partition=log.partition,
            output_partitions=self._event_log.partition_count(self._topics.events),
            record_bytes=self._settings.record_bytes,
            clock=time.time,
        )
        return IngestionLane(log, self._decode, self._pool, emitter, self._limits, self._report)


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


async def _listen(stack: AsyncExitStack, application: web.Application, make_site: SiteMaker) -> None:
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=2.0)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await make_site(runner).start()


def _instance_id(settings: Settings) -> str:
    return settings.worker_id or f"{platform.node()}-{os.getpid()}"

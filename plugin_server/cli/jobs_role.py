"""The jobs role of a worker: jobs and schedules, put together."""

from __future__ import annotations

import asyncio
import uuid

from plugin_server.background.job_store import JobStore
from plugin_server.background.job_worker import JobWorker
from plugin_server.background.report import BackgroundReport
from plugin_server.background.schedule_store import ScheduleStore
from plugin_server.background.schedule_worker import ScheduleWorker
from plugin_server.cli.effects import Effects
from plugin_server.database.engine import Database
from plugin_server.metrics import Metrics
from plugin_server.registry.registry import Registry
from plugin_server.runtime.pool import SandboxPool


class JobsRole:
    """`start` begins it, `drain` finishes what runs."""

    def __init__(
        self,
        registry: Registry,
        database: Database,
        pool: SandboxPool,
        effects: Effects,
        metrics: Metrics,
        worker: str,
    ) -> None:
        """`worker` goes into `claimed_by`; each life of a worker is another owner of leases."""
        owner = f"{worker}-{uuid.uuid4().hex[:12]}"
        invoker = effects.invoker(pool)
        report = BackgroundReport(metrics)
        self.jobs = JobWorker(JobStore(database, owner), invoker, registry.by_id, report)
        self.schedules = ScheduleWorker(ScheduleStore(database, owner), invoker, lambda: registry.projects, report)
        effects.wake_jobs = self.jobs.wake

    def start(self, tasks: asyncio.TaskGroup) -> None:
        """Begin to claim."""
        tasks.create_task(self.jobs.run(), name="jobs")
        tasks.create_task(self.schedules.run(), name="schedules")

    async def drain(self) -> None:
        """Claim no more; returns when what runs has ended. Bound it in time."""
        await asyncio.gather(self.jobs.drain(), self.schedules.drain())

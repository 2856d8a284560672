"""Makes the lanes of the delivery role, and what they share in a worker."""

from __future__ import annotations

from plugin_server.cli.effects import Effects
from plugin_server.cli.host_calls import HostCalls
from plugin_server.cli.ingestion_role import lane_limits
from plugin_server.database.engine import Database
from plugin_server.delivery.deliveries import Deliveries
from plugin_server.delivery.parking import ParkedLimits
from plugin_server.delivery.report import DeliveryReport
from plugin_server.delivery.webhook import Webhook
from plugin_server.eventlog.port import LaneLog
from plugin_server.host_api.calls import CallContext
from plugin_server.lanes.lane import Lane
from plugin_server.metrics import Metrics
from plugin_server.outputs.topics import Topics
from plugin_server.registry.registry import Registry
from plugin_server.runtime.pool import SandboxPool
from plugin_server.settings import Settings


class DeliveryLanes:
    """`make` acquires the database's part of a lane whose log was acquired, and puts it together."""

    def __init__(
        self,
        settings: Settings,
        group: str,
        topics: Topics,
        registry: Registry,
        database: Database,
        pool: SandboxPool,
        effects: Effects,
        calls: HostCalls,
        metrics: Metrics,
        worker: str,
    ) -> None:
        async def send(context: CallContext, webhook: Webhook) -> int:
            return await calls.send_webhook(context, *webhook)

        invoker = effects.invoker(pool)
        self.deliveries = Deliveries(
            database,
            invoker,
            effects.committer,
            registry,
            send,
            metrics,
            topics=topics,
            group=group,
            record_bytes=settings.record_bytes,
            limits=ParkedLimits(settings.parked_events, settings.parked_bytes, settings.parked_hours * 3600),
            worker=worker,
        )
        self._committer = effects.committer
        self._limits = lane_limits(settings)
        self._report = DeliveryReport(metrics)

    async def make(self, log: LaneLog) -> Lane:
        """Raises DatabaseUnavailable."""
        make_processor = await self.deliveries.open_lane(log)
        # Deliveries are at least once anyway, and some take long: nothing may wait for the gaps that they leave.
        return Lane(log, make_processor, self._committer, self._limits, self._report, may_repeat=True)

"""The delivery role of one worker, put together: what its lanes share, and what runs beside them."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterable
from typing import Final

from plugin_server.database.engine import Database
from plugin_server.delivery.caller import Caller, Invoker
from plugin_server.delivery.event import ProjectLookup, make_decode
from plugin_server.delivery.letters import DeadLetters
from plugin_server.delivery.marks import DeliveredMarks
from plugin_server.delivery.parked_store import ParkedStore
from plugin_server.delivery.parking import ParkedLimits, Parking
from plugin_server.delivery.processor import DeliveryProcessor
from plugin_server.delivery.queue import InstallQueue, QueueServices
from plugin_server.delivery.receivers import Receivers
from plugin_server.delivery.retrier import Retrier
from plugin_server.delivery.webhook import SendWebhook
from plugin_server.eventlog.port import LaneLog
from plugin_server.host_api.commit import Committer
from plugin_server.lanes.fence import LaneKey, draw_epoch
from plugin_server.lanes.lane import FinishedEvents, MakeProcessor
from plugin_server.metrics import Metrics
from plugin_server.outputs.topics import Topics

TICK_SECONDS: Final = 0.1


class Deliveries:
    """One a worker. `run` is its life beside the lanes; `close` ends what is under way."""

    def __init__(
        self,
        database: Database,
        invoker: Invoker,
        committer: Committer,
        projects: ProjectLookup,
        send_webhook: SendWebhook,
        metrics: Metrics,
        *,
        topics: Topics,
        group: str,
        record_bytes: int,
        limits: ParkedLimits,
        worker: str,
    ) -> None:
        """`group` is the consumer group of delivery; `worker` goes into `claimed_by`, for a person."""
        self._database = database
        self._projects = projects
        self._metrics = metrics
        self._topic = topics.events
        self._group = group
        self._letters = DeadLetters(topics.dead_letters, record_bytes)
        self._caller = Caller(invoker, send_webhook)
        self._parking = Parking(ParkedStore(database, f"{worker}-{uuid.uuid4().hex[:12]}"), limits, metrics)
        self._receivers = Receivers(invoker)
        self._queues = _Queues()
        self._retrier = Retrier(self._parking, self._queues, projects, committer, self._letters, metrics)
        self._queues.services = QueueServices(
            self._caller, self._parking, committer, self._letters, metrics, self._retrier.recovered
        )
        self._processors: set[DeliveryProcessor] = set()

    async def open_lane(self, log: LaneLog) -> MakeProcessor:
        """For a partition that was acquired: shut out its previous owner, and read what that one has delivered.

        Raises DatabaseUnavailable.
        """
        fence = await draw_epoch(self._database, LaneKey(self._group, self._topic, log.partition))
        marks = DeliveredMarks(fence, log)
        await marks.load(self._database)
        decode = make_decode(self._projects, self._topic, log.partition, self._receivers.are_none)

        def make_processor(lane: FinishedEvents) -> DeliveryProcessor:
            processor = DeliveryProcessor(
                lane,
                decode,
                self._receivers,
                self._queues.of,
                marks,
                self._letters,
                self._metrics,
                place=f"{self._topic}-{log.partition}",
                on_close=self._processors.discard,
            )
            self._processors.add(processor)
            return processor

        return make_processor

    async def run(self) -> None:
        """Park, retry and look after what is late, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._parking.run(), name="parking")
            tasks.create_task(self._retrier.run(), name="retrier")
            tasks.create_task(self._tick_forever(), name="delivery-ticks")

    async def close(self) -> None:
        """End what is under way; after the lanes."""
        await self._receivers.close()
        await asyncio.gather(*(queue.close() for queue in self._queues.all()))

    def not_ready(self) -> str | None:
        """What is away that deliveries need, or None."""
        return self._caller.trouble or self._parking.trouble

    async def _tick_forever(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            for processor in tuple(self._processors):
                processor.tick()
            self._queues.tick()


class _Queues:
    """The queues that have something in them, or know something of their destination."""

    services: QueueServices

    def __init__(self) -> None:
        self._queues: dict[int, InstallQueue] = {}

    def of(self, install_id: int) -> InstallQueue:
        queue = self._queues.get(install_id)
        if queue is None:
            queue = self._queues[install_id] = InstallQueue(install_id, self.services)
        return queue

    def all(self) -> Iterable[InstallQueue]:
        return tuple(self._queues.values())

    def tick(self) -> None:
        for queue in self.all():
            queue.tick()
            if queue.is_idle:
                del self._queues[queue.install_id]

"""The deliveries of one install in one worker: many at a time, and none of them in the way of another install.

    offer ──> waiting ──a slot──> under way ──> delivered, failed, or parked
                 └── late, or its destination is dead ──> parked

A lane is through with an event once it was delivered or its row is in the database. So one that takes long is parked while
it is under way; its own success then removes the row. What waits is parked only if its destination is unwell, or if it
keeps others from reading on: an install that is merely behind, as after an outage of ours, slows its lane down instead,
or all of the backlog would pass through the database.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import structlog

from plugin_server.delivery.caller import Answer, Caller
from plugin_server.delivery.destination import HEALTHY, Destination, Health
from plugin_server.delivery.letters import DeadLetters
from plugin_server.delivery.parcel import EXPORT_EVENTS, Parcel
from plugin_server.delivery.parked_store import NextTry, RowEnd
from plugin_server.delivery.parking import Parking
from plugin_server.delivery.retry import FIRST_SECONDS, Again, Expired, Over, backoff_seconds, decide_retry
from plugin_server.delivery.shipment import Owner, Shipment
from plugin_server.eventlog.port import OutputRecord
from plugin_server.host_api.commit import Committer, Completion, Outcome
from plugin_server.host_api.storage_transaction import StorageTransaction
from plugin_server.metrics import Metrics
from plugin_server.model.errors import DatabaseUnavailable
from plugin_server.runtime.replies import HookFailure

SLOTS: Final = 200
"""Deliveries of one install under way at a time"""
RETRY_SLOTS: Final = 50
"""… of which so many may be ones that were parked"""
LATE_SECONDS: Final = 1.0
"""For one that waits"""
LONG_SECONDS: Final = 2.0
"""For one that is under way"""
LONG_BATCH_SECONDS: Final = 5.0
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class QueueServices:
    """What the queues of a worker share."""

    caller: Caller
    parking: Parking
    committer: Committer
    letters: DeadLetters
    metrics: Metrics
    on_recovery: Callable[[int], None]
    """An install's destination is back"""
    clock: Callable[[], float] = time.monotonic


class InstallQueue:
    """One install's. Its owner calls `tick` some ten times a second."""

    def __init__(self, install_id: int, services: QueueServices) -> None:
        self.install_id = install_id
        self.destination = HEALTHY
        self._services = services
        self._waiting: deque[Shipment] = deque()
        self._running: set[Shipment] = set()
        self._retries = 0
        """Of those, ones from the database"""
        self._last_end = 0.0
        """When a call ended last, or all slots came to be taken"""

    def offer(self, parcel: Parcel, owner: Owner) -> None:
        """Deliver it, some time; the owner is told when it is done."""
        now = self._services.clock()
        shipment = Shipment(parcel, owner, now)
        if self.destination.may_probe(now):
            self._start(shipment, now)
        elif self.destination.is_dead:
            self._set_aside(shipment, "its destination does not answer", FIRST_SECONDS)
        elif len(self._running) < SLOTS:
            self._start(shipment, now)
        else:
            self._waiting.append(shipment)

    def retry_room(self) -> int:
        """How many rows of the database may be tried now."""
        if self.destination.is_dead:
            return 1 if self.destination.may_probe(self._services.clock()) else 0
        if self.destination.health is Health.SUSPECT:
            return min(1, max(0, RETRY_SLOTS - self._retries))
        return max(0, min(RETRY_SLOTS - self._retries, SLOTS - len(self._running)))

    def retry(self, parcel: Parcel, row_bytes: int) -> None:
        """Try one that was parked and is claimed."""
        now = self._services.clock()
        self._start(Shipment(parcel, None, now, is_retry=True, row_bytes=row_bytes), now)

    def tick(self) -> None:
        """Look after those that are late."""
        now = self._services.clock()
        if len(self._running) >= SLOTS:
            self._judge(self.destination.stuck(now - self._last_end, now))
        for shipment in self._running:
            limit = LONG_BATCH_SECONDS if shipment.parcel.hook == EXPORT_EVENTS else LONG_SECONDS
            if shipment.owner is not None and not shipment.is_settling and now - shipment.since > limit:
                self._park_under_way(shipment)
        while self._waiting and self._is_late(self._waiting[0], now):
            shipment = self._waiting.popleft()
            self._set_aside(shipment, "its install was busy with others that take long", FIRST_SECONDS)

    def forget(self, owner: Owner) -> None:
        """That lane is over: what is not in the database by now is left to its next owner."""
        self._waiting = deque(shipment for shipment in self._waiting if shipment.owner is not owner)
        for shipment in self._running:
            if shipment.owner is owner:
                shipment.owner = None
                if not shipment.has_row and shipment.task is not None:
                    shipment.task.cancel()

    async def close(self) -> None:
        """End what is under way. Rows stay claimed for a moment, and are tried again then."""
        self._waiting.clear()
        tasks = [shipment.task for shipment in self._running if shipment.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def row_ids(self) -> list[str]:
        """Of rows that are being worked on, to keep their claims."""
        return [shipment.parcel.id for shipment in self._running if shipment.has_row]

    @property
    def is_idle(self) -> bool:
        return not (self._waiting or self._running) and self.destination is HEALTHY

    def _is_late(self, shipment: Shipment, now: float) -> bool:
        if shipment.owner is None or shipment.owner.closed or self.destination.is_dead:
            return True
        if now - shipment.since <= LATE_SECONDS:
            return False
        if self.destination.health is Health.SUSPECT:
            return True
        return shipment.owner.holds_up_others(self.install_id) and not self._services.parking.is_half_full(
            self.install_id
        )

    # Under way

    def _start(self, shipment: Shipment, now: float) -> None:
        if self.destination.is_dead:
            shipment.is_probe = True
            self._judge(self.destination.probing())
        shipment.since = now
        self._running.add(shipment)
        self._retries += shipment.is_retry
        if len(self._running) == SLOTS:
            self._last_end = now
        name = f"deliver-{self.install_id}"
        shipment.task = asyncio.get_running_loop().create_task(self._deliver(shipment), name=name)

    async def _deliver(self, shipment: Shipment) -> None:
        try:
            await self._attempt(shipment)
        except asyncio.CancelledError:
            if shipment.is_probe:
                self._judge(self.destination.probe_ended())
            raise
        except Exception:  # noqa: BLE001 - a fault of ours must not stop the install's other deliveries
            _log.exception("delivery_failed", install_id=self.install_id, hook=shipment.parcel.hook)
            await self._give_back(shipment)
        finally:
            self._running.discard(shipment)
            self._retries -= shipment.is_retry
            self._pump()

    def _pump(self) -> None:
        now = self._services.clock()
        while self._waiting and len(self._running) < SLOTS and not self.destination.is_dead:
            shipment = self._waiting.popleft()
            if shipment.owner is not None and not shipment.owner.closed:
                self._start(shipment, now)

    async def _attempt(self, shipment: Shipment) -> None:
        caller, parcel = self._services.caller, shipment.parcel
        answer = await caller.call(parcel)
        shipment.is_settling = True
        self._last_end = self._services.clock()
        if shipment.parked is not None:
            await asyncio.shield(shipment.parked)
        parcel.attempts += 1
        while answer.failure is None:
            self._succeeded(shipment)
            try:
                outcome = await self._keep(shipment, answer)
            except DatabaseUnavailable as error:
                await caller.wait(error)
                outcome = Outcome.STALE
            if outcome is not Outcome.STALE:
                return
            answer = await caller.call(parcel, answer.called)
        await self._failed(shipment, answer, answer.failure)

    # How it ended

    def _succeeded(self, shipment: Shipment) -> None:
        was_dead = self.destination.is_dead
        self._judge(self.destination.succeeded())
        shipment.is_probe = False
        if was_dead:
            _log.info("destination_recovered", install_id=self.install_id)
            self._services.on_recovery(self.install_id)

    async def _keep(self, shipment: Shipment, answer: Answer) -> Outcome:
        """Keep what the hook did, and be done. STALE: it has to be called again."""
        called, parcel, owner = answer.called, shipment.parcel, shipment.owner
        assert called is not None
        invoker = self._services.caller.invoker
        if shipment.has_row:
            completion: Completion = self._services.parking.store
            token: Any = RowEnd(parcel.id, None)
        elif owner is None:
            return Outcome.LOST
        elif not called.leaves_effects:
            self._count(shipment, "delivered")
            owner.done(parcel, invoker.log_records(parcel.project, called))
            return Outcome.STORED
        else:
            completion, token = owner.completion(parcel)
        [outcome] = await invoker.store([invoker.settle(called, parcel.parent, completion, token)])
        if outcome is Outcome.STORED:
            self._count(shipment, "delivered")
            if shipment.has_row:
                self._services.parking.removed(self.install_id, len(parcel.members), shipment.row_bytes or 0)
        if outcome is not Outcome.STALE and not shipment.has_row and owner is not None and not owner.is_lost:
            owner.done(parcel, ())
        return outcome

    async def _failed(self, shipment: Shipment, answer: Answer, failure: HookFailure) -> None:
        parcel, parking = shipment.parcel, self._services.parking
        parcel.error = failure.message
        age = time.time() - parcel.created_ms / 1_000
        spread = random.random()  # noqa: S311
        decision = decide_retry(failure, parcel.attempts, age, keep_seconds=parking.limits.keep_seconds, spread=spread)
        logs = self._logs(shipment, answer)
        self._services.metrics.app_failures.labels(self.install_id, failure.kind).inc()
        match decision:
            case Over():
                if shipment.is_probe:
                    self._judge(self.destination.probe_ended())
                self._count(shipment, "failed")
                await self._end(shipment, logs)
            case Expired():
                self._note_failure(shipment)
                self._count(shipment, "dead_letter")
                hours = parking.limits.keep_seconds / 3_600
                why = f"not delivered within {hours:g} h (PARKED_HOURS): {failure.message}"
                await self._end(shipment, [*logs, *self._services.letters.of(parcel, why)])
            case Again(seconds):
                self._note_failure(shipment)
                if shipment.has_row:
                    self._count(shipment, "parked")
                    await self._try_again(shipment, seconds, logs)
                else:
                    self._set_aside(shipment, failure.message, seconds, logs)

    def _note_failure(self, shipment: Shipment) -> None:
        before = self.destination
        self._judge(before.failed(self._services.clock(), was_probe=shipment.is_probe))
        if self.destination.is_dead and not before.is_dead:
            _log.warning(
                "destination_dead",
                install_id=self.install_id,
                project_id=shipment.parcel.project.id,
                failures=before.failures + 1,
            )

    def _judge(self, destination: Destination) -> None:
        if destination.is_dead is not self.destination.is_dead:
            self._services.metrics.destinations_dead.labels(self.install_id).set(int(destination.is_dead))
        self.destination = destination

    def _logs(self, shipment: Shipment, answer: Answer) -> list[OutputRecord]:
        if answer.called is None:
            return []
        return self._services.caller.invoker.log_records(shipment.parcel.project, answer.called)

    async def _end(self, shipment: Shipment, records: Sequence[OutputRecord]) -> None:
        """It is over, without having arrived."""
        parcel = shipment.parcel
        if shipment.has_row:
            await self._commit_row(RowEnd(parcel.id, None), records)
            self._services.parking.removed(self.install_id, len(parcel.members), shipment.row_bytes or 0)
        elif shipment.owner is not None:
            shipment.owner.done(parcel, records)

    async def _try_again(self, shipment: Shipment, seconds: float, records: Sequence[OutputRecord]) -> None:
        parcel = shipment.parcel
        next_try_ms = int((time.time() + seconds) * 1_000)
        await self._commit_row(RowEnd(parcel.id, NextTry(parcel.attempts, next_try_ms, parcel.error)), records)
        self._services.parking.next_try(self.install_id, next_try_ms)

    async def _commit_row(self, end: RowEnd, records: Sequence[OutputRecord]) -> None:
        """What becomes of the row, with the records, in one transaction."""
        committer = self._services.committer
        while True:
            commitment = committer.add(
                StorageTransaction(),
                outbox=records,
                completion=self._services.parking.store,
                token=end,
                always=True,
            )
            assert commitment is not None
            try:
                await committer.store([commitment])
            except DatabaseUnavailable as error:
                await self._services.caller.wait(error)
            else:
                return

    async def _give_back(self, shipment: Shipment) -> None:
        """A fault of ours: it is tried again, later."""
        parcel = shipment.parcel
        parcel.error = "the server failed to deliver it; its operator has been told"
        seconds = backoff_seconds(parcel.attempts + 1, random.random())  # noqa: S311
        if shipment.is_probe:
            self._judge(self.destination.probe_ended())
        if shipment.has_row:
            await self._try_again(shipment, seconds, ())
        else:
            self._set_aside(shipment, parcel.error, seconds)

    # Parking

    def _set_aside(self, shipment: Shipment, why: str, seconds: float, logs: Sequence[OutputRecord] = ()) -> None:
        """Park one that is not under way; its lane waits for the row. Past a bound it is a dead letter."""
        parcel, owner = shipment.parcel, shipment.owner
        if owner is None or owner.closed:
            return
        body = parcel.body()
        full = self._services.parking.why_full(parcel, len(body))
        if full is not None:
            self._count(shipment, "dead_letter")
            owner.done(parcel, [*logs, *self._services.letters.of(parcel, f"{full}: {why}")])
            return
        self._count(shipment, "parked")
        parked = self._services.parking.park(parcel, body, error=why, delay_seconds=seconds)
        parked.add_done_callback(lambda _parked: owner.done(parcel, logs))

    def _park_under_way(self, shipment: Shipment) -> None:
        """Its lane goes on without it; its call goes on as well. Not past a bound: then the lane waits for it."""
        parcel, owner = shipment.parcel, shipment.owner
        assert owner is not None
        if self._services.parking.why_full(parcel, parcel.size) is not None:
            return
        body = parcel.body()
        shipment.row_bytes, shipment.owner = len(body), None
        why = "its call takes long and is still under way"
        parked = self._services.parking.park(parcel, body, error=why, delay_seconds=0.0, is_claimed=True)
        parked.add_done_callback(lambda _parked: owner.done(parcel, ()))
        shipment.parked = parked

    def _count(self, shipment: Shipment, outcome: str) -> None:
        events = len(shipment.parcel.members)
        if shipment.is_retry:
            self._services.metrics.delivery_retries.labels(self.install_id, outcome).inc(events)
        else:
            self._services.metrics.deliveries.labels(self.install_id, shipment.parcel.hook, outcome).inc(events)

"""Parks deliveries: many in one statement, and for each install no more than its bounds. What is past one is refused."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import structlog

from plugin_server.delivery.parcel import Parcel
from plugin_server.delivery.parked_store import Held, NewRow, ParkedStore
from plugin_server.metrics import Metrics
from plugin_server.model.errors import DatabaseUnavailable

_GATHER_SECONDS: Final = 0.02
"""Deliveries that come within it share a statement; those that come while one runs share the next"""
_BATCH_ROWS: Final = 2_000
_BATCH_BYTES: Final = 32 * 2**20
_COUNT_SECONDS: Final = 5.0
"""Between looks at what is parked, by whomever"""
_COUNT_SHARE: Final = 20
"""A look takes at most one part in so many of the time"""
_BACKOFF_SECONDS: Final = 1.0
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ParkedLimits:
    """Of each install, among all workers."""

    events: int
    bytes: int
    keep_seconds: float


class Parking:
    """One a worker. `run` is its life."""

    def __init__(self, store: ParkedStore, limits: ParkedLimits, metrics: Metrics) -> None:
        self.store = store
        self.limits = limits
        self._metrics = metrics
        self._pending: list[tuple[NewRow, asyncio.Future[None]]] = []
        self._wanted = asyncio.Event()
        self._held: dict[int, Held] = {}
        """As last counted, and what this worker has parked since"""
        self.trouble: str | None = None

    def why_full(self, parcel: Parcel, size: int) -> str | None:
        """The bound that this delivery would go past, if it does."""
        held = self._held.get(parcel.install.id)
        if held is None:
            return None
        if held.events + len(parcel.members) > self.limits.events:
            return f"{held.events} events are parked for it (PARKED_EVENTS {self.limits.events})"
        if held.bytes + size > self.limits.bytes:
            return f"{held.bytes} bytes are parked for it (PARKED_BYTES {self.limits.bytes})"
        return None

    def is_half_full(self, install_id: int) -> bool:
        """Has more than half of what may be parked for an install been parked?"""
        held = self._held.get(install_id)
        return held is not None and (2 * held.events > self.limits.events or 2 * held.bytes > self.limits.bytes)

    def park(
        self, parcel: Parcel, body: bytes, *, error: str, delay_seconds: float, is_claimed: bool = False
    ) -> asyncio.Future[None]:
        """Set a delivery aside, to be tried in so long; done when it is in the database, however long that is away."""
        next_try_ms = int(time.time() * 1_000 + delay_seconds * 1_000)
        row = NewRow(
            id=parcel.id,
            project_id=parcel.project.id,
            install_id=parcel.install.id,
            hook=parcel.hook,
            source=parcel.source,
            body=body,
            events=len(parcel.members),
            attempts=parcel.attempts,
            next_try_at_ms=next_try_ms,
            error=error,
            created_at_ms=parcel.created_ms,
            is_claimed=is_claimed,
        )
        parked: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pending.append((row, parked))
        self._add(row)
        self._wanted.set()
        return parked

    def due(self, now_ms: int) -> list[tuple[int, int]]:
        """Installs that have something that is due, with their projects."""
        return [(held.project_id, install) for install, held in self._held.items() if held.next_try_at_ms <= now_ms]

    def next_try(self, install_id: int, at_ms: int) -> None:
        """Something of an install is due then, or sooner."""
        held = self._held.get(install_id)
        if held is not None and at_ms < held.next_try_at_ms:
            self._held[install_id] = held._replace(next_try_at_ms=at_ms)

    def nothing_due(self, install_id: int, before_ms: int) -> None:
        """Nothing of an install is due before then, for all that is known."""
        held = self._held.get(install_id)
        if held is not None:
            self._held[install_id] = held._replace(next_try_at_ms=before_ms)

    def removed(self, install_id: int, events: int, size: int) -> None:
        """A row of an install is gone."""
        held = self._held.get(install_id)
        if held is not None:
            rows = max(0, held.rows - 1)
            self._held[install_id] = held._replace(
                rows=rows, events=max(0, held.events - events), bytes=max(0, held.bytes - size)
            )

    async def run(self) -> None:
        """Park and count until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._count_forever(), name="parked-count")
            tasks.create_task(self._insert_forever(), name="parking")

    async def _insert_forever(self) -> None:
        while True:
            await self._wanted.wait()
            await asyncio.sleep(_GATHER_SECONDS)
            self._wanted.clear()
            while self._pending:
                await self._insert_some()

    async def _insert_some(self) -> None:
        batch, size = 0, 0
        for row, _ in self._pending:
            size += len(row.body)
            if batch and (batch >= _BATCH_ROWS or size > _BATCH_BYTES):
                break
            batch += 1
        members = self._pending[:batch]
        try:
            await self.store.insert([row for row, _ in members])
        except DatabaseUnavailable as error:
            self.trouble = str(error)
            _log.warning("parking_waits", error=str(error), deliveries=len(self._pending))
            await asyncio.sleep(_BACKOFF_SECONDS)
            return
        self.trouble = None
        del self._pending[:batch]
        for _, parked in members:
            if not parked.done():
                parked.set_result(None)

    async def _count_forever(self) -> None:
        while True:
            started = time.monotonic()
            try:
                counted = await self.store.held()
            except DatabaseUnavailable as error:
                _log.warning("parked_not_counted", error=str(error), retry_seconds=_COUNT_SECONDS)
            else:
                self._counted(counted)
            await asyncio.sleep(max(_COUNT_SECONDS, _COUNT_SHARE * (time.monotonic() - started)))

    def _counted(self, counted: Mapping[int, Held]) -> None:
        for install in self._held.keys() - counted.keys():
            self._metrics.parked.labels(install).set(0)
        self._held = dict(counted)
        for row, _ in self._pending:
            self._add(row)
        for install, held in self._held.items():
            self._metrics.parked.labels(install).set(held.events)

    def _add(self, row: NewRow) -> None:
        held = self._held.get(row.install_id) or Held(row.project_id, 0, 0, 0, row.next_try_at_ms)
        self._held[row.install_id] = Held(
            held.project_id,
            held.rows + 1,
            held.events + row.events,
            held.bytes + len(row.body),
            min(held.next_try_at_ms, row.next_try_at_ms),
        )

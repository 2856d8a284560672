"""Tries parked deliveries again, for each install as many at a time as its destination's health allows."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, Protocol

import structlog

from plugin_server.delivery.event import ProjectLookup
from plugin_server.delivery.letters import DeadLetters
from plugin_server.delivery.parcel import Parcel, read_body
from plugin_server.delivery.parked_store import LEASE_SECONDS, ParkedRow, RowEnd
from plugin_server.delivery.parking import Parking
from plugin_server.delivery.queue import InstallQueue
from plugin_server.eventlog.port import OutputRecord
from plugin_server.host_api.commit import Committer
from plugin_server.host_api.storage_transaction import StorageTransaction
from plugin_server.metrics import Metrics
from plugin_server.model.errors import DatabaseUnavailable
from plugin_server.model.project import Install, Project

_LOOK_SECONDS: Final = 0.5
_BUSY_SECONDS: Final = 0.05
_HOMELESS_ROWS: Final = 100
"""Of an install that is not here, given up at a time"""
_BACKOFF_SECONDS: Final = 1.0
_UNKNOWN_MS: Final = 60_000
"""Beyond the next count of all that is parked"""
_log = structlog.get_logger(__name__)


class Queues(Protocol):
    """The install queues of this worker."""

    def of(self, install_id: int) -> InstallQueue: ...

    def all(self) -> Iterable[InstallQueue]: ...


class Retrier:
    """One a worker. `run` is its life."""

    def __init__(
        self,
        parking: Parking,
        queues: Queues,
        projects: ProjectLookup,
        committer: Committer,
        letters: DeadLetters,
        metrics: Metrics,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._parking = parking
        self._queues = queues
        self._projects = projects
        self._committer = committer
        self._letters = letters
        self._metrics = metrics
        self._clock = clock
        self._woken = asyncio.Event()
        self._recovered: set[int] = set()

    def recovered(self, install_id: int) -> None:
        """An install's destination is back: what waits for it is due."""
        self._recovered.add(install_id)
        self._woken.set()

    async def run(self) -> None:
        """Try again what is due, and keep the claims on what is under way, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._retry_forever(), name="retrier")
            tasks.create_task(self._renew_forever(), name="parked-claims")

    async def _retry_forever(self) -> None:
        while True:
            try:
                found = await self._retry_some()
            except DatabaseUnavailable as error:
                _log.warning("retrier_waits", error=str(error), retry_seconds=_BACKOFF_SECONDS)
                await asyncio.sleep(_BACKOFF_SECONDS)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_BUSY_SECONDS if found else _LOOK_SECONDS):
                    await self._woken.wait()
            self._woken.clear()

    async def _renew_forever(self) -> None:
        while True:
            await asyncio.sleep(LEASE_SECONDS / 3)
            ids = [row for queue in self._queues.all() for row in queue.row_ids]
            if ids:
                try:
                    await self._parking.store.renew(ids)
                except DatabaseUnavailable as error:
                    _log.warning("claims_not_renewed", error=str(error), deliveries=len(ids))

    async def _retry_some(self) -> bool:
        """A round over all installs; whether anything was due."""
        while self._recovered:
            install_id = self._recovered.pop()
            try:
                await self._parking.store.make_due(install_id)
            except DatabaseUnavailable:
                self._recovered.add(install_id)
                raise
            self._parking.next_try(install_id, 0)
        found = False
        for project_id, install_id in self._parking.due(int(self._clock() * 1_000)):
            project = self._projects.by_id(project_id)
            installs: Mapping[int, Install] = (
                {install.id: install for install in project.installs} if project is not None else {}
            )
            if project is None or install_id not in installs:
                found |= await self._give_up(install_id)
            else:
                found |= await self._retry_install(project, installs[install_id])
        return found

    async def _retry_install(self, project: Project, install: Install) -> bool:
        queue = self._queues.of(install.id)
        room = queue.retry_room()
        if not room:
            return False
        rows = await self._claim(install.id, room)
        for row in rows:
            members = read_body(row.body, self._projects)
            if members is None or any(member.event.project.id != project.id for member in members):
                await self._bury([row], "what was parked cannot be read")
                continue
            parcel = Parcel(project, install, row.hook, members, row.created_at_ms, row.attempts)
            parcel.adopt(row.id, row.source)
            queue.retry(parcel, len(row.body))
        return bool(rows)

    async def _claim(self, install_id: int, limit: int) -> list[ParkedRow]:
        rows = await self._parking.store.claim(install_id, limit)
        if len(rows) < limit:
            # The next look at all that is parked says when there is more, unless something is parked sooner.
            self._parking.nothing_due(install_id, int(self._clock() * 1_000 + _UNKNOWN_MS))
        return rows

    async def _give_up(self, install_id: int) -> bool:
        """The install is not here any more."""
        rows = await self._claim(install_id, _HOMELESS_ROWS)
        if rows:
            await self._bury(rows, "the install is gone")
        return bool(rows)

    async def _bury(self, rows: Sequence[ParkedRow], why: str) -> None:
        commitments = []
        for row in rows:
            records: list[OutputRecord] = self._letters.of_row(row, why)
            commitment = self._committer.add(
                StorageTransaction(),
                outbox=records,
                completion=self._parking.store,
                token=RowEnd(row.id, None),
                always=True,
            )
            assert commitment is not None
            commitments.append(commitment)
            self._metrics.delivery_retries.labels(row.install_id, "dead_letter").inc(row.events)
        await self._committer.store(commitments)
        for row in rows:
            self._parking.removed(row.install_id, row.events, len(row.body))

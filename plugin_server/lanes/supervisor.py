"""Keeps one running lane for each partition that the group assigns to this worker.

Rebalance callbacks run without heartbeats and swallow exceptions, so they only post here: lanes are acquired, resumed
and discarded outside of them. A lane that fails is acquired again after a backoff, for as long as it is ours.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from plugin_server.eventlog.port import EventLog, LaneLog
from plugin_server.lanes.lane import Lane
from plugin_server.metrics import Metrics
from plugin_server.model.errors import LaneFenced, Transient

SUSPEND_SECONDS: Final = 3.0
STALLED_SECONDS: Final = 120.0
"""Longer than an event can take by its limits, unless a chain of several apps waits"""
_FIRST_BACKOFF_SECONDS: Final = 0.2
_LAST_BACKOFF_SECONDS: Final = 10.0
_HEALTHY_SECONDS: Final = 30.0
_log = structlog.get_logger(__name__)

MakeLane = Callable[[LaneLog], Awaitable[Lane]]
"""Raises Transient when what the lane needs is away."""


class LaneSupervisor:
    """The AssignmentListener of one role. `run` does the work that the callbacks post."""

    def __init__(self, event_log: EventLog, make_lane: MakeLane, metrics: Metrics, role: str) -> None:
        self._event_log = event_log
        self._make_lane = make_lane
        self._metrics = metrics
        self._role = role
        self._assigned: frozenset[int] = frozenset()
        self._posted = asyncio.Event()
        self._keepers: dict[int, _LaneKeeper] = {}
        self._joined = False

    def on_assigned(self, partitions: frozenset[int]) -> None:
        """Post a new assignment (AssignmentListener)."""
        self._assigned = partitions
        self._joined = True
        self._posted.set()

    async def on_revoked(self, partitions: frozenset[int]) -> None:
        """Suspend the lanes of these partitions, at most for 3 s (AssignmentListener)."""
        keepers = [self._keepers[partition] for partition in partitions if partition in self._keepers]
        await asyncio.gather(*(keeper.suspend() for keeper in keepers))

    async def run(self) -> None:
        """Follow the assignment until cancelled; then every lane is given up."""
        try:
            while True:
                await self._posted.wait()
                self._posted.clear()
                await self._follow(self._assigned)
        finally:
            await asyncio.gather(*(keeper.stop() for keeper in self._keepers.values()))

    async def drain(self) -> None:
        """Take nothing more; returns when all that was taken is committed. Bound it in time."""
        await asyncio.gather(*(keeper.drain() for keeper in self._keepers.values()))

    def not_ready(self) -> str | None:
        """Why the worker cannot process its partitions now, or None."""
        if not self._joined:
            return "waiting for the consumer group to assign partitions"
        waiting = [
            f"{keeper.partition}: {trouble}" for keeper in self._keepers.values() if (trouble := keeper.not_running())
        ]
        return f"lanes that cannot run: {'; '.join(sorted(waiting))}" if waiting else None

    async def _follow(self, assigned: frozenset[int]) -> None:
        gone = [self._keepers.pop(partition) for partition in list(self._keepers) if partition not in assigned]
        await asyncio.gather(*(keeper.stop() for keeper in gone))
        for partition in assigned:
            keeper = self._keepers.get(partition)
            if keeper is None:
                self._keepers[partition] = _LaneKeeper(
                    partition, self._event_log, self._make_lane, self._metrics, self._role
                )
            else:
                keeper.resume()
        given_up = sorted(keeper.partition for keeper in gone)
        _log.info("lanes_assigned", role=self._role, partitions=sorted(assigned), given_up=given_up)


class _LaneKeeper:
    """One partition: acquires its lane, runs it, and begins again when it fails."""

    def __init__(self, partition: int, event_log: EventLog, make_lane: MakeLane, metrics: Metrics, role: str) -> None:
        self.partition = partition
        self.trouble: str | None = "being acquired"
        self._event_log = event_log
        self._make_lane = make_lane
        self._metrics = metrics
        self._role = role
        self._lane: Lane | None = None
        self._resuming: asyncio.Task[None] | None = None
        self._life = 0
        """Counts up when the lane is given up: what runs for an older one must end"""
        self._task = asyncio.get_running_loop().create_task(self._keep(self._life), name=f"lane-{partition}")

    def not_running(self) -> str | None:
        """Why its events do not move, or None."""
        if self.trouble is not None:
            return self.trouble
        stalled = self._lane.stalled_seconds if self._lane is not None else 0.0
        return f"no event was finished for {stalled:.0f} s" if stalled > STALLED_SECONDS else None

    async def stop(self) -> None:
        """Give the lane up. Events in flight are left to the next owner."""
        self._life += 1
        tasks = [self._task, *([self._resuming] if self._resuming else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def suspend(self) -> None:
        lane = self._lane
        if lane is None:
            return
        try:
            async with asyncio.timeout(SUSPEND_SECONDS - 0.2):
                await lane.suspend()
        except TimeoutError:
            self._restart("its flush did not end in time for a rebalance")

    def resume(self) -> None:
        """The partition is ours again."""
        lane = self._lane
        if lane is not None:
            self._resuming = asyncio.get_running_loop().create_task(self._resume(lane))

    async def drain(self) -> None:
        lane = self._lane
        if lane is not None:
            await lane.drain()

    async def _resume(self, lane: Lane) -> None:
        try:
            if await lane.resume():
                return
            reason = "another worker had the partition meanwhile"
        except Exception as error:  # noqa: BLE001 - whatever it is, a lane must not stay suspended
            reason = f"{type(error).__name__}: {error}"
        if self._lane is lane:
            self._restart(reason)

    def _restart(self, reason: str) -> None:
        _log.info("lane_given_up", partition=self.partition, reason=reason)
        self._life += 1
        self._task.cancel()
        self._task = asyncio.get_running_loop().create_task(
            self._keep(self._life, self._task), name=f"lane-{self.partition}"
        )

    async def _keep(self, life: int, previous: asyncio.Task[None] | None = None) -> None:
        if previous is not None:
            await asyncio.gather(previous, return_exceptions=True)
        backoff = _FIRST_BACKOFF_SECONDS
        while True:
            started = time.monotonic()
            try:
                await self._live()
            except* LaneFenced:
                self._note(LaneFenced(), backoff)
            except* Transient as errors:
                self._note(errors.exceptions[0], backoff)
            except* Exception as errors:  # noqa: BLE001 - the lane's boundary: logged, counted, begun again
                _log.exception("lane_failed", partition=self.partition, exc_info=errors)
                self._note(errors.exceptions[0], backoff)
            if life != self._life:
                return  # given up meanwhile: the lane's own error and its cleaning up may have swallowed the cancellation
            if time.monotonic() - started > _HEALTHY_SECONDS:
                backoff = _FIRST_BACKOFF_SECONDS
            await asyncio.sleep(backoff)
            backoff = min(backoff * 2, _LAST_BACKOFF_SECONDS)

    def _note(self, error: BaseException, backoff: float) -> None:
        self.trouble = f"{type(error).__name__}: {error}"
        self._metrics.lane_restarts.labels(self._role).inc()
        _log.warning(
            "lane_restarts", role=self._role, partition=self.partition, error=self.trouble, retry_seconds=backoff
        )

    async def _live(self) -> None:
        log = await self._event_log.open_lane(self.partition)
        try:
            lane = await self._make_lane(log)
            self._lane = lane
            self.trouble = None
            with self._metrics.lanes_running.labels(self._role).track_inprogress():
                await lane.run()
        finally:
            self._lane = None
            with contextlib.suppress(asyncio.CancelledError):
                await log.close()

"""Runs that read a contended key: one after the other, earlier ones first."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from typing import Final

from plugin_server.host_api.storage_transaction import StorageTransaction

WAIT_SECONDS: Final = 1.0
"""For the one whose turn it is; then the next goes on all the same. Doubled each time that the former was stale before"""
WAIT_DOUBLINGS: Final = 5


class Line:
    """Of one key. A run has its turn until it finishes.

    A run only ever waits for earlier ones, so no two wait for each other. When a run finishes, one of those that wait is
    woken, not all.
    """

    def __init__(self) -> None:
        self._holder: StorageTransaction | None = None
        self._has_leader = False
        """Somebody waits for the holder; the rest for somebody to go on"""
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._arrivals = itertools.count()

    async def join(self, run: StorageTransaction) -> bool:
        """Returns when the run may read; whether it had to wait."""
        if self._may_go_on(run):
            return False
        if self._has_leader:
            leads: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            heapq.heappush(self._waiting, (run.order, next(self._arrivals), leads))
            try:
                await leads
            except asyncio.CancelledError:
                if leads.done() and not leads.cancelled():
                    self._lead_next()
                raise
        self._has_leader = True
        try:
            while not self._may_go_on(run):
                await self._wait_for_holder()
        finally:
            self._lead_next()
        return True

    def _may_go_on(self, run: StorageTransaction) -> bool:
        holder = self._holder
        if holder is None or holder.finished.is_set():
            self._holder = run
            return True
        return holder is run or holder.order > run.order

    async def _wait_for_holder(self) -> None:
        holder = self._holder
        assert holder is not None
        try:
            async with asyncio.timeout(WAIT_SECONDS * 2 ** min(holder.tries, WAIT_DOUBLINGS)):
                await holder.finished.wait()
        except TimeoutError:
            # It is slow, or nobody will ever finish it: its lane was lost. The others do not wait for it as well.
            holder.finished.set()

    def _lead_next(self) -> None:
        while self._waiting:
            _, _, leads = heapq.heappop(self._waiting)
            if not leads.done():
                leads.set_result(None)
                return
        self._has_leader = False

"""Which records of a lane are finished, in any order, and what of it can be committed.

Offsets have gaps (transaction markers, compaction), so the records that were taken are remembered, not counted.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable

from plugin_server.eventlog.port import Position, Runs


class PositionTracker:
    """Taken, finished and committed offsets of one lane. One user, no I/O.

    A record is taken once, finished once, and leaves with the flush that commits it. `max_runs` bounds the finished
    ranges beyond `next`, so that the position fits the metadata of a committed offset. With `may_repeat` no record waits
    for that: the ranges that do not fit are left out, and finished again after a crash.
    """

    def __init__(self, committed: Position, max_runs: int, *, may_repeat: bool = False) -> None:
        self._next = committed.next
        self._max_runs = max_runs
        self._may_repeat = may_repeat
        self._unfinished: deque[int] = deque()
        self._committed_done = committed.done
        self._finished: set[int] = set()
        self._last_taken = committed.next - 1

    def take(self, offset: int) -> bool:
        """Note that a record was read. False if it is finished already (committed before a restart): skip it."""
        self._last_taken = offset
        self._unfinished.append(offset)
        if self._in_committed(offset):
            self._finished.add(offset)
            return False
        return True

    def propose(self, offsets: Iterable[int]) -> tuple[Position, list[int]]:
        """The position if these were finished now, and those of them that must wait for an earlier record.

        `offsets` are taken and not finished before. Some wait only when the position would have more than `max_runs`
        ranges; the lowest go first, since they are what shortens it.
        """
        proposed = sorted(offsets)
        self._finished.update(proposed)
        self._advance()
        if self._may_repeat:
            return Position(self._next, self._runs()[: self._max_runs]), []
        waiting: list[int] = []
        while len(runs := self._runs()) > self._max_runs:
            beyond = [offset for offset in proposed if offset in self._finished]
            if not beyond:
                break
            held = beyond[len(beyond) // 2 :]
            self._finished.difference_update(held)
            waiting.extend(held)
        return Position(self._next, runs), sorted(waiting)

    @property
    def unfinished(self) -> int:
        """Records taken and not part of a proposed position below `next`."""
        return len(self._unfinished)

    def _in_committed(self, offset: int) -> bool:
        runs = self._committed_done
        place = bisect_right(runs, (offset, 1 << 63)) - 1
        return place >= 0 and runs[place][0] <= offset < runs[place][1]

    def _advance(self) -> None:
        unfinished, finished = self._unfinished, self._finished
        while unfinished and unfinished[0] in finished:
            offset = unfinished.popleft()
            finished.discard(offset)
            self._next = offset + 1
        if not unfinished:
            self._next = max(self._next, self._last_taken + 1)

    def _runs(self) -> Runs:
        """Finished records beyond `next` as ranges; a gap between two of them that holds no record belongs to the range."""
        if not self._finished:
            return self._rest_of_committed(())
        runs: list[tuple[int, int]] = []
        start: int | None = None
        end = 0
        for offset in self._unfinished:
            if offset in self._finished:
                if start is None:
                    start = offset
                end = offset + 1
            elif start is not None:
                runs.append((start, end))
                start = None
        if start is not None:
            runs.append((start, end))
        return self._rest_of_committed(tuple(runs))

    def _rest_of_committed(self, runs: Runs) -> Runs:
        """Committed ranges beyond what has been read since the restart still count."""
        unread = self._last_taken + 1
        rest = tuple((max(start, unread), stop) for start, stop in self._committed_done if stop > unread)
        if runs and rest and runs[-1][1] == rest[0][0]:
            return (*runs[:-1], (runs[-1][0], rest[0][1]), *rest[1:])
        return (*runs, *rest)

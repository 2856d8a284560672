"""Which installs cost too many sandboxes to share one: decisions only."""

from __future__ import annotations

from collections import deque
from typing import Final

STRIKES: Final = 3
WINDOW_SECONDS: Final = 600.0


class Strikes:
    """Counts the sandboxes that each install cost."""

    def __init__(self) -> None:
        self._times: dict[tuple[int, int], deque[float]] = {}

    def add(self, project_id: int, install_id: int, now: float) -> bool:
        """A sandbox ended at `now` (seconds) over that install of that project.

        True when that makes three within ten minutes, which is when it has to be moved.
        """
        times = self._times.setdefault((project_id, install_id), deque(maxlen=STRIKES))
        times.append(now)
        return len(times) == STRIKES and now - times[0] <= WINDOW_SECONDS

"""When a sandbox has to be killed: decisions only, made from what is seen at each tick.

Time is counted in ticks that the host itself lived through, so that nothing ages while the host was stopped, and the
CPU limit is in the child's own CPU time, so that a busy machine blames nobody.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from plugin_server.model.project import Limits
from plugin_server.runtime.process import Running

TICK_SECONDS: Final = 0.02
"""How long a sandbox is left unwatched at most"""
_LEAST_TICK_SECONDS: Final = 0.002
CPU_GRACE_SECONDS: Final = 0.035
"""After `cpu_seconds` the child's own timer has this long to end the hook. It is counted from one tick (20 ms) before the
hook was first seen, and the child's timer ticks every 10 ms: 30 together, and 5 to spare. Here a hook that waited for the host
begins anew; over its waits the child's timer counts."""
WALL_GRACE_SECONDS: Final = 1.0
"""A hook that is told to end while it waits for the host has this long, other events of its sandbox being in the way"""
SILENCE_SECONDS: Final = 20.0
"""A child that neither runs an app nor answers for so long is stuck."""


@dataclass(frozen=True, slots=True)
class Kill:
    """Why, and whether what the page names is to blame."""

    message: str
    blame: bool


class Watch:
    """Follows one sandbox from tick to tick."""

    def __init__(self) -> None:
        self._seen: tuple[bool, int] | None = None
        self._stalled_seconds = 0.0
        self._cpu_start = 0.0
        self.next_seconds = TICK_SECONDS
        """When it has to be looked at again"""

    def rest(self) -> None:
        """It has nothing to do."""
        self._seen = None
        self.next_seconds = TICK_SECONDS

    def tick(self, running: Running, cpu_seconds: float, elapsed_seconds: float, limits: Limits) -> Kill | None:
        """Decide over a sandbox that has work; `limits` are those of the app that runs."""
        now_seen = (running.in_app, running.invocations)
        self.next_seconds = TICK_SECONDS
        if now_seen != self._seen:
            self._seen = now_seen
            self._stalled_seconds = 0.0
            self._cpu_start = cpu_seconds - min(elapsed_seconds, TICK_SECONDS)
            return None
        self._stalled_seconds += elapsed_seconds
        if not running.in_app:
            if self._stalled_seconds > SILENCE_SECONDS:
                return Kill(f"it did not answer for {SILENCE_SECONDS:g} s", blame=False)
            return None
        left_seconds = self._cpu_start + limits.cpu_seconds + CPU_GRACE_SECONDS - cpu_seconds
        self.next_seconds = min(TICK_SECONDS, max(_LEAST_TICK_SECONDS, left_seconds))
        if left_seconds < 0:
            return Kill(f"used more than {limits.cpu_seconds:g} s of CPU time (cpu_seconds)", blame=True)
        if self._stalled_seconds > limits.hook_seconds + WALL_GRACE_SECONDS:
            return Kill(f"ran longer than {limits.hook_seconds:g} s (hook_seconds)", blame=True)
        return None

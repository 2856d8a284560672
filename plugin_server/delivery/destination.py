"""How an install's deliveries fare in this worker, hence what becomes of its next one. A pure state machine.

    healthy ──a failure, or all slots taken and nothing comes back──> suspect ──more of it──> dead
       ^────────────────────────a success────────────────────────────────┘                     │
       ^────────────────────────a success, at the latest of a probe────────────────────────────┘

A dead destination costs its install's events a row in the database each and nobody anything else: nothing waits for it,
but for one probe at a time. Failures count only if another try may help: an app that raises is none of its destination's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from plugin_server.delivery.retry import FIRST_SECONDS

FAILURES: Final = 5
"""In a row, after which it counts as dead"""
STUCK_SECONDS: Final = 1.0
"""Without any answer while all slots are taken: suspect"""
DEAD_SECONDS: Final = 2.0
"""… and dead"""
LAST_PROBE_SECONDS: Final = 60.0
"""Between probes at most: whatever waits for it waits no longer than this once it is back"""
_DOUBLINGS: Final = 8


class Health(StrEnum):
    HEALTHY = "healthy"
    SUSPECT = "suspect"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class Destination:
    """Times are seconds on any clock that only goes forward."""

    health: Health = Health.HEALTHY
    failures: int = 0
    """In a row"""
    probes: int = 0
    """That failed since it is dead"""
    probe_at: float = 0.0
    is_probing: bool = False

    @property
    def is_dead(self) -> bool:
        return self.health is Health.DEAD

    def may_probe(self, now: float) -> bool:
        """It is dead, and one delivery may find out whether it still is."""
        return self.is_dead and not self.is_probing and now >= self.probe_at

    def probing(self) -> Destination:
        """A probe has begun."""
        return replace(self, is_probing=True)

    def succeeded(self) -> Destination:
        """A delivery arrived."""
        return HEALTHY

    def failed(self, now: float, *, was_probe: bool = False) -> Destination:
        """A delivery failed in a way that may pass."""
        if self.is_dead:
            # Those that were under way when it died say nothing new.
            return self._after_probe(now) if was_probe else self
        failures = self.failures + 1
        if failures >= FAILURES:
            return self._dead(now, failures)
        return replace(self, health=Health.SUSPECT, failures=failures)

    def probe_ended(self) -> Destination:
        """A probe came to nothing that says anything, such as an error of the app."""
        return replace(self, is_probing=False)

    def stuck(self, seconds: float, now: float) -> Destination:
        """All slots have been taken for so long, and nothing has come back."""
        if self.is_dead or seconds < STUCK_SECONDS:
            return self
        if seconds >= DEAD_SECONDS:
            return self._dead(now, self.failures)
        return self if self.health is Health.SUSPECT else replace(self, health=Health.SUSPECT)

    def _dead(self, now: float, failures: int) -> Destination:
        return Destination(Health.DEAD, failures, 0, now + FIRST_SECONDS)

    def _after_probe(self, now: float) -> Destination:
        probes = self.probes + 1
        pause = min(FIRST_SECONDS * 2.0 ** min(probes, _DOUBLINGS), LAST_PROBE_SECONDS)
        return Destination(Health.DEAD, self.failures, probes, now + pause)


HEALTHY: Final = Destination()

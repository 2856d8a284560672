"""A rate as a value: tokens that refill with time."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class TokenBucket:
    """Holds up to `capacity` tokens and gains `per_second`. It starts full. `now` is any monotonic clock in seconds."""

    capacity: float
    per_second: float
    _tokens: float = field(init=False)
    _updated: float | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self._tokens = self.capacity

    def take(self, now: float) -> bool:
        """Take one token if there is one."""
        if self._updated is not None and now > self._updated:
            self._tokens = min(self.capacity, self._tokens + (now - self._updated) * self.per_second)
        self._updated = now if self._updated is None else max(self._updated, now)
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

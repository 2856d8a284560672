"""Events for `exportEvents`, gathered per install and lane (PostHog's exportEvents upgrade), without losing any.

Nothing is kept that the lane does not keep as well: an event in a buffer is not finished, so a crash reads it again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

_DEFAULT_BYTES: Final = 2**20
_LARGEST_BYTES: Final = 100 * 2**20
_DEFAULT_SECONDS: Final = 10.0
_LONGEST_SECONDS: Final = 600.0
CALL_BYTES: Final = 32 * 2**20
"""Of one call, whatever is configured: half of what a frame to the sandbox carries"""

ItemT = TypeVar("ItemT")


@dataclass(frozen=True, slots=True)
class ExportSettings:
    """How an install wants its batches. Values outside of the bounds are moved to the nearest one, as PostHog does."""

    buffer_bytes: int = _DEFAULT_BYTES
    buffer_seconds: float = _DEFAULT_SECONDS
    ignored: frozenset[str] = frozenset()
    """Names of events that it does not want"""

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> ExportSettings:
        """From an install's config; what is no number counts as not set."""
        names = config.get("exportEventsToIgnore")
        size = _number(config.get("exportEventsBufferBytes"), _DEFAULT_BYTES)
        seconds = _number(config.get("exportEventsBufferSeconds"), _DEFAULT_SECONDS)
        return cls(
            int(min(max(size, 1), _LARGEST_BYTES)),
            min(max(seconds, 1.0), _LONGEST_SECONDS),
            frozenset(name for part in names.split(",") if (name := part.strip()))
            if type(names) is str
            else frozenset(),
        )


class ExportBuffer(Generic[ItemT]):
    """Of one install and lane. No I/O, no clock: who owns it says what time it is."""

    def __init__(self, settings: ExportSettings) -> None:
        self.settings = settings
        self._limit = min(settings.buffer_bytes, CALL_BYTES)
        self._items: list[ItemT] = []
        self._bytes = 0
        self._since = 0.0

    def add(self, item: ItemT, size: int, now: float) -> list[list[ItemT]]:
        """Take an event of `size` bytes; the batches that are complete by it, oldest first."""
        batches: list[list[ItemT]] = []
        if self._items and self._bytes + size > self._limit:
            batches.append(self.take())
        if not self._items:
            self._since = now
        self._items.append(item)
        self._bytes += size
        if self._bytes >= self._limit:
            batches.append(self.take())
        return batches

    def take(self) -> list[ItemT]:
        """What is in it, which may be nothing; it is empty then."""
        items, self._items = self._items, []
        self._bytes = 0
        return items

    def is_due(self, now: float) -> bool:
        """Its oldest event has waited as long as it may."""
        return bool(self._items) and now - self._since >= self.settings.buffer_seconds

    def waited_seconds(self, now: float) -> float:
        """By its oldest event."""
        return now - self._since if self._items else 0.0

    def __len__(self) -> int:
        return len(self._items)


def _number(value: Any, default: float) -> float:
    try:
        number = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        return default
    return number if math.isfinite(number) else default

"""What delivery's lanes count."""

from __future__ import annotations

from collections.abc import Sequence

from plugin_server.eventlog.port import OutputRecord
from plugin_server.metrics import Metrics


class DeliveryReport:
    """The LaneReport of all delivery lanes."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def taken(self, count: int) -> None:
        self._metrics.delivery_taken.inc(count)

    def flushed(self, records: Sequence[OutputRecord], seconds: float) -> None:
        del records
        self._metrics.flush_seconds.observe(seconds)

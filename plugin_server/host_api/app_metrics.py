"""What apps count by `meta.metrics`: taken with the run that counted, added up per worker, told to `clickhouse_app_metrics`.

A record holds what one worker saw since its last one, so whoever reads the topic adds sums up and takes the greatest or
least of the others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

import orjson

from plugin_server.eventlog.port import OutputRecord
from plugin_server.host_api.calls import CallContext
from plugin_server.model.errors import InvalidArgument
from plugin_server.model.project import Project
from plugin_server.outputs.events import clickhouse_time

KINDS: Final = {"increment": "sum", "max": "max", "min": "min"}
"""What a metric is that an app uses by that verb"""
_NAME_LENGTH: Final = 200
_CATEGORY: Final = "metric"


async def count(context: CallContext, arguments: list[Any]) -> None:
    """The handler of the call `metrics`: `[name, verb, number]`. Raises InvalidArgument."""
    match arguments:
        case [str() as name, str() as verb, int() | float() as amount]:
            pass
        case _:
            raise InvalidArgument("metrics: it takes a name, increment, max or min, and a number")
    if not 0 < len(name) <= _NAME_LENGTH:
        raise InvalidArgument(f"metrics: a name has 1 to {_NAME_LENGTH} characters")
    if verb not in KINDS:
        raise InvalidArgument(f"metrics: there is no {verb[:40]!r}: use increment, max or min")
    if type(amount) is bool or not math.isfinite(amount):
        raise InvalidArgument(f"metrics: {name} must be given a finite number")
    context.effects.of(context.install.id).metrics.append((name, verb, float(amount)))


class _Counted(NamedTuple):
    project_id: int
    install_id: int
    name: str
    kind: str


class AppMetrics:
    """Adds up until it is flushed. One a worker."""

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self._values: dict[_Counted, float] = {}

    def add(self, project: Project, install_id: int, metrics: Sequence[tuple[str, str, float]]) -> None:
        """What one run of an install counted: name, verb and amount."""
        for name, verb, amount in metrics:
            kind = KINDS[verb]
            key = _Counted(project.id, install_id, name, kind)
            before = self._values.get(key)
            self._values[key] = amount if before is None else combine(kind, before, amount)

    def flush(self, now: datetime) -> list[OutputRecord]:
        """A record for each metric that was counted since the last flush."""
        values, self._values = self._values, {}
        return [self._record(key, value, now) for key, value in values.items()]

    def _record(self, key: _Counted, value: float, now: datetime) -> OutputRecord:
        fields = {
            "timestamp": clickhouse_time(now),
            "team_id": key.project_id,
            "plugin_id": key.install_id,
            "plugin_config_id": key.install_id,
            "category": _CATEGORY,
            "metric_name": key.name,
            "metric_kind": key.kind,
            "value": value,
        }
        return OutputRecord(self._topic, None, str(key.install_id).encode(), orjson.dumps(fields))


def combine(kind: str, before: float, amount: float) -> float:
    """Two amounts of a metric of that kind as one."""
    match kind:
        case "max":
            return max(before, amount)
        case "min":
            return min(before, amount)
        case _:
            return before + amount

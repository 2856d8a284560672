"""meta.metrics: what is counted, what is refused, and what a worker tells of it."""

from __future__ import annotations

from datetime import UTC, datetime

import orjson
import pytest

from plugin_server.host_api.app_metrics import AppMetrics, count
from plugin_server.host_api.calls import CallContext
from plugin_server.host_api.effects import RunEffects
from plugin_server.model.errors import InvalidArgument
from plugin_server.model.origin import Origin
from plugin_server.model.project import App, Install, Project

INSTALL = Install(39, App("A", "0", "main.py", "", {}), 1, {})
PROJECT = Project(2, "p", "phc_p", (INSTALL,))
NOW = datetime(2026, 11, 23, tzinfo=UTC)


async def test_what_a_run_counts_is_among_its_effects():
    effects = RunEffects(PROJECT, Origin("s", "u", "onEvent"))
    await count(CallContext(PROJECT, INSTALL, 1, effects), ["sent", "increment", 2])
    await count(CallContext(PROJECT, INSTALL, 2, effects), ["slowest", "max", 0.5])
    assert effects.of(39).metrics == [("sent", "increment", 2.0), ("slowest", "max", 0.5)]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "takes a name"),
        (["n", "increment", "2"], "takes a name"),
        (["n", "increment", True], "finite number"),
        (["n", "increment", float("nan")], "finite number"),
        (["n", "average", 1], "increment, max or min"),
        (["", "max", 1], "characters"),
        (["n" * 201, "max", 1], "characters"),
    ],
)
async def test_what_cannot_be_counted_is_refused(arguments, said):
    effects = RunEffects(PROJECT, Origin("s", "u", "onEvent"))
    with pytest.raises(InvalidArgument, match=rf"^metrics: .*{said}"):
        await count(CallContext(PROJECT, INSTALL, 1, effects), arguments)
    assert not effects.by_install


def test_a_worker_tells_sums_and_extremes_once_each():
    metrics = AppMetrics("app_metrics")
    for amount in (100.0, 10.0, -10.0):
        metrics.add(PROJECT, 39, [("a", "increment", amount), ("b", "max", amount), ("c", "min", amount)])
    records = metrics.flush(NOW)
    values = [orjson.loads(record.value) for record in records]
    assert {value["metric_name"]: (value["metric_kind"], value["value"]) for value in values} == {
        "a": ("sum", 100.0),
        "b": ("max", 100.0),
        "c": ("min", -10.0),
    }
    assert records[0].topic == "app_metrics"
    assert records[0].key == b"39"
    assert {key: value for key, value in values[0].items() if not key.startswith(("metric_", "value"))} == {
        "timestamp": "2026-11-23 00:00:00.000",
        "team_id": 2,
        "plugin_id": 39,
        "plugin_config_id": 39,
        "category": "metric",
    }
    assert metrics.flush(NOW) == []

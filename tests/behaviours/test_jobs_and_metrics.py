"""`meta.jobs`, schedules and `meta.metrics`."""

from __future__ import annotations

from plugin_server.testing import AppHarness
from tests.behaviours.hooks import EVENT, hook, messages

NOW = "2026-01-31T12:00:00Z"
JOBS = """
async def work(payload, meta):
    await meta.storage.set(payload['from'], payload)

jobs = {'work': work}
"""


async def test_jobs_run_when_they_are_asked_to():
    body = """
    await meta.jobs.work({}).runAt(datetime(2026, 2, 1, tzinfo=timezone.utc))
    for n, unit in ((3, 'minute'), (3, 'minutes'), (500, 'milliseconds'), (1, 'month'), (1, 'quarter'), (2, 'years')):
        await meta.jobs.work({}).runIn(n, unit)
    for call in (lambda: meta.jobs.work({}).runIn(1, 'x'), lambda: meta.jobs.work({}).runIn('3', 'minutes'), lambda: meta.jobs.unknown({})):
        try:
            call()
        except Exception as error:
            console.log(error)
    """
    source = "from datetime import datetime, timezone\n" + hook("onEvent", body, JOBS)
    async with AppHarness(source=source, now=NOW) as app:
        run = await app.run("onEvent", EVENT)
        assert run.error is None
        assert [job["run_at"] for job in run.jobs] == [
            "2026-02-01T00:00:00.000Z",
            "2026-01-31T12:03:00.000Z",
            "2026-01-31T12:03:00.000Z",
            "2026-01-31T12:00:00.500Z",
            "2026-02-28T12:00:00.000Z",
            "2026-04-30T12:00:00.000Z",
            "2028-01-31T12:00:00.000Z",
        ]
        unit, number, unknown = messages(run)
        assert "Unknown time unit: xs" in unit
        assert "runIn" in number
        assert "unknown" in unknown


async def test_run_now_from_the_chain_and_from_a_delivery_each_runs_once_with_its_payload():
    more = f"async def onEvent(event, meta):\n    await meta.jobs.work({{'from': 'onEvent'}}).runNow()\n{JOBS}"
    source = hook("processEvent", "await meta.jobs.work({'from': 'processEvent'}).runNow()\nreturn event", more)
    async with AppHarness(source=source) as app:
        runs = [await app.run("processEvent", EVENT), await app.run("onEvent", EVENT)]
        assert [[job["payload"]["from"] for job in run.jobs] for run in runs] == [["processEvent"], ["onEvent"]]
        assert app.storage == {"processEvent": {"from": "processEvent"}, "onEvent": {"from": "onEvent"}}


async def test_metrics_take_kinds_in_any_case_and_refuse_wrong_verbs_names_and_amounts():
    body = """
    for amount in (100, 10, -10):
        meta.metrics.total.increment(amount)
        meta.metrics.largest.max(amount / 10)
        meta.metrics.least.min(amount / 10 + 2)
    for call in (lambda: meta.metrics.total.max(1), lambda: meta.metrics.total.increment('1'), lambda: meta.metrics.other.increment(1)):
        try:
            call()
        except Exception as error:
            console.log(error)
    """
    source = hook("onEvent", body, "metrics = {'total': 'sum', 'largest': 'MAX', 'least': 'Min'}\n")
    async with AppHarness(source=source) as app:
        run = await app.run("onEvent", EVENT)
        assert run.metrics == {"total": 100, "largest": 10, "least": 1}
        verb, amount, name = messages(run)
        assert verb.startswith("TypeError: metrics.total.max")
        assert amount.startswith("TypeError: metrics.total.increment")
        assert "other" in name
    async with AppHarness(source="metrics = {'total': 'avg'}\n") as app:
        assert "sum, max, min" in app.setup_error.message


async def test_a_task_that_throws_leaves_later_ones_alone():
    source = "async def runEveryMinute(meta):\n    if await meta.storage.set_if_absent('failed', True):\n        posthog.capture('forgotten')\n    if await meta.cache.incr('n') == 1:\n        raise ValueError('no')\n\ndef runEveryHour(meta):\n    posthog.capture('hourly')\n"
    async with AppHarness(source=source) as app:
        first, hour, second = [await app.run(name) for name in ("runEveryMinute", "runEveryHour", "runEveryMinute")]
        assert (first.error.message, first.captured) == ("ValueError: no", [])
        assert (hour.error, len(hour.captured)) == (None, 1)
        assert (second.error, [capture["event"] for capture in second.captured]) == (None, ["forgotten"])

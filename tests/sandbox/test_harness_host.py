"""What the harness has of the host: every settled detail of how apps are tested, on the real sandbox."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from plugin_server.model.errors import ConfigurationError
from plugin_server.testing import AppHarness, HookNotFound

EVENT = {"event": "x", "distinct_id": "ada", "properties": {"a": 1}}


def on_event(body: str, more: str = "") -> str:
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    return f"async def onEvent(event, meta):\n{lines}{more}"


def folder(path: Path, source: str, **manifest: Any) -> Path:
    (path / "plugin.json").write_text(json.dumps({"name": "App", **manifest}))
    (path / "main.py").write_text(source)
    return path


# Storage, cache, geoip, metrics


async def test_storage_and_cache_begin_as_they_are_given_and_are_seen_as_they_stand():
    body = "n = await meta.storage.increment('n', 2)\nawait meta.storage.set('k', [n])\nawait meta.storage.delete('gone')\nawait meta.cache.set('c', {'n': n}, 60)\nawait meta.cache.lpush('l', ['a', 'b'])"
    async with AppHarness(source=on_event(body), storage={"n": 40, "gone": 1}, cache={"z": True}) as app:
        assert (await app.run("onEvent", EVENT)).error is None
        assert app.storage == {"n": 42, "k": [42]}
        assert app.cache == {"z": True, "c": {"n": 42}, "l": ["b", "a"]}
        assert app.cache_ttl_seconds == {"c": pytest.approx(60, abs=1)}


async def test_a_chain_of_apps_has_storage_and_cache_by_install():
    source = on_event("await meta.storage.increment('n', 1)\nawait meta.cache.incr('n')")
    async with AppHarness(source=[source, source], storage={"n": 1}, cache={"n": 5}) as app:
        await app.run("onEvent", EVENT)
        assert app.storage == {1: {"n": 2}, 2: {"n": 2}}
        assert app.cache == {1: {"n": 6}, 2: {"n": 6}}


async def test_a_test_may_change_storage_and_cache_between_runs():
    source = on_event("console.log(await meta.storage.get('a', 'none'), await meta.cache.get('a', 'none'))")
    async with AppHarness(source=source, storage={"a": 1, "b": 1}, cache={"a": 1, "b": 1}) as app:
        await app.change_storage({"a": 2}, clear=True)
        await app.change_cache({"a": None, "c": 3})
        assert app.storage == {"a": 2}
        assert app.cache == {"b": 1, "c": 3}
        assert [log["message"] for log in (await app.run("onEvent", EVENT)).logs] == ["2 none"]


async def test_calls_that_nobody_awaits_count_also_from_a_plain_def():
    source = "def onEvent(event, meta):\n    meta.storage.set('k', 1)\n    meta.storage.increment('n', 2)\n    meta.cache.set('c', 1)\n    fetch('https://x.io/a')\n    posthog.capture('y')\n    meta.utils.cursor.increment('cur')\n"
    async with AppHarness(source=source) as app:
        run = await app.run("onEvent", EVENT)
        assert run.error is None
        assert app.storage["k"] == 1
        assert app.storage["n"] == 2
        assert 1 in app.storage.values()
        assert app.cache == {"c": 1}
        assert [request["url"] for request in run.requests] == ["https://x.io/a"]
        assert [capture["event"] for capture in run.captured] == ["y"]


async def test_what_a_failed_hook_did_does_not_stay_but_its_logs_and_requests_do():
    body = "await meta.storage.set('k', 1)\nposthog.capture('y')\nawait meta.jobs.work(1).runNow()\nconsole.log('so far')\nawait fetch('https://x.io/a')\nmeta.metrics.n.increment(1)\n1 / 0"
    source = on_event(body, "def work(payload, meta):\n    pass\njobs = {'work': work}\nmetrics = {'n': 'sum'}\n")
    async with AppHarness(source=source, storage={"k": 0}) as app:
        run = await app.run("onEvent", EVENT)
        assert run.error.kind == "app"
        assert app.storage == {"k": 0}
        assert (run.captured, run.jobs, run.metrics) == ([], [], {})
        assert "so far" in [log["message"] for log in run.logs]
        assert len(run.requests) == 1


async def test_what_a_failed_app_of_a_chain_did_does_not_stay_and_the_others_does():
    def source(end: str) -> str:
        return f"async def processEvent(event, meta):\n    await meta.storage.increment('n', 1)\n    posthog.capture('y')\n    {end}\n"

    async with AppHarness(source=[source("return event"), source("1 / 0"), source("return event")]) as app:
        run = await app.run("processEvent", EVENT)
        assert run.event == EVENT
        assert app.storage == {1: {"n": 1}, 2: {}, 3: {"n": 1}}
        assert len(run.captured) == 2


async def test_runs_side_by_side_count_as_if_one_came_after_the_other():
    source = "async def processEvent(event, meta):\n    n = await meta.storage.get('n', 0)\n    await sleep(0.01)\n    await meta.storage.set('n', n + 1)\n    return event\n"
    async with AppHarness(source=source) as app:
        await asyncio.gather(*(app.run("processEvent", {**EVENT, "distinct_id": f"d{n}"}) for n in range(5)))
        assert app.storage == {"n": 5}


async def test_addresses_are_where_the_test_says():
    body = "console.log(await meta.geoip.locate('1.2.3.4'), await meta.geoip.locate('5.6.7.8'))"
    async with AppHarness(source=on_event(body), geoip={"1.2.3.4": {"country": {"iso_code": "SE"}}}) as app:
        assert [log["message"] for log in (await app.run("onEvent", EVENT)).logs] == [
            '{"country":{"iso_code":"SE"}} None'
        ]


async def test_metrics_are_what_they_came_to_in_the_run():
    body = "meta.metrics.a.increment(2)\nmeta.metrics.a.increment(3)\nmeta.metrics.b.max(1)\nmeta.metrics.b.max(7)\nmeta.metrics.c.min(-1)"
    source = on_event(body, "metrics = {'a': 'sum', 'b': 'max', 'c': 'min'}\n")
    async with AppHarness(source=source) as app:
        assert (await app.run("onEvent", EVENT)).metrics == {"a": 5, "b": 7, "c": -1}


# Requests


async def test_requests_are_listed_in_order_with_their_key_beside_the_headers():
    body = "await fetch('https://x.io/a', method='POST', json={'n': 1}, headers={'X-Key': 's'})\nr = await fetch('https://x.io/b')\nconsole.log(r.status, r.ok, await r.text())"
    async with AppHarness(source=on_event(body), http=[{"url": "https://x.io/b", "status": 418, "text": "tea"}]) as app:
        run = await app.run("onEvent", EVENT)
        first, second = run.requests
        assert first == {
            "method": "POST",
            "url": "https://x.io/a",
            "headers": {"X-Key": "s", "Content-Type": "application/json"},
            "body": '{"n":1}',
            "json": {"n": 1},
            "idempotency_key": first["idempotency_key"],
        }
        assert first["idempotency_key"] != second["idempotency_key"]
        assert (second["body"], second["json"], second["headers"]) == (None, None, {})
        assert [log["message"] for log in run.logs] == ["418 False tea"]


async def test_what_no_mock_fits_is_200_and_an_empty_object():
    body = "r = await fetch('https://x.io/a')\nconsole.log(r.status, await r.json())"
    async with AppHarness(source=on_event(body)) as app:
        assert [log["message"] for log in (await app.run("onEvent", EVENT)).logs] == ["200 {}"]


async def test_a_network_error_is_a_fetch_error_that_an_app_can_catch():
    body = "try:\n    await fetch('https://x.io/a')\nexcept FetchError as error:\n    raise RetryError(str(error))"
    async with AppHarness(source=on_event(body), http=[{"url": "https://x.io/a", "network_error": "reset"}]) as app:
        run = await app.run("onEvent", EVENT)
        assert run.error.kind == "retry"
        assert "reset" in run.error.message
        assert run.error.line == 5


async def test_private_addresses_fail_unless_a_mock_or_the_app_names_them(tmp_path):
    body = "for url in ('http://localhost:1/', 'http://10.0.0.1/', 'http://[::1]/', 'http://169.254.169.254/x'):\n    try:\n        await fetch(url)\n        console.log('reached', url)\n    except FetchError:\n        pass"
    async with AppHarness(source=on_event(body), http=[{"url": "http://10.0.0.1/", "json": 1}]) as app:
        assert [log["message"] for log in (await app.run("onEvent", EVENT)).logs] == ["reached http://10.0.0.1/"]
    config = [{"key": "host", "type": "string"}]
    named = folder(tmp_path, on_event(body), egress=["{host}"], config=config)
    async with AppHarness(named, config={"host": "localhost:1"}) as app:
        assert [log["message"] for log in (await app.run("onEvent", EVENT)).logs] == ["reached http://localhost:1/"]


async def test_an_app_reaches_only_the_hosts_of_its_egress_and_posthog(tmp_path):
    body = "for url in ('https://x.io/', 'https://other.io/', 'https://app.posthog.com/api/x'):\n    try:\n        await fetch(url)\n        console.log(url)\n    except FetchError:\n        pass"
    mocks = [{"url": "https://other.io/", "json": 1}]
    async with AppHarness(folder(tmp_path, on_event(body), egress=["x.io"]), http=mocks) as app:
        assert [log["message"] for log in (await app.run("onEvent", EVENT)).logs] == [
            "https://x.io/",
            "https://app.posthog.com/api/x",
        ]


# posthog.api


async def test_posthog_api_is_mocked_by_path_and_sends_the_projects_keys():
    body = "r = await posthog.api.get('/api/projects/@current/annotations', {'data': {'n': 1}})\nconsole.log(r.status, await r.json())"
    mocks = [{"method": "GET", "path": "/api/projects/@current/annotations", "status": 203, "json": {"results": []}}]
    async with AppHarness(source=on_event(body), posthog_api=mocks, project=7) as app:
        run = await app.run("onEvent", EVENT)
        assert [log["message"] for log in run.logs] == ['203 {"results":[]}']
        (request,) = run.requests
        assert request["method"] == "GET"
        assert request["url"] == "https://app.posthog.com/api/projects/7/annotations?n=1&token=phc_harness"
        assert request["headers"]["Authorization"] == "Bearer phx_harness"
        assert run.api_requests == [request]
        assert run.api_calls == [
            {"method": "GET", "path": "/api/projects/@current/annotations", "options": {"data": {"n": 1}}}
        ]


async def test_own_hosts_answer_as_mocks_to_fetch_too():
    body = "r = await fetch('https://app.posthog.com/api/users/@me', headers={'Authorization': 'Bearer own'})\nconsole.log(await r.json())"
    mocks = [{"url": "https://app.posthog.com/api/users/@me", "json": {"me": 1}}]
    async with AppHarness(source=on_event(body), http=mocks) as app:
        run = await app.run("onEvent", EVENT)
        assert [log["message"] for log in run.logs] == ['{"me":1}']
        assert run.requests[0]["headers"] == {"Authorization": "Bearer own"}


@pytest.mark.parametrize(
    "call",
    [
        "posthog.api.post('/e/', {'data': {'event': 'posted', 'distinct_id': 'd', 'properties': {'n': 1}}})",
        "fetch('https://app.posthog.com/capture/', method='POST', json={'api_key': 'phc_harness', 'event': 'posted', 'distinct_id': 'd', 'properties': {'n': 1}})",
    ],
)
async def test_events_posted_to_a_capture_path_are_captures(call):
    async with AppHarness(source=on_event(f"r = await {call}\nconsole.log(await r.json())")) as app:
        run = await app.run("onEvent", EVENT)
        assert run.error is None
        (capture,) = run.captured
        assert (capture["event"], capture["distinct_id"], capture["properties"]["n"]) == ("posted", "d", 1)
        assert [log["message"] for log in run.logs] == ['{"status":1}']
        assert len(run.requests) == 1
        assert len(await app.settle()) > 0


async def test_the_project_is_the_events_own_unless_one_is_named():
    source = on_event("await posthog.api.get('/api/projects/@current/x')\nconsole.log(event.get('team_id'))")
    async with AppHarness(source=source) as app:
        run = await app.run("onEvent", EVENT | {"team_id": 42})
        assert "/api/projects/42/x" in run.requests[0]["url"]
        assert "/api/projects/1/x" in (await app.run("onEvent", EVENT)).requests[0]["url"]
    async with AppHarness(source=source, project=9) as app:
        run = await app.run("onEvent", EVENT | {"team_id": 42})
        assert "/api/projects/9/x" in run.requests[0]["url"]
        assert [log["message"] for log in run.logs] == ["9"]


# Jobs

WORK = """
async def work(payload, meta):
    console.log('working', payload)
    await meta.storage.increment('done', 1)
    await fetch('https://x.io/job')
    posthog.capture('worked', payload)
jobs = {'work': work}
"""


async def test_jobs_that_run_now_run_inside_the_call_and_later_ones_are_listed():
    body = "await meta.jobs.work({'n': 1}).runNow()\nawait meta.jobs.work({'n': 2}).runIn(2, 'minutes')\nawait meta.jobs.work({'n': 3}).runAt('2026-12-01T00:00:00Z')"
    async with AppHarness(source=on_event(body, WORK), now="2026-11-23T00:00:00Z") as app:
        run = await app.run("onEvent", EVENT)
        assert run.jobs == [
            {"job": "work", "payload": {"n": 1}, "run_at": None},
            {"job": "work", "payload": {"n": 2}, "run_at": "2026-11-23T00:02:00.000Z"},
            {"job": "work", "payload": {"n": 3}, "run_at": "2026-12-01T00:00:00.000Z"},
        ]
        assert [log["message"] for log in run.logs] == ['working {"n":1}']
        assert [capture["event"] for capture in run.captured] == ["worked"]
        assert [request["url"] for request in run.requests] == ["https://x.io/job"]
        assert app.storage == {"done": 1}
        later = await app.run("jobs.work", {"n": 2})
        assert [log["message"] for log in later.logs] == ['working {"n":2}']
        assert app.storage == {"done": 2}


async def test_without_jobs_inline_they_are_only_listed():
    async with AppHarness(source=on_event("await meta.jobs.work(1).runNow()", WORK), jobs_inline=False) as app:
        run = await app.run("onEvent", EVENT)
        assert run.jobs == [{"job": "work", "payload": 1, "run_at": None}]
        assert run.logs == []
        assert app.storage == {}


async def test_a_job_that_fails_inside_the_call_is_its_error_and_leaves_nothing():
    more = "async def work(payload, meta):\n    await meta.storage.set('job', 1)\n    raise RetryError('busy')\njobs = {'work': work}\n"
    async with AppHarness(
        source=on_event("await meta.storage.set('hook', 1)\nmeta.jobs.work(1).runNow()", more)
    ) as app:
        run = await app.run("onEvent", EVENT)
        assert (run.error.kind, run.error.message) == ("retry", "RetryError: busy")
        assert app.storage == {"hook": 1}


async def test_a_job_that_starts_itself_without_end_comes_to_an_end():
    more = "async def work(payload, meta):\n    await meta.storage.increment('n', 1)\n    await meta.jobs.work(payload).runNow()\njobs = {'work': work}\n"
    async with AppHarness(source=on_event("await meta.jobs.work(1).runNow()", more)) as app:
        run = await app.run("onEvent", EVENT)
        assert run.error is None
        assert app.storage["n"] == 101
        assert [job["run_at"] is None for job in run.jobs] == [True] * 101 + [False]


async def test_a_bad_unit_and_an_unknown_job_fail_at_once():
    for call in ("meta.jobs.work(1).runIn(1, 'fortnights')", "meta.jobs.other(1).runNow()"):
        async with AppHarness(source=on_event(f"await {call}", WORK)) as app:
            run = await app.run("onEvent", EVENT)
            assert run.error.kind == "app"
            assert run.jobs == []


# Errors


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ("raise RetryError('later')", "retry"),
        ("raise Mine('later')", "retry"),
        ("raise ValueError('no')", "app"),
        ("for n in range(101):\n    posthog.capture('x')", "limit"),
        ("await fetch('http://localhost/')", "app"),
        ("await meta.storage.set('a' * 5000, 1)", "app"),
        ("await sleep(60)", "timeout"),
        ("while True:\n    pass", "timeout"),
        ("x = 'x' * 10 ** 10", "memory"),
    ],
)
async def test_errors_have_a_kind(body, kind):
    source = f"class Mine(RetryError):\n    pass\n{on_event(body)}"
    async with AppHarness(source=source, limits={"cpu_seconds": 0.2, "hook_seconds": 0.5}) as app:
        run = await app.run("onEvent", EVENT)
        assert run.error is not None
        assert run.error.kind == kind, run.error
        assert run.captured == []


async def test_a_retry_error_in_set_up_is_one_and_set_up_is_not_tried_again():
    source = "async def setupPlugin(meta):\n    await fetch('https://x.io/up')\n    await meta.storage.set('up', 1)\n    raise RetryError('not yet')\ndef onEvent(event, meta):\n    pass\n"
    async with AppHarness(source=source) as app:
        assert (app.setup_error.kind, app.setup_error.message) == ("retry", "RetryError: not yet")
        assert [request["url"] for request in app.setup_requests] == ["https://x.io/up"]
        assert app.storage == {}
        assert (await app.run("onEvent", EVENT)).error == app.setup_error


async def test_what_set_up_did_is_there_and_is_no_part_of_the_runs():
    source = "async def setupPlugin(meta):\n    await meta.storage.set('up', 1)\n    posthog.capture('set up')\n    await fetch('https://x.io/up')\nasync def onEvent(event, meta):\n    console.log(await meta.storage.get('up'))\n"
    async with AppHarness(source=source) as app:
        assert app.storage == {"up": 1}
        assert [request["url"] for request in app.setup_requests] == ["https://x.io/up"]
        run = await app.run("onEvent", EVENT)
        assert (run.captured, run.requests) == ([], [])
        assert [log["message"] for log in run.logs] == ["1"]
        assert [node.event["event"] for node in await app.settle()] == ["set up"]


async def test_set_up_can_be_left_out_and_run_by_hand():
    source = "def setupPlugin(meta):\n    posthog.capture('set up')\ndef onEvent(event, meta):\n    pass\n"
    async with AppHarness(source=source, setup=False) as app:
        assert [capture["event"] for capture in (await app.run("setupPlugin")).captured] == ["set up"]


async def test_hooks_that_are_not_there_and_apps_that_are_not_there_are_said_to_be():
    async with AppHarness(source="def processEvent(event, meta):\n    return event\n") as app:
        for hook in ("onEvent", "jobs.x", "runEveryMinute"):
            with pytest.raises(HookNotFound):
                await app.run(hook, EVENT)
    with pytest.raises(ConfigurationError, match="catalogue"):
        AppHarness("catalogue:geoip")


async def test_a_slug_of_the_catalogue_is_its_folder_where_there_is_one(tmp_path, monkeypatch):
    (tmp_path / "catalogue" / "one").mkdir(parents=True)
    folder(tmp_path / "catalogue" / "one", "def processEvent(event, meta):\n    return None\n")
    monkeypatch.chdir(tmp_path)
    async with AppHarness("catalogue:one") as app:
        assert (await app.run("processEvent", EVENT)).event is None


# Webhooks, batches, what an app is called with


async def test_the_webhook_that_is_composed_is_posted_and_listed():
    source = "def composeWebhook(event, meta):\n    if event['event'] == 'no':\n        return None\n    return {'url': 'https://hook.io/x', 'body': {'e': event['event']}, 'headers': {'X-A': '1'}}\n"
    async with AppHarness(source=source) as app:
        run = await app.run("composeWebhook", EVENT)
        (request,) = run.requests
        assert (request["method"], request["url"], request["json"]) == ("POST", "https://hook.io/x", {"e": "x"})
        assert request["headers"]["X-A"] == "1"
        assert request["idempotency_key"]
        assert run.value["url"] == "https://hook.io/x"
        assert (await app.run("composeWebhook", EVENT | {"event": "no"})).requests == []


async def test_a_webhook_that_cannot_be_sent_is_an_error():
    source = "def composeWebhook(event, meta):\n    return {'url': meta.config['url']}\n"
    for url in ("http://localhost/", "nonsense"):
        async with AppHarness(source=source, config={"url": url}) as app:
            assert (await app.run("composeWebhook", EVENT)).error.kind == "app"


@pytest.mark.parametrize("answer", [{"status": 503}, {"network_error": "down"}])
async def test_a_webhook_that_does_not_arrive_would_be_sent_again(answer):
    source = "def composeWebhook(event, meta):\n    return {'url': 'https://hook.io/'}\n"
    async with AppHarness(source=source, http=[{"url": "https://hook.io/", **answer}]) as app:
        run = await app.run("composeWebhook", EVENT)
        assert run.error.kind == "retry"
        assert len(run.requests) == 1


async def test_hooks_are_called_with_events_as_they_are_given():
    body = "console.log(event)"
    async with AppHarness(source=on_event(body)) as app:
        given = {"event": "x", "distinct_id": "d"}
        (log,) = (await app.run("onEvent", given)).logs
        assert json.loads(log["message"]) == given


async def test_a_batch_comes_back_as_the_app_left_it_and_as_it_was_if_the_app_failed():
    source = "def processEventBatch(events, meta):\n    if events[0]['event'] == 'bad':\n        1 / 0\n    return [{**e, 'n': 1} for e in events if e['event'] == 'x']\n"
    async with AppHarness(source=source) as app:
        run = await app.run("processEventBatch", [EVENT, EVENT | {"event": "y"}])
        assert run.event == [EVENT | {"n": 1}]
        bad = EVENT | {"event": "bad"}
        failed = await app.run("processEventBatch", [bad])
        assert failed.error.kind == "app"
        assert failed.event == [bad]
        assert (await app.run("processEvent", EVENT)).event == EVENT | {"n": 1}


# Captures and the loop guard


async def test_a_tick_may_capture_more_than_an_event_and_a_hook_no_more_than_its_limit():
    source = "def runEveryMinute(meta):\n    for n in range(150):\n        posthog.capture('x')\ndef onEvent(event, meta):\n    for n in range(3):\n        posthog.capture('x')\n"
    async with AppHarness(source=source, limits={"captures_per_event": 2}) as app:
        assert len((await app.run("runEveryMinute")).captured) == 150
        assert (await app.run("onEvent", EVENT)).error.kind == "limit"


async def test_what_is_captured_on_delivery_is_delivered_too_and_ends():
    source = "def onEvent(event, meta):\n    posthog.capture('again')\n"
    async with AppHarness(source=source) as app:
        run = await app.run("onEvent", EVENT)
        tree = await app.settle()
        assert len(run.captured) == 1
        assert len(tree) == tree.depth == 3
        assert [cut["reason"] for cut in tree.cuts] == ["visits"]
        assert [len(node.deliveries) for node in tree] == [1, 1, 1]


async def test_the_policy_and_the_lineage_that_a_test_gives_decide():
    source = (
        "def processEvent(event, meta):\n    for n in range(3):\n        posthog.capture('again')\n    return event\n"
    )
    async with AppHarness(source=source, loop_policy={"max_events_per_root": 2}) as app:
        run = await app.run("processEvent", EVENT)
        assert len(run.captured) == 2
        assert run.cuts == [{"reason": "budget", "install": 1, "count": 1, "chain": "inline-1 (1)", "what": "captures"}]
    lineage = {"v": 1, "root": "018f0000-0000-7000-8000-000000000001", "depth": 2, "path": [1, 1], "budget": 50}
    async with AppHarness(source=source) as app:
        assert len((await app.run("processEvent", EVENT, lineage=lineage)).captured) == 3
        tree = await app.settle()
        assert {cut["reason"] for cut in tree.cuts} == {"visits"}


async def test_jobs_beyond_the_budget_are_cut():
    source = on_event("for n in range(5):\n    meta.jobs.work(n).runNow()", WORK)
    async with AppHarness(source=source, loop_policy={"max_events_per_root": 4}) as app:
        run = await app.run("onEvent", EVENT)
        assert len(run.jobs) == 2
        assert ("budget", "jobs", 3) in [(cut["reason"], cut["what"], cut["count"]) for cut in run.cuts]

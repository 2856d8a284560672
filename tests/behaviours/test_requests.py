"""`posthog.api`, `fetch` and `composeWebhook`: which requests leave, as apps that were written for PostHog expect them."""

from __future__ import annotations

from plugin_server.testing import AppHarness
from tests.behaviours.hooks import EVENT, hook, messages

API = "https://app.posthog.com"


async def test_the_api_is_asked_as_the_project_with_data_where_it_belongs():
    body = """
    await posthog.api.get('/api/event')
    await posthog.api.get('/api/event', {'data': {'url': 'param'}})
    await posthog.api.post('/api/event', {'data': {'body': 'param'}})
    await posthog.api.put('/api/event', {'data': {'body': 'param'}})
    await posthog.api.patch('/api/event', data={'body': 'param'})
    await posthog.api.delete('/api/event')
    await posthog.api.delete('/api/event', data={'url': 'param', 'no': None})
    await posthog.api.get('/api/projects/@current/x?before=1', {'headers': {'X-Own': 'yes'}})
    """
    async with AppHarness(source=hook("onEvent", body), project=2) as app:
        run = await app.run("onEvent", EVENT)
        assert run.error is None
        assert [(request["method"], request["url"].removeprefix(API), request["json"]) for request in run.requests] == [
            ("GET", "/api/event?token=phc_harness", None),
            ("GET", "/api/event?url=param&token=phc_harness", None),
            ("POST", "/api/event?token=phc_harness", {"body": "param"}),
            ("PUT", "/api/event?token=phc_harness", {"body": "param"}),
            ("PATCH", "/api/event?token=phc_harness", {"body": "param"}),
            ("DELETE", "/api/event?token=phc_harness", None),
            ("DELETE", "/api/event?url=param&token=phc_harness", None),
            ("GET", "/api/projects/2/x?before=1&token=phc_harness", None),
        ]
        assert {request["headers"]["Authorization"] for request in run.requests} == {"Bearer phx_harness"}
        types = [request["headers"].get("Content-Type") for request in run.requests]
        assert types == [None, None, *["application/json"] * 3, None, None, None]
        assert run.requests[-1]["headers"]["X-Own"] == "yes"


async def test_keys_are_given_both_or_not_at_all_and_ours_never_leave_for_other_hosts():
    body = """
    await posthog.api.get('/api/event', {'host': 'https://eu.example.com/', 'projectApiKey': 'phc_mine', 'personalApiKey': 'phx_mine'})
    await posthog.api.get('/api/event', {'host': 'https://eu.example.com'})
    for options in ({'projectApiKey': 'phc_mine'}, {'personalApiKey': 'phx_mine'}):
        try:
            await posthog.api.get('/api/event', options)
        except ValueError as error:
            console.log(error)
    """
    async with AppHarness(source=hook("onEvent", body)) as app:
        run = await app.run("onEvent", EVENT)
        assert run.error is None
        given, bare = run.requests  # nothing was asked with one key
        assert given["url"] == "https://eu.example.com/api/event?token=phc_mine"
        assert given["headers"]["Authorization"] == "Bearer phx_mine"
        assert bare["url"] == "https://eu.example.com/api/event"
        assert "Authorization" not in bare["headers"]
        first, second = messages(run)
        assert "personalApiKey" in first
        assert "projectApiKey" in second


async def test_fetch_is_a_global_and_takes_its_options_as_a_dict_or_by_name():
    body = """
    first = await fetch('https://x.io/', {'method': 'POST', 'headers': {'X-A': '1'}, 'body': 'text'})
    second = await fetch('https://x.io/', method='post', json={'n': [1]})
    console.log(first.status, first.ok, await first.json(), second.headers.get('X-B'), await second.text())
    """
    mocks = [{"url": "https://x.io/", "status": 201, "json": {"fetched": True}, "headers": {"X-B": "2"}}]
    async with AppHarness(source=hook("onEvent", body), http=mocks) as app:
        run = await app.run("onEvent", EVENT)
        assert messages(run) == ['201 True {"fetched":true} 2 {"fetched":true}'] or messages(run) == [
            '201 True {"fetched":true} 2 {"fetched": true}'
        ]
        assert [(request["method"], request["body"]) for request in run.requests] == [
            ("POST", "text"),
            ("POST", '{"n":[1]}'),
        ]


async def test_a_webhook_that_an_app_composes_is_one_request_and_none_is_none():
    source = "def composeWebhook(event, meta):\n    if event['event'] == 'no':\n        return None\n    return {'url': 'https://x.io/hook', 'body': {'event': event['event']}, 'headers': {'X-A': '1'}, 'method': event['properties'].get('method', 'POST')}\n"
    async with AppHarness(source=source) as app:
        post = await app.run("composeWebhook", EVENT)
        put = await app.run("composeWebhook", EVENT | {"properties": {"method": "PUT"}})
        none = await app.run("composeWebhook", EVENT | {"event": "no"})
        assert [request["method"] for run in (post, put, none) for request in run.requests] == ["POST", "PUT"]
        assert post.requests[0]["json"] == {"event": "pageview"}

"""`fetch` and `posthog.api`: what is asked of the host, what is refused at once, what a response is."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from tests.unit.sandbox.asking import Asking, call_of, refusal_of, result_of
from tests.unit.sandbox.child import Child

URL = "https://example.com/x"
ANSWER = {"status": 200, "headers": {"content-type": "application/json"}, "url": URL, "body": {"text": '{"a":[1]}'}}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("", ["GET", {}, None]),
        (", {}", ["GET", {}, None]),
        (", None", ["GET", {}, None]),
        (", {'method': 'post'}", ["POST", {}, None]),
        (", method='PUT', body='text'", ["PUT", {}, {"text": "text"}]),
        (", {'method': 'POST', 'body': b'\\xff\\x00'}", ["POST", {}, {"base64": "/wA="}]),
        (", {'method': 'POST'}, body=''", ["POST", {}, {"text": ""}]),
        (", method='POST', json=[1]", ["POST", {"Content-Type": "application/json"}, {"text": "[1]"}]),
        (", method='POST', json='x'", ["POST", {"Content-Type": "application/json"}, {"text": '"x"'}]),
        (", method='POST', body={'a': 1}", ["POST", {"Content-Type": "application/json"}, {"text": '{"a":1}'}]),
        (", method='POST', body=5", ["POST", {"Content-Type": "application/json"}, {"text": "5"}]),
        (
            ", method='POST', body={}, headers={'content-type': 'x/y', 'N': 5}",
            ["POST", {"content-type": "x/y", "N": "5"}, {"text": "{}"}],
        ),
        (", headers={'A': 'é\\tb', 'B': ''}", ["GET", {"A": "é\tb", "B": ""}, None]),
        (", headers=None, body=None, method=None, json=None", ["GET", {}, None]),
    ],
)
def test_a_request_is_handed_to_the_host(arguments, expected):
    method, headers, body = expected
    assert call_of(f"await fetch('{URL}'{arguments})") == ("fetch", [method, URL, headers, body])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "required positional argument"),
        ("5", "fetch: url must be text, not int"),
        ("b'x'", "fetch: url must be text, not bytes"),
        ("None", "fetch: url must be text, not NoneType"),
        ("'https://x\\r\\n.y'", "line end or control character"),
        ("'https://x', 'POST'", "options must be a dict, not str"),
        ("'https://x', {'metod': 'POST'}", "no option 'metod'; there are method, headers, body, json"),
        ("'https://x', {5: 'POST'}", "no option int"),
        ("'https://x', timeout=5", "no option 'timeout'"),
        ("'https://x', method=5", "method must be text"),
        ("'https://x', method='BREW'", "method must be one of GET, HEAD"),
        ("'https://x', method='GET\\r\\nX'", "method must be one of"),
        ("'https://x', headers=[]", "headers must be a dict, not list"),
        ("'https://x', headers={5: 'x'}", "the name of a header must be text"),
        ("'https://x', headers={'A': None}", "the header 'A' must be text, not NoneType"),
        ("'https://x', headers={'A': True}", "the header 'A' must be text, not bool"),
        ("'https://x', headers={'A': 'x\\r\\nB: y'}", "the header 'A' has a line end"),
        ("'https://x', headers={'A\\r\\nB': 'y'}", "has a line end"),
        ("'https://x', headers={'A': 'x\\0'}", "has a line end or control character"),
        ("'https://x', body='x'", "a GET request has no body"),
        ("'https://x', method='HEAD', json={}", "a HEAD request has no body"),
        ("'https://x', method='POST', body='x', json={}", "give body or json, not both"),
        ("'https://x', method='POST', body={1, 2}", "the body must be text, bytes or JSON: set is not JSON"),
        ("'https://x', method='POST', json=float('nan')", "NaN"),
        ("'https://x', method='POST', body={1: 2}", "fetch: the body must be text, bytes or JSON"),
        ("'https://x', method='POST', body='\\ud800'", "lone surrogate"),
        ("'https://x\\ud800'", "lone surrogate"),
        ("'https://x', method='POST', body=meta", "meta is not JSON"),
    ],
)
def test_a_request_that_cannot_be_is_refused_at_once(arguments, message):
    assert message in refusal_of(f"await fetch({arguments})")


def test_a_body_that_contains_itself_is_refused():
    assert "contains itself" in refusal_of("x = []\nx.append(x)\nawait fetch('https://x', method='POST', json=x)")


def test_a_request_larger_than_a_frame_is_refused():
    for body in ("'x' * 16_000_000", "'\\1' * 3_000_000", "b'x' * 12_000_000"):
        asking = Asking(f"await fetch('https://x', method='POST', body={body})")
        assert asking.failure[0] == "limit"
        assert "fetch: more than" in asking.failure[1]


def test_requests_that_wait_are_bounded_together_and_those_answered_no_longer_count():
    body = """
import_size = 10_000_000
made = [fetch('https://x', method='POST', body='x' * import_size) for _ in range(3)]
try:
    fetch('https://x', method='POST', body='x' * import_size)
except LimitExceeded as error:
    print(str(error))
await made[0]
fetch('https://x', method='POST', body='x' * import_size)
"""
    asking = Asking(body)
    assert len(asking.asked) == 3
    asking.child.answer(asking.child.calls[0][0], ANSWER)
    assert len(asking.asked) == 4
    for call in asking.child.calls[1:]:
        asking.child.answer(call[0], ANSWER)
    assert "await some" in asking.logged[0]


def test_fetch_from_a_plain_hook_starts_when_it_is_called_and_the_hook_ends_with_it():
    asking = Asking("fetch('https://x')\nfetch('https://y')", hook="def onEvent")
    assert [arguments[1] for _, arguments in asking.asked] == ["https://x", "https://y"]
    assert asking.child.done == []
    asking.answer(ANSWER, ANSWER)
    assert asking.failure is None


def test_an_error_that_nobody_awaited_is_logged():
    asking = Asking("fetch('https://x')", hook="def onEvent")
    asking.refuse("no route", "fetch")
    assert asking.failure is None
    assert asking.logged == ["fetch failed, and nobody awaited it: no route"]


@pytest.mark.parametrize("method", ["get", "delete"])
def test_such_an_error_names_the_call_as_the_app_wrote_it(method: str):
    asking = Asking(f"posthog.api.{method}('/api/x')", hook="def onEvent")
    asking.refuse("no route", "fetch")
    assert asking.logged == [f"posthog.api.{method} failed, and nobody awaited it: no route"]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("r.status", 200),
        ("r.ok", True),
        ("r.url", URL),
        ("await r.json()", {"a": [1]}),
        ("await r.text()", '{"a":[1]}'),
        ("(await r.bytes()).decode()", '{"a":[1]}'),
        ("(await r.json()) is (await r.json())", False),
        ("r.headers.get('Content-Type')", "application/json"),
        ("r.headers['CONTENT-TYPE']", "application/json"),
        ("r.headers.get('x')", None),
        ("r.headers.get('x', 5)", 5),
        ("r.headers.has('Content-type')", True),
        ("'Content-Type' in r.headers", True),
        ("'x' in r.headers or 5 in r.headers", False),
        ("list(r.headers)", ["content-type"]),
        ("r.headers.keys()", ["content-type"]),
        ("r.headers.items()", [["content-type", "application/json"]]),
        ("len(r.headers)", 1),
        ("str(r)", "<response 200>"),
    ],
)
def test_what_a_response_tells(expression, expected):
    assert result_of(f"r = await fetch('{URL}')\nreturn {expression}", ANSWER) == orjson.dumps([expected]).decode()


@pytest.mark.parametrize(
    ("status", "ok"), [(199, False), (200, True), (204, True), (299, True), (304, False), (500, False)]
)
def test_a_response_is_ok_from_200_to_299(status, ok):
    answer = ANSWER | {"status": status}
    assert result_of(f"return (await fetch('{URL}')).ok", answer) == orjson.dumps([ok]).decode()


def test_a_response_that_is_no_text_is_bytes_and_text_with_replacements():
    answer = ANSWER | {"body": {"base64": "/wBh"}}
    body = f"r = await fetch('{URL}')\nreturn [list(await r.bytes()), await r.text()]"
    assert result_of(body, answer) == '[[[255,0,97],"\ufffd\\u0000a"]]'


@pytest.mark.parametrize("text", ["", "<html>", '{"a":', "NaN", "[" * 200 + "]" * 200])
def test_a_body_that_is_no_json_is_a_value_error_when_awaited(text):
    asking = Asking(f"r = await fetch('{URL}')\nwaiting = r.json()\nprint('made')\nawait waiting")
    asking.answer(ANSWER | {"body": {"text": text}, "status": 502})
    assert asking.failure[0] == "app"
    assert "ValueError: the body of the response with status 502 is not JSON" in asking.failure[1]
    assert asking.logged[0] == "made"


@pytest.mark.parametrize(
    "statement",
    [
        "r.status = 1",
        "r.headers = {}",
        "r.x = 1",
        "del r.status",
        "setattr(r, 'status', 1)",
        "r.headers['x'] = 1",
        "r.headers.x = 1",
        "r.headers.get(5)",
        "r.headers.get([])",
        "r.headers[5]",
        "r.headers['missing']",
        "r['status']",
        "getattr(r, '_body')",
        "r()",
    ],
)
def test_a_response_is_read_only_and_hides_what_it_holds(statement):
    asking = Asking(f"r = await fetch('{URL}')\n{statement}")
    asking.answer(ANSWER)
    assert asking.failure[0] == "app"


@pytest.mark.parametrize("expression", ["r._body", "r.headers._values", "r.json.__self__", "r.__class__"])
def test_what_a_response_holds_cannot_be_named(expression):
    child = Child(f"async def onEvent(event, meta):\n    r = await fetch('x')\n    return {expression}\n")
    assert child.loaded[0]["installs"][0]["error"][0] == "compile"


# posthog.api


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ("get('/api/event')", ["GET", "/api/event", {}]),
        ("get('api/event', {'data': {'url': 'param'}})", ["GET", "api/event", {"data": {"url": "param"}}]),
        ("post('/a', {'data': {'x': [1]}})", ["POST", "/a", {"data": {"x": [1]}}]),
        ("post('/a', data=[1])", ["POST", "/a", {"data": [1]}]),
        ("put('/a', data={})", ["PUT", "/a", {"data": {}}]),
        ("patch('/a', {'data': {}}, host='https://x')", ["PATCH", "/a", {"data": {}, "host": "https://x"}]),
        ("delete('/a', data={'x': 1})", ["DELETE", "/a", {"data": {"x": 1}}]),
        (
            "get('/a', projectApiKey='phc', personalApiKey='phx', headers={'A': 5})",
            ["GET", "/a", {"projectApiKey": "phc", "personalApiKey": "phx", "headers": {"A": "5"}}],
        ),
        ("get('/a', projectApiKey=None, personalApiKey=None, data=None, host=None)", ["GET", "/a", {}]),
    ],
)
def test_the_api_is_asked_by_the_host(call, expected):
    assert call_of(f"await posthog.api.{call}") == ("api", expected)


@pytest.mark.parametrize("verb", ["get", "post", "put", "patch", "delete"])
def test_the_api_answers_with_a_response(verb):
    assert result_of(f"return await (await posthog.api.{verb}('/a')).json()", ANSWER) == '[{"a":[1]}]'


ONE_KEY = "ValueError: You must specify a personalApiKey if you specify a projectApiKey and vice-versa!"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("get('/a', projectApiKey='phc')", ONE_KEY),
        ("post('/a', {'personalApiKey': 'phx'})", ONE_KEY),
        ("get('/a', projectApiKey='phc', personalApiKey='')", ONE_KEY),
        ("get()", "required positional argument"),
        ("get(5)", "posthog.api.get: path must be text, not int"),
        ("post('/a', 'x')", "posthog.api.post: options must be a dict"),
        ("post('/a', dta={})", "no option 'dta'; there are data, host, projectApiKey, personalApiKey, headers"),
        ("post('/a', host=5)", "posthog.api.post: host must be text"),
        ("post('/a', projectApiKey=5, personalApiKey='x')", "projectApiKey must be text"),
        ("put('/a', headers='x')", "posthog.api.put: headers must be a dict"),
        ("put('/a', headers={'A': 'x\\ny'})", "has a line end"),
        ("get('/a', data=[1])", "data must be a dict of URL parameters, not list"),
        ("delete('/a', data='x')", "data must be a dict of URL parameters"),
        ("post('/a', data={1})", "posthog.api.post: set is not JSON"),
        ("post('/a', data={'x': b''})", "bytes is not JSON"),
        ("head('/a')", "AttributeError"),
    ],
)
def test_what_the_api_cannot_be_asked_is_refused_at_once(call, message):
    assert message in refusal_of(f"await posthog.api.{call}")


# Events that join the captures of the run


def captured(source_call: str, events: int, *, limit: int = 3) -> tuple[list[Any], str]:
    """Captures kept, and what was raised, when a request took `events` along."""
    body = f"""
await {source_call}
for n in range(5):
    try:
        posthog.capture('x', {{'n': n}})
    except LimitExceeded as error:
        return str(error)
"""
    asking = Asking(body, captures_per_event=limit)
    asking.answer(ANSWER | {"captured": events})
    _, _, _, notes = asking.child.done[0]
    return [capture[1] for capture in notes.get("captures", ())], notes["logs"][-1][2]


@pytest.mark.parametrize(
    "call", ["fetch('https://app.posthog.com/capture', method='POST')", "posthog.api.post('/capture')"]
)
def test_events_posted_to_our_capture_paths_count_as_captures(call):
    assert captured(call, 2) == ([0], '["posthog.capture: more than 3 captures for one event (captures_per_event)"]')
    assert captured(call, 3)[0] == []
    assert captured(call, 0)[0] == [0, 1, 2]

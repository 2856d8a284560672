"""The host's side of `fetch`."""

from __future__ import annotations

import asyncio
import base64
import gzip
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import orjson
import pytest

from plugin_server.capture.posted import parse_capture as parse_posted
from plugin_server.host_api.calls import CallContext
from plugin_server.host_api.fetch import RUN_ANSWERS_BYTES, make_fetch
from plugin_server.host_api.http_client import HttpResponse
from plugin_server.model.errors import FetchRefused, InvalidArgument, LimitReached
from plugin_server.model.ids import idempotency_key
from tests.unit.host_api.doubles import TOKEN, Doors, FakeClient, context

URL = "https://example.com/hook?a=b"


async def fetch(arguments: list[Any], client: FakeClient | None = None, doors: Doors | None = None, **more: Any) -> Any:
    handler = make_fetch(client or FakeClient(), (doors or Doors()).doors, request_bytes=1_000)
    return await handler(more.get("of") or context(more.get("manifest")), arguments)


async def test_a_request_goes_out_with_the_key_of_its_call():
    client = FakeClient()
    await fetch(["post", URL, {"X-A": "b"}, {"base64": "AAH/"}], client, of=context(number=3))
    [request] = client.requests
    assert (request.method, request.url, request.headers, request.body) == ("POST", URL, {"X-A": "b"}, b"\x00\x01\xff")
    assert request.idempotency_key == idempotency_key(2, "parent", "events-0-1", 7, "onEvent", 3)


async def test_a_text_is_sent_as_text():
    client = FakeClient()
    await fetch(["POST", URL, {}, {"text": "ü"}], client)
    assert client.requests[0].body == b"\xc3\xbc"
    assert client.requests[0].headers == {"Content-Type": "text/plain;charset=UTF-8"}
    await fetch(["POST", URL, {"content-type": "a/b"}, {"text": "x"}], client)
    assert client.requests[1].headers == {"content-type": "a/b"}


async def test_headers_that_the_server_sets_are_left_out():
    client = FakeClient()
    headers = {"Content-Length": "5", "connection": "close", "Accept-Encoding": "br", "X-A": " b "}
    await fetch(["GET", URL, headers, None], client)
    assert client.requests[0].headers == {"X-A": "b"}


@pytest.mark.parametrize(
    ("body", "wire"),
    [
        (b"", {"text": ""}),
        (b'{"a": 1}', {"text": '{"a": 1}'}),
        ("\ufeffü\u2028\U0001f600".encode(), {"text": "\ufeffü\u2028\U0001f600"}),
        (b"\xff\xfe", {"base64": "//4="}),
        (b"\xed\xa0\x80", {"base64": "7aCA"}),
    ],
)
async def test_a_body_is_text_if_it_is_utf_8(body: bytes, wire: dict[str, str]):
    client = FakeClient(HttpResponse(404, {"x-a": "b"}, "https://example.com/", body))
    answer = await fetch(["GET", URL, {}, None], client)
    assert answer == {"status": 404, "headers": {"x-a": "b"}, "url": "https://example.com/", "body": wire}


@pytest.mark.parametrize("body", [b"\x00" * 9_000, b'"\\' * 4_500, b"\x7f\x01" * 4_500])
async def test_no_body_grows_by_more_than_half_on_its_way_to_the_sandbox(body: bytes):
    answer = await fetch(["GET", URL, {}, None], FakeClient(HttpResponse(200, {}, "https://x/", body)))
    assert len(orjson.dumps(answer["body"])) <= len(body) * 1.5
    assert base64.b64decode(answer["body"]["base64"]) == body


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["GET"],
        ["GET", URL, {}],
        ["GET", URL, {}, None, 1],
        [1, URL, {}, None],
        ["GET", None, {}, None],
        ["GET", URL, [], None],
        ["GET", URL, None, None],
        ["GET", URL, {}, "text"],
        ["GET", URL, {}, {}],
        ["GET", URL, {}, {"text": 1}],
        ["GET", URL, {}, {"text": "a", "base64": "AA=="}],
        ["GET", URL, {}, {"base64": "*"}],
        ["GET", URL, {}, {"base64": "ü"}],
        ["GET", URL, {}, {"text": "\ud800"}],
        ["GET", URL, {}, []],
        ["", URL, {}, None],
        ["G T", URL, {}, None],
        ["GET\r\n", URL, {}, None],
        ["CONNECT", URL, {}, None],
        ["trace", URL, {}, None],
        ["GET", URL, {"X-A": 1}, None],
        ["GET", URL, {"X-A": "b\r\nX-C: d"}, None],
        ["GET", URL, {"X-A": "b\n"}, None],
        ["GET", URL, {"X-A": "b\0"}, None],
        ["GET", URL, {"X-A": "\ud800"}, None],
        ["GET", URL, {"X-A\r\nX-C": "d"}, None],
        ["GET", URL, {"X A": "d"}, None],
        ["GET", URL, {"": "d"}, None],
        ["GET", URL, {"Host": "evil.example"}, None],
        ["GET", URL, {"transfer-encoding": "chunked"}, None],
        ["GET", URL, {"Upgrade": "websocket"}, None],
        ["GET", URL, {f"X-{number}": "" for number in range(200)}, None],
        ["GET", URL, {"X-A": "b" * 100_000}, None],
        ["GET", "ftp://example.com/", {}, None],
        ["GET", "http://example.com/\r\nHost: x", {}, None],
        ["GET", "http://a:b@example.com/", {}, None],
    ],
)
async def test_wrong_arguments_are_refused_by_name_and_nothing_is_sent(arguments: list[Any]):
    client = FakeClient()
    with pytest.raises(InvalidArgument, match=r"^fetch: ") as caught:
        await fetch(arguments, client)
    assert len(str(caught.value)) < 400
    assert client.requests == []


async def test_a_body_beyond_the_limit_is_refused():
    with pytest.raises(LimitReached, match="1001 bytes"):
        await fetch(["POST", URL, {}, {"text": "x" * 1_001}])


async def test_egress_holds():
    with pytest.raises(FetchRefused, match=r"^fetch: .*egress"):
        await fetch(["GET", URL, {}, None], manifest={"egress": ["api.example.com"]})
    with pytest.raises(FetchRefused, match=r"^fetch: .*ALLOWED_PRIVATE_HOSTS"):
        await fetch(["GET", "http://169.254.169.254/", {}, None])


async def test_the_answers_of_one_run_are_bounded_together():
    of = context()
    client = FakeClient(HttpResponse(200, {}, "https://x/", bytes(RUN_ANSWERS_BYTES // 4)))
    for number in range(4):
        await fetch(["GET", URL, {}, None], client, of=replace(of, number=number))
    with pytest.raises(LimitReached, match="spread them over jobs"):
        await fetch(["GET", URL, {}, None], client, of=replace(of, number=4))
    await fetch(["GET", URL, {}, None], client, of=context())


# Side doors


def posted(of: CallContext) -> list[str]:
    return [capture.event for capture in of.effects.of(7).posted_in_order]


@pytest.mark.parametrize("posthog_host", [None, "https://ph.example"])
@pytest.mark.parametrize("path", ["/capture", "/e/?ip=1", "//capture/", "/%63apture", "/x/../capture"])
async def test_events_posted_to_the_projects_own_capture_path_join_the_captures(path: str, posthog_host: str | None):
    host = posthog_host or "https://PLUGINS.example.:443"
    client, doors, of = FakeClient(), Doors(posthog_host=posthog_host), context()
    body = orjson.dumps({"api_key": TOKEN, "batch": [{"event": "a"}, {"event": "b"}]}).decode()
    answer = await fetch(["POST", host + path, {}, {"text": body}], client, doors, of=of)
    assert posted(of) == ["a", "b"]
    assert answer["status"] == 200
    assert orjson.loads(answer["body"]["text"]) == {"status": 1}
    assert answer["captured"] == 2
    assert client.requests == []
    assert doors.api.asked == []


async def test_a_large_batch_joins_too():
    of = context()
    body = orjson.dumps({"api_key": TOKEN, "event": "a", "padding": "x" * 300_000}).decode()
    handler = make_fetch(FakeClient(), Doors().doors)
    assert (await handler(of, ["POST", "https://plugins.example/e", {}, {"text": body}]))["captured"] == 1
    assert posted(of) == ["a"]


async def test_posted_events_count_against_the_limit():
    of = context()
    body = orjson.dumps({"api_key": TOKEN, "batch": [{"event": "a"}] * 3}).decode()
    arguments = ["POST", "https://plugins.example/batch", {}, {"text": body}]
    await fetch(arguments, of=replace(of, number=1))
    with pytest.raises(LimitReached, match="captures_per_event"):
        await fetch(arguments, of=of)
    assert posted(of) == ["a"] * 3


async def test_posted_events_are_in_program_order_however_long_each_takes():
    of, handler = context(), make_fetch(FakeClient(), Doors().doors)

    async def post(number: int, padding: str) -> None:
        body = orjson.dumps({"api_key": TOKEN, "event": str(number), "padding": padding}).decode()
        await handler(replace(of, number=number), ["POST", "https://plugins.example/e", {}, {"text": body}])

    await asyncio.gather(post(2, ""), post(0, "x" * 300_000), post(1, ""), post(3, "x" * 300_000))
    assert posted(of) == ["0", "1", "2", "3"]


@pytest.mark.parametrize("method", ["GET", "PUT"])
async def test_a_linked_posthog_gets_no_events_of_ours_by_get_either(method: str):
    of, client = context(), FakeClient()
    doors = Doors(posthog_host="https://ph.example")
    body = orjson.dumps({"api_key": TOKEN, "event": "a"}).decode()
    answer = await fetch([method, "https://ph.example/e?data=x", {}, {"text": body}], client, doors, of=of)
    assert (posted(of), answer["captured"], client.requests) == (["a"], 1, [])
    await fetch(["GET", "https://ph.example/e", {}, None], client, doors, of=of)
    assert len(client.requests) == 1


EVENT = orjson.dumps({"api_key": TOKEN, "event": "a", "distinct_id": "u"})
OTHERS = orjson.dumps({"api_key": "phc_3", "event": "b", "distinct_id": "u"})


def linked() -> Doors:
    """A linked PostHog, and requests read as this server reads them."""
    doors = Doors(posthog_host="https://ph.example")
    doors.doors._parse_capture = parse_posted
    return doors


@pytest.mark.parametrize(
    "query",
    [
        "data=" + quote(EVENT),
        "compression=base64&data=" + quote(base64.b64encode(EVENT)),
        "compression=gzip-js&data=" + quote(base64.b64encode(gzip.compress(EVENT))),
        "data=" + base64.urlsafe_b64encode(gzip.compress(EVENT)).decode().rstrip("="),
    ],
    ids=["plain", "base64", "gzip-js", "unsaid"],
)
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
async def test_events_in_the_query_are_captures_however_they_are_packed(method: str, query: str):
    of, client = context(), FakeClient()
    answer = await fetch([method, f"https://ph.example/e/?{query}", {}, None], client, linked(), of=of)
    assert (posted(of), answer["captured"], client.requests) == (["a"], 1, [])


@pytest.mark.parametrize("query", ["data=x", "data=" + quote(OTHERS)])
async def test_what_the_query_says_hides_no_events_in_the_body(query: str):
    of, client = context(), FakeClient()
    arguments = ["POST", f"https://ph.example/e/?{query}", {}, {"text": EVENT.decode()}]
    answer = await fetch(arguments, client, linked(), of=of)
    assert (posted(of), answer["captured"], client.requests) == (["a"], 1, [])


@pytest.mark.parametrize(
    ("query", "headers", "body"),
    [
        ("compression=lz64&data=N4Ig", {}, None),
        ("compression=lz64", {}, {"text": "N4Ig"}),
        ("", {"Content-Type": "application/x-www-form-urlencoded"}, {"text": "data=N4Ig&compression=lz64"}),
        ("", {"Content-Encoding": "zstd"}, {"base64": "KLUv/Q=="}),
    ],
)
async def test_what_only_the_linked_posthog_could_unpack_is_refused(query: str, headers: Any, body: Any):
    of, client = context(), FakeClient()
    with pytest.raises(FetchRefused, match=r"(lz64|zstd).*gzip"):
        await fetch(["POST", f"https://ph.example/e/?{query}", headers, body], client, linked(), of=of)
    assert (posted(of), client.requests) == ([], [])


async def test_what_is_packed_and_is_none_of_ours_goes_on_to_the_linked_posthog():
    of, client = context(), FakeClient()
    body = {"base64": base64.b64encode(gzip.compress(OTHERS)).decode()}
    headers = {"Content-Encoding": "gzip"}
    await fetch(["POST", "https://ph.example/e/?compression=gzip-js", headers, body], client, linked(), of=of)
    assert (posted(of), len(client.requests)) == ([], 1)


async def test_jobs_and_schedules_may_post_more():
    of = context(hook="runEveryMinute")
    body = orjson.dumps({"api_key": TOKEN, "batch": [{"event": "a"}] * 20}).decode()
    assert (await fetch(["POST", "https://plugins.example/batch", {}, {"text": body}], of=of))["captured"] == 20


@pytest.mark.parametrize(("body", "status"), [('{"api_key": "phc_3", "event": "a"}', 401), ("{", 400)])
async def test_what_is_no_capture_of_the_project_is_refused_by_this_server(body: str, status: int):
    of, client = context(), FakeClient()
    answer = await fetch(["POST", "https://plugins.example/capture", {}, {"text": body}], client, of=of)
    assert (answer["status"], posted(of), client.requests) == (status, [], [])


@pytest.mark.parametrize("body", ['{"api_key": "phc_3", "event": "a"}', "{"])
async def test_what_is_no_capture_of_the_project_goes_on_to_the_linked_posthog(body: str):
    of, client = context(), FakeClient()
    doors = Doors(posthog_host="https://ph.example")
    await fetch(["POST", "https://ph.example/capture", {}, {"text": body}], client, doors, of=of)
    assert posted(of) == []
    assert client.requests[0].body == body.encode()


async def test_events_for_another_host_go_out():
    of, client = context(), FakeClient()
    body = orjson.dumps({"api_key": TOKEN, "event": "a"}).decode()
    await fetch(["POST", "https://us.posthog.com/capture", {}, {"text": body}], client, of=of)
    assert len(client.requests) == 1
    assert posted(of) == []


async def test_other_requests_to_this_server_are_answered_in_process_as_the_project():
    client, doors = FakeClient(), Doors(["http://127.0.0.1:6738"])
    url = "http://127.0.0.1:6738/api/projects/2/annotations?limit=1&q="
    answer = await fetch(["GET", url, {"X-A": "b"}, None], client, doors, manifest={"egress": []})
    [(request, project_id)] = doors.api.asked
    assert (request.method, request.path, request.query) == (
        "GET",
        "/api/projects/2/annotations",
        {"limit": "1", "q": ""},
    )
    assert request.headers["x-a"] == "b"
    assert request.headers["idempotency-key"]
    assert project_id == 2
    assert (answer["status"], answer["headers"]) == (201, {"content-type": "application/json"})
    assert client.requests == []

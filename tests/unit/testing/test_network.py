"""Mocks: which entry answers, what is refused before any does, and what a test sees of a request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
import pytest

from plugin_server.host_api.egress import EgressRules, parse_pattern
from plugin_server.host_api.http_client import HttpRequest, HttpResponse
from plugin_server.model.errors import FetchFailed, FetchRefused, InvalidArgument
from plugin_server.testing.http_mocks import ApiMocks, HttpMocks
from plugin_server.testing.network import Asker, MockNetwork, asker

ANY = EgressRules(1)


class Web:
    """A network, and what was asked of it."""

    def __init__(
        self, http: Sequence[Mapping[str, Any]] = (), api: Sequence[Mapping[str, Any]] = (), *, by_api: bool = False
    ) -> None:
        self.network = MockNetwork(HttpMocks(http), ApiMocks(api))
        self.requests: list[dict[str, Any]] = []
        self.api_requests: list[dict[str, Any]] = []
        asker.set(Asker(7, self.requests, self.api_requests if by_api else None))

    async def get(self, url: str, rules: EgressRules = ANY, method: str = "GET", body: bytes = b"") -> HttpResponse:
        return await self.network.send(HttpRequest(method, url, {"X-A": "1"}, body, "key"), rules)


async def test_the_first_entry_that_fits_answers_as_often_as_it_may():
    web = Web(
        [
            {"method": "GET", "url": "https://x.io/a?q=1", "times": 1, "json": {"n": 1}},
            {"method": "POST", "url": "https://x.io/a?q=1", "status": 201, "text": "made", "headers": {"X-B": 2}},
            {"url_prefix": "https://x.io/a", "json": None},
        ]
    )
    assert orjson.loads((await web.get("https://x.io/a?q=1")).body) == {"n": 1}
    again = await web.get("https://x.io/a?q=1")
    assert (again.status, again.body, again.headers["content-type"]) == (200, b"null", "application/json")
    made = await web.get("https://x.io/a?q=1", method="post")
    assert (made.status, made.body, made.headers["x-b"]) == (201, b"made", "2")
    other = await web.get("https://x.io/b")
    assert (other.status, other.body, other.url) == (200, b"{}", "https://x.io/b")


@pytest.mark.parametrize(
    ("entry", "url", "fits"),
    [
        ({"url": "https://x.io"}, "https://x.io/", True),
        ({"url": "https://Store.x.io/a"}, "https://store.x.io/a", True),
        ({"url": "https://x.io/a?e=a@b.co"}, "https://x.io/a?e=a%40b.co", True),
        ({"url": "https://x.io/a?e=1"}, "https://x.io/a?e=1&f=2", False),
        ({"url": "https://x.io/a?e=1&f=2"}, "https://x.io/a?f=2&e=1", False),
        ({"url": "http://x.io/a"}, "https://x.io/a", False),
        ({"url_prefix": "https://x.io/a?e=1"}, "https://x.io/a?e=1&f=2", True),
        ({"url_prefix": "https://x.io/b"}, "https://x.io/a", False),
    ],
)
async def test_an_address_is_exact_with_its_query_however_it_is_escaped(entry, url, fits):
    web = Web([{**entry, "json": {"mine": True}}])
    assert ((await web.get(url)).body == b'{"mine":true}') == fits


async def test_a_network_error_is_a_failed_request_and_listed():
    web = Web(
        [{"url": "https://x.io/a", "network_error": "ECONNREFUSED"}, {"url": "https://x.io/b", "network_error": True}]
    )
    with pytest.raises(FetchFailed, match="ECONNREFUSED"):
        await web.get("https://x.io/a")
    with pytest.raises(FetchFailed, match="network_error"):
        await web.get("https://x.io/b")
    assert [request["url"] for request in web.requests] == ["https://x.io/a", "https://x.io/b"]


@pytest.mark.parametrize(
    "url",
    ["http://localhost/", "http://127.0.0.1:8000/x", "http://10.0.0.1/", "http://[::1]/", "http://169.254.169.254/"],
)
async def test_private_addresses_are_refused_before_any_mock_answers(url):
    web = Web([{"url_prefix": "https://x.io/"}])
    with pytest.raises(FetchRefused):
        await web.get(url)
    assert web.requests == []


async def test_a_private_address_that_a_mock_or_the_app_names_answers():
    web = Web([{"url": "https://localhost:8000/e", "json": {}}])
    assert (await web.get("https://localhost:8000/e")).status == 200
    rules = EgressRules(1, (parse_pattern("127.0.0.1"),))
    assert (await web.get("http://127.0.0.1/x", rules)).status == 200


async def test_what_the_app_does_not_name_is_refused_even_if_there_is_a_mock():
    web = Web([{"url": "https://other.io/", "json": {}}])
    rules = EgressRules(1, (parse_pattern("x.io"),))
    assert (await web.get("https://x.io/a", rules)).status == 200
    assert (await web.get("https://app.posthog.com/api/x", rules)).status == 200
    with pytest.raises(FetchRefused, match="egress"):
        await web.get("https://other.io/", rules)


async def test_redirects_are_followed_checked_and_listed():
    web = Web(
        [
            {"url": "https://x.io/a", "status": 302, "headers": {"Location": "/b"}},
            {"url": "https://x.io/b", "status": 307, "headers": {"Location": "http://10.0.0.1/"}},
        ]
    )
    with pytest.raises(FetchRefused):
        await web.get("https://x.io/a", method="POST", body=b"x")
    assert [(request["method"], request["url"], request["body"]) for request in web.requests] == [
        ("POST", "https://x.io/a", "x"),
        ("GET", "https://x.io/b", None),
    ]
    endless = Web([{"url": "https://x.io/a", "status": 301, "headers": {"Location": "https://x.io/a"}}])
    with pytest.raises(FetchFailed, match="5 redirects"):
        await endless.get("https://x.io/a")
    assert len(endless.requests) == 6


async def test_a_request_is_shown_with_its_body_as_text_bytes_or_json():
    web = Web()
    for body in (b"", b'{"a": 1}', b"\xff\xfe"):
        await web.get("https://x.io/a", method="PUT", body=body)
    assert [request["body"] for request in web.requests] == [None, '{"a": 1}', b"\xff\xfe"]
    assert [request["json"] for request in web.requests] == [None, {"a": 1}, None]
    assert web.requests[0] == {
        "method": "PUT",
        "url": "https://x.io/a",
        "headers": {"X-A": "1"},
        "body": None,
        "json": None,
        "idempotency_key": "key",
    }


@pytest.mark.parametrize(
    ("path", "url", "fits"),
    [
        ("/api/projects/@current/x", "https://app.posthog.com/api/projects/7/x?token=t", True),
        ("/api/projects/7/x", "https://eu.example.com/api/projects/7/x", True),
        (
            "/api/projects/@current/x?email=a@b.co",
            "https://app.posthog.com/api/projects/7/x?email=a%40b.co&token=t",
            True,
        ),
        ("/api/projects/@current/x?email=a@b.co", "https://app.posthog.com/api/projects/7/x?token=t", False),
        ("/api/projects/@current/y", "https://app.posthog.com/api/projects/7/x", False),
    ],
)
async def test_posthog_api_is_answered_by_its_path(path, url, fits):
    web = Web(api=[{"method": "GET", "path": path, "status": 203}], by_api=True)
    assert ((await web.get(url)).status == 203) == fits
    assert web.api_requests == web.requests


async def test_fetch_is_not_answered_by_mocks_of_posthog_api_but_the_other_way_round():
    entries = [{"method": "GET", "path": "/api/x", "status": 203}]
    assert (await Web(api=entries).get("https://app.posthog.com/api/x")).status == 200
    web = Web([{"url": "https://app.posthog.com/api/x", "status": 204}], by_api=True)
    assert (await web.get("https://app.posthog.com/api/x")).status == 204


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"json": {}}, "needs url or url_prefix"),
        ({"url": "https://x.io", "url_prefix": "https://x.io"}, "needs url or url_prefix"),
        ({"url": "https://x.io", "body": 1}, "'body'; known are"),
        ({"url": "https://x.io", "times": "1"}, "times of a mock"),
        ({"url": "x.io/a"}, "a mock's url: "),
    ],
)
def test_an_entry_that_cannot_be_meant_is_refused(entry, said):
    with pytest.raises(ValueError, match=said):
        HttpMocks([entry])


async def test_what_a_server_refuses_of_a_request_is_refused_here():
    web = Web()
    with pytest.raises(InvalidArgument):
        await web.get("https://x.io/", method="TRACE")
    with pytest.raises(InvalidArgument):
        await web.get("ftp://x.io/")

"""The network of a test: every request is answered at once by the test's mocks, after the rules that a server has.

The PostHog of a test is one that is linked, `https://app.posthog.com`: so requests to it look as PostHog's own plugin
server makes them, token and key included, and events that are posted to its capture paths become captures.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any, Final

import orjson

from plugin_server.capture.posted import CAPTURE_PATHS, parse_capture
from plugin_server.host_api.calls import CallContext
from plugin_server.host_api.egress import EgressRules, PrivateAccess
from plugin_server.host_api.http_client import HttpRequest, HttpResponse
from plugin_server.host_api.own_hosts import POSTHOG_CLOUD, make_own_hosts, make_redirect_check
from plugin_server.host_api.redirects import REDIRECT_STATUSES, Hop, next_hop
from plugin_server.host_api.request_rules import check_headers, check_method, has_header
from plugin_server.host_api.side_doors import SideDoors
from plugin_server.host_api.urls import WebUrl, join_url, parse_url
from plugin_server.model.api import ApiRequest, ApiResponse
from plugin_server.model.errors import FetchFailed, InvalidArgument
from plugin_server.testing.http_mocks import ApiMocks, HttpMocks

PERSONAL_API_KEY: Final = "phx_harness"
"""What the project's personal API key is in a test"""
HOSTS: Final = make_own_hosts((), POSTHOG_CLOUD)
_check_redirect: Final = make_redirect_check(make_own_hosts((), None), CAPTURE_PATHS)
_REDIRECTS: Final = 5
_UNMATCHED: Final = b"{}"


@dataclass(frozen=True, slots=True)
class Asker:
    """On whose behalf a request is sent. It is added to `requests`, by `posthog.api` also to `api_requests`."""

    project_id: int
    requests: list[dict[str, Any]]
    api_requests: list[dict[str, Any]] | None = None

    def sends(self, hop: Hop, url: str, idempotency_key: str | None) -> None:
        """List a request."""
        request = describe(hop, url, idempotency_key)
        self.requests.append(request)
        if self.api_requests is not None:
            self.api_requests.append(request)


asker: ContextVar[Asker] = ContextVar("asker")
"""Set by whoever handles the call that leads to a request"""


class MockNetwork:
    """HttpClient of a test."""

    def __init__(self, http: HttpMocks, posthog_api: ApiMocks) -> None:
        self._http = http
        self._posthog_api = posthog_api

    async def send(self, request: HttpRequest, rules: EgressRules) -> HttpResponse:
        """See HttpClient. Lists every hop; what no mock fits is answered 200 `{}`."""
        headers = check_headers(request.headers)
        hop = Hop(check_method(request.method), parse_url(request.url), headers, request.body)
        as_given = request.url
        for _ in range(_REDIRECTS + 1):
            self._check(hop.url, rules)
            asker.get().sends(hop, as_given, request.idempotency_key)
            response = self._answer(hop, as_given)
            location = response.headers.get("location")
            if response.status not in REDIRECT_STATUSES or location is None:
                return response
            hop = next_hop(hop, response.status, _join(hop.url, location))
            as_given = hop.url.text
            _check_redirect(hop.url, hop.method)
        raise FetchFailed(f"more than {_REDIRECTS} redirects, the last to {hop.url.origin}")

    def _answer(self, hop: Hop, as_given: str) -> HttpResponse:
        found = None
        if asker.get().api_requests is not None:
            found = self._posthog_api.answer(hop.method, hop.url, asker.get().project_id)
        found = found or self._http.answer(hop.method, hop.url, as_given)
        return found or HttpResponse(200, {"content-type": "application/json"}, hop.url.text, _UNMATCHED)

    def _check(self, url: WebUrl, rules: EgressRules) -> None:
        """What a mock or the app's `egress` names may be private: it is not there anyway. Raises FetchRefused."""
        if url.origin == HOSTS.linked:
            return
        named = (*self._http.hosts, *(rules.hosts or ()))
        replace(rules, access=PrivateAccess(hosts=named)).check(url)


class MockDoors(SideDoors):
    """Lists the requests that end in captures and never reach the network."""

    def __init__(self) -> None:
        super().__init__(HOSTS, _no_own_api, parse_capture, CAPTURE_PATHS)

    async def answer(self, context: CallContext, url: WebUrl, request: HttpRequest) -> dict[str, Any] | None:
        """See SideDoors."""
        answer = await super().answer(context, url, request)
        if answer is not None:
            hop = Hop(request.method, url, request.headers, request.body)
            asker.get().sends(hop, request.url, request.idempotency_key)
        return answer


def describe(hop: Hop, url: str, idempotency_key: str | None) -> dict[str, Any]:
    """A request as a test sees it. The Idempotency-Key is not among the headers unless the app put it there."""
    return {
        "method": hop.method,
        "url": url,
        "headers": dict(hop.headers),
        "body": _readable(hop.body),
        "json": _json(hop.body),
        "idempotency_key": _own_key(hop.headers) if has_header(hop.headers, "idempotency-key") else idempotency_key,
    }


def _own_key(headers: Mapping[str, str]) -> str:
    return next(value for name, value in headers.items() if name.lower() == "idempotency-key")


def _readable(body: bytes) -> str | bytes | None:
    """Text where it is UTF-8, None where there is none."""
    if not body:
        return None
    try:
        return body.decode()
    except UnicodeDecodeError:
        return body


def _json(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None


def _join(base: WebUrl, location: str) -> WebUrl:
    try:
        return join_url(base, location)
    except InvalidArgument as error:
        raise FetchFailed(f"{base.origin} redirects to what is no URL to fetch: {error}") from None


async def _no_own_api(request: ApiRequest, project_id: int) -> ApiResponse:
    raise AssertionError(f"{request.path} of project {project_id}: a test has no host of its own")

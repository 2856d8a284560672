"""What the handlers of `fetch` and `posthog.api` are given in tests: a client that answers at once, an API, a capture parser."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from plugin_server.host_api.calls import CallContext
from plugin_server.host_api.effects import RunEffects
from plugin_server.host_api.egress import EgressRules
from plugin_server.host_api.http_client import HttpRequest, HttpResponse
from plugin_server.host_api.own_hosts import make_own_hosts
from plugin_server.host_api.side_doors import SideDoors
from plugin_server.model.api import ApiRequest, ApiResponse
from plugin_server.model.origin import Origin
from plugin_server.model.posted import PostedCapture
from plugin_server.model.project import App, Install, Limits, Project

CAPTURE_PATHS = ("/capture", "/batch", "/e")
TOKEN = "phc_2"


class FakeClient:
    """Answers every request alike, after the egress rules."""

    def __init__(self, response: HttpResponse | None = None) -> None:
        self.requests: list[HttpRequest] = []
        self.response = response or HttpResponse(200, {"content-type": "application/json"}, "https://x/", b"{}")

    async def send(self, request: HttpRequest, rules: EgressRules) -> HttpResponse:
        rules.check_url(request.url)
        self.requests.append(request)
        return self.response


class FakeOwnApi:
    def __init__(self) -> None:
        self.asked: list[tuple[ApiRequest, int]] = []

    async def answer(self, request: ApiRequest, project_id: int) -> ApiResponse:
        self.asked.append((request, project_id))
        return ApiResponse(201, b'{"id": 1}', {"Content-Type": "application/json"})


def parse_capture(request: ApiRequest, project: Project) -> list[PostedCapture] | ApiResponse:
    """One event, or `{"batch": […]}`."""
    try:
        document = orjson.loads(request.body)
    except orjson.JSONDecodeError:
        return ApiResponse(400, b'{"detail": "not JSON"}')
    token = document.get("api_key") or request.query.get("token")
    if token != project.token:
        return ApiResponse(401, b'{"detail": "another project"}')
    events = document.get("batch", [document])
    return [PostedCapture(event["event"], "ada", None, {}) for event in events]


def context(
    manifest: Mapping[str, Any] | None = None,
    config: dict[str, Any] | None = None,
    *,
    number: int = 0,
    hook: str = "onEvent",
) -> CallContext:
    install = Install(7, App("App", "0", "main.py", "", dict(manifest or {})), 1, config or {})
    project = Project(2, "Acme", TOKEN, (install,), limits=Limits(captures_per_event=5, captures_per_run=20))
    return CallContext(project, install, number, RunEffects(project, Origin("events-0-1", "parent", hook)))


class Doors:
    """Side doors with all that they need."""

    def __init__(self, own: list[str] | None = None, posthog_host: str | None = None) -> None:
        self.api = FakeOwnApi()
        self.hosts = make_own_hosts(own or ["https://plugins.example"], posthog_host)
        self.doors = SideDoors(self.hosts, self.api.answer, parse_capture, CAPTURE_PATHS)

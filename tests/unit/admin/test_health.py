"""Health, readiness, metrics and the landing page over a real loopback server."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client import CollectorRegistry, Counter

from plugin_server.admin.health import health_routes


class Parts:
    """What is wrong with the parts, as a test sets it."""

    def __init__(self) -> None:
        self.health: dict[str, str | None] = {"lanes": None}
        self.readiness: dict[str, str | None] = {"event log": None, "database": None}


@pytest.fixture
def parts() -> Parts:
    return Parts()


@pytest.fixture
async def client(parts: Parts) -> AsyncIterator[TestClient[web.Request, web.Application]]:
    metrics = CollectorRegistry()
    Counter("events", "Events.", registry=metrics).inc(3)
    app = web.Application()
    app.add_routes(health_routes(health=lambda: parts.health, readiness=lambda: parts.readiness, metrics=metrics))
    async with TestClient(TestServer(app)) as client:
        yield client


@pytest.mark.parametrize("path", ["/_health", "/_ready"])
async def test_a_server_that_is_well_says_so(client, path):
    async with client.get(path) as response:
        body = await response.json()
    assert (response.status, body["status"]) == (200, "ok")
    assert set(body["checks"].values()) == {"ok"}


async def test_a_sick_part_makes_health_fail_with_the_reason(client, parts):
    parts.health["lanes"] = "lane 3 has not moved for 60 s"
    async with client.get("/_health") as response:
        body = await response.json()
    assert response.status == 503
    assert body == {"status": "error", "checks": {"lanes": "lane 3 has not moved for 60 s"}}


async def test_readiness_fails_until_every_part_is_ready_and_health_does_not(client, parts):
    parts.readiness["database"] = "does not answer"
    async with client.get("/_ready") as response:
        body = await response.json()
    assert response.status == 503
    assert body["checks"] == {"event log": "ok", "database": "does not answer"}
    async with client.get("/_health") as response:
        assert response.status == 200
    parts.readiness["database"] = None
    async with client.get("/_ready") as response:
        assert response.status == 200


async def test_a_reason_without_words_is_still_a_reason(client, parts):
    parts.readiness["database"] = ""
    async with client.get("/_ready") as response:
        assert response.status == 503


async def test_metrics_are_in_the_format_of_prometheus(client):
    async with client.get("/_metrics") as response:
        text = await response.text()
    assert response.headers["Content-Type"].startswith("text/plain; version=")
    assert "events_total 3.0" in text


async def test_the_landing_page_says_what_this_is_and_where_to_send_events(client):
    async with client.get("/") as response:
        text = await response.text()
    assert response.headers["Content-Type"].startswith("text/plain")
    assert text.startswith("plugin-server")
    assert f"http://127.0.0.1:{client.port}/capture/" in text
    for word in ("docs/", "/_health", "/_ready", "/_metrics"):
        assert word in text

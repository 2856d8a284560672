"""What an orchestrator and Prometheus ask: is it alive, may it get work, how is it doing.

`/_health` fails when a restart would help, `/_ready` when it would not (Kafka away, lanes starting): an orchestrator
must not restart all workers because the database is down.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http import HTTPStatus

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

Checks = Callable[[], Mapping[str, str | None]]
"""Name of a part to None, when it is well, or to what is wrong with it, in a sentence. Quick: it looks, and waits for nothing."""

LANDING = """\
plugin-server: runs each project's apps on its events.

Send events to    {url}/capture/   (also /batch/ and /e/, as PostHog's SDKs do)
Documentation     docs/ in the source tree; start with docs/README.md
Health            {url}/_health
Readiness         {url}/_ready
Metrics           {url}/_metrics
"""


def health_routes(
    *, health: Checks, readiness: Checks, metrics: CollectorRegistry, public_url: str | None = None
) -> list[web.RouteDef]:
    """`/_health`, `/_ready`, `/_metrics` and the landing page `/`.

    The first two answer `{"status": "ok" | "error", "checks": {name: "ok" | what is wrong}}`, with 200 if nothing is
    wrong, else 503. `public_url` is shown on the landing page; None: the address that was asked.
    """

    async def get_health(_: web.Request) -> web.Response:
        return _answer(health())

    async def get_ready(_: web.Request) -> web.Response:
        return _answer(readiness())

    async def get_metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(metrics), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def get_landing(request: web.Request) -> web.Response:
        return web.Response(text=LANDING.format(url=public_url or str(request.url.origin())))

    return [
        web.get("/_health", get_health),
        web.get("/_ready", get_ready),
        web.get("/_metrics", get_metrics),
        web.get("/", get_landing),
    ]


def _answer(checks: Mapping[str, str | None]) -> web.Response:
    is_well = all(problem is None for problem in checks.values())
    body = {
        "status": "ok" if is_well else "error",
        "checks": {name: "ok" if problem is None else problem or "error" for name, problem in checks.items()},
    }
    status = HTTPStatus.OK if is_well else HTTPStatus.SERVICE_UNAVAILABLE
    return web.json_response(body, status=status, headers={"Cache-Control": "no-store"})

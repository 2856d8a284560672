"""The HTTP endpoints that PostHog's SDKs send events to.

A request is answered after the log has acknowledged its events: 200 `{"status": 1}`. A refusal is one JSON object
(refusal.py), 503 when the log is away or the project cannot be looked up, which SDKs take as "send it again".

The `ip` of an event is the peer's address. `X-Forwarded-For` is not read, since anybody can send one: behind a proxy
the address is the proxy's.

Every answer carries CORS headers for the page that asks, refusals too; without them a browser shows the SDK no status
at all, and it tries again in vain.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from http import HTTPStatus

from aiohttp import http_exceptions, web

from plugin_server.capture.decode import decode_json
from plugin_server.capture.envelope import envelopes
from plugin_server.capture.parse import parse_request
from plugin_server.capture.refusal import Refusal, invalid, invalid_token, too_large, unavailable
from plugin_server.eventlog.port import OutputRecord
from plugin_server.model.errors import Transient
from plugin_server.model.project import Project

PATHS = ("/capture", "/batch", "/e", "/track", "/i/v0/e")
"""Each with and without a final slash."""
_LARGE_BODY_BYTES = 256 * 1024
BODY_BYTES = 20 * 2**20
READ_TIMEOUT_SECONDS = 30.0
PRODUCE_TIMEOUT_SECONDS = 10.0

FindProject = Callable[[str], Awaitable[Project | None]]
Produce = Callable[[list[OutputRecord]], Awaitable[None]]


def _utc_now() -> datetime:
    return datetime.now(UTC)


def capture_routes(
    find_project: FindProject,
    produce: Produce,
    *,
    topic: str,
    record_bytes: int,
    body_bytes: int = BODY_BYTES,
    read_timeout_seconds: float = READ_TIMEOUT_SECONDS,
    produce_timeout_seconds: float = PRODUCE_TIMEOUT_SECONDS,
    now: Callable[[], datetime] = _utc_now,
) -> list[web.RouteDef]:
    """The routes of all capture paths, for every method (another than POST and OPTIONS is a 405).

    `find_project` answers None only when it is certain that no project has the token, and raises Transient when it
    cannot tell. `produce` is `EventLog.produce`. `body_bytes` bounds the body as sent and as unpacked; the application's
    `client_max_size` plays no part. `read_timeout_seconds` is the longest pause of the client.
    """

    async def accept(request: web.Request) -> None:
        received_at = now()
        raw = await _read_body(request, body_bytes, read_timeout_seconds)

        def read() -> tuple[str, list[OutputRecord]]:
            parsed = parse_request(decode_json(raw), request.query)
            ip = request.remote or ""
            return parsed.token, envelopes(
                parsed, topic=topic, ip=ip, received_at=received_at, record_bytes=record_bytes
            )

        # A large body takes seconds; in a thread it takes them beside the lanes and health, not before them.
        token, records = await asyncio.to_thread(read) if len(raw) > _LARGE_BODY_BYTES else read()
        try:
            if await find_project(token) is None:
                raise invalid_token("no project has it")
            async with asyncio.timeout(produce_timeout_seconds):
                await produce(records)
        except (Transient, TimeoutError):
            raise unavailable() from None

    async def handle(request: web.Request) -> web.Response:
        try:
            if request.method == "OPTIONS":
                response = web.Response()
            elif request.method != "POST":
                raise _method_not_allowed()
            else:
                await accept(request)
                response = web.json_response({"status": 1})
        except Refusal as refusal:
            response = web.json_response(refusal.as_json(), status=refusal.status)
            if refusal.status == HTTPStatus.SERVICE_UNAVAILABLE:
                response.headers["Retry-After"] = "1"
            if refusal.status == HTTPStatus.METHOD_NOT_ALLOWED:
                response.headers["Allow"] = "POST, OPTIONS"
        if request.content.exception() is not None:
            response.force_close()  # as aiohttp does anyway, without telling the client
        _allow_origin(request, response)
        return response

    return [web.route("*", path + slash, handle) for path in PATHS for slash in ("", "/")]


async def _read_body(request: web.Request, limit_bytes: int, pause_seconds: float) -> bytes:
    if (request.content_length or 0) > limit_bytes:
        raise too_large(f"The body is larger than {limit_bytes} bytes.")
    chunks = bytearray()
    try:
        while True:
            async with asyncio.timeout(pause_seconds):
                chunk = await request.content.readany()
            if not chunk:
                break
            chunks += chunk
            if len(chunks) > limit_bytes:
                raise too_large(f"The body is larger than {limit_bytes} bytes.")
    except (TimeoutError, ConnectionResetError):  # in the second case nobody is left to read the answer
        detail = "The body did not arrive in time."
        raise Refusal(HTTPStatus.REQUEST_TIMEOUT, "timeout_error", "timeout", detail) from None
    except (web.RequestPayloadError, http_exceptions.HttpProcessingError):
        raise invalid("The body is not what its Content-Encoding or Transfer-Encoding says.") from None
    if not chunks:
        raise invalid("The request has no body.")
    return bytes(chunks)


def _method_not_allowed() -> Refusal:
    detail = "Send events with POST."
    return Refusal(HTTPStatus.METHOD_NOT_ALLOWED, "invalid_request", "method_not_allowed", detail)


def _allow_origin(request: web.Request, response: web.Response) -> None:
    origin = request.headers.get("Origin")
    if origin is None:
        return
    asked = request.headers.get("Access-Control-Request-Headers")
    response.headers["Access-Control-Allow-Origin"] = origin
    response.headers["Access-Control-Allow-Credentials"] = "true"
    response.headers["Access-Control-Allow-Methods"] = "POST, OPTIONS"
    response.headers["Access-Control-Allow-Headers"] = asked or "Content-Type, X-Requested-With"
    response.headers["Vary"] = "Origin, Access-Control-Request-Headers"

"""The API over HTTP: who asks, then the same handler as for apps."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Final

import structlog
from aiohttp import http_exceptions, web

from plugin_server.admin.api.errors import (
    ApiRefusal,
    failed,
    forbidden,
    invalid,
    not_json,
    too_large,
)
from plugin_server.admin.api.handler import BODY_BYTES, CURRENT, target_of
from plugin_server.model.api import ApiRequest, ApiResponse

READ_TIMEOUT_SECONDS: Final = 30.0

Answer = Callable[[ApiRequest, int], Awaitable[ApiResponse]]
Authenticate = Callable[[str | None], frozenset[int]]
_log = structlog.get_logger(__name__)


def api_routes(
    answer: Answer, authenticate: Authenticate, *, read_timeout_seconds: float = READ_TIMEOUT_SECONDS
) -> list[web.RouteDef]:
    """All paths below `/api/`, for every method. `answer` is `OwnApi.answer`, `authenticate` `Authenticator.projects_of`.

    Who asks is looked at first: without credentials a path does not even tell whether it exists.
    """

    async def accept(request: web.Request) -> ApiResponse:
        project_id = _choose(authenticate(request.headers.get("Authorization")), request.path)
        body = await _read_body(request, read_timeout_seconds)
        headers = {name.lower(): value for name, value in request.headers.items()}
        headers.setdefault("x-forwarded-proto", request.scheme)
        method = "GET" if request.method == "HEAD" else request.method
        return await answer(ApiRequest(method, request.path, dict(request.query), headers, body), project_id)

    async def handle(request: web.Request) -> web.Response:
        try:
            response = await accept(request)
        except ApiRefusal as refusal:
            response = refusal.response()
        except Exception:  # noqa: BLE001 - the boundary: one request fails, not the server
            _log.exception("own_api_failed", method=request.method)
            response = failed().response()
        sent = web.Response(
            body=response.body, status=response.status, headers={"cache-control": "no-store", **response.headers}
        )
        if request.content.exception() is not None:
            sent.force_close()  # as aiohttp does anyway, without telling the client
        return sent

    return [web.route("*", "/api", handle), web.route("*", "/api/{path:.*}", handle)]


def _choose(allowed: frozenset[int], path: str) -> int:
    """The project that a request is for, among those that its credentials open. Raises ApiRefusal."""
    named = target_of(path).project
    if named != CURRENT:
        chosen = next((project_id for project_id in allowed if str(project_id) == named), None)
        if chosen is None:
            raise forbidden()
        return chosen
    if len(allowed) > 1:
        raise invalid(
            "project_id", "ambiguous", "Your key opens several projects. Name one by its id, as in /api/projects/2/."
        )
    return next(iter(allowed))


async def _read_body(request: web.Request, timeout_seconds: float) -> bytes:
    if (request.content_length or 0) > BODY_BYTES:
        raise too_large(BODY_BYTES)
    body = bytearray()
    try:
        async with asyncio.timeout(timeout_seconds):
            while chunk := await request.content.readany():
                body += chunk
                if len(body) > BODY_BYTES:
                    raise too_large(BODY_BYTES)
    except (TimeoutError, ConnectionResetError):  # in the second case nobody is left to read the answer
        detail = "The body did not arrive in time. Send the request again."
        raise ApiRefusal(HTTPStatus.REQUEST_TIMEOUT, "timeout_error", "timeout", detail) from None
    except (web.RequestPayloadError, http_exceptions.HttpProcessingError):
        raise not_json() from None
    return bytes(body)

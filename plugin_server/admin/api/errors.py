"""Refusals of the API, in the JSON form of PostHog's: `{"type", "code", "detail", "attr"}`.

`detail` says what to do instead, and never repeats what was sent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import orjson

from plugin_server.model.api import ApiResponse


class ApiRefusal(Exception):
    """Ends the handling of a request with `status`. `attr` names the field or parameter that is wrong."""

    def __init__(
        self,
        status: HTTPStatus,
        kind: str,
        code: str,
        detail: str,
        *,
        attr: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.code = code
        self.detail = detail
        self.attr = attr
        self.headers = headers or {}

    def response(self) -> ApiResponse:
        """The answer that says it."""
        body = {"type": self.kind, "code": self.code, "detail": self.detail, "attr": self.attr}
        return json_answer(self.status, body, self.headers)


def json_answer(status: HTTPStatus, value: Any, headers: Mapping[str, str] | None = None) -> ApiResponse:
    """An answer with a JSON body."""
    return ApiResponse(status, orjson.dumps(value), {"content-type": "application/json", **(headers or {})})


def invalid(attr: str, code: str, detail: str) -> ApiRefusal:
    """400: a field or a parameter has a value that it cannot have."""
    return ApiRefusal(HTTPStatus.BAD_REQUEST, "validation_error", code, detail, attr=attr)


def not_json() -> ApiRefusal:
    """400: the body as a whole."""
    detail = 'The body is not a JSON object. Send one, for example {"content": "Released"}.'
    return ApiRefusal(HTTPStatus.BAD_REQUEST, "invalid_request", "parse_error", detail)


def not_authenticated(code: str, detail: str) -> ApiRefusal:
    """401."""
    headers = {"www-authenticate": "Bearer"}
    return ApiRefusal(HTTPStatus.UNAUTHORIZED, "authentication_error", code, detail, headers=headers)


def forbidden() -> ApiRefusal:
    """403: the same whether the project exists or not."""
    detail = "You have no access to this project. Write @current, or the id of the project that your key is for."
    return ApiRefusal(HTTPStatus.FORBIDDEN, "authentication_error", "permission_denied", detail)


def not_found(detail: str) -> ApiRefusal:
    """404: no such thing, or no such path."""
    return ApiRefusal(HTTPStatus.NOT_FOUND, "invalid_request", "not_found", detail)


def method_not_allowed(allowed: Sequence[str]) -> ApiRefusal:
    """405."""
    listed = ", ".join(allowed)
    return ApiRefusal(
        HTTPStatus.METHOD_NOT_ALLOWED,
        "invalid_request",
        "method_not_allowed",
        f"This path does not take that method. Use one of: {listed}.",
        headers={"allow": listed},
    )


def too_large(limit_bytes: int) -> ApiRefusal:
    """413."""
    detail = f"The body is larger than {limit_bytes} bytes. Send less."
    return ApiRefusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "validation_error", "too_large", detail)


def unavailable() -> ApiRefusal:
    """503: ours; the same request may succeed later."""
    detail = "The server cannot reach its database or event log just now. Send the request again in a few seconds."
    headers = {"retry-after": "1"}
    return ApiRefusal(HTTPStatus.SERVICE_UNAVAILABLE, "server_error", "unavailable", detail, headers=headers)


def failed() -> ApiRefusal:
    """500: a fault of this server."""
    detail = "The server failed. Its log says why under own_api_failed."
    return ApiRefusal(HTTPStatus.INTERNAL_SERVER_ERROR, "server_error", "error", detail)

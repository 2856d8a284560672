"""Why a request is refused, in the JSON form of PostHog's API: `{"type", "code", "detail", "attr"}`.

`detail` is a sentence for a person and never repeats what the client sent beyond the name of a field.
"""

from __future__ import annotations

from http import HTTPStatus


class Refusal(Exception):
    """Ends the handling of a request with `status`."""

    def __init__(self, status: HTTPStatus, kind: str, code: str, detail: str, *, attr: str | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.code = code
        self.detail = detail
        self.attr = attr

    def as_json(self) -> dict[str, str | None]:
        return {"type": self.kind, "code": self.code, "detail": self.detail, "attr": self.attr}


def invalid(detail: str, *, attr: str | None = None) -> Refusal:
    """400: sending it again would not help."""
    return Refusal(HTTPStatus.BAD_REQUEST, "validation_error", "invalid_payload", detail, attr=attr)


def missing_token() -> Refusal:
    """401: no project is named."""
    detail = "The request has no project token. Send it as `api_key` or `token`."
    return Refusal(HTTPStatus.UNAUTHORIZED, "authentication_error", "missing_api_key", detail, attr="api_key")


def invalid_token(reason: str) -> Refusal:
    """401: what is sent as token cannot be one, or no project has it."""
    detail = f"The project token is not valid: {reason}."
    return Refusal(HTTPStatus.UNAUTHORIZED, "authentication_error", "invalid_api_key", detail, attr="api_key")


def too_large(detail: str) -> Refusal:
    """413."""
    return Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "validation_error", "too_large", detail)


def unavailable() -> Refusal:
    """503: ours; SDKs send it again."""
    detail = "The event could not be stored just now. Send it again."
    return Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "server_error", "server_error", detail)

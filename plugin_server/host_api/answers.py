"""A response as it travels to a sandbox: `{"status", "headers", "url", "body": {"text"} or {"base64"}}`."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, Final

from plugin_server.host_api.http_client import HttpResponse

_ESCAPED_AS_SIX: Final = bytes(byte for byte in range(0x20) if byte not in b"\b\t\n\f\r") + b"\x7f"
_ESCAPED_AS_TWO: Final = b'"\\\b\t\n\f\r'


def encode_answer(response: HttpResponse) -> dict[str, Any]:
    """Text where the body is UTF-8 and JSON does not make more of it than base64 would."""
    return {
        "status": response.status,
        "headers": dict(response.headers),
        "url": response.url,
        "body": _encode_body(response.body),
    }


def json_answer(status: int, url: str, body: bytes, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
    """An answer of this server itself."""
    lowered = {name.lower(): value for name, value in (headers or {}).items()}
    return encode_answer(HttpResponse(status, {"content-type": "application/json", **lowered}, url, body))


def _encode_body(body: bytes) -> dict[str, str]:
    escapes = 5 * _count(body, _ESCAPED_AS_SIX) + _count(body, _ESCAPED_AS_TWO)
    if escapes <= len(body) // 3 + 16:
        try:
            return {"text": body.decode()}
        except UnicodeDecodeError:
            pass
    return {"base64": base64.b64encode(body).decode("ascii")}


def _count(body: bytes, members: bytes) -> int:
    return len(body) - len(body.translate(None, members))

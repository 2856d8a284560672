"""What a request of an app may look like: method, headers, body. Pure; applied to what a sandbox sends and before each send."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any, Final

from plugin_server.model.errors import InvalidArgument, LimitReached

HEADER_COUNT: Final = 100
HEADERS_BYTES: Final = 64 * 1024

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_METHOD: Final = re.compile(r"[A-Z][A-Z-]{0,19}")
_REFUSED_METHODS: Final = frozenset({"CONNECT", "TRACE", "TRACK"})
_IGNORED: Final = frozenset({"accept-encoding", "connection", "content-length", "keep-alive"})
"""The server sets them itself, and apps that were written for other runtimes set them out of habit."""
_REFUSED: Final = frozenset(
    {"expect", "host", "http2-settings", "proxy-authorization", "proxy-connection"}
    | {"te", "trailer", "transfer-encoding", "upgrade"}
)


def check_method(untrusted: object) -> str:
    """In upper case. Raises InvalidArgument."""
    method = untrusted.upper() if isinstance(untrusted, str) else ""
    if not _METHOD.fullmatch(method) or method in _REFUSED_METHODS:
        raise InvalidArgument(
            f"{str(untrusted)[:20]!r} is no method: use GET, POST, PUT, PATCH, DELETE, HEAD or OPTIONS"
        )
    return method


def check_headers(untrusted: object) -> dict[str, str]:
    """The headers that are sent, those left out that the server sets itself. Raises InvalidArgument."""
    if not isinstance(untrusted, Mapping):
        raise InvalidArgument("headers must be an object of texts")
    if len(untrusted) > HEADER_COUNT:
        raise InvalidArgument(f"{len(untrusted)} headers are more than the {HEADER_COUNT} that are allowed")
    headers: dict[str, str] = {}
    size = 0
    for name, value in untrusted.items():
        if not isinstance(name, str) or not _TOKEN.fullmatch(name):
            raise InvalidArgument(f"{str(name)[:60]!r} is no name of a header: letters, digits and - only")
        if not isinstance(value, str):
            raise InvalidArgument(f"the header {name[:60]} must be a text, not {type(value).__name__}")
        if _CONTROL.search(value):
            raise InvalidArgument(f"the header {name[:60]} has a line end or another control character: remove it")
        try:
            size += len(name) + len(value.encode())
        except UnicodeEncodeError:
            raise InvalidArgument(
                f"the header {name[:60]} has half of a surrogate pair, which is no character"
            ) from None
        lowered = name.lower()
        if lowered in _REFUSED:
            raise InvalidArgument(f"the header {name[:60]} is the server's to set: leave it out")
        if lowered not in _IGNORED:
            headers[name] = value.strip(" \t")
    if size > HEADERS_BYTES:
        raise InvalidArgument(f"headers of {size} bytes are more than the {HEADERS_BYTES} that are allowed")
    return headers


def has_header(headers: Mapping[str, str], lowered_name: str) -> bool:
    return any(name.lower() == lowered_name for name in headers)


def read_body(untrusted: object) -> bytes:
    """The bytes of a body on the wire: null, `{"text": …}` or `{"base64": …}`. Raises InvalidArgument."""
    match untrusted:
        case None:
            return b""
        case {"text": str() as text, **rest} if not rest:
            try:
                return text.encode()
            except UnicodeEncodeError:
                raise InvalidArgument("the body has half of a surrogate pair, which is no character") from None
        case {"base64": str() as text, **rest} if not rest:
            try:
                return base64.b64decode(text, validate=True)
            except (binascii.Error, ValueError):
                raise InvalidArgument("the body is not valid base64") from None
        case _:
            raise InvalidArgument("the body must be text, bytes or a JSON value")


def is_text_body(untrusted: Any) -> bool:
    return isinstance(untrusted, Mapping) and "text" in untrusted


def check_body_size(body: bytes, limit_bytes: int) -> None:
    """Raises LimitReached."""
    if len(body) > limit_bytes:
        raise LimitReached(
            f"a body of {len(body)} bytes is more than the {limit_bytes} that a request may have: split it"
        )

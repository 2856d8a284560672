"""What `composeWebhook` returned: the request that the host makes for the app."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple

import orjson

from plugin_server.host_api.calls import CallContext
from plugin_server.host_api.request_rules import has_header
from plugin_server.model.errors import InvalidArgument

COMPOSE_WEBHOOK: Final = "composeWebhook"
_FIELDS: Final = frozenset({"url", "body", "headers", "method"})
_JSON_TYPE: Final = "application/json"


class Webhook(NamedTuple):
    """A request. Whether its parts are ones that may be sent is judged by who sends it, as for `fetch`."""

    method: str
    url: str
    headers: dict[str, str]
    body: bytes


WEBHOOK_CALL: Final = 1_000_000
"""Its number among the host calls of its run: beyond all that the hook itself can make"""
SendWebhook = Callable[[CallContext, Webhook], Awaitable[int]]
"""Sends it as if the hook had fetched it: egress rules, own hosts, Idempotency-Key; the status of the answer.

Raises FetchFailed, FetchRefused, InvalidArgument, LimitReached, Transient.
"""


def read_webhook(value: Any) -> Webhook | None:
    """What the app returned; None when it wants nothing sent. Raises InvalidArgument for what is no request."""
    if value is None:
        return None
    if type(value) is not dict:
        raise InvalidArgument(f"composeWebhook must return None or a dict, not {type(value).__name__}")
    unknown = sorted(value.keys() - _FIELDS)
    if unknown:
        raise InvalidArgument(f"composeWebhook returned {unknown[0][:40]!r}: known are url, body, headers and method")
    url, headers, method = value.get("url"), value.get("headers"), value.get("method")
    if type(url) is not str or not url:
        raise InvalidArgument("composeWebhook: url must be text")
    if method is not None and type(method) is not str:
        raise InvalidArgument("composeWebhook: method must be text, as in 'POST'")
    if headers is None:
        headers = {}
    if type(headers) is not dict or any(type(text) is not str for text in headers.values()):
        raise InvalidArgument("composeWebhook: headers must be a dict of texts")
    body = value.get("body")
    if type(body) is str:
        raw = body.encode(errors="replace")
    elif body is None:
        raw = b""
    else:
        raw = orjson.dumps(body)
        if not has_header(headers, "content-type"):
            headers = {**headers, "Content-Type": _JSON_TYPE}
    return Webhook((method or "POST").upper(), url, headers, raw)

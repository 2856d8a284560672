"""The request that composeWebhook's answer stands for."""

from __future__ import annotations

from typing import Any

from plugin_server.host_api.http_client import HttpRequest
from plugin_server.host_api.request_rules import check_headers, check_method, has_header
from plugin_server.model.errors import InvalidArgument
from sandbox import codec


def webhook_request(value: Any, idempotency_key: str) -> HttpRequest:
    """From `{"url", "body", "headers", "method"}`. Raises InvalidArgument for what is no such thing."""
    if not isinstance(value, dict) or not isinstance(value.get("url"), str):
        raise InvalidArgument('composeWebhook must return {"url": …, "body": …} or None')
    headers = check_headers(value.get("headers") or {})
    body = value.get("body")
    if body is None:
        raw = b""
    elif isinstance(body, str):
        raw = body.encode()
    else:
        raw = codec.dumps(body)
        if not has_header(headers, "content-type"):
            headers["Content-Type"] = "application/json"
    return HttpRequest(check_method(value.get("method") or "POST"), value["url"], headers, raw, idempotency_key)

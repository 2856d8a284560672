"""Events that an app sends by HTTP to a capture path of its own server: read here, in process, as the endpoints read them.

They become captures of the hook that sent them (docs/decisions/007), so their uuids are the host's and not the sender's.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from plugin_server.capture.decode import decode_json
from plugin_server.capture.parse import parse_request
from plugin_server.capture.refusal import Refusal, invalid_token
from plugin_server.capture.unpack import unpack
from plugin_server.model.api import ApiRequest, ApiResponse, plain_path
from plugin_server.model.posted import PostedCapture
from plugin_server.model.project import Project
from sandbox.event import event_timestamp

_IDENTIFY_PATH: Final = "/engage"
_V1_PATH: Final = "/i/v1/analytics/events"
CAPTURE_PATHS: Final = frozenset(
    {"/capture", "/batch", "/e", "/track", "/i/v0/e", "/i/v0/ai/batch", "/s", _IDENTIFY_PATH, _V1_PATH}
)
"""All that PostHog takes events at, without final slashes, whether this server's endpoints have it or not: a linked PostHog may."""
_TOKEN_KEYS: Final = ("token", "$token", "api_key")
_QUERY_TOKENS: Final = ("token", "api_key")


def _utc_now() -> datetime:
    return datetime.now(UTC)


def parse_capture(
    request: ApiRequest, project: Project, *, now: Callable[[], datetime] = _utc_now
) -> list[PostedCapture] | ApiResponse:
    """The events of a request to one of CAPTURE_PATHS, in their order and all of them; or the refusal of the request.

    The token, of the body or else of the query, must be the project's. A `timestamp` is corrected by `sent_at`, an
    `offset` counts from `now`; `$set` and `$set_once` go into the properties. Blocks, some 20 ms for each MB.
    """
    try:
        captured = parse_request(_document(request), request.query)
        if captured.token != project.token:
            raise invalid_token("it is another project's, and apps capture for their own; leave it out")
    except Refusal as refusal:
        body = orjson.dumps(refusal.as_json())
        return ApiResponse(refusal.status, body, {"content-type": "application/json"})
    received_at = now().isoformat(timespec="milliseconds")
    return [_posted(event.data, event.distinct_id, captured.sent_at, received_at) for event in captured.events]


def _posted(data: bytes, distinct_id: str, sent_at: str, received_at: str) -> PostedCapture:
    event: dict[str, Any] = orjson.loads(data)
    properties: dict[str, Any] = event["properties"]
    for name in ("$set", "$set_once"):
        own, inner = event.get(name), properties.get(name)
        if isinstance(own, dict) and own:
            properties[name] = {**inner, **own} if isinstance(inner, dict) else own
    timestamp = None
    if event.get("timestamp") is not None or event.get("offset") is not None:
        ignores_sent_at = properties.get("$ignore_sent_at") is True
        corrected = event_timestamp(
            event.get("timestamp"), None if ignores_sent_at else sent_at, received_at, event.get("offset")
        )
        timestamp = corrected.replace(" ", "T") + "Z"
    return PostedCapture(event["event"], distinct_id, timestamp, properties)


def _document(request: ApiRequest) -> Any:
    """The decoded body. What the path and the query say of it is put in where it is silent. Raises Refusal."""
    document = decode_json(unpack(request.body, request.query, request.headers.get("content-type", "")))
    if plain_path(request.path) == _V1_PATH and isinstance(document, dict):
        bearer = request.headers.get("authorization", "").partition(" ")[2]
        sent_at = request.headers.get("posthog-request-timestamp")
        return {"batch": document.get("batch"), "api_key": bearer or None, "sent_at": sent_at}
    parts = document if isinstance(document, list) else [document]
    if plain_path(request.path) == _IDENTIFY_PATH:
        parts = [
            {"event": "$identify", **part} if isinstance(part, dict) and "batch" not in part else part for part in parts
        ]
    token = next((request.query[name] for name in _QUERY_TOKENS if request.query.get(name)), None)
    if token is not None and parts and isinstance(parts[0], dict) and not any(map(_has_token, parts)):
        parts = [{**parts[0], "api_key": token}, *parts[1:]]
    return parts if isinstance(document, list) else parts[0]


def _has_token(part: object) -> bool:
    if not isinstance(part, dict):
        return False
    properties = part.get("properties")
    return any(part.get(key) is not None for key in _TOKEN_KEYS) or (
        isinstance(properties, dict) and isinstance(properties.get("token"), str)
    )

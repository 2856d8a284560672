"""What a decoded body asks for: which project, which events, when it was sent.

Every capture path takes every shape: one event, a list of events, or `{"api_key", "batch": [...], "sent_at"?,
"historical_migration"?}`. All or nothing: one bad event refuses the request.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from plugin_server.capture.decode import encode_event
from plugin_server.capture.refusal import invalid, invalid_token, missing_token

DISTINCT_ID_CHARACTERS = 200
TOKEN_CHARACTERS = 64

_TOKEN_KEYS = ("token", "$token", "api_key")
_NOT_DATA = frozenset({*_TOKEN_KEYS, "team_id"})
"""Not passed on: the project is named by the envelope, which is ours, never by what the client wrote into the event."""
_UUID = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECONDS = re.compile(r"[0-9]{1,15}")
_EARLIEST_SENT_AT = datetime(2021, 1, 1, tzinfo=UTC)
"""A smaller number is no time in milliseconds (seconds, more likely)."""


@dataclass(frozen=True, slots=True)
class CapturedEvent:
    """One event as sent. `uuid` is None when the client gave none that is valid; `data` is its JSON without the token."""

    uuid: str | None
    distinct_id: str
    data: bytes


@dataclass(frozen=True, slots=True)
class CaptureRequest:
    """The events of one request, one or more, all of one project. `sent_at` is ISO 8601, or empty."""

    token: str
    events: tuple[CapturedEvent, ...]
    sent_at: str
    historical_migration: bool


def parse_request(document: object, query: Mapping[str, str]) -> CaptureRequest:
    """Raises Refusal, 400 or 401. `query` gives the client's clock (`_` or `sent_at`, ms) where the body does not."""
    if isinstance(document, dict) and "batch" in document:
        events = _event_objects(document["batch"])
        token = _batch_token(document)
        untrusted_sent_at = document.get("sent_at")
    else:
        events = _event_objects(document if isinstance(document, list) else [document])
        token = _shared_token(events)
        untrusted_sent_at = events[0].get("sent_at") if isinstance(document, dict) else None
    is_historical = isinstance(document, dict) and document.get("historical_migration") is True
    captured = tuple(_capture(event) for event in events)
    return CaptureRequest(token, captured, _sent_at(untrusted_sent_at, query), is_historical)


def _event_objects(untrusted: object) -> list[dict[str, Any]]:
    if not isinstance(untrusted, list):
        raise invalid("`batch` must be a list of events.", attr="batch")
    if not untrusted or untrusted == [{}]:
        raise invalid("The request has no event.")
    if not all(isinstance(event, dict) for event in untrusted):
        raise invalid("An event must be a JSON object.")
    return untrusted


def _batch_token(document: dict[str, Any]) -> str:
    for key in _TOKEN_KEYS:
        if document.get(key) is not None:
            return _checked_token(document[key])
    raise missing_token()


def _shared_token(events: list[dict[str, Any]]) -> str:
    tokens = {_checked_token(token) for event in events if (token := _event_token(event)) is not None}
    if not tokens:
        raise missing_token()
    if len(tokens) > 1:
        raise invalid_token("the events name different ones, so send them in separate requests")
    return tokens.pop()


def _event_token(event: dict[str, Any]) -> Any:
    for key in _TOKEN_KEYS:
        if event.get(key) is not None:
            return event[key]
    properties = event.get("properties")
    token = properties.get("token") if isinstance(properties, dict) else None
    return token if isinstance(token, str) else None


def _checked_token(untrusted: object) -> str:
    if not isinstance(untrusted, str):
        raise invalid_token("it must be text")
    token = untrusted.strip()
    if not token:
        raise invalid_token("it is empty")
    if len(token) > TOKEN_CHARACTERS:
        raise invalid_token(f"it has more than {TOKEN_CHARACTERS} characters")
    if not token.isascii() or not token.isprintable():
        raise invalid_token("it has characters that no token has")
    if token.startswith("phx_"):
        raise invalid_token("it is a personal API key; send the project's token")
    return token


def _capture(event: dict[str, Any]) -> CapturedEvent:
    name = event.get("event")
    if not isinstance(name, str) or not name:
        raise invalid("An event has no name. Send it as `event`, a text that is not empty.", attr="event")
    properties = event.get("properties")
    if properties is not None and not isinstance(properties, dict):
        raise invalid("`properties` must be a JSON object.", attr="properties")
    timestamp = event.get("timestamp")
    if timestamp is not None and not isinstance(timestamp, str):
        raise invalid("`timestamp` must be a text in ISO 8601.", attr="timestamp")
    data = {key: value for key, value in event.items() if key not in _NOT_DATA}
    data["properties"] = properties or {}
    encoded = encode_event(data)  # before distinct_id, which may be as deep
    uuid = event.get("uuid")
    is_uuid = isinstance(uuid, str) and _UUID.fullmatch(uuid) is not None
    return CapturedEvent(uuid if is_uuid else None, _distinct_id(event, properties or {}), encoded)


def _distinct_id(event: dict[str, Any], properties: dict[str, Any]) -> str:
    places = (event.get("distinct_id"), event.get("$distinct_id"), properties.get("distinct_id"))
    value = next((value for value in places if value is not None), None)
    text = value if isinstance(value, str) else "" if value is None else orjson.dumps(value).decode()
    text = text.replace("\0", "\ufffd")[:DISTINCT_ID_CHARACTERS]
    if not text.strip():
        raise invalid("An event has no distinct_id. Send who it is about, as `distinct_id`.", attr="distinct_id")
    return text


def _sent_at(untrusted: object, query: Mapping[str, str]) -> str:
    if isinstance(untrusted, str):
        try:
            datetime.fromisoformat(untrusted)
        except ValueError:
            pass
        else:
            return untrusted
    for name in ("_", "sent_at"):
        text = query.get(name, "")
        if _MILLISECONDS.fullmatch(text):
            try:
                time = _EPOCH + timedelta(milliseconds=int(text))
            except OverflowError:
                continue
            if time >= _EARLIEST_SENT_AT:
                return time.isoformat(timespec="milliseconds")
    return ""

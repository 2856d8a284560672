"""An event between the envelope it came in and the fields it leaves with.

The same code runs in the child, after a project's apps, and in the host for projects without any.
The rules are PostHog's (plugin-server, ingestEvent, 2021–24); where the two eras differ, the later one:
the envelope wins over what the client put into `data`.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

import orjson

from sandbox import codec

EVENT_NAME_LENGTH: Final = 200
SNAPSHOT: Final = "$snapshot"
"""Events of session recordings, which go round the chain (PostHog)"""
_ENVELOPE_FIELDS: Final = ("distinct_id", "ip", "site_url", "now", "sent_at", "uuid")
STAMPS: Final = ("$plugins_succeeded", "$plugins_failed", "$plugins_deferred")
_ELEMENT_TEXT_LENGTH: Final = 400
_ELEMENT_HREF_LENGTH: Final = 2048


class InvalidEvent(ValueError):
    """The envelope holds no event that could be processed; the message says what is wrong with it."""


class FinishedEvent(NamedTuple):
    """The part of an output message that depends on the event. `properties` is JSON; `timestamp` as ClickHouse writes it, UTC."""

    event: str
    distinct_id: str
    timestamp: str
    elements_chain: str
    properties: bytes


def open_envelope(raw: bytes, project_id: int) -> dict[str, Any]:
    """The event as apps see it: the client's `data` with the envelope's fields over it.

    `properties` is always a dict, without the stamps that only this server sets. Raises codec.InvalidJson,
    codec.TooDeep or InvalidEvent.
    """
    envelope = codec.loads_of_any_depth(raw)
    event = codec.loads(envelope["data"])
    if type(event) is not dict:
        raise InvalidEvent("data is not a JSON object")
    for name in _ENVELOPE_FIELDS:
        if name in envelope:
            event[name] = envelope[name]
    event["team_id"] = project_id
    properties = event.get("properties")
    if properties is None:
        event["properties"] = {}
    elif type(properties) is not dict:
        raise InvalidEvent("properties is not a JSON object")
    else:
        for stamp in STAMPS:
            if stamp in properties:
                del properties[stamp]
    if event.get("event") in (None, ""):
        raise InvalidEvent("event, its name, is missing")
    return event


def open_event(raw: bytes) -> dict[str, Any]:
    """An event that has been opened before, as it left another sandbox or a person wrote it. Raises as `open_envelope`."""
    event = codec.loads(raw)
    refusal = _not_whole(event)
    if refusal is not None:
        raise InvalidEvent(refusal)
    opened: dict[str, Any] = event
    return opened


def check_whole(raw: str, uuid: str, project_id: int) -> str | None:
    """Why JSON that came from a sandbox is not the event of that uuid and project; None if it is."""
    try:
        event = codec.loads(raw)
    except (codec.InvalidJson, codec.TooDeep) as error:
        return str(error)
    refusal = _not_whole(event)
    if refusal is None and (event["uuid"] != uuid or event["team_id"] != project_id):
        refusal = "another event than the one that was given"
    return refusal


def _not_whole(event: Any) -> str | None:
    if type(event) is not dict or type(event.get("properties")) is not dict:
        return "not an event with properties"
    if type(event.get("distinct_id")) is not str or not event["distinct_id"] or type(event.get("uuid")) is not str:
        return "distinct_id or uuid, which every event has, is missing"
    if event.get("event") in (None, "") or type(event.get("team_id")) is not int:
        return "event, its name, or team_id is missing"
    return None


def stamps(succeeded: list[str], failed: list[str]) -> bytes:
    """The members `"$plugins_succeeded":[…],"$plugins_failed":[…]` for `finish`; nothing when no app ran."""
    if not succeeded and not failed:
        return b""
    return b'"$plugins_succeeded":%b,"$plugins_failed":%b' % (orjson.dumps(succeeded), orjson.dumps(failed))


def finish(event: dict[str, Any], encoded_properties: bytes, now: str, stamped: bytes) -> FinishedEvent:
    """Normalise an event of exact JSON values (step normalise).

    `encoded_properties` is the JSON of `event["properties"]` as it stands, `now` the envelope's, `stamped` members to be
    added to the properties, as `"key":value,…` without braces.
    """
    properties: dict[str, Any] = event["properties"]
    chain = ""
    if "$elements" in properties or "$elements_chain" in properties or event.get("$set") or event.get("$set_once"):
        properties = dict(properties)
        chain = _take_elements(properties)
        for name in ("$set", "$set_once"):
            own = event.get(name)
            if type(own) is dict and own:
                inner = properties.get(name)
                properties[name] = {**inner, **own} if type(inner) is dict else own
        encoded_properties = orjson.dumps(properties)
    additions = stamped
    ip = event.get("ip")
    if ip and type(ip) is str and "$ip" not in properties:
        quoted = b'"$ip":' + orjson.dumps(ip)
        additions = additions + b"," + quoted if additions else quoted
    if additions:
        start = encoded_properties[:-1]
        encoded_properties = b"".join((start, b"," if len(start) > 1 else b"", additions, b"}"))
    return FinishedEvent(
        event_name(event["event"]),
        event["distinct_id"],
        event_timestamp(event.get("timestamp"), event.get("sent_at"), now, event.get("offset")),
        chain,
        encoded_properties,
    )


def event_name(name: Any) -> str:
    """Text of at most 200 characters; other JSON as its JSON text."""
    text = name if type(name) is str else orjson.dumps(name).decode()
    return text[:EVENT_NAME_LENGTH]


def event_timestamp(timestamp: Any, sent_at: Any, now: str, offset: Any) -> str:
    """When it happened, as `YYYY-MM-DD HH:MM:SS.mmm` UTC.

    With `timestamp` and `sent_at`, the client's clock is corrected by the server's (`now + (timestamp − sent_at)`);
    with `timestamp` alone it is taken as it is; with `offset` (ms) it is `now − offset`; else `now`. What cannot be
    read counts as absent.
    """
    happened = _parse_time(timestamp)
    if happened is None or (sent_at and sent_at != now):
        happened = _relative_to_now(happened, sent_at, now, offset)
    return happened.isoformat(" ", "milliseconds")[:23]


def _relative_to_now(happened: datetime | None, sent_at: Any, now: str, offset: Any) -> datetime:
    received = _parse_time(now) or datetime.now(UTC)
    try:
        if happened is not None:
            sent = _parse_time(sent_at)
            return happened if sent is None else received + (happened - sent)
        if type(offset) is int or type(offset) is float:
            return received - timedelta(milliseconds=offset)
    except (OverflowError, ValueError):
        pass
    return received


def _parse_time(text: Any) -> datetime | None:
    """A UTC time, or None if it is not ISO 8601 text of the years 1 to 9999."""
    if type(text) is not str or not text:
        return None
    try:
        parsed = datetime.fromisoformat(text)
        if parsed.tzinfo is None:
            return parsed.replace(tzinfo=UTC)
        return parsed if parsed.tzinfo is UTC else parsed.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _take_elements(properties: dict[str, Any]) -> str:
    """Remove the clicked elements from the properties and give them as a chain. What is no element is left out."""
    ready = properties.pop("$elements_chain", None)
    elements = properties.pop("$elements", None)
    if type(ready) is str:
        return ready
    if type(elements) is not list:
        return ""
    return ";".join(_element(element) for element in elements if type(element) is dict)


def _element(element: dict[str, Any]) -> str:
    """`tag.class.class:key="value"…`, classes and keys sorted, quotes escaped."""
    classes = element.get("attr__class")
    if type(classes) is str:
        classes = classes.split()
    elif type(classes) is not list:
        classes = []
    attributes: dict[str, Any] = {
        "nth-child": element.get("nth_child") or 0,
        "nth-of-type": element.get("nth_of_type") or 0,
    }
    if element.get("$el_text"):
        attributes["text"] = str(element["$el_text"])[:_ELEMENT_TEXT_LENGTH]
    if element.get("attr__href"):
        attributes["href"] = str(element["attr__href"])[:_ELEMENT_HREF_LENGTH]
    if element.get("attr__id"):
        attributes["attr_id"] = element["attr__id"]
    attributes.update((key, value) for key, value in element.items() if key.startswith("attr__"))
    tag = element.get("tag_name")
    return "".join(
        (
            tag if type(tag) is str else "",
            *(f".{name}".replace('"', "") for name in sorted(map(str, classes))),
            ":",
            *(f'{_attribute(key)}="{_attribute(value)}"' for key, value in sorted(attributes.items())),
        )
    )


def _attribute(value: Any) -> str:
    text = value if type(value) is str else orjson.dumps(value).decode()
    return text.replace('"', '\\"')

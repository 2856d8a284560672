"""From a record of `clickhouse_events_json` to the event that delivery hooks get (PostHog's ProcessedPluginEvent)."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

import orjson

from plugin_server.delivery.elements import parse_elements
from plugin_server.eventlog.port import Headers, InputRecord
from plugin_server.model.lineage import LINEAGE_HEADER, Lineage, MalformedLineage, parse_lineage, refused
from plugin_server.model.origin import SOURCE_HEADER
from plugin_server.model.outcome import DeadLetter, DeadLetterReason
from plugin_server.model.project import Project
from sandbox import codec

STEP: Final = "deliver"
_SOURCE_BYTES: Final = 400
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}")
_TEXTS: Final = ("event", "distinct_id", "timestamp", "properties")


class ProjectLookup(Protocol):
    """Where projects are found."""

    def by_id(self, project_id: int) -> Project | None: ...

    def by_token(self, token: str) -> Project | None: ...


@dataclass(slots=True, eq=False)  # not frozen, which would double what it takes to make one
class DeliveryEvent:
    """One event on its way to the installs that receive it. Not to be changed."""

    project: Project
    uuid: str
    name: str
    source: str
    """Its record in ingestion: what all ids derive from"""
    lineage: Lineage
    malformed_lineage: bool
    json: bytes
    """As hooks get it"""
    value: bytes
    """The record's, as it came"""
    key: bytes | None
    headers: Headers


Decode = Callable[[InputRecord], DeliveryEvent | DeadLetter | None]


def make_decode(
    projects: ProjectLookup,
    topic: str,
    partition: int,
    concerns_nobody: Callable[[Project], bool] = lambda _project: False,
) -> Decode:
    """The step, for one lane. None for an event that nobody receives: its project is not here, or `concerns_nobody` says so.

    The record's key, which begins with the project's token, tells that without its JSON being read.
    """

    def decode(record: InputRecord) -> DeliveryEvent | DeadLetter | None:
        key = record.key
        if key is not None:
            project = projects.by_token(key.partition(b":")[0].decode(errors="replace"))
            if project is not None and concerns_nobody(project):
                return None
        return decode_event(projects, record.value or b"", key, record.headers, f"{topic}-{partition}-{record.offset}")

    return decode


def decode_event(
    projects: ProjectLookup, value: bytes, key: bytes | None, headers: Headers, place: str
) -> DeliveryEvent | DeadLetter | None:
    """See `make_decode`; `place` names a record that does not say where it comes from."""
    try:
        message = codec.loads(value)
        if type(message) is not dict:
            return _refused("the message is not a JSON object")
        fault = _fault(message)
        if fault is not None:
            return _refused(fault)
        properties = codec.loads(message["properties"])
    except codec.InvalidJson as error:
        return DeadLetter(STEP, DeadLetterReason.INVALID_JSON, str(error))
    except codec.TooDeep as error:
        return DeadLetter(STEP, DeadLetterReason.TOO_DEEP, str(error))
    if type(properties) is not dict:
        return _refused("properties is not a JSON object")
    project = projects.by_id(message["team_id"])
    if project is None:
        return None
    uuid = message["uuid"]
    lineage, malformed = _lineage(headers, uuid, project)
    return DeliveryEvent(
        project,
        uuid,
        message["event"],
        _source(headers) or place,
        lineage,
        malformed,
        _compose(message, properties),
        value,
        key,
        headers,
    )


def _refused(error: str) -> DeadLetter:
    return DeadLetter(STEP, DeadLetterReason.INVALID_ENVELOPE, error)


def _fault(message: dict[str, Any]) -> str | None:
    """What is missing or of a wrong type, if anything is."""
    uuid = message.get("uuid")
    if type(uuid) is not str or not _UUID.fullmatch(uuid):
        return "uuid is missing" if uuid is None else f"uuid is not a UUID: {str(uuid)[:100]!r}"
    if type(message.get("team_id")) is not int:
        return "team_id is not a number"
    for name in _TEXTS:
        if type(message.get(name)) is not str:
            return f"{name} is not a string"
    chain = message.get("elements_chain")
    if chain is not None and type(chain) is not str:
        return "elements_chain is not a string"
    return None


def _compose(message: dict[str, Any], properties: dict[str, Any]) -> bytes:
    ip = properties.get("$ip")
    event: dict[str, Any] = {
        "uuid": message["uuid"],
        "event": message["event"],
        "distinct_id": message["distinct_id"],
        "team_id": message["team_id"],
        "ip": ip if type(ip) is str else None,
        "properties": properties,
        "timestamp": iso_time(message["timestamp"]),
        "elements": parse_elements(message.get("elements_chain") or ""),
    }
    for name in ("$set", "$set_once"):
        if type(properties.get(name)) is dict:
            event[name] = properties[name]
    return orjson.dumps(event)


def iso_time(clickhouse: str) -> str:
    """ISO 8601 of `YYYY-MM-DD HH:MM:SS.mmm`, which is UTC; other text as it is."""
    if len(clickhouse) == 23 and clickhouse[10] == " ":
        return f"{clickhouse[:10]}T{clickhouse[11:]}Z"
    return clickhouse


def _lineage(headers: Headers, uuid: str, project: Project) -> tuple[Lineage, bool]:
    """Where it comes from, and whether what says so is malformed."""
    found = [content for name, content in headers if name == LINEAGE_HEADER]
    if not found:
        return Lineage(uuid, 0, (), project.loop_policy.max_events_per_root), False
    try:
        if len(found) > 1 or found[0] is None:
            raise MalformedLineage("more than one lineage header, or an empty one")
        return parse_lineage(found[0]), False
    except MalformedLineage:
        return refused(uuid), True


def _source(headers: Headers) -> str | None:
    for name, content in headers:
        if name == SOURCE_HEADER and content and len(content) <= _SOURCE_BYTES:
            text = content.decode(errors="replace")
            return text if text.isprintable() else None
    return None

"""Step 1: from a record to an event of a known project, or to a dead letter that says what is wrong with it."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import orjson

from plugin_server.eventlog.port import InputRecord
from plugin_server.ingestion.pending import PendingEvent
from plugin_server.model.outcome import DeadLetter, DeadLetterReason
from plugin_server.model.project import Project
from sandbox import codec

STEP: Final = "decode"
_LAST_TIMESTAMP_MS: Final = 253_402_300_799_000
"""The end of the year 9999; a producer that writes microseconds is beyond it"""
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}")
_TEXT_OR_NULL: Final = ("ip", "site_url", "sent_at")

Decode = Callable[[InputRecord], PendingEvent | DeadLetter]


class ProjectLookup(Protocol):
    """Where projects are found."""

    def by_token(self, token: str) -> Project | None: ...
    def by_id(self, project_id: int) -> Project | None: ...


def make_decode(projects: ProjectLookup, record_bytes: int) -> Decode:
    """The step. A record names its project by `token`, else `team_id`, else the header `token`."""

    def decode(record: InputRecord) -> PendingEvent | DeadLetter:
        value = record.value
        if not value:
            return DeadLetter(STEP, DeadLetterReason.INVALID_JSON, "the message is empty")
        if len(value) > record_bytes:
            error = f"{len(value)} bytes, more than the {record_bytes} that are allowed (RECORD_BYTES)"
            return DeadLetter(STEP, DeadLetterReason.TOO_LARGE, error)
        try:
            envelope = codec.loads(value)
        except codec.InvalidJson as error:
            return DeadLetter(STEP, DeadLetterReason.INVALID_JSON, str(error))
        except codec.TooDeep as error:
            return DeadLetter(STEP, DeadLetterReason.TOO_DEEP, str(error))
        if type(envelope) is not dict:
            return DeadLetter(STEP, DeadLetterReason.INVALID_ENVELOPE, "the message is not a JSON object")
        found = _find_project(projects, envelope, record)
        if type(found) is DeadLetter:
            return found
        assert type(found) is Project
        uuid, now, distinct_id = envelope.get("uuid"), envelope.get("now"), envelope.get("distinct_id")
        error_text = _fault(envelope, uuid, now, distinct_id)
        if error_text is not None:
            return DeadLetter(STEP, DeadLetterReason.INVALID_ENVELOPE, error_text, found.id)
        assert type(uuid) is str
        if type(distinct_id) is not str or type(now) is not str:
            now = now or _iso(record.timestamp)
            envelope.update(distinct_id=_as_text(distinct_id), now=now)
            value = orjson.dumps(envelope)
        return PendingEvent(
            record,
            value,
            found,
            uuid,
            now,
            historical_migration=envelope.get("historical_migration") is True,
        )

    return decode


def _find_project(projects: ProjectLookup, envelope: dict[str, Any], record: InputRecord) -> Project | DeadLetter:
    token = envelope.get("token")
    if token is None:
        team_id = envelope.get("team_id")
        if type(team_id) is int:
            project = projects.by_id(team_id)
            if project is None:
                return _unknown(f"no project has the id {team_id}")
            return project
        if team_id is not None:
            return DeadLetter(STEP, DeadLetterReason.INVALID_ENVELOPE, "team_id is not a number")
        token = _header(record, "token")
        if token is None:
            return DeadLetter(STEP, DeadLetterReason.NO_PROJECT, "neither token nor team_id nor a header token")
    if type(token) is not str or not token:
        return DeadLetter(STEP, DeadLetterReason.INVALID_ENVELOPE, "token is not a non-empty string")
    return projects.by_token(token) or _unknown(f"no project has the token {token[:100]!r}")


def _unknown(error: str) -> DeadLetter:
    return DeadLetter(STEP, DeadLetterReason.UNKNOWN_PROJECT, error)


def _fault(envelope: dict[str, Any], uuid: Any, now: Any, distinct_id: Any) -> str | None:
    """What is missing or of a wrong type, if anything is."""
    if type(uuid) is not str or not _UUID.fullmatch(uuid):
        return "uuid is missing" if uuid is None else f"uuid is not a UUID: {str(uuid)[:100]!r}"
    if type(envelope.get("data")) is not str:
        return "data is missing" if envelope.get("data") is None else "data is not JSON text in a string"
    if type(distinct_id) is str:
        if not distinct_id:
            return "distinct_id is empty"
    elif type(distinct_id) not in (int, float):
        return "distinct_id is missing" if distinct_id is None else "distinct_id is not a string"
    if type(now) is not str and now is not None:
        return "now is not ISO 8601 text"
    for name in _TEXT_OR_NULL:
        field = envelope.get(name)
        if field is not None and type(field) is not str:
            return f"{name} is not a string"
    return None


def _header(record: InputRecord, name: str) -> str | None:
    for header, content in record.headers:
        if header == name and content is not None:
            return content.decode(errors="replace")
    return None


def _as_text(distinct_id: Any) -> str:
    return distinct_id if type(distinct_id) is str else orjson.dumps(distinct_id).decode()


def _iso(timestamp_ms: int) -> str:
    return datetime.fromtimestamp(min(max(timestamp_ms, 0), _LAST_TIMESTAMP_MS) / 1000, UTC).isoformat(
        timespec="milliseconds"
    )

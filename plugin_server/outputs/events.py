"""Messages of `clickhouse_events_json`, composed by the host alone: a sandbox gives values, never the message."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

import orjson

_PERSON_NAMESPACE: Final = bytes.fromhex("932979b465c344248467 0b66ec27bc22".replace(" ", ""))
"""PostHog's namespace for the person of a distinct_id nobody was identified by"""
_EPOCH: Final = "1970-01-01 00:00:05"


def clickhouse_time(moment: datetime) -> str:
    """`YYYY-MM-DD HH:MM:SS.mmm`, UTC."""
    return moment.astimezone(UTC).isoformat(" ", "milliseconds")[:23]


@lru_cache(maxsize=16_384)
def person_id(project_id: int, distinct_id: str) -> str:
    """The id that PostHog gives the person of a distinct_id when none is stored: a uuid5, so always the same."""
    digest = hashlib.sha1(_PERSON_NAMESPACE + f"{project_id}:{distinct_id}".encode(), usedforsecurity=False).digest()
    variant = f"{(digest[8] & 0x3F) | 0x80:02x}"
    text = digest.hex()
    return f"{text[:8]}-{text[8:12]}-5{text[13:16]}-{variant}{text[18:20]}-{text[20:32]}"


def compose_event(
    event: str,
    distinct_id: str,
    timestamp: str,
    elements_chain: str,
    properties: str,
    *,
    uuid: str,
    project_id: int,
    created_at: str,
    captured_at: str,
    historical_migration: bool,
) -> bytes:
    """The JSON of one event. `properties` is JSON text; `created_at` as ClickHouse writes it, `captured_at` as received.

    Persons are not processed here, so the event is `propertyless`.
    """
    message: dict[str, Any] = {
        "uuid": uuid,
        "event": event,
        "properties": properties,
        "timestamp": timestamp,
        "team_id": project_id,
        "project_id": project_id,
        "distinct_id": distinct_id,
        "elements_chain": elements_chain,
        "created_at": created_at,
        "captured_at": captured_at,
        "person_id": person_id(project_id, distinct_id),
        "person_created_at": _EPOCH,
        "person_properties": "{}",
        "person_mode": "propertyless",
    }
    if historical_migration:
        message["historical_migration"] = True
    return orjson.dumps(message)

"""A captured event as the record that ingestion reads.

Key `token:distinct_id`; value as PostHog's capture writes it: `uuid, distinct_id, ip, site_url, data, now, sent_at,
token`, and `historical_migration` when it is true. There are no headers: what a client sends never becomes one, least
of all the lineage.
"""

from __future__ import annotations

import secrets
from datetime import datetime
from uuid import UUID

import orjson

from plugin_server.capture.parse import CapturedEvent, CaptureRequest
from plugin_server.capture.refusal import too_large
from plugin_server.eventlog.port import OutputRecord


def envelopes(
    request: CaptureRequest, *, topic: str, ip: str, received_at: datetime, record_bytes: int
) -> list[OutputRecord]:
    """One record for each event, in their order. Raises Refusal 413 when one is larger than `record_bytes`."""
    return [_envelope(event, request, topic, ip, received_at, record_bytes) for event in request.events]


def uuid7(time: datetime) -> UUID:
    """A UUID whose first 48 bits are the time in milliseconds (RFC 9562), the rest random."""
    milliseconds = int(time.timestamp() * 1000) & (2**48 - 1)
    random = secrets.randbits(74)
    return UUID(int=milliseconds << 80 | 0x7 << 76 | (random >> 62) << 64 | 0b10 << 62 | random & (2**62 - 1))


def _envelope(
    event: CapturedEvent, request: CaptureRequest, topic: str, ip: str, received_at: datetime, record_bytes: int
) -> OutputRecord:
    value: dict[str, str | bool] = {
        "uuid": event.uuid or str(uuid7(received_at)),
        "distinct_id": event.distinct_id,
        "ip": ip,
        "site_url": "",
        "data": event.data.decode(),
        "now": received_at.isoformat(timespec="milliseconds"),
        "sent_at": request.sent_at,
        "token": request.token,
    }
    if request.historical_migration:
        value["historical_migration"] = True
    record = OutputRecord(topic, None, f"{request.token}:{event.distinct_id}".encode(), orjson.dumps(value))
    if len(record.key or b"") + len(record.value) > record_bytes:
        raise too_large(f"An event is larger than {record_bytes} bytes.")
    return record

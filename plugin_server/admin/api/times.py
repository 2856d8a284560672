"""Times as the API takes and shows them (ISO 8601), and as they are stored (milliseconds since the epoch, UTC)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from plugin_server.admin.api.errors import invalid

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_LAST_MS = (datetime(9999, 12, 31, 23, 59, 59, 999_000, UTC) - _EPOCH) // _MILLISECOND


def to_ms(untrusted: object, attr: str) -> int:
    """ISO 8601 text as milliseconds; without a zone it is UTC. Raises ApiRefusal 400 that names `attr`."""
    if isinstance(untrusted, str):
        # In a query, the + of an offset that nobody escaped arrives as a space.
        text = untrusted.replace(" ", "+") if "T" in untrusted else untrusted
        try:
            time = datetime.fromisoformat(text)
            return (time.replace(tzinfo=time.tzinfo or UTC).astimezone(UTC) - _EPOCH) // _MILLISECOND
        except (ValueError, OverflowError):  # the first and last hours of the calendar, in another zone
            pass
    raise invalid(attr, "invalid", f"`{attr}` must be a time in ISO 8601. Write it as 2026-11-23T08:00:00Z.")


def to_iso(time_ms: int) -> str:
    """As PostHog's API writes times: `2026-11-23T08:00:00Z`, with six digits where it is no full second."""
    return (_EPOCH + timedelta(milliseconds=min(time_ms, _LAST_MS))).isoformat().replace("+00:00", "Z")

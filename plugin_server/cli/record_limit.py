"""Whether what this server may write is what the log takes. `run` and `check` ask alike."""

from __future__ import annotations

from plugin_server.eventlog.port import EventLog
from plugin_server.model.errors import ConfigurationError


async def require_record_limit(event_log: EventLog, record_bytes: int) -> None:
    """Raises ConfigurationError if the broker takes less than `record_bytes`: such a record would block its lane."""
    limit = await event_log.record_limit_bytes()
    if limit is not None and record_bytes > limit:
        raise ConfigurationError(
            f"RECORD_BYTES is {record_bytes}, more than the {limit} that the broker takes: "
            "lower it, or raise max.message.bytes of the topics"
        )

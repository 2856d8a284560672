"""The outputs of this server, and the only place that knows what their topics are called."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Topics:
    """Full topic names, prefix included."""

    ingestion: str
    events: str
    log_entries: str
    dead_letters: str
    app_metrics: str
    overflow: str

    @property
    def all(self) -> tuple[str, ...]:
        return (self.ingestion, self.events, self.log_entries, self.dead_letters, self.app_metrics, self.overflow)


def make_topics(prefix: str) -> Topics:
    """The topics with `prefix` before each name."""
    return Topics(
        ingestion=f"{prefix}events_plugin_ingestion",
        events=f"{prefix}clickhouse_events_json",
        log_entries=f"{prefix}plugin_log_entries",
        dead_letters=f"{prefix}events_dead_letter_queue",
        app_metrics=f"{prefix}clickhouse_app_metrics",
        overflow=f"{prefix}events_plugin_ingestion_overflow",
    )

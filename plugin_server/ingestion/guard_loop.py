"""Step 2: where the event comes from. It never ends an event: one that exists is processed, only its captures are cut."""

from __future__ import annotations

from plugin_server.ingestion.pending import PendingEvent
from plugin_server.model.lineage import LINEAGE_HEADER, Lineage, MalformedLineage, parse_lineage, refused


def guard_loop(event: PendingEvent) -> PendingEvent:
    """Read the lineage header. Without one it is a root event; with one that is not ours, its captures are refused."""
    found: Lineage | None = None
    for name, content in event.record.headers:
        if name != LINEAGE_HEADER:
            continue
        try:
            if found is not None or content is None:
                raise MalformedLineage("more than one lineage header, or an empty one")
            found = parse_lineage(content)
        except MalformedLineage:
            event.malformed_lineage = True
            event.lineage = refused(event.uuid)
            return event
    event.lineage = found
    return event

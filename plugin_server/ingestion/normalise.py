"""Step 4 for projects without apps: what a sandbox does after the chain, done here, since no app code is involved."""

from __future__ import annotations

from plugin_server.ingestion.pending import PendingEvent
from plugin_server.model.outcome import DeadLetter, DeadLetterReason
from plugin_server.runtime.replies import ChainResult
from sandbox import codec
from sandbox.event import InvalidEvent, finish, open_envelope
from sandbox.wire import EventOutcome

STEP = "normalise"


def normalise(event: PendingEvent) -> ChainResult | DeadLetter:
    """The event as a chain of no apps leaves it."""
    try:
        opened = open_envelope(event.raw, event.project.id)
        finished = finish(opened, codec.dumps(opened["properties"]), event.now, b"")
    except (codec.InvalidJson, codec.TooDeep, InvalidEvent, codec.NotJson) as error:
        return invalid_event(type(error).__name__, str(error), event.project.id)
    name, distinct_id, timestamp, elements_chain, properties = finished
    return ChainResult(EventOutcome.EMIT, name, distinct_id, timestamp, elements_chain, properties.decode(), None)


def invalid_event(kind: str, error: str, project_id: int) -> DeadLetter:
    """The dead letter of an event that could not be opened, here or in a sandbox; `kind` is the error's type there."""
    reason = {
        "InvalidJson": DeadLetterReason.INVALID_JSON,
        "TooDeep": DeadLetterReason.TOO_DEEP,
    }.get(kind, DeadLetterReason.INVALID_EVENT)
    return DeadLetter(STEP, reason, error, project_id)

"""What a step says of an event: it goes on (the step returns the event itself), or one of these, with a reason.

Reasons are closed sets, so that they can be metric labels. There is no wrapper round an event that goes on: it would be
made and unwrapped for every event at every step, and say nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class DropReason(StrEnum):
    APP = "app"
    """An app's processEvent returned None."""


class DeadLetterReason(StrEnum):
    INVALID_JSON = "invalid_json"
    INVALID_ENVELOPE = "invalid_envelope"
    INVALID_EVENT = "invalid_event"
    NO_PROJECT = "no_project"
    UNKNOWN_PROJECT = "unknown_project"
    TOO_DEEP = "too_deep"
    TOO_LARGE = "too_large"
    LOOP = "loop"
    UNDELIVERABLE = "undeliverable"
    """An install could not be given it for as long as deliveries are kept, or more of them than are kept."""
    INTERNAL = "internal_error"
    """A fault of this server; its log has the details."""


@dataclass(frozen=True, slots=True)
class Drop:
    """The event ends here, as somebody wanted."""

    reason: DropReason
    install_id: int


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """The event cannot be processed; its bytes go to the dead letter queue. `error` is for a person, and bounded."""

    step: str
    reason: DeadLetterReason
    error: str
    project_id: int | None = None
    install_id: int | None = None
    app_version: str | None = None

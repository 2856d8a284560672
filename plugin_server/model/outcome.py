"""What a step of the pipeline says of an event (DESIGN: Outcome). Reasons are closed sets, so they can be metric labels."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

EventT_co = TypeVar("EventT_co", covariant=True)


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


@dataclass(frozen=True, slots=True)
class Continue(Generic[EventT_co]):
    """The event goes on to the next step."""

    event: EventT_co


@dataclass(frozen=True, slots=True)
class Drop:
    """The event ends here, as somebody wanted."""

    reason: DropReason
    install_id: int | None = None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """The event cannot be processed; its bytes go to the dead letter queue. `error` is for a person, and bounded."""

    step: str
    reason: DeadLetterReason
    error: str
    project_id: int | None = None
    install_id: int | None = None
    app_version: str | None = None


@dataclass(frozen=True, slots=True)
class Redirect:
    """The event goes to another output instead, unchanged."""

    output: str
    reason: str

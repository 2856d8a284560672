"""Events as tests write them, with little in them, and as apps get them."""

from __future__ import annotations

import copy
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from sandbox.event import STAMPS

EVENT_HOOKS: Final = frozenset({"onEvent", "onSnapshot", "composeWebhook"})
BATCH_HOOKS: Final = frozenset({"processEventBatch", "exportEvents"})


def completed(event: Any, project_id: int, now: float) -> dict[str, Any]:
    """An event with what every event has when it comes to an app. Raises TypeError for what is no dict."""
    if not isinstance(event, Mapping):
        raise TypeError(f"an event is a dict, not {type(event).__name__}")
    received = datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    whole = {"uuid": str(uuid.uuid4()), "distinct_id": "distinct id", "event": "$event", "now": received, **event}
    whole["team_id"] = project_id
    properties = event.get("properties") or {}
    whole["properties"] = {key: value for key, value in properties.items() if key not in STAMPS}
    return whole


def values_of(hook: str, arguments: Sequence[Any], project_id: int | None) -> list[Any]:
    """What a hook other than processEvent is called with: as it was given, events of a project that was named with its id.

    Raises TypeError for what is no event where one is wanted.
    """
    values = copy.deepcopy(list(arguments[:1]))
    for event in _events_of(hook, values):
        if not isinstance(event, dict):
            raise TypeError(f"an event is a dict, not {type(event).__name__}")
        if project_id is not None:
            event["team_id"] = project_id
    return values


def parent_uuid(hook: str, values: Sequence[Any]) -> str | None:
    """Of the event that the hook is called with, or the first of them; None for hooks that are called for no event."""
    if hook not in EVENT_HOOKS and hook not in BATCH_HOOKS:
        return None
    found = next((event.get("uuid") for event in _events_of(hook, values)), None)
    return found if isinstance(found, str) else str(uuid.uuid4())


def project_of(hook: str, values: Sequence[Any], otherwise: int) -> int:
    """The project that the event names, or the first of them."""
    found = next((event.get("team_id") for event in _events_of(hook, values)), None)
    return found if type(found) is int else otherwise


def _events_of(hook: str, values: Sequence[Any]) -> list[Any]:
    if hook in EVENT_HOOKS:
        return list(values)
    return list(values[0]) if hook in BATCH_HOOKS and values else []


def as_given(event: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The event without what the harness put into it and no app touched."""
    kept = dict(event)
    for name in ("uuid", "now", "team_id"):
        if name not in given:
            kept.pop(name, None)
    for name, added in (("distinct_id", "distinct id"), ("event", "$event"), ("properties", {})):
        if name not in given and kept.get(name) == added:
            kept.pop(name, None)
    return kept

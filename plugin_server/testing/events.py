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


def values_of(hook: str, arguments: Sequence[Any], project_id: int, now: float) -> list[Any]:
    """What a hook is called with: events are completed, all else is as it was given."""
    if hook in EVENT_HOOKS:
        return [completed(value, project_id, now) for value in arguments[:1]]
    if hook in BATCH_HOOKS:
        return [[completed(event, project_id, now) for event in batch] for batch in arguments[:1]]
    return copy.deepcopy(list(arguments[:1]))


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


def first_uuid(hook: str, values: Sequence[Any]) -> str | None:
    """Of the event that the hook is called with, or the first of them."""
    if hook in EVENT_HOOKS and values:
        return str(values[0]["uuid"])
    if hook in BATCH_HOOKS and values and values[0]:
        return str(values[0][0]["uuid"])
    return None

"""An event that an app sent over HTTP to a capture path of its own project."""

from __future__ import annotations

from typing import Any, NamedTuple


class PostedCapture(NamedTuple):
    """It joins the captures of the hook that sent it. `timestamp` is ISO 8601 text, None for now."""

    event: str
    distinct_id: str
    timestamp: str | None
    properties: dict[str, Any]

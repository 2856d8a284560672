"""What the tests of this folder share: an event, and apps of one hook."""

from __future__ import annotations

import textwrap
from typing import Any, Final

from plugin_server.testing import Run

EVENT: Final[dict[str, Any]] = {"event": "pageview", "distinct_id": "ada", "properties": {"a": 1}}


def hook(name: str, body: str, more: str = "") -> str:
    """Source of an app with one async hook that takes an event, and whatever is written beside it."""
    return f"async def {name}(event, meta):\n{textwrap.indent(textwrap.dedent(body).strip(), '    ')}\n\n{textwrap.dedent(more)}"


def messages(run: Run) -> list[str]:
    """What the app itself logged."""
    return [log["message"] for log in run.logs if log["source"] == "CONSOLE"]

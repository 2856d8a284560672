"""What reading an app brings to light, and where it stands meanwhile."""

from __future__ import annotations

from dataclasses import dataclass, field

from plugin_server.app_check.guards import Facts, Verdict
from plugin_server.app_check.values import Scope, Value


@dataclass(slots=True)
class Seen:
    """What was met on the ways through an app."""

    captures: dict[tuple[int, int], Verdict] = field(default_factory=dict)
    """By line and column; the worst way counts."""
    config_keys: dict[str, int] = field(default_factory=dict)
    """Keys read, with the first line that does."""
    reads_any_key: bool = False
    """`meta.config` is handed on, or read by a key that cannot be told."""


@dataclass(slots=True)
class Frame:
    """One call of a function of the app."""

    scope: Scope
    returned: list[Value] = field(default_factory=list)
    leaving: list[Facts] = field(default_factory=list)
    """What held at each `return`, `break` and `continue`."""

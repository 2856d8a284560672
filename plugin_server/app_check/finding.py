"""What a check found: where, how bad, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    ERROR = "error"
    """The app will not load, or the hook will fail each time."""
    WARNING = "warning"
    """Very likely not what the author wants."""
    NOTE = "note"
    """Worth knowing; never fails a check."""


@dataclass(frozen=True, slots=True)
class Finding:
    """`line` is one of the main file, or None for what concerns the app as a whole or plugin.json."""

    line: int | None
    severity: Severity
    message: str

"""The base of what asks the host for things in the name of one install."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sandbox.facade import Facade
from sandbox.invocation import Context, HostCall


class HostFacade(Facade):
    """Its class is shared by all installs, and frozen; an instance holds two references, out of reach by their underscores."""

    __slots__ = ("_context", "_install")

    _context: Context
    _install: int

    def __init__(self, context: Context, install: int) -> None:
        object.__setattr__(self, "_context", context)
        object.__setattr__(self, "_install", install)

    def __repr__(self) -> str:
        return f"<{type(self).__name__.lower()}>"

    def _start(self, name: str, arguments: list[Any], read: Callable[[Any], Any] | None = None) -> HostCall:
        """As Context.start, for this install."""
        return self._context.start(self._install, name, arguments, read)

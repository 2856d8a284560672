"""What the host does for apps while a hook runs: a table of names.

Arguments come from a sandbox, so each handler checks its own, whatever the child's code checks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from plugin_server.host_api.effects import RunEffects
from plugin_server.model.errors import AppError, InvalidArgument
from plugin_server.model.project import Install, Project
from plugin_server.runtime.replies import HostCallRequest

_SLEEP_LIMIT_SECONDS: Final = 3600
_OUTSIDE: Final = frozenset({"fetch", "api", "sleep"})
_OUTSIDE_PREFIX: Final = "cache."


@dataclass(frozen=True, slots=True)
class CallContext:
    """Who calls. `number` counts the install's calls in this run, in program order."""

    project: Project
    install: Install
    number: int
    effects: RunEffects


Handler = Callable[[CallContext, list[Any]], Awaitable[Any]]
"""Returns a JSON value. Raises AppError with a message for the app, Transient when a dependency is away."""


class HostApi:
    """Answers host calls (HostCalls of the runtime)."""

    def __init__(self, handlers: Mapping[str, Handler]) -> None:
        """`handlers` by the name of the call; `sleep` is always there."""
        self._handlers: dict[str, Handler] = {"sleep": _sleep, **handlers}

    def is_outside(self, name: str) -> bool:
        """Does the call reach beyond the effects that are buffered? Its answer is kept, then, for when the hook runs again."""
        return name in _OUTSIDE or name.startswith(_OUTSIDE_PREFIX)

    async def answer(self, project: Project, effects: Any, request: HostCallRequest) -> Any:
        """Do what an app asked for. Raises AppError for calls that do not exist and arguments that are wrong."""
        handler = self._handlers.get(request.name)
        if handler is None:
            raise AppError(f"the host cannot do {request.name[:40]!r}")
        install = next(install for install in project.installs if install.id == request.install_id)
        return await handler(CallContext(project, install, request.number, effects), request.arguments)


async def _sleep(_context: CallContext, arguments: list[Any]) -> None:
    match arguments:
        case [int() | float() as seconds] if 0 <= seconds <= _SLEEP_LIMIT_SECONDS:
            await asyncio.sleep(seconds)
        case _:
            raise InvalidArgument(f"sleep: seconds must be a number from 0 to {_SLEEP_LIMIT_SECONDS}")

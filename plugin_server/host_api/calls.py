"""What the host does for apps while a hook waits: a table of names."""

from __future__ import annotations

import asyncio
from typing import Any

from plugin_server.model.errors import AppError
from plugin_server.runtime.replies import HostCallRequest


class HostApi:
    """Answers host calls. Arguments come from a sandbox: each is checked here, whatever the child's own code checks."""

    async def answer(self, project_id: int, request: HostCallRequest) -> Any:
        """Do what an app asked for. Raises AppError for calls that do not exist and arguments that are wrong."""
        del project_id
        match request.name, request.arguments:
            case "sleep", [int() | float() as seconds] if 0 <= seconds <= 3600:
                await asyncio.sleep(seconds)
                return None
            case name, _:
                raise AppError(f"the host cannot do {name[:40]!r} with these arguments")

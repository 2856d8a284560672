"""Who receives a project's events: the installs whose apps have a delivery hook, as their sandbox says.

Also those whose setupPlugin fails: what they cannot be given yet is parked, not missed.
"""

from __future__ import annotations

import asyncio
import re
import time
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog

from plugin_server.delivery.batch import ExportSettings
from plugin_server.delivery.caller import Invoker
from plugin_server.delivery.parcel import EXPORT_EVENTS
from plugin_server.delivery.webhook import COMPOSE_WEBHOOK
from plugin_server.model.errors import Transient
from plugin_server.model.project import Install, Project

_SNAPSHOT: Final = "$snapshot"
_SNAPSHOT_HOOK: Final = "onSnapshot"
_EVENT_HOOKS: Final = ("onEvent", EXPORT_EVENTS, COMPOSE_WEBHOOK)
_WORDS: Final = re.compile(r"on_?event|on_?snapshot|export_?events|compose_?webhook", re.IGNORECASE)
_FRESH_SECONDS: Final = 1.0
_BACKOFF_SECONDS: Final = 1.0
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Receiver:
    """An install with delivery hooks."""

    install: Install
    hooks: frozenset[str]
    export: ExportSettings

    def hooks_for(self, event_name: str) -> Sequence[str]:
        """Those that get an event of this name. `$snapshot` is for onSnapshot alone (PostHog)."""
        if event_name == _SNAPSHOT:
            return (_SNAPSHOT_HOOK,) if _SNAPSHOT_HOOK in self.hooks else ()
        return [
            hook
            for hook in _EVENT_HOOKS
            if hook in self.hooks and not (hook == EXPORT_EVENTS and event_name in self.export.ignored)
        ]


def speaks_of_delivery(project: Project) -> bool:
    """Does the source of any of its apps have the name of a delivery hook in it? Where none does, no sandbox need be asked."""
    return any(_WORDS.search(unicodedata.normalize("NFKC", install.app.source)) for install in project.installs)


@dataclass(slots=True)
class _Known:
    project: Project
    receivers: tuple[Receiver, ...]
    at: float
    asking: asyncio.Task[None] | None = None


@dataclass(slots=True)
class _Asked:
    """Who waits for a project that is not known yet."""

    callbacks: list[Callable[[], None]] = field(default_factory=list)
    task: asyncio.Task[None] | None = None


class Receivers:
    """One a worker. Close it at the end."""

    def __init__(self, invoker: Invoker, clock: Callable[[], float] = time.monotonic) -> None:
        self._invoker = invoker
        self._clock = clock
        self._known: dict[int, _Known] = {}
        self._asked: dict[int, _Asked] = {}
        self._silent: dict[int, tuple[Project, bool]] = {}
        """By project's id: whether its apps speak of no delivery hook"""

    def are_none(self, project: Project) -> bool:
        """Nobody receives the project's events, as its apps' sources tell."""
        found = self._silent.get(project.id)
        if found is None or found[0] is not project:
            found = self._silent[project.id] = (project, not speaks_of_delivery(project))
        return found[1]

    def known(self, project: Project) -> tuple[Receiver, ...] | None:
        """The receivers, as they were about a second ago; None when the apps are not loaded yet: `ask` then."""
        if self.are_none(project):
            return ()
        known = self._known.get(project.id)
        if known is None or known.project is not project:
            return None
        if known.asking is None and self._clock() - known.at > _FRESH_SECONDS:
            known.asking = asyncio.get_running_loop().create_task(self._look(project), name="receivers")
        return known.receivers

    def ask(self, project: Project, then: Callable[[], None]) -> None:
        """Have the apps loaded; `then` is called once `known` has an answer."""
        asked = self._asked.setdefault(project.id, _Asked())
        asked.callbacks.append(then)
        if asked.task is None:
            asked.task = asyncio.get_running_loop().create_task(self._learn(project), name="receivers")

    async def close(self) -> None:
        """End what is being asked."""
        tasks = [task for entry in self._asked.values() if (task := entry.task)]
        tasks += [task for known in self._known.values() if (task := known.asking)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _learn(self, project: Project) -> None:
        while True:
            if await self._asks(project):
                break
            await asyncio.sleep(_BACKOFF_SECONDS)
        for then in self._asked.pop(project.id).callbacks:
            then()

    async def _look(self, project: Project) -> None:
        try:
            await self._asks(project)
        finally:
            known = self._known.get(project.id)
            if known is not None:
                known.asking, known.at = None, self._clock()

    async def _asks(self, project: Project) -> bool:
        try:
            hooks = await self._invoker.exports(project)
        except Transient as error:
            _log.warning("apps_not_loaded", project_id=project.id, error=str(error))
            return False
        except Exception:  # noqa: BLE001 - a fault of ours: asked again, or the project's events would wait for ever
            _log.exception("apps_not_loaded", project_id=project.id)
            return False
        self._known[project.id] = _Known(project, _receivers(project, hooks), self._clock())
        return True


def _receivers(project: Project, hooks: Mapping[int, frozenset[str]]) -> tuple[Receiver, ...]:
    wanted = {*_EVENT_HOOKS, _SNAPSHOT_HOOK}
    return tuple(
        Receiver(install, found, ExportSettings.of(install.config))
        for install in project.installs
        if (found := hooks.get(install.id, frozenset()) & wanted)
    )

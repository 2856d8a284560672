"""The API that apps need, for apps in process and for programs over HTTP: one handler, in PostHog's REST shapes.

    /api/projects/{id | @current}/                     the project
    /api/projects/{id | @current}/annotations[/{id}]
    /api/projects/{id | @current}/events[/{uuid}]
    /api/projects/{id | @current}/plugin_configs[/{id}]
    /api/projects                                      those that the caller may see: its own
    /api/users/@me                                     whose key it is, as far as there are users
    /api/annotation, /api/event, /api/plugin_config    the paths of 2021, for the current project

Each with a final slash or without.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, Final, NamedTuple

import structlog

from plugin_server.admin.api.annotations import Annotations
from plugin_server.admin.api.errors import (
    ApiRefusal,
    forbidden,
    json_answer,
    method_not_allowed,
    not_found,
    too_large,
    unavailable,
)
from plugin_server.admin.api.events import Events, RecentEvents
from plugin_server.admin.api.pages import Page, listing
from plugin_server.admin.api.plugin_configs import answer_plugin_configs
from plugin_server.database.engine import Database
from plugin_server.database.errors import database_errors
from plugin_server.model.api import ApiRequest, ApiResponse
from plugin_server.model.errors import Transient
from plugin_server.model.project import Project

BODY_BYTES: Final = 2**20
ANSWER_SECONDS: Final = 20.0
CURRENT: Final = "@current"
_PROJECTS: Final = "/projects"
_USER: Final = "/users/@me"
"""With a slash, which no part of a path has"""
_PATHS_OF_2021: Final = {"annotation": "annotations", "event": "events", "plugin_config": "plugin_configs"}

FindProject = Callable[[int], Project | None]
Resource = Callable[[ApiRequest, Project, tuple[str, ...]], Awaitable[ApiResponse]]
_log = structlog.get_logger(__name__)


class Target(NamedTuple):
    """What a path names: a project by its id or as `@current`, and the parts of the path within it."""

    project: str
    rest: tuple[str, ...]


def target_of(path: str) -> Target:
    """Raises ApiRefusal 404 for a path that is none of the API's."""
    match path.removesuffix("/").split("/"):
        case ["", "api", "projects", project, *rest]:
            return Target(project, tuple(rest))
        case ["", "api", "projects"]:
            return Target(CURRENT, (_PROJECTS,))
        case ["", "api", "users", "@me"]:
            return Target(CURRENT, (_USER,))
        case ["", "api", name, *rest] if name in _PATHS_OF_2021:
            return Target(CURRENT, (_PATHS_OF_2021[name], *rest))
    raise _unknown_path()


class OwnApi:
    """Answers requests of a caller that acts for one project. Shared by all; `find_project` knows all projects."""

    def __init__(
        self,
        database: Database,
        recent_events: RecentEvents,
        find_project: FindProject,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._find_project = find_project
        self._resources: dict[str, Resource] = {
            "annotations": Annotations(database, lambda: int(now() * 1000)).answer,
            "events": Events(recent_events).answer,
            "plugin_configs": answer_plugin_configs,
        }

    async def answer(self, request: ApiRequest, project_id: int) -> ApiResponse:
        """Do what is asked, as the project `project_id`; whether the caller may act for it is known already.

        A refusal is an answer too, and so is a 503 when database or event log are away, within ANSWER_SECONDS.
        """
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                with database_errors():
                    return await self._answer(request, project_id)
        except ApiRefusal as refusal:
            return refusal.response()
        except (Transient, TimeoutError) as error:
            reason = str(error) or f"no answer within {ANSWER_SECONDS:g} s"
            _log.warning("own_api_unavailable", project_id=project_id, error=reason)
            return unavailable().response()

    async def _answer(self, request: ApiRequest, project_id: int) -> ApiResponse:
        if len(request.body) > BODY_BYTES:
            raise too_large(BODY_BYTES)
        target = target_of(request.path)
        project = self._find_project(project_id)
        if project is None or target.project not in (CURRENT, str(project_id)):
            raise forbidden()
        match target.rest:
            case () | ("/users/@me" | "/projects",):
                if request.method != "GET":
                    raise method_not_allowed(("GET",))
                return json_answer(HTTPStatus.OK, _project_answer(request, project, target.rest))
            case (name, *rest) if name in self._resources:
                return await self._resources[name](request, project, tuple(rest))
        raise _unknown_path()


def _project_answer(request: ApiRequest, project: Project, rest: tuple[str, ...]) -> dict[str, Any]:
    own = {"id": project.id, "name": project.name, "api_token": project.token, "timezone": "UTC"}
    match rest:
        case ("/projects",):
            return listing(request, Page(1, 0), 1, [own])
        case ("/users/@me",):
            return {"uuid": None, "distinct_id": None, "first_name": "", "email": None, "team": own}
    return own


def _unknown_path() -> ApiRefusal:
    return not_found(
        "This API has no such path. It has /api/projects/@current/ and below it annotations, events and plugin_configs."
    )

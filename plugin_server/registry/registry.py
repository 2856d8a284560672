"""All projects as they stand at one moment. A change makes a new registry; who holds the old one finishes with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

from plugin_server.model.project import Project
from plugin_server.registry.projects_file import read_projects_file


class Registry:
    """An immutable snapshot: projects by token and by id. Ids and tokens must not repeat (ValueError)."""

    __slots__ = ("_by_id", "_by_token")

    def __init__(self, projects: Iterable[Project] = ()) -> None:
        projects = tuple(projects)
        self._by_id: Mapping[int, Project] = MappingProxyType({project.id: project for project in projects})
        self._by_token: Mapping[str, Project] = MappingProxyType({project.token: project for project in projects})
        if not len(self._by_id) == len(self._by_token) == len(projects):
            raise ValueError("two projects have the same id or token")

    @property
    def projects(self) -> tuple[Project, ...]:
        return tuple(self._by_id.values())

    def by_token(self, token: str) -> Project | None:
        return self._by_token.get(token)

    def by_id(self, project_id: int) -> Project | None:
        return self._by_id.get(project_id)


def load_registry(path: Path, environ: Mapping[str, str]) -> Registry:
    """The registry that a projects file describes. Raises ConfigurationError with every mistake in it. Blocks."""
    return Registry(read_projects_file(path, environ))

"""The projects file: which projects there are, which apps each has installed, and how these are configured.

```yaml
projects:
  - id: 2
    name: Acme
    token: phc_acme
    installs:
      - app: ./examples/url-cleaner
        order: 1
        config: {api_key: {env: ACME_API_KEY}}
        attachments: {schema: ./schema.json}
    personal_api_keys: [{env: ACME_PERSONAL_API_KEY}]
```

Paths are relative to the file. An install with `enabled: false` keeps its id and is otherwise not looked at, so that an
app that cannot be loaded can be switched off.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from plugin_server.model.api_keys import API_KEY_CHARACTERS, hash_api_key
from plugin_server.model.errors import ConfigurationError
from plugin_server.model.project import Install, Isolation, Limits, LoopPolicy, Project, SandboxPlan
from plugin_server.registry.app_source import LoadedApp, app_slug, load_app
from plugin_server.registry.config_values import read_attachments, resolve_config
from plugin_server.registry.problems import Problems
from plugin_server.registry.yaml_reader import read_yaml

INSTALL_ID_MAX = 2**31 - 1
TOKEN_LIMIT_CHARACTERS = 64
_MODEL = ConfigDict(frozen=True, strict=True, extra="forbid", use_attribute_docstrings=True)


class InstallEntry(BaseModel):
    model_config = _MODEL

    id: int | None = Field(None, ge=1, le=INSTALL_ID_MAX, examples=["39"])
    """Stable name of the install: storage, jobs and metrics hang on it."""
    app: str = Field(min_length=1, examples=["./examples/url-cleaner"])
    """A folder, a .zip or a .tgz."""
    order: int = Field(0, examples=["1"])
    """Apps run in this order, those with the same by id."""
    enabled: bool = Field(default=True, examples=["false"])
    config: dict[str, Any] = Field({}, examples=["{key: value}"])
    """Values of the fields that plugin.json declares; `{env: NAME}` takes one from the environment."""
    attachments: dict[str, str] = Field({}, examples=["{key: ./file.json}"])
    """Files for the fields of type attachment."""


class ApiKeyEntry(BaseModel):
    """A personal API key is never written into the file itself."""

    model_config = _MODEL

    env: str = Field(min_length=1, examples=["ACME_PERSONAL_API_KEY"])
    """The environment variable that holds the key."""


class ProjectEntry(BaseModel):
    model_config = _MODEL

    id: int = Field(ge=1, le=2**31 - 1, examples=["2"])
    name: str | None = Field(None, min_length=1, examples=["Acme"])
    token: str = Field(examples=["phc_acme"])
    """What SDKs send to say whose event it is."""
    loop_policy: LoopPolicy = Field(LoopPolicy.model_validate({}), examples=["{mode: enforce, max_depth: 10}"])
    limits: Limits = Field(Limits.model_validate({}), examples=["{hook_seconds: 30}"])
    isolation: Isolation = Field(Isolation.PROJECT, strict=False, examples=["project"])
    sandbox_processes: int = Field(1, ge=1, le=256, examples=["2"])
    installs: list[InstallEntry] = Field([], examples=["[{app: ./examples/url-cleaner}]"])
    personal_api_keys: list[ApiKeyEntry] = Field([], examples=["[{env: ACME_PERSONAL_API_KEY}]"])
    """What people and programs send as bearer token to this project's API."""
    posthog_api_key: ApiKeyEntry | None = Field(None, examples=["{env: ACME_POSTHOG_API_KEY}"])
    """Personal API key on the external PostHog (POSTHOG_HOST), for `posthog.api` without keys."""

    @field_validator("token")
    @classmethod
    def _token_can_be_sent(cls, value: str) -> str:
        if not 0 < len(value) <= TOKEN_LIMIT_CHARACTERS:
            raise ValueError(f"must have 1 to {TOKEN_LIMIT_CHARACTERS} characters")
        if not value.isascii() or not value.isprintable() or " " in value or ":" in value:
            raise ValueError("must be ASCII without spaces and colons")
        if value.startswith("phx_"):
            raise ValueError("is a personal API key (phx_): a project's token is public, so write that one (phc_)")
        return value


class ProjectsDocument(BaseModel):
    model_config = _MODEL

    projects: list[ProjectEntry] = Field(examples=["[{id: 2, name: Acme, token: phc_acme}]"])


def read_projects_file(path: Path, environ: Mapping[str, str]) -> tuple[Project, ...]:
    """The projects in `path` with their apps loaded and their config resolved.

    Raises ConfigurationError that lists every mistake in the file and in the apps that it names, each with its key path
    and what to write instead. Blocks for reading the files.
    """
    document = read_yaml(path)
    problems = Problems(path)
    if not isinstance(document, dict):
        raise ConfigurationError(f"{path}: must begin with `projects:` and a list below it.")
    try:
        entries = ProjectsDocument.model_validate(document).projects
    except ValidationError as error:
        problems.add_invalid(error, ProjectsDocument)
        problems.raise_if_any()
        raise
    _refuse_repeats(entries, problems)
    _refuse_spread_of_parts(entries, problems)
    ids = _install_ids(entries, problems)
    reader = _InstallReader(path.parent, environ, problems)
    projects = tuple(
        Project(
            id=entry.id,
            name=entry.name or f"Project {entry.id}",
            token=entry.token,
            installs=reader.installs(entry, index, ids),
            loop_policy=entry.loop_policy,
            limits=entry.limits,
            sandbox=SandboxPlan(entry.isolation, entry.sandbox_processes),
            api_keys=_api_keys(entry.personal_api_keys, environ, f"projects[{index}].personal_api_keys", problems),
            posthog_api_key=_posthog_api_key(entry, environ, f"projects[{index}].posthog_api_key", problems),
        )
        for index, entry in enumerate(entries)
    )
    problems.raise_if_any()
    return projects


def derived_install_id(project_id: int, slug: str, nth: int) -> int:
    """The id of an install that has none of its own: 1 … 2³¹-1, from a hash of the three.

    `slug` is the last part of the app's path, `nth` counts the installs of that slug within the project from 0. So the
    id stays when the app's folder moves or other apps are installed, and changes when the app's folder is renamed.
    """
    digest = hashlib.sha256(f"{project_id}\0{slug}\0{nth}".encode()).digest()
    return int.from_bytes(digest[:4], "big") % INSTALL_ID_MAX + 1


def _api_keys(
    entries: list[ApiKeyEntry], environ: Mapping[str, str], where: str, problems: Problems
) -> tuple[bytes, ...]:
    """The hashes of the keys. Neither a key nor a part of one gets into a message."""
    hashes = []
    for index, entry in enumerate(entries):
        place = f"{where}[{index}]"
        key = _key_from_environment(entry, environ, place, problems)
        if not key:
            continue
        if len(key) < API_KEY_CHARACTERS or not key.isascii() or not key.isprintable() or " " in key:
            problems.add(
                place,
                f"the key in {entry.env} must have {API_KEY_CHARACTERS} or more ASCII characters, no spaces. "
                "Set it to phx_ and the output of `openssl rand -hex 24`.",
            )
        else:
            hashes.append(hash_api_key(key))
    return tuple(hashes)


def _posthog_api_key(entry: ProjectEntry, environ: Mapping[str, str], where: str, problems: Problems) -> str | None:
    if entry.posthog_api_key is None:
        return None
    key = _key_from_environment(entry.posthog_api_key, environ, where, problems)
    if not key.isascii() or not key.isprintable() or " " in key:
        problems.add(where, f"the key in {entry.posthog_api_key.env} must be ASCII characters without spaces.")
    return key or None


def _key_from_environment(entry: ApiKeyEntry, environ: Mapping[str, str], where: str, problems: Problems) -> str:
    """The key, empty if there is none, which is a problem."""
    key = environ.get(entry.env, "").strip()
    if not key:
        problems.add(where, f"takes the key from the environment variable {entry.env}, which is not set. Set it.")
    return key


def _refuse_repeats(entries: list[ProjectEntry], problems: Problems) -> None:
    first_id: dict[int, int] = {}
    first_token: dict[str, int] = {}
    for index, entry in enumerate(entries):
        if first_id.setdefault(entry.id, index) != index:
            problems.add(
                f"projects[{index}].id", f"{entry.id} is that of projects[{first_id[entry.id]}]. Write another."
            )
        if first_token.setdefault(entry.token, index) != index:
            problems.add(f"projects[{index}].token", f"is that of projects[{first_token[entry.token]}]. Write another.")


def _refuse_spread_of_parts(entries: list[ProjectEntry], problems: Problems) -> None:
    for index, entry in enumerate(entries):
        if entry.sandbox_processes > 1 and entry.isolation is not Isolation.PROJECT:
            problems.add(
                f"projects[{index}].sandbox_processes",
                f"needs `isolation: project`, not {entry.isolation}. Remove one of the two.",
            )


def _install_ids(entries: list[ProjectEntry], problems: Problems) -> dict[tuple[int, int], int]:
    """The id of each install by its place; one that is taken already is a problem."""
    ids: dict[tuple[int, int], int] = {}
    place_of: dict[int, str] = {}
    for index, entry in enumerate(entries):
        seen: Counter[str] = Counter()
        for position, install in enumerate(entry.installs):
            where = f"projects[{index}].installs[{position}].id"
            slug = app_slug(install.app)
            install_id = install.id or derived_install_id(entry.id, slug, seen[slug])
            seen[slug] += 1
            if place_of.setdefault(install_id, where) != where:
                problems.add(where, f"{install_id} is that of {place_of[install_id]}. Write `id:` with another number.")
            ids[index, position] = install_id
    return ids


class _InstallReader:
    """Loads each app once, however often it is installed."""

    def __init__(self, base: Path, environ: Mapping[str, str], problems: Problems) -> None:
        self._base = base
        self._environ = environ
        self._problems = problems
        self._apps: dict[str, LoadedApp | None] = {}

    def installs(self, project: ProjectEntry, index: int, ids: Mapping[tuple[int, int], int]) -> tuple[Install, ...]:
        installs = []
        for position, entry in enumerate(project.installs):
            where = f"projects[{index}].installs[{position}]"
            loaded = self._load(entry.app, f"{where}.app") if entry.enabled else None
            if loaded is not None:
                installs.append(self._install(entry, loaded, ids[index, position], where))
        return tuple(sorted(installs, key=lambda install: (install.order, install.id)))

    def _load(self, reference: str, where: str) -> LoadedApp | None:
        if reference not in self._apps:
            try:
                self._apps[reference] = load_app(reference, self._base)
            except ConfigurationError as error:
                self._apps[reference] = None
                self._problems.add(where, str(error))
        return self._apps[reference]

    def _install(self, entry: InstallEntry, loaded: LoadedApp, install_id: int, where: str) -> Install:
        config = resolve_config(
            entry.config, loaded, environ=self._environ, where=f"{where}.config", problems=self._problems
        )
        attachments = read_attachments(
            entry.attachments, loaded, base=self._base, where=f"{where}.attachments", problems=self._problems
        )
        return Install(install_id, loaded.app, entry.order, config, attachments)

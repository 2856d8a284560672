"""docs/api.md says what the code does: paths, bounds, choices, and a projects file that is valid."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from plugin_server.admin.api.annotations import CONTENT_CHARACTERS, CREATION_TYPES, SCOPES
from plugin_server.admin.api.events import RECORDS, RECORDS_BYTES
from plugin_server.admin.api.handler import BODY_BYTES, target_of
from plugin_server.admin.api.pages import DEFAULT_LIMIT, MAX_LIMIT
from plugin_server.admin.api.plugin_configs import MASK
from plugin_server.model.api_keys import API_KEY_CHARACTERS
from plugin_server.registry.projects_file import ProjectsDocument

PAGE = (Path(__file__).parents[3] / "docs" / "api.md").read_text("utf-8")


def test_paths_on_the_page_are_the_apis():
    paths = re.findall(r"^\| (`/api.*?) \|", PAGE, re.MULTILINE)
    found = [path for cell in paths for path in re.findall(r"`([^`]+)`", cell)]
    assert len(found) == 12
    for path in found:
        target_of(path)


def test_bounds_and_choices_on_the_page_are_those_of_the_code():
    flat = " ".join(PAGE.split())
    for words in (
        f"up to {CONTENT_CHARACTERS} characters",
        f"last {RECORDS:,} of all projects, {RECORDS_BYTES // 2**20} MiB",
        f"more than {BODY_BYTES // 2**20} MiB",
        f"`limit` ({DEFAULT_LIMIT}, at most {MAX_LIMIT})",
        f"{API_KEY_CHARACTERS} characters or more",
        MASK,
        *(f"`{name}`" for name in (*SCOPES, *CREATION_TYPES)),
    ):
        assert words in flat, words


def test_the_projects_file_on_the_page_is_valid():
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    (project,) = ProjectsDocument.model_validate(yaml.safe_load(text)).projects
    assert len(project.personal_api_keys) == 1

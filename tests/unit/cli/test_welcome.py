from __future__ import annotations

from pathlib import Path

import pytest

from plugin_server.cli.welcome import welcome
from plugin_server.registry.registry import Registry
from plugin_server.settings import Settings
from tests.unit.ingestion.doubles import WITH_APPS, WITHOUT_APPS


def test_the_first_words_say_how_to_send_an_event_and_where_to_see_it():
    text = welcome(Settings(), Registry([WITH_APPS, WITHOUT_APPS]), Path("configs/development.toml"))
    assert "project 2 Acme (token phc_acme): Ping → Pong" in text
    assert "project 3 Bare (token phc_bare): no apps" in text
    assert "make tail" in text
    assert "curl http://127.0.0.1:6738/capture/" in text or ":6738/capture/" in text
    assert '"api_key": "phc_acme"' in text


@pytest.mark.parametrize(
    ("config", "command"),
    [
        (None, "  plugin-server tail\n"),
        (Path("my plugins.toml"), "  plugin-server tail --config 'my plugins.toml'\n"),
        (Path("configs/development.toml"), "(or: .venv/bin/plugin-server tail --config configs/development.toml)\n"),
    ],
)
def test_the_command_that_follows_names_the_file_that_the_server_was_started_with(config, command):
    assert command in welcome(Settings(), Registry([WITH_APPS]), config)


def test_without_projects_it_says_what_to_set():
    assert "PLUGIN_SERVER_PROJECTS_FILE" in welcome(Settings(), Registry())

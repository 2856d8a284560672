from __future__ import annotations

from plugin_server.cli.welcome import welcome
from plugin_server.registry.registry import Registry
from plugin_server.settings import Settings
from tests.unit.ingestion.doubles import WITH_APPS, WITHOUT_APPS


def test_the_first_words_say_how_to_send_an_event_and_where_to_see_it():
    text = welcome(Settings(), Registry([WITH_APPS, WITHOUT_APPS]))
    assert "project 2 Acme (token phc_acme): Ping → Pong" in text
    assert "project 3 Bare (token phc_bare): no apps" in text
    assert "make tail" in text
    assert "curl http://127.0.0.1:6738/capture/" in text or ":6738/capture/" in text
    assert '"api_key": "phc_acme"' in text


def test_without_projects_it_says_what_to_set():
    assert "PLUGIN_SERVER_PROJECTS_FILE" in welcome(Settings(), Registry())

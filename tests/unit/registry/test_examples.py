"""The shipped example apps and configuration: they load, and in plain Python the apps do what their description says."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from plugin_server.model.project import App
from plugin_server.registry.app_source import load_app
from plugin_server.registry.registry import load_registry

ROOT = Path(__file__).parents[3]
EXAMPLES = ROOT / "examples"
BROWSER = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"


class Captured(list[tuple[str, dict[str, Any]]]):
    def capture(self, event: str, properties: dict[str, Any]) -> None:
        self.append((event, properties))


def run(name: str, event: dict[str, Any], config: dict[str, str] | None = None):
    """The event after `processEvent`, and what the app captured."""
    loaded = load_app(name, EXAMPLES)
    defaults = {key: field.default for key, field in loaded.manifest.fields.items()}
    captured = Captured()
    scope: dict[str, Any] = {"posthog": captured}
    exec(compile(loaded.app.source, loaded.app.file_name, "exec"), scope)
    return scope["processEvent"](event, SimpleNamespace(config=defaults | (config or {}))), list(captured)


def event(name: str = "$pageview", **properties: Any) -> dict[str, Any]:
    return {"event": name, "distinct_id": "u1", "properties": properties}


def test_the_example_projects_load():
    registry = load_registry(ROOT / "configs" / "projects.yaml", {})
    example, loop_demo = registry.projects
    assert registry.by_token("phc_example") is example
    assert [install.app.name for install in example.installs] == ["Bot filter", "URL cleaner", "Signup celebrator"]
    assert [install.app.name for install in loop_demo.installs] == ["Ping", "Pong"]
    assert loop_demo.name == "loop-demo"


@pytest.mark.parametrize("folder", sorted(path.name for path in EXAMPLES.iterdir() if path.is_dir()))
def test_every_example_describes_itself_and_compiles(folder):
    app: App = load_app(folder, EXAMPLES).app
    assert app.manifest["description"]
    compile(app.source, app.file_name, "exec")


@pytest.mark.parametrize(
    ("url", "cleaned"),
    [
        ("HTTPS://Example.COM/Path?utm_source=x&q=Y", "https://example.com/Path?q=Y"),
        ("https://a.com/?gclid=1#part", "https://a.com/#part"),
        ("https://User:Pw@A.com:8080/", "https://User:Pw@a.com:8080/"),
        ("https://a.com/?q=a+b&r=%2F", "https://a.com/?q=a+b&r=%2F"),
        ("https://a.com/?empty=&utm_medium=", "https://a.com/?empty="),
        ("/relative?utm_source=x", "/relative?utm_source=x"),
        ("http://[broken", "http://[broken"),
        ("$direct", "$direct"),
        (None, None),
    ],
)
def test_url_cleaner_lowercases_and_strips(url, cleaned):
    after, captured = run("url-cleaner", event(**{"$current_url": url, "other": "HTTP://A.com/?utm_id=1"}))
    assert after["properties"] == {"$current_url": cleaned, "other": "HTTP://A.com/?utm_id=1"}
    assert captured == []


def test_url_cleaner_takes_properties_and_parameters_from_its_config():
    after, _ = run("url-cleaner", event(link="https://A.com/?x=1&utm_id=2"), {"properties": "link", "parameters": "x"})
    assert after["properties"]["link"] == "https://a.com/?utm_id=2"


@pytest.mark.parametrize(
    ("properties", "dropped"),
    [
        ({"$user_agent": "Mozilla/5.0 (compatible; Googlebot/2.1)"}, True),
        ({"$raw_user_agent": "HeadlessChrome/120"}, True),
        ({"$browser": "PingdomBot"}, True),
        ({"$user_agent": BROWSER, "$browser": "Firefox"}, False),
        ({"$user_agent": 7}, False),
        ({}, False),
    ],
)
def test_bot_filter_drops_bots_and_nobody_else(properties, dropped):
    after, _ = run("bot-filter", event(**properties))
    assert (after is None) is dropped


def test_bot_filter_keeps_the_events_that_bots_may_send():
    after, _ = run("bot-filter", event("uptime", **{"$user_agent": "UptimeRobot"}), {"keepEvents": "uptime"})
    assert after is not None


def test_signup_celebrator_follows_up_a_sign_up_and_never_its_own_event():
    after, captured = run("signup-celebrator", event("signed_up"))
    assert after == event("signed_up")
    assert captured == [("signup followed up", {"distinct_id": "u1"})]
    assert run("signup-celebrator", event("signup followed up"))[1] == []
    assert run("signup-celebrator", event("signup followed up"), {"signupEvent": "signup followed up"})[1] == []


def test_ping_and_pong_answer_each_other():
    assert run("ping", event("pong"))[1] == [("ping", {"distinct_id": "u1"})]
    assert run("pong", event("ping"))[1] == [("pong", {"distinct_id": "u1"})]
    assert run("ping", event("ping"))[1] == []

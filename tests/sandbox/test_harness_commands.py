"""`plugin-server app run` and `app test`: what an author sees, and how they exit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from plugin_server.cli.main import app as cli

SOURCE = """
async def setupPlugin(meta):
    await fetch("https://api.example.com/up")
async def onEvent(event, meta):
    if event["event"] == "bad":
        raise RetryError("busy")
    console.log("got", event["event"])
    await fetch("https://api.example.com/people", method="POST", json={"id": event["distinct_id"]})
    await meta.jobs.work({"n": 1}).runIn(1, "hour")
    await meta.storage.increment("seen")
    meta.metrics.sent.increment(1)
    posthog.capture("told", {"n": 1})
def processEvent(event, meta):
    event["properties"]["n"] = 2
    return event
def work(payload, meta):
    pass
jobs = {"work": work}
metrics = {"sent": "sum"}
"""
EVENT = {"event": "x", "distinct_id": "ada", "properties": {"n": 1}}


@pytest.fixture
def app(tmp_path: Path) -> Path:
    (tmp_path / "plugin.json").write_text('{"name": "App"}')
    (tmp_path / "main.py").write_text(SOURCE)
    (tmp_path / "event.json").write_text(json.dumps(EVENT))
    (tmp_path / "bad.json").write_text(json.dumps(EVENT | {"event": "bad"}))
    (tmp_path / "cases").mkdir()
    return tmp_path


def run(*arguments: Any):
    return CliRunner().invoke(cli, ["app", *map(str, arguments)])


def test_run_shows_all_that_a_hook_did(app):
    result = run("run", app, "--event", app / "event.json", "--hook", "onEvent")
    assert result.exit_code == 0
    for line in (
        "set-up asks GET https://api.example.com/up",
        "logs LOG: got x",
        "→ asks POST https://api.example.com/people",
        "+ starts job work at 2",
        "counts sent 1",
        '+ captures told {"n": 1, "distinct_id": "App Server"}',
    ):
        assert line in result.output


def test_run_shows_the_difference_that_an_app_makes(app):
    result = run("run", app, "--event", app / "event.json")
    assert result.exit_code == 0
    assert "~ properties.n: 1 → 2" in result.output


def test_run_prints_one_object_for_programs(app):
    found = json.loads(run("run", app, "--event", app / "event.json", "--hook", "onEvent", "--json").output)
    assert found["error"] is None
    assert found["metrics"] == {"sent": 1}
    assert found["requests"][0]["json"] == {"id": "ada"}
    assert found["jobs"][0]["job"] == "work"


def test_run_exits_with_1_for_a_hook_that_fails_and_2_for_one_that_is_not_there(app):
    failed = run("run", app, "--event", app / "bad.json", "--hook", "onEvent")
    assert failed.exit_code == 1
    assert "onEvent failed (retry): RetryError: busy (line 6)" in failed.output
    assert run("run", app, "--hook", "runEveryMinute").exit_code == 2
    assert run("run", app, "--hook", "onEvent").exit_code == 2


def test_cases_pass_fail_or_are_not_run(app):
    step = {
        "hook": "onEvent",
        "event_in": EVENT,
        "expect": {
            "http_requests": [{"method": "POST", "url": "https://api.example.com/people", "json": {"id": "ada"}}],
            "captured": [{"event": "told", "properties": {"n": 1}}],
            "jobs": [{"name": "work", "payload": {"n": 1}, "when": "in 1 hour"}],
            "storage_after": {"seen": 5},
        },
    }
    good = {"title": "good", "storage_before": {"seen": 4}, **step}
    native = {"title": "native", "native_results": {"x": 1}, **step}
    (app / "cases" / "a.json").write_text(json.dumps([good, native]))
    result = run("test", app)
    assert "✓ a/001 good" in result.output
    assert "1 passed, 0 failed, 1 could not be run" in result.output
    assert result.exit_code == 0
    (app / "cases" / "b.json").write_text(json.dumps({"title": "bad", **step}))
    result = run("test", app, "-k", "bad")
    assert "storage_after.seen is 1, 5 was expected" in result.output
    assert result.exit_code == 1
    result = run("test", app, "-k", "nonsense")
    assert "has 'nonsense' in its id or title" in result.output
    assert result.exit_code == 2

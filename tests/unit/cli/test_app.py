"""`plugin-server app init` and `app check`, as an author meets them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from plugin_server.cli.app import app

MANIFEST = '{"name": "Greeter"}'


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.output


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "plugin.json").write_text(MANIFEST)
    return tmp_path


def test_a_new_app_has_nothing_to_find(tmp_path: Path):
    status, output = run("init", tmp_path / "my-app", "--name", "My app")
    assert status == 0
    assert "main.py" in output
    assert json.loads((tmp_path / "my-app" / "plugin.json").read_text())["name"] == "My app"
    assert run("check", tmp_path / "my-app", "--strict") == (0, "My app: nothing wrong was found\n")


def test_a_new_app_is_called_as_its_folder(tmp_path: Path):
    run("init", tmp_path / "url-cleaner")
    assert json.loads((tmp_path / "url-cleaner" / "plugin.json").read_text())["name"] == "url-cleaner"


@pytest.mark.parametrize("there", ["plugin.json", "main.py"])
def test_init_writes_over_nothing(tmp_path: Path, there: str):
    (tmp_path / there).write_text("mine")
    status, output = run("init", tmp_path)
    assert status == 1
    assert "exist already" in output
    assert [path.name for path in tmp_path.iterdir()] == [there]
    assert (tmp_path / there).read_text() == "mine"


def test_init_into_a_file_says_so(tmp_path: Path):
    (tmp_path / "file").write_text("")
    status, output = run("init", tmp_path / "file")
    assert status == 1
    assert "cannot be written to" in output


def test_what_the_language_refuses_is_an_error_with_each_line(folder: Path):
    (folder / "main.py").write_text("import os\ndef processEvent(event, meta):\n    return eval('1')\n")
    status, output = run("check", folder)
    assert status == 1
    first, second, last = output.splitlines()
    assert first.startswith('error   main.py:1: the module "os" is not available; apps can import base64')
    assert second.startswith('error   main.py:3: "eval" is not available')
    assert last == "Greeter: 2 errors"


def test_a_refused_line_is_said_once(folder: Path):
    (folder / "main.py").write_text("def processEvent(event, meta):\n    await sleep(1)\n    return event\n")
    _, output = run("check", folder, "--json")
    assert [found["line"] for found in json.loads(output)["findings"]] == [2]


def test_warnings_fail_only_when_strict(folder: Path):
    (folder / "main.py").write_text("def processEvent(event, meta):\n    posthog.capture('x')\n    return event\n")
    status, output = run("check", folder)
    assert status == 0
    assert "warning main.py:2: posthog.capture is reached for every event" in output
    assert "Greeter: 1 warning" in output
    assert run("check", folder, "--strict")[0] == 1


def test_notes_never_fail(folder: Path):
    (folder / "main.py").write_text("n = {}\ndef processEvent(event, meta):\n    n['a'] = 1\n    return event\n")
    status, output = run("check", folder, "--strict")
    assert status == 0
    assert "1 note" in output


def test_a_bad_manifest_is_an_error(folder: Path):
    (folder / "plugin.json").write_text('{"name": "Greeter", "confg": []}')
    (folder / "main.py").write_text("")
    status, output = run("check", folder)
    assert status == 1
    assert "Write `config` instead" in output


def test_json_for_scripts(folder: Path):
    (folder / "main.py").write_text("def processEvent(event):\n    return event\n")
    status, output = run("check", folder, "--json")
    assert status == 1
    assert json.loads(output)["ok"] is False
    (found,) = json.loads(output)["findings"]
    assert (found["file"], found["line"], found["severity"]) == ("main.py", 1, "error")

"""Config values of an install: checked against plugin.json, defaults given, secrets never shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from plugin_server.registry.app_source import LoadedApp, load_app
from plugin_server.registry.config_values import ATTACHMENT_LIMIT_BYTES, read_attachments, resolve_config
from plugin_server.registry.problems import Problems

FIELDS: list[dict[str, Any]] = [
    {"markdown": "only text"},
    {"key": "text"},
    {"key": "greeting", "default": "hello"},
    {"key": "empty", "default": ""},
    {"key": "choice", "type": "choice", "choices": ["Yes", "No"], "default": "No"},
    {"key": "json", "type": "json", "default": ""},
    {"key": "flag", "type": "boolean", "default": "true"},
    {"key": "map", "type": "dictionary"},
    {"key": "file", "type": "attachment"},
]
DEFAULTS = {"greeting": "hello", "empty": "", "choice": "No", "flag": True}


def app(folder: Path, fields: list[dict[str, Any]], source: str = "") -> LoadedApp:
    (folder / "plugin.json").write_text(json.dumps({"name": "A", "config": fields}))
    (folder / "main.py").write_text(source)
    return load_app(".", folder)


def resolve(loaded: LoadedApp, raw: dict[str, Any], environ: dict[str, str] | None = None):
    problems = Problems("projects.yaml")
    return resolve_config(raw, loaded, environ=environ or {}, where="config", problems=problems), problems.texts


def test_declared_defaults_are_given_to_the_app(tmp_path):
    assert resolve(app(tmp_path, FIELDS), {}) == (DEFAULTS, [])


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({"text": ""}, {"text": ""}),
        ({"text": None}, {}),
        ({"text": {"env": "A"}}, {"text": "from the environment"}),
        ({"choice": "Yes"}, {"choice": "Yes"}),
        ({"choice": ""}, {"choice": ""}),
        ({"json": '{"a": 1}'}, {"json": '{"a": 1}'}),
        ({"json": {"a": [1, "ü"]}}, {"json": '{"a": [1, "ü"]}'}),
        ({"flag": False}, {"flag": False}),
        ({"flag": "False"}, {"flag": False}),
        ({"flag": {"env": "B"}}, {"flag": False}),
        ({"map": {"a": "b"}}, {"map": {"a": "b"}}),
    ],
)
def test_a_value_reaches_the_app_in_the_form_of_its_type(tmp_path, raw, expected):
    values, problems = resolve(app(tmp_path, FIELDS), raw, {"A": "from the environment", "B": "false"})
    assert problems == []
    assert values == DEFAULTS | expected


@pytest.mark.parametrize(
    ("raw", "where", "cure"),
    [
        ({"txt": "x"}, "config.txt", "Write `text` instead"),
        ({"zzzzz": "x"}, "config.zzzzz", "known are: text, greeting, empty, choice, json, flag, map, file"),
        ({"exportEventsToIgnore": "x"}, "config.exportEventsToIgnore", "not a known key"),
        ({"text": 10}, "config.text", 'in quotes, as in "10"'),
        ({"text": ["x"]}, "config.text", "must be text"),
        ({"text": {"env": "NOT_SET"}}, "config.text", "Set NOT_SET"),
        ({"choice": "Maybe"}, "config.choice", "Yes, No"),
        ({"choice": True}, "config.choice", "Yes, No"),
        ({"json": "{"}, "config.json", "must be JSON"),
        ({"json": {"a": float("nan")}}, "config.json", "must be JSON"),
        ({"flag": "perhaps"}, "config.flag", "true or false"),
        ({"flag": 1}, "config.flag", "true or false"),
        ({"map": "a=b"}, "config.map", "text to text"),
        ({"map": {"a": 1}}, "config.map", "text to text"),
        ({"file": "x.json"}, "config.file", "`attachments`"),
    ],
)
def test_a_bad_value_is_refused_by_its_key_with_the_cure(tmp_path, raw, where, cure):
    _, (problem,) = resolve(app(tmp_path, FIELDS), raw)
    assert problem.startswith(f"{where}: ")
    assert cure in problem


@pytest.mark.parametrize("raw", [{}, {"key": ""}, {"key": None}])
def test_a_required_value_must_be_there_even_if_its_default_is_empty(tmp_path, raw):
    _, problems = resolve(app(tmp_path, [{"key": "key", "required": True, "default": ""}]), raw)
    assert problems == ["config.key: is required but has no value. Write `key: ...`."]


def test_a_default_satisfies_what_is_required(tmp_path):
    loaded = app(tmp_path, [{"key": "key", "required": True, "default": "x"}])
    assert resolve(loaded, {}) == ({"key": "x"}, [])


def test_a_variable_that_is_not_set_is_one_problem_for_a_required_value(tmp_path):
    _, problems = resolve(app(tmp_path, [{"key": "key", "required": True}]), {"key": {"env": "NOT_SET"}})
    assert len(problems) == 1


def test_a_default_of_the_wrong_type_is_a_problem_of_plugin_json(tmp_path):
    loaded = app(tmp_path, [{"key": "c", "type": "choice", "choices": ["a"], "default": "b"}])
    _, (problem,) = resolve(loaded, {})
    assert "its default in plugin.json must be one of: a" in problem


def test_an_exporter_takes_the_keys_of_every_exporter(tmp_path):
    loaded = app(tmp_path, [], "async def exportEvents(events, meta): ...")
    raw = {
        "exportEventsToIgnore": "$feature_flag_called",
        "exportEventsBufferBytes": 100,
        "exportEventsBufferSeconds": "5",
    }
    expected = {**raw, "exportEventsBufferBytes": "100"}
    assert resolve(loaded, raw) == (expected, [])


@pytest.mark.parametrize("value", ["many", 0, -1, True, [], "nan", "inf", 10**400])
def test_an_exporter_takes_numbers_only(tmp_path, value):
    loaded = app(tmp_path, [], "async def export_events(events, meta): ...")
    _, (problem,) = resolve(loaded, {"exportEventsBufferBytes": value})
    assert problem == "config.exportEventsBufferBytes: must be a number above 0."


def read(loaded: LoadedApp, paths: dict[str, str], base: Path):
    problems = Problems("projects.yaml")
    return read_attachments(paths, loaded, base=base, where="attachments", problems=problems), problems.texts


def test_an_attachment_has_name_type_and_contents(tmp_path):
    (tmp_path / "schema.json").write_bytes(b"{}")
    attachments, problems = read(app(tmp_path, FIELDS), {"file": "schema.json"}, tmp_path)
    assert problems == []
    assert (attachments["file"].file_name, attachments["file"].content_type) == ("schema.json", "application/json")
    assert attachments["file"].contents == b"{}"


@pytest.mark.parametrize(
    ("paths", "where", "cure"),
    [
        ({"file": "none.json"}, "attachments.file", "cannot be read"),
        ({"file": "big"}, "attachments.file", "larger than"),
        ({"text": "big"}, "attachments.text", "known are: file"),
        ({}, "attachments.file", "Write `file: path/of/the/file`"),
    ],
)
def test_a_bad_attachment_is_refused_by_its_key(tmp_path, paths, where, cure):
    (tmp_path / "big").write_bytes(bytes(ATTACHMENT_LIMIT_BYTES + 1))
    fields = [{"key": "text"}, {"key": "file", "type": "attachment", "required": True}]
    _, problems = read(app(tmp_path, fields), paths, tmp_path)
    assert any(problem.startswith(f"{where}: ") and cure in problem for problem in problems)

"""The payload of a job that a person starts: checked against plugin.json, every mistake at once, defaults filled in."""

from __future__ import annotations

import math

import pytest

from plugin_server.background.public_jobs import checked_payload
from plugin_server.model.errors import InvalidArgument
from plugin_server.model.project import App, Install
from plugin_server.registry.manifest import parse_manifest

MANIFEST, _ = parse_manifest(
    b"""{"name": "Importer", "publicJobs": {"empty": {}, "import": {"payload": {
    "table": {"type": "string", "required": true},
    "full": {"type": "boolean", "default": false},
    "rows": {"type": "number", "default": 100},
    "since": {"type": "date"},
    "range": {"type": "daterange"},
    "options": {"type": "json"}}}}}""",
    "plugin.json",
)
INSTALL = Install(3, App("Importer", "v", "main.py", "", MANIFEST.model_dump(by_alias=True)), 1, {})


def test_defaults_are_filled_in_and_the_operation_is_start():
    assert checked_payload(INSTALL, "import", {"table": "users"}) == {
        "table": "users",
        "full": False,
        "rows": 100,
        "$operation": "start",
    }
    assert checked_payload(INSTALL, "empty", {}) == {"$operation": "start"}


def test_all_types_pass_as_they_are():
    payload = {
        "table": "users",
        "full": True,
        "rows": 1.5,
        "since": "2026-11-23",
        "range": ["2026-11-01", "2026-11-23T12:00:00Z"],
        "options": {"a": [1, None]},
        "$operation": "stop",
    }
    assert checked_payload(INSTALL, "import", payload) == {**payload, "$operation": "start"}


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        ({}, "'table' is required"),
        ({"table": ""}, "'table' is required"),
        ({"table": 5}, "'table' must be text, not 5"),
        ({"table": "x", "full": "yes"}, "must be true or false, not 'yes'"),
        ({"table": "x", "full": 1}, "must be true or false"),
        ({"table": "x", "rows": True}, "must be a number"),
        ({"table": "x", "rows": "5"}, "must be a number"),
        ({"table": "x", "rows": math.inf}, "must be a number"),
        ({"table": "x", "since": "yesterday"}, "must be a date like 2026-11-23"),
        ({"table": "x", "since": 20261123}, "must be a date"),
        ({"table": "x", "range": ["2026-11-23"]}, "two dates"),
        ({"table": "x", "range": ["2026-11-23", "2026-11-01"]}, "the earlier one first"),
        ({"table": "x", "tabel": "y"}, r"'tabel' is no field of it \(table, full"),
        ({"tabel": "y", "rows": "5"}, "is no field.*; 'table' is required; 'rows' must be"),
        ([], "must be a JSON object"),
        (None, "must be a JSON object"),
    ],
)
def test_a_bad_payload_is_refused_with_every_mistake(payload, words):
    with pytest.raises(InvalidArgument, match=words):
        checked_payload(INSTALL, "import", payload)


def test_a_job_that_is_not_public_is_refused_with_those_that_are():
    with pytest.raises(InvalidArgument, match="no public job 'x'; it has: empty, import"):
        checked_payload(INSTALL, "x", {})

"""Cases: how they are read, and what is not run but said to be."""

from __future__ import annotations

import json

import pytest

from plugin_server.model.errors import ConfigurationError
from plugin_server.testing.cases import read_case, read_cases, run_case


@pytest.mark.parametrize(
    "case", [5, [], {}, {"hook": "x", "expct": {}}, {"steps": [{}]}, {"steps": [{"hook": "x", "http": []}]}]
)
def test_what_is_no_case_is_refused(case):
    with pytest.raises(ConfigurationError, match="case 7"):
        read_case(case, "cases/a.json", 7)


def test_a_misspelt_key_is_named_with_the_right_one_and_those_that_the_page_has():
    with pytest.raises(ConfigurationError) as caught:
        read_case({"hook": "x", "evnt_in": {}}, "cases/a.json", 7)
    assert "cases/a.json: case 7: 'evnt_in' is not a known key. Write `event_in` instead; known are: " in str(
        caught.value
    )
    assert "kinesis" not in str(caught.value)
    assert "oracle_2022" not in str(caught.value)


async def test_a_case_with_a_misspelt_expectation_fails():
    result = await run_case("x", {"id": "a", "title": "t", "hook": "onEvent", "expect": {"eventout": None}})
    assert result.problems == ("expect.eventout: write `event_out`",)
    assert result.not_run is None


def test_cases_are_read_from_files_of_one_or_many(tmp_path):
    with pytest.raises(ConfigurationError, match=r"no \.json file"):
        read_cases(tmp_path)
    (tmp_path / "cases").mkdir()
    (tmp_path / "cases" / "a.json").write_text(json.dumps({"hook": "processEvent"}))
    (tmp_path / "cases" / "b.json").write_text(json.dumps([{"hook": "x", "id": "own"}, {"steps": []}]))
    assert [case["id"] for case in read_cases(tmp_path)] == ["a/001", "own", "b/002"]
    (tmp_path / "cases" / "c.json").write_text("{")
    with pytest.raises(ConfigurationError, match=r"c\.json is not JSON"):
        read_cases(tmp_path)


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ({"native_results": {"x": 1}, "expect": {"native_calls": []}}, "needs native_results, native_calls"),
        ({"kinesis": {"x": 1}}, "needs kinesis"),
        ({"steps": [{"hook": "x", "expect": {"copy_statements": 1}}]}, "needs copy_statements"),
    ],
)
async def test_a_case_that_needs_what_is_not_there_is_said_to_be_not_run(case, said):
    result = await run_case("x", {"id": "a", "title": "t", "hook": "onEvent", **case})
    assert result.not_run is not None
    assert said in result.not_run
    assert not result.passed


@pytest.mark.parametrize(
    "case", [{"http": [{"status": 200}]}, {"posthog_api": [{"url": "u"}]}, {"storage_before": {"a\0": 1, "b": {1}}}]
)
async def test_a_case_that_cannot_be_meant_fails_and_stops_no_other(case, tmp_path):
    (tmp_path / "plugin.json").write_text('{"name": "App"}')
    (tmp_path / "main.py").write_text("def processEvent(event, meta):\n    return event\n")
    result = await run_case(str(tmp_path), {"id": "a", "title": "t", "hook": "processEvent", **case})
    assert "the case cannot be run" in result.problems[0]

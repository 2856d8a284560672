"""Cases: what of a run is compared, and what is not run but said to be."""

from __future__ import annotations

import json

import pytest

from plugin_server.model.errors import ConfigurationError
from plugin_server.testing.cases import _differences, read_case, read_cases, run_case
from plugin_server.testing.run import Run, RunError

EVENT = {"event": "x", "properties": {"a": 1, "b": [1, 2]}}
CAPTURE = {
    "uuid": "u",
    "event": "y",
    "distinct_id": "d",
    "timestamp": "t",
    "properties": {"n": 1, "$lib": "l", "distinct_id": "d"},
}


def problems(run: Run, expect: object, **case: object) -> list[str]:
    return _differences(run, {"expect": expect}, case)


@pytest.mark.parametrize(
    "expect",
    [
        {},
        {"event_out": EVENT},
        {"event_out": {"event": {"$any": True}, "properties": {"a": 1.0, "b": [1, 2]}}},
        {"event_out": {"event": {"$regex": "^x$"}, "properties": {"a": 1, "b": {"$any": True}}}},
        {"captured": [{"event": "y", "properties": {"n": 1}}]},
        {"captured": [{"event": "y", "distinct_id": "d"}], "http_requests": []},
    ],
)
def test_what_is_as_expected_has_no_difference(expect):
    assert problems(Run("processEvent", event=EVENT, captured=[CAPTURE]), expect) == []


@pytest.mark.parametrize(
    ("expect", "said"),
    [
        ({"event_out": None}, "event_out"),
        ({"event_out": {"event": "x", "properties": {"a": 1}}}, "event_out.properties.b"),
        ({"event_out": {"event": "x", "properties": {"a": 2, "b": [1, 2]}}}, "event_out.properties.a is 1"),
        ({"event_out": {"event": "x", "properties": {"a": True, "b": [1, 2]}}}, "event_out.properties.a"),
        ({"event_out": {"event": "x", "properties": {"a": 1, "b": [1]}}}, "2 entries"),
        ({"event_out": {"event": {"$regex": "z"}, "properties": {"a": 1, "b": [1, 2]}}}, "does not match"),
        ({"captured": []}, "1 entries"),
        ({"captured": [{"event": "z"}]}, "captured[0].event"),
        ({"captured": [{"event": "y", "properties": {}}]}, "captured[0].properties.n"),
        ({"error": "x"}, "no error"),
        ({"http_requests": [{"url": "u"}]}, "0 entries"),
        ({"logs": [{"message": "x"}]}, "0 entries"),
    ],
)
def test_what_is_not_as_expected_is_named_by_its_path(expect, said):
    found = problems(Run("processEvent", event=EVENT, captured=[CAPTURE]), expect)
    assert any(said in problem for problem in found), found


@pytest.mark.parametrize(
    ("expect", "count"),
    [
        ({"error": "no"}, 0),
        ({"error": "no", "error_kind": "app"}, 0),
        ({"error": "no", "error_kind": "fatal"}, 0),
        ({"error_kind": "retry"}, 1),
        ({"error_kind": "timeout", "captured": [{"event": "y"}], "logs": [{"message": "x"}]}, 3),
        ({"error": "other"}, 1),
        ({"event_out": EVENT}, 1),
    ],
)
def test_an_error_is_compared_by_text_and_kind_and_the_rest_as_ever(expect, count):
    run = Run("processEvent", event=EVENT, error=RunError("app", "ValueError: no", 3))
    assert len(problems(run, expect)) == count


def test_a_subset_matches_when_it_is_asked_for_and_ignored_properties_are():
    run = Run("processEvent", event=EVENT)
    assert problems(run, {"event_out": {"event": "x"}}, match="subset") == []
    assert problems(run, {"event_out": {"event": "x", "properties": {"a": 1}}}, ignore_event_properties=["b"]) == []


@pytest.mark.parametrize("case", [5, [], {}, {"hook": "x", "expct": {}}])
def test_what_is_no_case_is_refused(case):
    with pytest.raises(ConfigurationError, match="case 7"):
        read_case(case, "cases/a.json", 7)


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


async def test_a_case_that_needs_what_is_not_there_is_said_to_be_not_run():
    result = await run_case(
        "x", {"id": "a", "title": "t", "hook": "onEvent", "http": [{"url": "u"}], "expect": {"jobs": []}}
    )
    assert result.not_run == "needs http, jobs, which this version does not have"
    assert not result.passed

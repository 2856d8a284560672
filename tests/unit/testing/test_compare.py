"""What of a run is compared with what a case expects, and how differences read."""

from __future__ import annotations

from typing import Any

import pytest

from plugin_server.testing.compare import State, differences
from plugin_server.testing.run import Run, RunError

EVENT = {"event": "x", "properties": {"a": 1, "b": [1, 2]}}
CAPTURE = {
    "uuid": "u",
    "event": "y",
    "distinct_id": "d",
    "timestamp": "t",
    "properties": {"n": 1, "$lib": "l", "distinct_id": "d"},
}
STATE = State({"k": {"n": 1}}, {"c": True}, {"c": 59.9})
REQUEST = {
    "method": "POST",
    "url": "https://api.example.com/a?email=a%40b.co&x=1",
    "headers": {"Authorization": "Bearer t", "Content-Type": "application/json"},
    "body": '{"a":1}',
    "json": {"a": 1},
    "idempotency_key": "i",
}
API_REQUEST = {**REQUEST, "url": "https://app.posthog.com/api/x"}
JOBS = [
    {"job": "send", "payload": {"n": 1}, "run_at": None},
    {"job": "later", "payload": None, "run_at": "2026-11-23T00:00:20.000Z"},
]
NOW = "2026-11-23T00:00:00Z"


def problems(expect: dict[str, Any], **options: Any) -> list[str]:
    run = Run(
        "processEvent",
        event=EVENT,
        captured=[CAPTURE],
        requests=[REQUEST, API_REQUEST],
        api_requests=[API_REQUEST],
        api_calls=[{"method": "GET", "path": "/api/x", "options": {"data": {"a": 1}}}],
        jobs=JOBS,
    )
    return differences(run, STATE, expect, now=NOW, **options)


@pytest.mark.parametrize(
    "expect",
    [
        {},
        {"event_out": EVENT},
        {"event_out": {"event": {"$any": True}, "properties": {"a": 1.0, "b": [1, 2]}}},
        {"event_out": {"event": {"$regex": "^x$"}, "properties": {"a": 1, "b": {"$any": True}}}},
        {"captured": [{"event": "y", "properties": {"n": 1}}]},
        {"captured": [{"event": "y", "distinct_id": "d"}]},
        {"http_requests": [{"method": "POST", "url": REQUEST["url"]}]},
        {
            "http_requests": [
                {"url": "https://api.example.com/a?email=a@b.co&x=1", "headers": {"AUTHORIZATION": "Bearer t"}}
            ]
        },
        {"http_requests": [{"json": {"a": 1}, "text": '{"a":1}'}]},
        {"posthog_api": [{"method": "GET", "path": "/api/x", "options": {"data": {"a": 1}}}]},
        {"jobs": [{"name": "send", "payload": {"n": 1}, "when": "now"}, {"name": "later", "when": "in 20 seconds"}]},
        {"jobs": [{"job": "send", "run_at": None}, {"job": "later", "run_at": "2026-11-23T00:00:20.000Z"}]},
        {"storage_after": {"k": {"n": 1}}, "cache_after": {"c": True}, "cache_ttl_seconds": {"c": "60"}},
    ],
)
def test_what_is_as_expected_has_no_difference(expect):
    assert problems(expect) == []


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
        ({"http_requests": []}, "1 entries"),
        ({"http_requests": [{"url": "https://api.example.com/a?x=1&email=a@b.co"}]}, "http_requests[0].url"),
        ({"http_requests": [{"url": "no url"}]}, "http_requests[0].url"),
        ({"http_requests": [{"headers": {"x-a": "1"}}]}, "http_requests[0].headers.x-a is missing"),
        ({"http_requests": [{"json": {"a": 2}}]}, "http_requests[0].json.a is 1"),
        ({"posthog_api": [{"method": "GET", "path": "/api/y", "options": {"data": {"a": 1}}}]}, "posthog_api[0].path"),
        ({"posthog_api": []}, "posthog_api has 1 entries"),
        ({"jobs": []}, "jobs has 2 entries"),
        ({"jobs": [{"name": "send", "when": "in 1 second"}, {"name": "later"}]}, "jobs[0].run_at is None"),
        ({"jobs": [{"name": "send"}, {"name": "later", "when": "now"}]}, "jobs[1].run_at is '2026"),
        ({"jobs": [{"name": "send"}, {"name": "later", "when": "in 21 seconds"}]}, "in 21 seconds"),
        ({"jobs": [{"name": "send"}, {"name": "later", "when": {"in": [1, "day"]}}]}, "write `now`, or as in"),
        ({"jobs": [{"name": "other"}, {"name": "later"}]}, "jobs[0].job is 'send'"),
        ({"storage_after": {}}, "storage_after.k"),
        ({"cache_after": {"c": False}}, "cache_after.c is True"),
        ({"cache_ttl_seconds": {"c": 30}}, "cache_ttl_seconds.c is 59.9"),
        ({"cache_ttl_seconds": {"d": 30}}, "cache_ttl_seconds.d is None"),
        ({"logs": [{"message": "x"}]}, "0 entries"),
    ],
)
def test_what_is_not_as_expected_is_named_by_its_path(expect, said):
    found = problems(expect)
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
        ({"error": "other", "error_text_is_js_engine": True}, 0),
        ({"event_out": EVENT}, 1),
    ],
)
def test_an_error_is_compared_by_text_and_kind_and_the_rest_as_ever(expect, count):
    run = Run("processEvent", event=EVENT, error=RunError("app", "ValueError: no", 3))
    assert len(differences(run, STATE, expect)) == count


def test_a_subset_matches_when_it_is_asked_for_and_ignored_properties_are():
    assert problems({"event_out": {"event": "x"}, "storage_after": {}}, whole=False) == []
    assert problems({"event_out": {"event": "x", "properties": {"a": 1}}}, ignored=["b"]) == []

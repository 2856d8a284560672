"""Events that apps post to capture paths of their own server: every wrapping, the token, the time, and refusals."""

from __future__ import annotations

import base64
import gzip
import json
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugin_server.capture.endpoints import PATHS
from plugin_server.capture.posted import CAPTURE_PATHS, parse_capture
from plugin_server.model.api import ApiRequest, ApiResponse
from plugin_server.model.posted import PostedCapture
from plugin_server.model.project import Project

ACME = Project(2, "Acme", "phc_acme")
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
EVENT = {"event": "e", "distinct_id": "u"}
OWN = {**EVENT, "api_key": "phc_acme"}


def post(body: Any, path: str = "/capture/", query: dict[str, str] | None = None, **headers: str) -> ApiRequest:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return ApiRequest("POST", path, query or {}, {name.replace("_", "-"): text for name, text in headers.items()}, raw)


def posted(
    body: Any, path: str = "/capture/", query: dict[str, str] | None = None, **headers: str
) -> list[PostedCapture]:
    captures = parse_capture(post(body, path, query, **headers), ACME, now=lambda: NOW)
    assert isinstance(captures, list), captures
    return captures


def refusal(request: ApiRequest) -> tuple[int, str]:
    response = parse_capture(request, ACME)
    assert isinstance(response, ApiResponse)
    body = json.loads(response.body)
    assert set(body) == {"type", "code", "detail", "attr"}
    return response.status, body["detail"]


def test_every_path_of_the_endpoints_is_a_capture_path():
    assert set(PATHS) <= CAPTURE_PATHS


@pytest.mark.parametrize(
    "body",
    [
        OWN,
        [OWN],
        {"api_key": "phc_acme", "batch": [EVENT]},
        {**EVENT, "properties": {"token": "phc_acme"}},
    ],
)
def test_every_shape_of_body_gives_its_events(body):
    (capture,) = posted(body)
    assert capture[:3] == ("e", "u", None)


@pytest.mark.parametrize(
    "wrap",
    [
        pytest.param(lambda raw: post(gzip.compress(raw), content_encoding="gzip"), id="gzip"),
        pytest.param(lambda raw: post(gzip.compress(raw), content_type="text/plain"), id="gzip-unsaid"),
        pytest.param(lambda raw: post(base64.b64encode(raw)), id="base64"),
        pytest.param(lambda raw: post(base64.b64encode(gzip.compress(raw))), id="gzip-in-base64"),
        pytest.param(
            lambda raw: post(
                b"x=1&data=" + quote(base64.b64encode(raw)).encode(), content_type="application/x-www-form-urlencoded"
            ),
            id="form",
        ),
        pytest.param(
            lambda raw: post(b"data=" + base64.b64encode(raw), content_type="application/x-www-form-urlencoded; x=y"),
            id="form-with-unescaped-plus",
        ),
        pytest.param(lambda raw: ApiRequest("GET", "/e/", {"data": raw.decode()}), id="query"),
    ],
)
def test_every_wrapping_of_sdks_is_taken_off(wrap):
    raw = json.dumps({**OWN, "properties": {"text": "ÿ>>>???~~~ " * 20}}).encode()
    (capture,) = parse_capture(wrap(raw), ACME)
    assert capture.properties == {"text": "ÿ>>>???~~~ " * 20}


def test_the_token_of_the_query_stands_in_for_one_in_the_body():
    for body, count in ((EVENT, 1), ([EVENT, EVENT], 2), ({"batch": [EVENT]}, 1)):
        assert len(posted(body, query={"token": "phc_acme"})) == count
    assert posted(OWN, query={"token": "phc_other"})
    assert refusal(post({**EVENT, "token": "phc_other"}, query={"token": "phc_acme"}))[0] == 401


def test_another_projects_token_is_refused():
    status, detail = refusal(post({**EVENT, "api_key": "phc_other"}))
    assert status == 401
    assert "another project" in detail


def test_capture_v1_names_its_project_and_its_clock_in_headers():
    body = {"created_at": "x", "batch": [{**EVENT, "timestamp": "2026-11-23T10:00:00Z", "options": {}}]}
    headers = {"authorization": "Bearer phc_acme", "posthog_request_timestamp": "2026-11-23T11:00:00Z"}
    (capture,) = posted(body, "/i/v1/analytics/events", **headers)
    assert capture == PostedCapture("e", "u", "2026-11-23T11:00:00.000Z", {})
    assert refusal(post(body, "/i/v1/analytics/events"))[0] == 401
    assert refusal(post({"batch": []}, "/i/v1/analytics/events", authorization="Bearer phc_acme"))[0] == 400


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, None),
        ({"timestamp": "2026-11-22T10:00:00+02:00"}, "2026-11-22T08:00:00.000Z"),
        ({"timestamp": "2026-11-23T10:00:00Z", "sent_at": "2026-11-23T11:00:00Z"}, "2026-11-23T11:00:00.000Z"),
        ({"offset": 90_000}, "2026-11-23T11:58:30.000Z"),
        ({"timestamp": "nonsense"}, "2026-11-23T12:00:00.000Z"),
        (
            {
                "timestamp": "2026-11-23T10:00:00Z",
                "sent_at": "2026-11-23T11:00:00Z",
                "properties": {"$ignore_sent_at": True},
            },
            "2026-11-23T10:00:00.000Z",
        ),
    ],
)
def test_the_time_is_corrected_by_what_the_sender_says_of_its_clock(fields, expected):
    (capture,) = posted({**OWN, **fields})
    assert capture.timestamp == expected


def test_set_and_set_once_become_properties_and_the_senders_uuid_is_not_kept():
    (capture,) = posted(
        {
            **OWN,
            "uuid": "0190a0c6-0000-7000-8000-00000000abcd",
            "team_id": 99,
            "$set": {"a": 1},
            "$set_once": {"b": 2},
            "properties": {"$set": {"a": 0, "c": 3}, "x": "y"},
        }
    )
    assert capture.properties == {"$set": {"a": 1, "c": 3}, "$set_once": {"b": 2}, "x": "y"}


def test_engage_identifies():
    (capture,) = posted({"$token": "phc_acme", "$distinct_id": "u", "$set": {"a": 1}}, "/engage/")
    assert capture == PostedCapture("$identify", "u", None, {"$set": {"a": 1}})


@pytest.mark.parametrize(
    ("request_", "status", "cure"),
    [
        (post(b""), 400, "has no event"),
        (post(b"{"), 400, "not valid JSON"),
        (post([]), 400, "has no event"),
        (post("text"), 400, "must be a JSON object"),
        (post(EVENT), 401, "no project token"),
        (post({**OWN, "event": ""}), 400, "has no name"),
        (post({"event": "e", "api_key": "phc_acme"}), 400, "no distinct_id"),
        (post({**OWN, "properties": []}), 400, "must be a JSON object"),
        (post([OWN, {**OWN, "event": 1}]), 400, "has no name"),
        (post({**EVENT, "api_key": "phx_mine"}), 401, "personal API key"),
        (post(gzip.compress(b"{}")[:-3]), 400, "ends too early"),
        (post(b"\x1f\x8b\x08nonsense"), 400, "no valid gzip"),
        (post(gzip.compress(b" " * (21 * 2**20))), 413, "unpacks to more than"),
        (ApiRequest("GET", "/capture/"), 400, "has no event"),
    ],
)
def test_what_cannot_be_taken_is_refused_with_the_cure(request_, status, cure):
    found, detail = refusal(request_)
    assert found == status
    assert cure in detail


@given(
    body=st.binary(max_size=200),
    data=st.text(max_size=50),
    kind=st.sampled_from(["", "application/x-www-form-urlencoded"]),
)
def test_any_bytes_are_read_or_refused(body, data, kind):
    request = ApiRequest("POST", "/e/", {"data": data, "_": data, "token": data}, {"content-type": kind}, body)
    assert isinstance(parse_capture(request, ACME), ApiResponse)

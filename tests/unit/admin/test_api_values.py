"""Times, pages and the fields of annotations: pure parts of the API."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugin_server.admin.api.annotations import CONTENT_CHARACTERS, changes_of
from plugin_server.admin.api.errors import ApiRefusal
from plugin_server.admin.api.handler import target_of
from plugin_server.admin.api.pages import link, listing, page_of
from plugin_server.admin.api.times import to_iso, to_ms
from plugin_server.model.api import ApiRequest

PATH = "/api/projects/2/annotations/"


def asked(**query: str) -> ApiRequest:
    return ApiRequest("GET", PATH, query, {"host": "plugins.example.com:8000", "x-forwarded-proto": "http"})


@pytest.mark.parametrize(
    ("text", "iso"),
    [
        ("2026-11-23T08:00:00Z", "2026-11-23T08:00:00Z"),
        ("2026-11-23T10:00:00.1234+02:00", "2026-11-23T08:00:00.123000Z"),
        ("2026-11-23T10:00:00 02:00", "2026-11-23T08:00:00Z"),
        ("2026-11-23 08:00", "2026-11-23T08:00:00Z"),
        ("2026-11-23", "2026-11-23T00:00:00Z"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
    ],
)
def test_times_are_read_in_their_zone_and_shown_in_utc(text, iso):
    assert to_iso(to_ms(text, "date_marker")) == iso


@pytest.mark.parametrize(
    "value",
    [None, 1, True, [], "", "soon", "2026-13-01", "0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00", "\0"],
)
def test_what_is_no_time_is_refused(value):
    with pytest.raises(ApiRefusal, match="ISO 8601") as refused:
        to_ms(value, "date_marker")
    assert (refused.value.status, refused.value.attr) == (400, "date_marker")


@given(st.datetimes(timezones=st.just(UTC)))
def test_any_time_comes_back_as_it_was_to_the_millisecond(time):
    whole = time.replace(microsecond=time.microsecond // 1000 * 1000)
    assert to_iso(to_ms(time.isoformat(), "x")) == to_iso(to_ms(whole.isoformat(), "x"))
    assert datetime.fromisoformat(to_iso(to_ms(time.isoformat(), "x"))) == whole
    assert to_ms(to_iso(to_ms(time.isoformat(), "x")), "x") * timedelta(milliseconds=1) == whole - datetime(
        1970, 1, 1, tzinfo=UTC
    )


def test_pages_lead_to_each_other_and_drop_credentials():
    request = asked(limit="2", offset="2", search="ä b", token="phc_acme", personal_api_key="phx_secret")
    page = page_of(request)
    body = listing(request, page, 6, ["c", "d"])
    origin = "http://plugins.example.com:8000"
    assert body == {
        "count": 6,
        "next": f"{origin}{PATH}?limit=2&offset=4&search=%C3%A4+b",
        "previous": f"{origin}{PATH}?limit=2&offset=0&search=%C3%A4+b",
        "results": ["c", "d"],
    }
    assert listing(asked(), page_of(asked()), 100, [])["next"] is None
    assert page_of(asked(limit="5000")).limit == 1000


@pytest.mark.parametrize("host", ["", "evil.example/x?", "a b", 'x"y', "[::1"])
def test_a_host_that_is_none_is_not_repeated(host):
    request = ApiRequest("GET", PATH, {}, {"host": host, "x-forwarded-proto": "javascript"})
    assert link(request, offset=1) == f"https://app.posthog.com{PATH}?offset=1"


@pytest.mark.parametrize(
    ("name", "text"),
    [("limit", "0"), ("limit", "-1"), ("limit", "x"), ("offset", "-1"), ("offset", "9" * 30), ("limit", "٣")],
)
def test_a_page_that_is_none_is_refused(name, text):
    with pytest.raises(ApiRefusal) as refused:
        page_of(asked(**{name: text}))
    assert refused.value.attr == name


@pytest.mark.parametrize(
    ("document", "values"),
    [
        ({}, {}),
        ({"content": None, "scope": "organization"}, {"content": None, "scope": "organization"}),
        ({"content": "x" * CONTENT_CHARACTERS}, {"content": "x" * CONTENT_CHARACTERS}),
        ({"date_marker": "1970-01-01T00:00:01Z", "deleted": True}, {"date_marker_ms": 1000, "deleted": True}),
        ({"date_marker": None, "creation_type": "GIT"}, {"date_marker_ms": None, "creation_type": "GIT"}),
        ({"id": 7, "team": 9, "created_by": 1, "created_at": "x", "dashboard_item": None, "unknown": {}}, {}),
    ],
)
def test_fields_of_an_annotation_are_taken_or_ignored(document, values):
    assert changes_of(document) == values


@pytest.mark.parametrize(
    ("document", "attr", "code"),
    [
        ({"content": 5}, "content", "invalid"),
        ({"content": ["x"]}, "content", "invalid"),
        ({"content": "x" * (CONTENT_CHARACTERS + 1)}, "content", "max_length"),
        ({"content": "a\0b"}, "content", "null_characters_not_allowed"),
        ({"scope": "team"}, "scope", "invalid_choice"),
        ({"scope": None}, "scope", "invalid_choice"),
        ({"scope": ["project"]}, "scope", "invalid_choice"),
        ({"creation_type": "BOT"}, "creation_type", "invalid_choice"),
        ({"date_marker": "tomorrow"}, "date_marker", "invalid"),
        ({"date_marker": 1_700_000_000}, "date_marker", "invalid"),
        ({"deleted": "true"}, "deleted", "invalid"),
        ({"dashboard_item": 3}, "dashboard_item", "does_not_exist"),
    ],
)
def test_a_field_with_a_wrong_value_is_named(document, attr, code):
    with pytest.raises(ApiRefusal) as refused:
        changes_of(document)
    assert (refused.value.status, refused.value.attr, refused.value.code) == (400, attr, code)


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/api/projects/2", ("2", ())),
        ("/api/projects/@current/", ("@current", ())),
        ("/api/projects/2/annotations/7/", ("2", ("annotations", "7"))),
        ("/api/projects/", ("@current", ("/projects",))),
        ("/api/users/@me/", ("@current", ("/users/@me",))),
        ("/api/annotation/7", ("@current", ("annotations", "7"))),
        ("/api/event/", ("@current", ("events",))),
        ("/api/plugin_config", ("@current", ("plugin_configs",))),
    ],
)
def test_paths_name_a_project_and_what_is_asked_of_it(path, target):
    assert target_of(path) == target


@pytest.mark.parametrize(
    "path", ["", "/", "/api", "/api/", "/api/cohorts", "/API/projects", "api/projects", "/api//projects"]
)
def test_other_paths_are_unknown(path):
    with pytest.raises(ApiRefusal) as refused:
        target_of(path)
    assert refused.value.status == 404
    assert "/api/projects/@current/" in refused.value.detail

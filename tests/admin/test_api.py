"""The API as a whole: who may ask, what paths there are, events and installs, bad requests."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from plugin_server.admin.api.handler import BODY_BYTES, OwnApi
from plugin_server.admin.api.plugin_configs import MASK
from plugin_server.database.engine import sqlite_url
from plugin_server.eventlog.port import OutputRecord
from plugin_server.outputs.events import compose_event
from tests.admin.conftest import KEY, OTHER_KEY, SHARED_KEY, START, TOPICS, Stage

BASE = "/api/projects/@current"
ACME = {"id": 2, "name": "Acme", "api_token": "phc_acme", "timezone": "UTC"}


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    """One kind: what differs between databases is in test_annotations.py."""
    return sqlite_url(tmp_path)


def uuid_of(number: int) -> str:
    return f"0190a0c6-0000-7000-8000-{number:012}"


def record(number: int, project_id: int = 2, seconds: float = 0, **fields: Any) -> OutputRecord:
    at = datetime.fromtimestamp(START + seconds, UTC).isoformat(" ", "milliseconds")[:23]
    properties = json.dumps({"n": number, "trap": f'"team_id":{5 - project_id},', **fields.pop("properties", {})})
    value = compose_event(
        fields.get("event", "pageview"),
        fields.get("distinct_id", "user"),
        at,
        "a:nth-child",
        properties,
        uuid=uuid_of(number),
        project_id=project_id,
        created_at=at,
        captured_at=at,
        historical_migration=False,
    )
    return OutputRecord(TOPICS.events, number % 2, None, value)


# Who may ask


async def test_a_key_or_a_temporary_token_opens_its_project(stage: Stage) -> None:
    token = stage.tokens.issue(2, stage.seconds)
    for path in (BASE, f"{BASE}/", "/api/projects/2", "/api/projects/2/"):
        assert await stage.http("GET", path) == (200, ACME)
        assert await stage.http("GET", path, key=token) == (200, ACME)
    stage.seconds += 61
    assert (await stage.http("GET", BASE, key=token))[0] == 401


@pytest.mark.parametrize("path", [BASE, "/api/projects/2/annotations", "/api/nowhere", "/api"])
async def test_without_a_key_nothing_is_told(stage: Stage, path: str) -> None:
    for key in (None, "phx_unknown", "phc_acme"):
        status, body = await stage.http("GET", path, key=key)
        assert (status, body["type"]) == (401, "authentication_error")
        assert "Authorization" in body["detail"] or "personal_api_keys" in body["detail"]


async def test_another_project_is_refused_whether_it_exists_or_not(stage: Stage) -> None:
    answers = [
        await stage.http(method, path)
        for path in (
            "/api/projects/3/annotations",
            "/api/projects/99/annotations",
            "/api/projects/02/",
            "/api/projects/x",
        )
        for method in ("GET", "POST")
    ]
    assert {status for status, _ in answers} == {403}
    assert len({body["detail"] for _, body in answers}) == 1
    assert (await stage.in_process("GET", "/api/projects/3/annotations"))[0] == 403


async def test_a_key_for_several_projects_names_one(stage: Stage) -> None:
    status, body = await stage.http("GET", f"{BASE}/annotations", key=SHARED_KEY)
    assert (status, body["code"]) == (400, "ambiguous")
    for project_id in (2, 3):
        assert (await stage.http("GET", f"/api/projects/{project_id}", key=SHARED_KEY))[1]["id"] == project_id


# Paths


async def test_there_are_paths_that_tell_who_one_is(stage: Stage) -> None:
    assert (await stage.http("GET", "/api/users/@me/"))[1]["team"] == ACME
    assert (await stage.http("GET", "/api/projects/"))[1]["results"] == [ACME]


async def test_paths_of_2021_mean_the_current_project(stage: Stage) -> None:
    made = await stage.http("POST", "/api/annotation/", {"content": "old path"})
    assert made[0] == 201
    assert (await stage.http("GET", f"/api/projects/2/annotations/{made[1]['id']}"))[1] == made[1]
    assert (await stage.http("GET", "/api/event/"))[0] == (await stage.http("GET", "/api/plugin_config"))[0] == 200


@pytest.mark.parametrize(
    "path",
    [
        "/api",
        "/api/cohorts",
        f"{BASE}/persons",
        f"{BASE}/events/a/b",
        f"{BASE}/annotations/1/2",
        f"{BASE}/plugin_configs/1/2",
        f"{BASE}/users",
        f"{BASE}/projects",
    ],
)
async def test_an_unknown_path_is_not_found(stage: Stage, path: str) -> None:
    status, body = await stage.http("GET", path)
    assert (status, body["type"], body["code"]) == (404, "invalid_request", "not_found")
    assert len(body["detail"]) > 20


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", BASE, "GET"),
        ("DELETE", f"{BASE}/annotations", "GET, POST"),
        ("POST", f"{BASE}/annotations/1", "GET, PATCH, PUT, DELETE"),
        ("POST", f"{BASE}/events", "GET"),
        ("DELETE", f"{BASE}/events/{uuid_of(1)}", "GET"),
        ("PATCH", f"{BASE}/plugin_configs/39", "GET"),
        ("OPTIONS", f"{BASE}/annotations", "GET, POST"),
    ],
)
async def test_a_wrong_method_is_told_the_right_ones(stage: Stage, method: str, path: str, allowed: str) -> None:
    async with stage.client.request(method, path, headers={"Authorization": f"Bearer {KEY}"}) as response:
        body = await response.json()
        assert (response.status, body["code"], response.headers["Allow"]) == (405, "method_not_allowed", allowed)
        assert allowed in body["detail"]


async def test_head_is_a_get_without_its_body(stage: Stage) -> None:
    async with stage.client.head(BASE, headers={"Authorization": f"Bearer {KEY}"}) as response:
        assert (response.status, await response.read()) == (200, b"")


# Bad bodies


@pytest.mark.parametrize(
    "body",
    [b"{", b"[]", b"null", b"3", b'"x"', b"\xff", b"NaN", b"a=1", b"[" * 2_000, b'{"a":' * 150 + b"1" + b"}" * 150],
)
async def test_a_body_that_is_no_json_object_is_refused(stage: Stage, body: bytes) -> None:
    for method, path in (("POST", f"{BASE}/annotations"), ("PATCH", f"{BASE}/annotations/1")):
        status, answer = await stage.http(method, path, body)
        assert (status, answer["code"], answer["attr"]) == (400, "parse_error", None)


async def test_a_body_that_is_too_large_is_refused(stage: Stage) -> None:
    async def endless() -> Any:
        for _ in range(BODY_BYTES // 2**16 + 2):
            yield b" " * 2**16

    headers = {"Authorization": f"Bearer {KEY}"}
    for data in (BytesIO(b" " * (BODY_BYTES + 1)), endless()):
        async with stage.client.post(f"{BASE}/annotations", data=data, headers=headers) as response:
            assert (response.status, (await response.json())["code"]) == (413, "too_large")
    assert (await stage.in_process("POST", f"{BASE}/annotations", "x" * BODY_BYTES))[0] == 413


async def test_a_client_that_stops_sending_is_let_go(stage: Stage) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", stage.client.port)
    head = f"POST {BASE}/annotations HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Length: 10\r\n\r\n{{"
    writer.write(head.encode())
    async with asyncio.timeout(30):
        assert (await reader.readline()).startswith(b"HTTP/1.1 408")
    writer.close()


async def test_a_fault_of_the_server_is_a_500_and_the_server_goes_on(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: Any) -> Any:
        raise ZeroDivisionError("hunter2")

    with monkeypatch.context() as patched:
        patched.setattr(OwnApi, "_answer", fail)
        status, body = await stage.http("GET", BASE)
    assert (status, body["type"]) == (500, "server_error")
    assert "hunter2" not in str(body)
    assert (await stage.http("GET", BASE))[0] == 200


# Events


async def test_events_are_the_projects_own_newest_first(stage: Stage) -> None:
    await stage.event_log.produce([record(n, project_id=2 + n % 3 // 2, seconds=n) for n in range(9)])
    await stage.event_log.produce([OutputRecord(TOPICS.events, 0, None, b'{"team_id":2,"but":"foreign"}')])
    status, body = await stage.http("GET", f"{BASE}/events")
    assert (status, body["next"]) == (200, None)
    assert [event["properties"]["n"] for event in body["results"]] == [7, 6, 4, 3, 1, 0]
    assert body["results"][0] == {
        "id": uuid_of(7),
        "uuid": uuid_of(7),
        "event": "pageview",
        "distinct_id": "user",
        "properties": {"n": 7, "trap": '"team_id":3,'},
        "timestamp": "2027-01-15T08:00:07.000+00:00",
        "elements_chain": "a:nth-child",
        "person": None,
    }
    _, other = await stage.http("GET", "/api/projects/3/events/", key=OTHER_KEY)
    assert [event["properties"]["n"] for event in other["results"]] == [8, 5, 2]


async def test_one_event_by_its_uuid(stage: Stage) -> None:
    await stage.event_log.produce([record(1), record(2, project_id=3)])
    status, event = await stage.http("GET", f"{BASE}/events/{uuid_of(1).upper()}/")
    assert (status, event["id"]) == (200, uuid_of(1))
    for name in (uuid_of(2), "x"):
        assert (await stage.http("GET", f"{BASE}/events/{name}"))[0] == 404


async def test_events_are_filtered(stage: Stage) -> None:
    await stage.event_log.produce(
        [record(1, seconds=1, event="a"), record(2, seconds=2, distinct_id="x"), record(3, seconds=3)]
    )

    async def found(**query: str) -> list[int]:
        status, body = await stage.in_process("GET", f"{BASE}/events", None, 2, **query)
        assert status == 200
        return [event["properties"]["n"] for event in body["results"]]

    assert await found(event="a") == [1]
    assert await found(distinct_id="x") == [2]
    assert await found(after="2027-01-15T08:00:01Z") == [3, 2]
    assert await found(before="2027-01-15T08:00:03Z", after="2027-01-15T08:00:00Z") == [2, 1]
    assert await found(event="a", distinct_id="x") == []
    for name in ("properties", "orderBy", "before", "person_id"):
        status, body = await stage.in_process("GET", f"{BASE}/events", None, 2, **{name: "[x]"})
        assert (status, body["attr"]) == (400, name)


async def test_following_next_shows_each_event_once_though_more_come(stage: Stage) -> None:
    await stage.event_log.produce([record(n, seconds=n // 5) for n in range(20)])
    seen: list[int] = []
    path = f"{BASE}/events/?limit=3"
    while path:
        _, body = await stage.http("GET", path)
        seen += [event["properties"]["n"] for event in body["results"]]
        path = (body["next"] or "").removeprefix(str(stage.client.make_url("")).rstrip("/"))
        await stage.event_log.produce([record(100 + len(seen), seconds=100)])
    assert sorted(seen) == list(range(20))


async def test_an_event_that_was_emitted_twice_is_shown_once(stage: Stage) -> None:
    await stage.event_log.produce([record(1), record(1), record(1)])
    assert len((await stage.http("GET", f"{BASE}/events"))[1]["results"]) == 1


async def test_an_event_log_that_is_away_is_said(stage: Stage) -> None:
    await stage.event_log.database.close()
    stage.event_log.database._reading_engine = None  # type: ignore[assignment]
    stage.event_log._counts.clear()
    status, body = await stage.http("GET", f"{BASE}/events")
    assert (status, body["code"]) == (503, "unavailable")


# Installs


async def test_installs_show_their_config_but_no_secrets(stage: Stage) -> None:
    status, body = await stage.http("GET", f"{BASE}/plugin_configs")
    assert (status, body["count"]) == (200, 1)
    (shown,) = body["results"]
    assert shown == {
        "id": 39,
        "plugin": 39,
        "enabled": True,
        "order": 1,
        "config": {
            "host": "db.example.com",
            "password": MASK,
            "unset": "",
            "schema": {"uid": "schema", "saved": True, "size": 8, "name": "schema.json", "type": "application/json"},
            "certificate": {"uid": -1, "saved": True, "size": -1, "name": MASK, "type": "application/octet-stream"},
        },
        "error": None,
        "team_id": 2,
        "plugin_info": {
            "name": "Exporter",
            "description": "Sends events away",
            "url": "https://example.com",
            "tag": "0123abcd",
        },
    }
    assert await stage.http("GET", f"{BASE}/plugin_configs/39/") == (200, shown)
    assert "hunter2" not in str(body)
    assert "private.pem" not in str(body)
    for name in ("40", "x"):
        assert (await stage.http("GET", f"{BASE}/plugin_configs/{name}"))[0] == 404
    assert (await stage.http("GET", "/api/projects/3/plugin_configs", key=OTHER_KEY))[1]["results"] == []


# Apps and programs


async def test_an_app_and_a_program_get_the_same_answers(stage: Stage) -> None:
    await stage.in_process("POST", f"{BASE}/annotations", {"content": "by an app"})
    for path in (BASE, f"{BASE}/annotations", f"{BASE}/plugin_configs", f"{BASE}/events", f"{BASE}/annotations/999"):
        assert await stage.http("GET", path) == await stage.in_process("GET", path)


async def test_requests_at_once_share_one_reading_of_the_log(stage: Stage) -> None:
    await stage.event_log.produce([record(1, seconds=1)])
    answers = await asyncio.gather(*(stage.in_process("GET", f"{BASE}/events") for _ in range(20)))
    assert all(len(body["results"]) == 1 for _, body in answers)

"""Annotations on real databases: the whole life of one, lists, projects apart, and requests that come twice."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.admin.conftest import OTHER_KEY, Stage

PATH = "/api/projects/@current/annotations"
START_ISO = "2027-01-15T08:00:00Z"


async def make(stage: Stage, **fields: Any) -> dict[str, Any]:
    status, made = await stage.http("POST", PATH, fields)
    assert status == 201, made
    stage.seconds += 1
    assert isinstance(made, dict)
    return made


async def listed(stage: Stage, **query: str) -> list[str]:
    status, body = await stage.in_process("GET", PATH, **query)
    assert status == 200
    assert body["count"] == len(body["results"])
    return [each["content"] for each in body["results"]]


async def test_an_annotation_from_its_making_to_its_end(stage: Stage) -> None:
    made = await make(stage, content="Released", scope="organization", date_marker="2026-11-23T10:00:00+02:00")
    assert made == {
        "id": made["id"],
        "content": "Released",
        "date_marker": "2026-11-23T08:00:00Z",
        "creation_type": "USR",
        "dashboard_item": None,
        "insight_short_id": None,
        "insight_name": None,
        "created_by": None,
        "created_at": START_ISO,
        "updated_at": START_ISO,
        "deleted": False,
        "scope": "organization",
    }
    path = f"{PATH}/{made['id']}/"
    assert await stage.http("GET", path) == (200, made)

    status, changed = await stage.http("PATCH", path, {"content": "Released 2.0"})
    assert (status, changed) == (200, {**made, "content": "Released 2.0", "updated_at": "2027-01-15T08:00:01Z"})
    status, changed = await stage.http("PUT", path, {"scope": "project", "date_marker": None})
    assert (changed["content"], changed["scope"], changed["date_marker"]) == ("Released 2.0", "project", None)

    assert await stage.http("DELETE", path) == (204, None)
    for method in ("GET", "PUT", "DELETE"):
        status, body = await stage.http(method, path, {} if method == "PUT" else None)
        assert (status, body["code"]) == (404, "not_found")
    assert (await stage.http("GET", PATH))[1] == {"count": 0, "next": None, "previous": None, "results": []}
    status, back = await stage.http("PATCH", path, {"deleted": False})
    assert (status, back["deleted"]) == (200, False)
    assert (await stage.http("GET", path))[0] == 200


async def test_what_is_left_out_has_upstreams_defaults(stage: Stage) -> None:
    made = await make(stage)
    assert (made["content"], made["scope"], made["creation_type"]) == (None, "dashboard_item", "USR")
    assert await make(stage, content="Ünïcode 🎉 \ud83d") | {"id": 0} == made | {
        "id": 0,
        "content": "Ünïcode 🎉 \ufffd",
        "created_at": "2027-01-15T08:00:01Z",
        "updated_at": "2027-01-15T08:00:01Z",
    }


async def test_projects_see_only_their_own(stage: Stage) -> None:
    made = await make(stage, content="Acme's", scope="organization")
    path = f"/api/projects/3/annotations/{made['id']}"
    for method in ("GET", "PATCH", "PUT", "DELETE"):
        assert (await stage.http(method, path, key=OTHER_KEY))[0] == 404
    assert (await stage.http("GET", "/api/projects/3/annotations", key=OTHER_KEY))[1]["count"] == 0
    assert (await stage.http("GET", f"{PATH}/{made['id']}"))[1] == made


async def test_lists_are_filtered_and_newest_first(stage: Stage) -> None:
    await make(stage, content="100% done", scope="project", date_marker="2020-01-01T00:00:00Z")
    await make(stage, content="Deploy A")
    await make(stage, content="deploy b", scope="organization", date_marker="2030-01-01T00:00:00Z")
    deleted = await make(stage, content="Gone")
    await stage.http("DELETE", f"{PATH}/{deleted['id']}")
    assert await listed(stage) == ["deploy b", "Deploy A", "100% done"]
    assert await listed(stage, search="DEPLOY") == ["deploy b", "Deploy A"]
    assert await listed(stage, search="0% d") == ["100% done"]
    assert await listed(stage, search="_") == []
    assert await listed(stage, scope="project") == ["100% done"]
    assert await listed(stage, after=START_ISO) == ["deploy b", "Deploy A"]
    assert await listed(stage, before="2027-01-15T08:00:01Z") == ["100% done"]
    assert await listed(stage, deleted="true") == ["Gone"]
    assert await listed(stage, deleted="false", search="gone") == []


@pytest.mark.parametrize(
    ("name", "text"), [("scope", "team"), ("after", "soon"), ("before", "x"), ("deleted", "1"), ("search", "\0")]
)
async def test_a_filter_with_a_wrong_value_is_named(stage: Stage, name: str, text: str) -> None:
    status, body = await stage.in_process("GET", PATH, **{name: text})
    assert (status, body["type"], body["attr"]) == (400, "validation_error", name)


async def test_any_text_may_be_searched_for(stage: Stage) -> None:
    for text in ("'; DROP TABLE annotations; --", "\\", "/", "%%", "\ud83d", "x" * 10_000):
        assert await listed(stage, search=text) == []


async def test_following_next_shows_each_annotation_once(stage: Stage) -> None:
    for number in range(7):
        await make(stage, content=f"note {number}", date_marker="2026-11-23T00:00:00Z")
    seen, path = [], f"{PATH}/?limit=3&search=note"
    while path:
        status, body = await stage.http("GET", path)
        assert (status, body["count"]) == (200, 7)
        seen += [each["content"] for each in body["results"]]
        origin = str(stage.client.make_url("")).rstrip("/")
        assert body["next"] is None or body["next"].startswith(origin)
        path = (body["next"] or "").removeprefix(origin)
    assert seen == [f"note {number}" for number in range(6, -1, -1)]
    assert body["previous"].endswith("limit=3&search=note&offset=3")


async def test_a_request_that_comes_again_makes_nothing_twice(stage: Stage) -> None:
    headers = {"Idempotency-Key": "2-job-1-39-0"}
    first = await stage.http("POST", PATH, {"content": "once"}, headers=headers)
    stage.seconds += 50
    assert await stage.http("POST", PATH, {"content": "once"}, headers=headers) == first
    assert (await stage.http("POST", PATH, {"content": "once"}, key=OTHER_KEY, headers=headers))[1] != first[1]
    assert (await stage.http("POST", PATH, {"content": "x"}, headers={"Idempotency-Key": "a b"}))[0] == 400
    assert await listed(stage) == ["once"]


async def test_requests_that_come_twice_at_once_make_one(stage: Stage) -> None:
    headers = {"Idempotency-Key": "at-once"}
    answers = await asyncio.gather(*(stage.http("POST", PATH, {"content": "x"}, headers=headers) for _ in range(8)))
    assert {status for status, _ in answers} == {201}
    assert len({body["id"] for _, body in answers}) == 1
    assert await listed(stage) == ["x"]


async def test_many_writers_at_once_lose_nothing(stage: Stage) -> None:
    answers = await asyncio.gather(*(stage.http("POST", PATH, {"content": f"{n}"}) for n in range(30)))
    assert len({body["id"] for _, body in answers}) == 30
    assert sorted(await listed(stage), key=int) == [str(n) for n in range(30)]


@pytest.mark.parametrize("name", ["0", "x", "9" * 18, "9" * 40, "-1", "1.5", "%00"])
async def test_an_id_that_is_none_is_not_found(stage: Stage, name: str) -> None:
    status, body = await stage.http("GET", f"{PATH}/{name}")
    assert (status, body["code"]) == (404, "not_found")
    assert "annotations/" in body["detail"]


async def test_a_database_that_is_away_is_said_and_nothing_else(stage: Stage) -> None:
    await stage.database.close()
    stage.database.engine = stage.database._reading_engine = BrokenEngine()  # type: ignore[assignment]
    for method, path in (("GET", PATH), ("POST", PATH), ("PATCH", f"{PATH}/1"), ("DELETE", f"{PATH}/1")):
        status, body = await stage.http(method, path)
        assert (status, body["type"], body["code"]) == (503, "server_error", "unavailable")
        assert "again" in body["detail"]


class BrokenEngine:
    def begin(self) -> Any:
        raise ConnectionRefusedError("no database at db.internal:5432")

    connect = begin

    async def dispose(self) -> None:
        pass

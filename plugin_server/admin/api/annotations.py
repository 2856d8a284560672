"""`annotations`: marks in time, with a text. PostHog's shapes, in the table `annotations`.

There are no organisations, users, insights or dashboards here: an annotation is listed in its own project whatever its
`scope`, `created_by` is null, and `dashboard_item` can only be null. DELETE marks it as deleted, as PATCH
`{"deleted": true}` does, and PATCH `{"deleted": false}` brings it back.

A POST with an `Idempotency-Key` that was seen before answers with the annotation that it made then. So an app's request
that a crash sends again makes nothing twice.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from plugin_server.admin.api.bodies import json_object
from plugin_server.admin.api.errors import ApiRefusal, invalid, json_answer, method_not_allowed, not_found
from plugin_server.admin.api.pages import listing, page_of
from plugin_server.admin.api.times import to_iso, to_ms
from plugin_server.database.engine import Database
from plugin_server.database.tables import project_annotations as table
from plugin_server.model.api import ApiRequest, ApiResponse
from plugin_server.model.project import Project

CONTENT_CHARACTERS = 400
SCOPES = ("dashboard_item", "dashboard", "project", "organization", "recording")
CREATION_TYPES = ("USR", "GIT")
_ID = re.compile(r"[0-9]{1,18}")
_KEY = re.compile(r"[!-~]{1,255}")
_COLUMNS = [column for column in table.c if column is not table.c.idempotency_key]


class Annotations:
    """Answers for `annotations` and `annotations/{id}`. `now_ms` is the clock."""

    def __init__(self, database: Database, now_ms: Callable[[], int]) -> None:
        self._database = database
        self._now_ms = now_ms

    async def answer(self, request: ApiRequest, project: Project, rest: tuple[str, ...]) -> ApiResponse:
        """Raises ApiRefusal, SQLAlchemy's errors."""
        match request.method, rest:
            case "GET", ():
                return await self._list(request, project.id)
            case "POST", ():
                return await self._create(request, project.id)
            case _, ():
                raise method_not_allowed(("GET", "POST"))
            case "GET", (name,):
                return await self._read(_place(project.id, name))
            case "PATCH" | "PUT", (name,):
                return await self._change(request, _place(project.id, name))
            case "DELETE", (name,):
                return await self._delete(_place(project.id, name))
            case _, (_,):
                raise method_not_allowed(("GET", "PATCH", "PUT", "DELETE"))
        raise not_found("There is nothing below an annotation.")

    async def _list(self, request: ApiRequest, project_id: int) -> ApiResponse:
        page = page_of(request)
        matching = _filter(request, project_id)
        newest_first = func.coalesce(table.c.date_marker_ms, table.c.created_at_ms).desc(), table.c.id.desc()
        query = select(*_COLUMNS).where(matching).order_by(*newest_first).limit(page.limit).offset(page.offset)
        async with self._database.read() as connection:
            counted = await connection.execute(select(func.count()).select_from(table).where(matching))
            count: int = counted.scalar_one()
            rows = (await connection.execute(query)).all()
        return json_answer(HTTPStatus.OK, listing(request, page, count, [_as_json(row) for row in rows]))

    async def _create(self, request: ApiRequest, project_id: int) -> ApiResponse:
        values = changes_of(json_object(request.body))
        key = request.headers.get("idempotency-key")
        if key is not None and not _KEY.fullmatch(key):
            raise invalid(
                "Idempotency-Key", "invalid", "`Idempotency-Key` must be 1 to 255 ASCII characters, no spaces."
            )
        now_ms = self._now_ms()
        row = {
            "content": None,
            "scope": SCOPES[0],
            "creation_type": CREATION_TYPES[0],
            "date_marker_ms": None,
            "deleted": False,
            **values,
            "project_id": project_id,
            "created_at_ms": now_ms,
            "updated_at_ms": now_ms,
            "idempotency_key": key,
        }
        try:
            async with self._database.write() as connection:
                made = await _made_by(connection, project_id, key)
                if made is None:
                    made = (await connection.execute(insert(table).values(row).returning(*_COLUMNS))).one()
        except IntegrityError:  # on Postgres the same request may have come twice at once
            async with self._database.read() as connection:
                made = await _made_by(connection, project_id, key)
            if made is None:
                raise
        return json_answer(HTTPStatus.CREATED, _as_json(made))

    async def _read(self, place: ColumnElement[bool]) -> ApiResponse:
        async with self._database.read() as connection:
            found = await connection.execute(select(*_COLUMNS).where(place, table.c.deleted.is_(False)))
            row = found.one_or_none()
        if row is None:
            raise _absent()
        return json_answer(HTTPStatus.OK, _as_json(row))

    async def _change(self, request: ApiRequest, place: ColumnElement[bool]) -> ApiResponse:
        """Both PATCH and PUT: what is left out stays. Only PATCH finds what was deleted. As in PostHog."""
        values = changes_of(json_object(request.body))
        if request.method == "PUT":
            place = and_(place, table.c.deleted.is_(False))
        changed = update(table).where(place).values(**values, updated_at_ms=self._now_ms()).returning(*_COLUMNS)
        async with self._database.write() as connection:
            row = (await connection.execute(changed)).one_or_none()
        if row is None:
            raise _absent()
        return json_answer(HTTPStatus.OK, _as_json(row))

    async def _delete(self, place: ColumnElement[bool]) -> ApiResponse:
        deleted = update(table).where(place, table.c.deleted.is_(False))
        async with self._database.write() as connection:
            count = (await connection.execute(deleted.values(deleted=True, updated_at_ms=self._now_ms()))).rowcount
        if count == 0:
            raise _absent()
        return ApiResponse(HTTPStatus.NO_CONTENT, b"")


def changes_of(document: dict[str, Any]) -> dict[str, Any]:
    """The columns that a body sets. Fields that are unknown or cannot be written are ignored. Raises ApiRefusal 400."""
    values: dict[str, Any] = {}
    if "content" in document:
        values["content"] = _content(document["content"])
    if "scope" in document:
        values["scope"] = _choice("scope", document["scope"], SCOPES)
    if "creation_type" in document:
        values["creation_type"] = _choice("creation_type", document["creation_type"], CREATION_TYPES)
    if "date_marker" in document:
        marker = document["date_marker"]
        values["date_marker_ms"] = None if marker is None else to_ms(marker, "date_marker")
    if "deleted" in document:
        if not isinstance(document["deleted"], bool):
            raise invalid("deleted", "invalid", "`deleted` must be true or false.")
        values["deleted"] = document["deleted"]
    if document.get("dashboard_item") is not None:
        raise invalid(
            "dashboard_item",
            "does_not_exist",
            "`dashboard_item` must be null: there are no insights here. Leave it out.",
        )
    return values


def _content(untrusted: object) -> str | None:
    if untrusted is None:
        return None
    if not isinstance(untrusted, str):
        raise invalid("content", "invalid", "`content` must be text or null. Send, say, json.dumps(value).")
    if "\0" in untrusted:
        raise invalid("content", "null_characters_not_allowed", "`content` has a NUL character. Remove it.")
    if len(untrusted) > CONTENT_CHARACTERS:
        detail = f"`content` has more than {CONTENT_CHARACTERS} characters. Shorten it."
        raise invalid("content", "max_length", detail)
    return untrusted


def _choice(attr: str, untrusted: object, choices: tuple[str, ...]) -> str:
    if not isinstance(untrusted, str) or untrusted not in choices:
        raise invalid(attr, "invalid_choice", f"`{attr}` must be one of: {', '.join(choices)}.")
    return untrusted


def _filter(request: ApiRequest, project_id: int) -> ColumnElement[bool]:
    query = request.query
    deleted = query.get("deleted", "").lower()
    if deleted not in ("", "true", "false"):
        raise invalid("deleted", "invalid", "`deleted` must be true or false.")
    conditions = [table.c.project_id == project_id, table.c.deleted.is_(deleted == "true")]
    if query.get("scope"):
        conditions.append(table.c.scope == _choice("scope", query["scope"], SCOPES))
    if query.get("search"):
        text = query["search"].encode("utf-8", "replace").decode()
        if "\0" in text:
            raise invalid("search", "null_characters_not_allowed", "`search` has a NUL character. Remove it.")
        conditions.append(table.c.content.icontains(text, autoescape=True))
    if query.get("after"):
        conditions.append(table.c.created_at_ms > to_ms(query["after"], "after"))
    if query.get("before"):
        conditions.append(table.c.created_at_ms < to_ms(query["before"], "before"))
    return and_(*conditions)


def _place(project_id: int, name: str) -> ColumnElement[bool]:
    if not _ID.fullmatch(name):
        raise _absent()
    return and_(table.c.id == int(name), table.c.project_id == project_id)


def _absent() -> ApiRefusal:
    return not_found("This project has no such annotation. List them at annotations/ to see their ids.")


async def _made_by(connection: AsyncConnection, project_id: int, key: str | None) -> Row[Any] | None:
    if key is None:
        return None
    same = and_(table.c.project_id == project_id, table.c.idempotency_key == key)
    return (await connection.execute(select(*_COLUMNS).where(same))).one_or_none()


def _as_json(row: Row[Any]) -> dict[str, Any]:
    return {
        "id": row.id,
        "content": row.content,
        "date_marker": None if row.date_marker_ms is None else to_iso(row.date_marker_ms),
        "creation_type": row.creation_type,
        "dashboard_item": None,
        "insight_short_id": None,
        "insight_name": None,
        "created_by": None,
        "created_at": to_iso(row.created_at_ms),
        "updated_at": to_iso(row.updated_at_ms),
        "deleted": row.deleted,
        "scope": row.scope,
    }

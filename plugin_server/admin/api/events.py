"""`events`: the recent ones of a project, read from the end of the output topic.

The event log is no database of events. What is shown are those among the last RECORDS records of all projects,
RECORDS_BYTES at the most; a project with little traffic beside a busy one may see none. The whole history is in
whatever reads the output topic.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import orjson

from plugin_server.admin.api.errors import invalid, json_answer, method_not_allowed, not_found
from plugin_server.admin.api.pages import link, page_of
from plugin_server.admin.api.times import to_iso, to_ms
from plugin_server.eventlog.port import EventLog, InputRecord
from plugin_server.model.api import ApiRequest, ApiResponse
from plugin_server.model.errors import ConfigurationError, EventLogUnavailable
from plugin_server.model.project import Project

RECORDS = 5_000
RECORDS_BYTES = 16 * 2**20
_LEAST_PER_PARTITION = 20
_KEPT_SECONDS = 1.0
"""Requests within this time share one reading, however many there are."""
_NOT_FILTERS = ("properties", "person_id", "action_id", "select", "where")
_NEWEST_FIRST = ("", '["-timestamp"]', "-timestamp")


class RecentEvents:
    """Reads the end of the topic, at most once a second."""

    def __init__(self, event_log: EventLog, topic: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._event_log = event_log
        self._topic = topic
        self._clock = clock
        self._reading = asyncio.Lock()
        self._read_at = float("-inf")
        self._records: Sequence[InputRecord] = ()

    async def of(self, project_id: int) -> list[dict[str, Any]]:
        """The project's events as the API shows them, newest first. Raises EventLogUnavailable."""
        async with self._reading:
            if self._clock() - self._read_at >= _KEPT_SECONDS:
                self._records = await self._read()
                self._read_at = self._clock()
            records = self._records
        return await asyncio.to_thread(_events, records, project_id)

    async def _read(self) -> Sequence[InputRecord]:
        try:
            partitions = self._event_log.partition_count(self._topic)
        except ConfigurationError as error:
            raise EventLogUnavailable(f"the server is starting: {error}") from error
        per_partition = max(RECORDS // partitions, _LEAST_PER_PARTITION)
        return await self._event_log.latest(self._topic, per_partition, RECORDS_BYTES)


class Events:
    """Answers for `events` and `events/{uuid}`."""

    def __init__(self, recent: RecentEvents) -> None:
        self._recent = recent

    async def answer(self, request: ApiRequest, project: Project, rest: tuple[str, ...]) -> ApiResponse:
        """Raises ApiRefusal, EventLogUnavailable."""
        if len(rest) > 1:
            raise not_found("There is nothing below an event.")
        if request.method != "GET":
            raise method_not_allowed(("GET",))
        if rest:
            uuid = rest[0].lower()
            for event in await self._recent.of(project.id):
                if event["id"].lower() == uuid:
                    return json_answer(HTTPStatus.OK, event)
            raise not_found(
                "No such event is among the project's recent ones. Older ones are where the output topic is kept."
            )
        return json_answer(HTTPStatus.OK, await self._list(request, project.id))

    async def _list(self, request: ApiRequest, project_id: int) -> dict[str, Any]:
        matches = _filter(request)
        page = page_of(request)
        events = [event for event in await self._recent.of(project_id) if matches(event)]
        end = page.offset + page.limit
        following = None
        if end < len(events):
            # By time, so that events which come meanwhile do not move the pages; the offset counts those of that time.
            last = to_ms(events[end - 1]["timestamp"], "timestamp")
            ties = sum(to_ms(event["timestamp"], "timestamp") == last for event in events[:end])
            following = link(request, limit=page.limit, before=to_iso(last + 1), offset=ties)
        return {"next": following, "results": events[page.offset : end]}


def _filter(request: ApiRequest) -> Callable[[dict[str, Any]], bool]:
    query = request.query
    for name in _NOT_FILTERS:
        if query.get(name):
            raise invalid(
                name, "not_supported", f"Events cannot be asked for by `{name}` here. Select among the results."
            )
    if query.get("orderBy", "") not in _NEWEST_FIRST:
        raise invalid(
            "orderBy", "not_supported", "Events come newest first. Leave `orderBy` out, and sort the results."
        )
    event_name, distinct_id = query.get("event"), query.get("distinct_id")
    after = to_ms(query["after"], "after") if query.get("after") else None
    before = to_ms(query["before"], "before") if query.get("before") else None

    def matches(event: dict[str, Any]) -> bool:
        if (event_name and event["event"] != event_name) or (distinct_id and event["distinct_id"] != distinct_id):
            return False
        if after is None and before is None:
            return True
        at = to_ms(event["timestamp"], "timestamp")
        return (after is None or at > after) and (before is None or at < before)

    return matches


def _events(records: Sequence[InputRecord], project_id: int) -> list[dict[str, Any]]:
    """Those of the project, newest first; of records with one uuid (at least once), the last."""
    mark = b'"team_id":%d,' % project_id  # as this server writes it; a quote inside of properties would be escaped
    found: dict[str, dict[str, Any]] = {}
    for record in records:
        if record.value and mark in record.value:
            event = _event(record.value, project_id)
            if event is not None:
                found[event["id"]] = event
    return sorted(found.values(), key=lambda event: (event["timestamp"], event["id"]), reverse=True)


def _event(value: bytes, project_id: int) -> dict[str, Any] | None:
    """An output message in the form of PostHog's API; None for what another program may have written into the topic."""
    try:
        message = orjson.loads(value)
        if message["team_id"] != project_id:
            return None
        at = datetime.fromisoformat(message["timestamp"]).replace(tzinfo=UTC)
        return {
            "id": str(message["uuid"]),
            "uuid": str(message["uuid"]),
            "event": str(message["event"]),
            "distinct_id": str(message["distinct_id"]),
            "properties": orjson.loads(message["properties"]),
            "timestamp": at.isoformat(timespec="milliseconds"),
            "elements_chain": message["elements_chain"],
            "person": None,
        }
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        return None

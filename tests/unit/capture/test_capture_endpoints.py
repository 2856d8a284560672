"""The capture endpoints over a real loopback server, with a log that only records what is produced."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from plugin_server.capture.endpoints import PATHS, capture_routes
from plugin_server.eventlog.port import OutputRecord
from plugin_server.model.errors import EventLogUnavailable, Transient
from plugin_server.model.project import Project

NOW = datetime(2026, 11, 23, 9, 8, 7, 654_321, tzinfo=UTC)
EVENT = {"event": "e", "distinct_id": "u", "token": "phc_a"}
UUID_TEXT = "0190A0C6-0000-7000-8000-00000000ABCD"


class Log:
    """Records what is produced; raises `fault` instead when there is one, and hangs when told to."""

    def __init__(self) -> None:
        self.records: list[OutputRecord] = []
        self.fault: Exception | None = None
        self.hangs = False

    async def produce(self, records: list[OutputRecord]) -> None:
        if self.hangs:
            await asyncio.sleep(3600)
        if self.fault is not None:
            raise self.fault
        self.records += records

    @property
    def values(self) -> list[dict[str, Any]]:
        return [json.loads(record.value) for record in self.records]

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(value["data"]) for value in self.values]


async def find_project(token: str) -> Project | None:
    if token == "phc_away":
        raise Transient
    return Project(1, "A", token) if token in ("phc_a", "phc_b") else None


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
async def client(log: Log) -> AsyncIterator[TestClient[web.Request, web.Application]]:
    app = web.Application()
    routes = capture_routes(
        find_project,
        log.produce,
        topic="events_plugin_ingestion",
        record_bytes=4_000,
        body_bytes=200_000,
        read_timeout_seconds=0.3,
        produce_timeout_seconds=0.3,
        now=lambda: NOW,
    )
    app.add_routes(routes)
    async with TestClient(TestServer(app)) as client:
        yield client


async def send(client, body: object, path: str = "/capture/", **options: Any) -> tuple[int, dict[str, Any]]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with client.post(path, data=data, **options) as response:
        return response.status, await response.json()


@pytest.mark.parametrize("path", [path + slash for path in PATHS for slash in ("", "/")])
async def test_every_path_takes_an_event(client, log, path):
    assert await send(client, EVENT, path) == (200, {"status": 1})
    assert log.events == [{"event": "e", "distinct_id": "u", "properties": {}}]


async def test_an_event_becomes_the_envelope_that_ingestion_reads(client, log):
    event = {**EVENT, "uuid": UUID_TEXT, "properties": {"a": 1, "token": "phc_a"}, "timestamp": "t", "$set": {"x": "ü"}}
    body = {"api_key": "phc_a", "batch": [event], "sent_at": "2026-11-23T09:08:00+01:00"}
    assert await send(client, body, "/batch/") == (200, {"status": 1})
    (record,) = log.records
    assert (record.topic, record.partition, record.key, record.headers) == (
        "events_plugin_ingestion",
        None,
        b"phc_a:u",
        (),
    )
    (value,) = log.values
    del event["token"]
    assert json.loads(value.pop("data")) == event
    assert value == {
        "uuid": UUID_TEXT,
        "distinct_id": "u",
        "ip": "127.0.0.1",
        "site_url": "",
        "now": "2026-11-23T09:08:07.654+00:00",
        "sent_at": "2026-11-23T09:08:00+01:00",
        "token": "phc_a",
    }


@pytest.mark.parametrize(
    ("body", "count"),
    [
        (EVENT, 1),
        ([EVENT], 1),
        ([EVENT, {"event": "e", "distinct_id": "v"}], 2),
        ({"token": "phc_a", "batch": [{"event": "e", "distinct_id": "u"}] * 3}, 3),
        ({"api_key": " phc_a ", "batch": [{**EVENT, "token": "phc_b"}]}, 1),
        ({"event": "e", "distinct_id": "u", "api_key": "phc_a"}, 1),
        ({"event": "e", "distinct_id": "u", "$token": "phc_a"}, 1),
        ({"event": "e", "distinct_id": "u", "properties": {"token": "phc_a"}}, 1),
        ({"event": "e", "properties": {"distinct_id": "u", "token": "phc_a"}}, 1),
        ({**EVENT, "properties": None}, 1),
    ],
)
async def test_every_shape_is_taken(client, log, body, count):
    assert await send(client, body) == (200, {"status": 1})
    assert len(log.records) == count
    assert {value["token"] for value in log.values} == {"phc_a"}
    assert not any(key in event for event in log.events for key in ("token", "$token", "api_key"))


async def test_historical_migration_is_kept_when_true(client, log):
    for flag in (True, False):
        await send(client, {"api_key": "phc_a", "batch": [EVENT], "historical_migration": flag})
    assert [value.get("historical_migration") for value in log.values] == [True, None]


@pytest.mark.parametrize(
    ("body", "status", "code", "attr"),
    [
        (b"", 400, "invalid_payload", None),
        (b"{", 400, "invalid_payload", None),
        (b"data=e30=", 400, "invalid_payload", None),
        (b"\xff\xfe", 400, "invalid_payload", None),
        (b"\x1f\x8b\x08", 400, "invalid_payload", None),
        (b'{"event": NaN}', 400, "invalid_payload", None),
        (b'{"event": "\\ud800", "x": NaN}', 400, "invalid_payload", None),
        (b"1", 400, "invalid_payload", None),
        (b"null", 400, "invalid_payload", None),
        ({}, 400, "invalid_payload", None),
        ([], 400, "invalid_payload", None),
        ([1], 400, "invalid_payload", None),
        ([EVENT, None], 400, "invalid_payload", None),
        ({"api_key": "phc_a", "batch": []}, 400, "invalid_payload", None),
        ({"api_key": "phc_a", "batch": {}}, 400, "invalid_payload", "batch"),
        ({**EVENT, "event": ""}, 400, "invalid_payload", "event"),
        ({**EVENT, "event": 1}, 400, "invalid_payload", "event"),
        ([EVENT, {"distinct_id": "u"}], 400, "invalid_payload", "event"),
        ({**EVENT, "distinct_id": None}, 400, "invalid_payload", "distinct_id"),
        ({**EVENT, "distinct_id": ""}, 400, "invalid_payload", "distinct_id"),
        ({**EVENT, "distinct_id": " \t"}, 400, "invalid_payload", "distinct_id"),
        ({**EVENT, "properties": []}, 400, "invalid_payload", "properties"),
        ({**EVENT, "timestamp": 1}, 400, "invalid_payload", "timestamp"),
        ({"event": "e", "distinct_id": "u"}, 401, "missing_api_key", "api_key"),
        ({"batch": [EVENT]}, 401, "missing_api_key", "api_key"),
        ([EVENT, {**EVENT, "token": "phc_b"}], 401, "invalid_api_key", "api_key"),
        ({**EVENT, "token": "phc_unknown"}, 401, "invalid_api_key", "api_key"),
        ({**EVENT, "token": ""}, 401, "invalid_api_key", "api_key"),
        ({**EVENT, "token": 1}, 401, "invalid_api_key", "api_key"),
        ({**EVENT, "token": "phx_personal"}, 401, "invalid_api_key", "api_key"),
        ({**EVENT, "token": "x" * 65}, 401, "invalid_api_key", "api_key"),
        ({**EVENT, "token": "ü"}, 401, "invalid_api_key", "api_key"),
        ({**EVENT, "token": "a\0b"}, 401, "invalid_api_key", "api_key"),
        ({**EVENT, "properties": {"x": "x" * 5_000}}, 413, "too_large", None),
        ([EVENT, {**EVENT, "properties": {"x": "x" * 5_000}}], 413, "too_large", None),
        (b" " * 200_001, 413, "too_large", None),
        ({**EVENT, "token": "phc_away"}, 503, "server_error", None),
    ],
)
async def test_a_bad_request_is_refused_whole_with_what_is_wrong(client, log, body, status, code, attr):
    answered, refusal = await send(client, body, headers={"Origin": "https://shop.example"})
    assert (answered, refusal["code"], refusal["attr"]) == (status, code, attr)
    assert set(refusal) == {"type", "code", "detail", "attr"}
    assert "phc_unknown" not in refusal["detail"]
    assert log.records == []


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 10_000 + b"]" * 10_000,
        b"[" * 10_000,
        b'{"event":"e","distinct_id":"u","token":"phc_a","properties":{"x":' + b"[" * 10_000 + b"]" * 10_000 + b"}}",
        b'{"event":"e","distinct_id":"u","token":"phc_a","properties":{"x":' + b"[" * 300 + b"]" * 300 + b"}}",
        b'{"event":"e","distinct_id":"u","token":"phc_a","properties":{"x":' + b"[" * 99 + b"]" * 99 + b"}}",
        b'{"event":"e","distinct_id":"\\ud800","token":"phc_a","properties":{"x":' + b"[" * 900 + b"]" * 900 + b"}}",
        b'{"event":"e","token":"phc_a","distinct_id":' + b"[" * 200 + b"]" * 200 + b"}",
        b'{"event":"e","distinct_id":"u","token":"phc_a","properties":{"x":' + b"9" * 10_000 + b"}}",
        b'{"event":"\\ud800","distinct_id":"u","token":"phc_a","properties":{"x":' + b"9" * 10_000 + b"}}",
        b'{"event":"\\ud800","distinct_id":"u","token":"phc_a","properties":{"x":1e999}}',
    ],
)
async def test_nesting_and_numbers_beyond_all_bounds_are_refused(client, log, body):
    status, refusal = await send(client, body)
    assert (status, refusal["code"]) == (400, "invalid_payload")
    assert log.records == []


async def test_what_is_within_the_bounds_is_taken(client, log):
    deep = b"[" * 98 + b"]" * 98
    body = b'{"event":"e","distinct_id":"u","token":"phc_a","properties":{"x":' + deep + b',"y":' + b"9" * 25 + b"}}"
    assert await send(client, body) == (200, {"status": 1})
    assert log.events[0]["properties"]["y"] == 1e25


@pytest.mark.parametrize(
    ("sent", "distinct_id"),
    [
        ('"u"', "u"),
        ('" u "', " u "),
        ("23", "23"),
        ("23.5", "23.5"),
        ("0", "0"),
        ("false", "false"),
        ('["a", {"b": 1}]', '["a",{"b":1}]'),
        ('"a\\u0000b"', "a\ufffdb"),
        ('"a\\ud800b"', "a\ufffdb"),
        ('"\\ud83d\\ude00"', "😀"),
        ('"' + "ü" * 300 + '"', "ü" * 200),
        ('"' + "😀" * 200 + '"', "😀" * 200),
    ],
)
async def test_a_distinct_id_becomes_text_of_at_most_200_characters(client, log, sent, distinct_id):
    body = b'{"event":"e","token":"phc_a","distinct_id":' + sent.encode() + b"}"
    assert await send(client, body) == (200, {"status": 1})
    assert log.values[0]["distinct_id"] == distinct_id
    assert log.records[0].key == f"phc_a:{distinct_id}".encode()


async def test_nul_and_lone_surrogates_in_properties_do_no_harm(client, log):
    body = b'{"event":"e","distinct_id":"u","token":"phc_a","properties":{"nul":"\\u0000","cut":"\\uDE00","\\ud83d":1}}'
    assert await send(client, body) == (200, {"status": 1})
    assert log.events[0]["properties"] == {"nul": "\0", "cut": "\ufffd", "\ufffd": 1}


@pytest.mark.parametrize("uuid", [None, "", "not-a-uuid", 7, UUID_TEXT.replace("-", ""), UUID_TEXT + "\n"])
async def test_an_event_without_a_valid_uuid_gets_one_of_the_time_of_receipt(client, log, uuid):
    await send(client, [{**EVENT, "uuid": uuid}, EVENT])
    made = [UUID(value["uuid"]) for value in log.values]
    assert len(set(made)) == 2
    for one in made:
        assert (one.version, one.variant) == (7, "specified in RFC 4122")
        assert one.int >> 80 == int(NOW.timestamp() * 1000)


@pytest.mark.parametrize(
    ("body_sent_at", "query", "expected"),
    [
        ("2026-11-23T09:08:00Z", "", "2026-11-23T09:08:00Z"),
        ("2026-11-23", "?_=1795424880123", "2026-11-23"),
        ("nonsense", "?_=1795424880123", "2026-11-23T09:08:00.123+00:00"),
        (None, "?sent_at=1795424880123", "2026-11-23T09:08:00.123+00:00"),
        (7, "?_=abc", ""),
        (None, "?_=1795424880", ""),
        (None, "?_=999999999999999", ""),
        (None, "", ""),
    ],
)
async def test_the_clients_clock_is_kept_and_nonsense_ignored(client, log, body_sent_at, query, expected):
    body = {"api_key": "phc_a", "batch": [EVENT], "sent_at": body_sent_at}
    assert await send(client, body, f"/batch/{query}") == (200, {"status": 1})
    assert log.values[0]["sent_at"] == expected


async def test_nothing_that_a_client_sends_becomes_lineage_project_or_address(client, log):
    lineage = '{"v":1,"root":"x","depth":0,"path":[],"budget":9}'
    event = {**EVENT, "ps-lineage": lineage, "team_id": 99, "properties": {"ps-lineage": lineage}}
    headers = {"ps-lineage": lineage, "X-Forwarded-For": "6.6.6.6", "team_id": "99"}
    assert await send(client, event, headers=headers) == (200, {"status": 1})
    assert log.records[0].headers == ()
    assert log.values[0]["ip"] == "127.0.0.1"
    assert "team_id" not in log.events[0]
    assert "team_id" not in log.values[0]


async def test_a_log_that_is_away_is_a_503_that_sdks_send_again(client, log):
    log.fault = EventLogUnavailable()
    async with client.post("/e/", json=EVENT) as response:
        assert (response.status, response.headers["Retry-After"]) == (503, "1")
    log.fault, log.hangs = None, True
    assert (await send(client, EVENT))[0] == 503
    log.hangs = False
    assert (await send(client, EVENT))[0] == 200


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE"])
async def test_another_method_is_a_405(client, log, method):
    async with client.request(method, "/capture/?data=e30=") as response:
        assert (response.status, response.headers["Allow"]) == (405, "POST, OPTIONS")


async def test_a_browser_may_send_from_any_page_and_sees_every_answer(client, log):
    headers = {
        "Origin": "https://shop.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type,x-posthog",
    }
    async with client.options("/e/", headers=headers) as response:
        assert response.status == 200
        assert response.headers["Access-Control-Allow-Origin"] == "https://shop.example"
        assert response.headers["Access-Control-Allow-Headers"] == "content-type,x-posthog"
        assert "POST" in response.headers["Access-Control-Allow-Methods"]
    for body, status in ((json.dumps(EVENT), 200), ("{", 400)):
        async with client.post("/e/", data=body, headers={"Origin": "null"}) as response:
            assert response.status == status
            assert response.headers["Access-Control-Allow-Origin"] == "null"
    async with client.post("/e/", json=EVENT) as response:
        assert "Access-Control-Allow-Origin" not in response.headers


async def test_a_body_without_a_length_is_bounded_too(client, log):
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(300):
            yield b" " * 1_000

    async with client.post("/e/", data=chunks()) as response:
        assert response.status == 413


async def test_a_packed_body_is_bounded_by_what_it_unpacks_to(client, log):
    headers = {"Content-Encoding": "gzip"}
    assert (await send(client, gzip.compress(json.dumps(EVENT).encode()), headers=headers))[0] == 200
    assert (await send(client, gzip.compress(b" " * 10_000_000), headers=headers))[0] == 413
    assert (await send(client, b"not gzip", headers=headers))[0] == 400


async def test_a_connection_that_cannot_go_on_says_so(client):
    """A proxy would send somebody else's event on it."""
    async with client.post("/capture/", data=b"not gzip", headers={"Content-Encoding": "gzip"}) as response:
        assert (response.status, response.headers.get("Connection")) == (400, "close")
    async with client.post("/capture/", data=b"not JSON") as response:
        assert (response.status, response.headers.get("Connection")) == (400, None)


async def test_a_client_that_stops_sending_is_a_408(client, log):
    async def stalls() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(1)

    async with client.post("/e/", data=stalls()) as response:
        assert response.status == 408


async def test_a_client_that_hangs_up_is_no_fault_of_ours(log, caplog):
    app = web.Application()
    app.add_routes(capture_routes(find_project, log.produce, topic="t", record_bytes=4_000))
    runner = web.AppRunner(
        app
    )  # unlike TestServer, it lets the handler run on when the client is gone, as in production
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        _, writer = await asyncio.open_connection(*runner.addresses[0])
        writer.write(b"POST /e/ HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{")
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.close()
        await writer.wait_closed()
        await asyncio.sleep(0.05)
    finally:
        await runner.cleanup()
    assert not [entry for entry in caplog.records if entry.levelname == "ERROR"]
    assert log.records == []

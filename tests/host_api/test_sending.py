"""What a request looks like on the wire, and what comes back, over real connections."""

from __future__ import annotations

import asyncio
import gzip
import ssl
from pathlib import Path

import pytest

from plugin_server.host_api.egress import EgressRules
from plugin_server.host_api.http_client import HttpRequest
from plugin_server.model.errors import FetchFailed, InvalidArgument, LimitReached
from tests.host_api.clients import LOCAL, http_client, send
from tests.host_api.raw_server import RawServer, Received, raw, reply

CERTIFICATE = Path(__file__).parent / "secure_example.pem"
"""Of secure.example, with its key: good for these tests and nothing else."""


async def test_a_request_arrives_as_it_was_given():
    async with RawServer(reply(201, b"created", X_A="b")) as server, http_client(user_agent="ours/1") as client:
        url = server.url("/a%2Fb/ü?x=ü&y")
        response = await send(client, url, "PATCH", headers={"X-Key": "ü", "content-type": "a/b"}, body=b"\x00body")
        [received] = server.requests
    assert (received.method, received.target, received.body) == ("PATCH", "/a%2Fb/%C3%BC?x=%C3%BC&y", b"\x00body")
    assert received.headers["host"] == f"a.example:{server.port}"
    assert received.headers["x-key"].encode("latin-1") == "ü".encode()
    assert received.headers["content-type"] == "a/b"
    assert received.headers["user-agent"] == "ours/1"
    assert received.headers["idempotency-key"] == "key-1"
    assert received.headers["accept-encoding"] == "gzip, deflate"
    assert (response.status, response.body, response.headers["x-a"]) == (201, b"created", "b")
    assert response.url == server.url("/a%2Fb/%C3%BC?x=%C3%BC&y")


async def test_an_app_may_name_itself_and_set_its_own_idempotency_key():
    async with RawServer() as server, http_client() as client:
        await send(client, server.url(), headers={"user-agent": "app", "IDEMPOTENCY-KEY": "mine"})
        [received] = server.requests
    assert (received.headers["user-agent"], received.headers["idempotency-key"]) == ("app", "mine")


async def test_every_status_is_an_answer():
    for status in (204, 304, 404, 500):
        async with RawServer(reply(status)) as server, http_client() as client:
            assert (await send(client, server.url())).status == status


async def test_the_length_that_head_answers_is_not_read():
    async with (
        RawServer(raw(b"HTTP/1.1 200 x\r\nContent-Length: 9999999999\r\n\r\n")) as server,
        http_client() as client,
    ):
        assert (await send(client, server.url(), "HEAD")).body == b""


async def test_packed_answers_are_unpacked():
    async with (
        RawServer(reply(200, gzip.compress(b"x" * 9_999), Content_Encoding="gzip")) as server,
        http_client() as client,
    ):
        response = await send(client, server.url())
    assert response.body == b"x" * 9_999
    assert "content-encoding" not in response.headers
    assert "content-length" not in response.headers


async def test_repeated_and_undecodable_headers_can_travel_on_as_json():
    answer = raw(b"HTTP/1.1 200 x\r\nX-A: b\r\nx-a: c\r\nX-B: \xff\xc3\xbc\r\nContent-Length: 0\r\n\r\n")
    async with RawServer(answer) as server, http_client() as client:
        response = await send(client, server.url())
    assert response.headers["x-a"] == "b, c"
    assert response.headers["x-b"] == "\ufffdü"


async def test_cookies_are_not_kept():
    async with RawServer(reply(200, Set_Cookie="a=b; Path=/")) as server, http_client() as client:
        await send(client, server.url())
        await send(client, server.url())
        assert len(server.requests) == 2
        assert server.connections == 1
        assert all("cookie" not in received.headers for received in server.requests)


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch):
    async with RawServer() as proxy, RawServer(reply(200, b"direct")) as server, http_client() as client:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url(host="127.0.0.1"))
        assert (await send(client, server.url())).body == b"direct"
        assert proxy.connections == 0


async def test_tls_keeps_the_name_though_the_address_is_pinned():
    names: list[str | None] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    context.sni_callback = lambda _socket, name, _context: names.append(name)
    trusting = ssl.create_default_context(cafile=str(CERTIFICATE))
    async with RawServer(reply(200, b"safe"), context) as server, http_client(ssl_context=trusting) as client:
        response = await send(client, f"https://api.secure.example.:{server.port}/")
        assert response.body == b"safe"
        assert names == ["api.secure.example"]
        assert server.requests[0].headers["host"] == f"api.secure.example:{server.port}"
        with pytest.raises(FetchFailed, match="certificate"):
            await send(client, f"https://other.example:{server.port}/")
    async with RawServer(reply(200), context) as server, http_client() as client:
        with pytest.raises(FetchFailed, match="certificate"):
            await send(client, f"https://api.secure.example:{server.port}/")


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("GET /\r\nX: y", {}),
        ("CONNECT", {}),
        ("GET", {"X-A": "b\r\nX-C: d"}),
        ("GET", {"X\r\nY": "d"}),
        ("GET", {"Host": "x"}),
    ],
)
async def test_nothing_can_be_smuggled_into_a_request(method: str, headers: dict[str, str]):
    async with RawServer() as server, http_client() as client:
        with pytest.raises(InvalidArgument):
            await send(client, server.url(), method, headers=headers)
        assert server.connections == 0


async def test_a_body_beyond_the_limit_is_not_sent():
    async with RawServer() as server, http_client(request_bytes=10) as client:
        with pytest.raises(LimitReached, match="11 bytes"):
            await send(client, server.url(), "POST", body=b"x" * 11)
        assert server.connections == 0


# Rates


async def test_an_install_has_a_rate_of_its_own():
    now = [0.0]
    async with (
        RawServer() as server,
        http_client(requests_per_second=1, requests_burst=2, clock=lambda: now[0]) as client,
    ):
        other = EgressRules(8, None, LOCAL)
        await send(client, server.url())
        await send(client, server.url())
        with pytest.raises(LimitReached, match="FETCH_PER_SECOND"):
            await send(client, server.url())
        await send(client, server.url(), rules=other)
        now[0] += 1
        await send(client, server.url())
        assert len(server.requests) == 4


async def test_an_install_has_only_so_many_requests_under_way():
    under_way, most = 0, 0
    whole = b"HTTP/1.1 200 x\r\nContent-Length: 0\r\n\r\n"

    async def answer(_received: Received, writer: asyncio.StreamWriter) -> None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.01)
        under_way -= 1
        writer.write(whole)

    async with RawServer(answer) as server, http_client(requests_under_way=3) as client:
        await asyncio.gather(*(send(client, server.url()) for _ in range(20)))
        assert most == 3
        assert len(server.requests) == 20


async def test_many_requests_share_few_connections():
    async with RawServer() as server, http_client(connections_per_host=10) as client:
        await asyncio.gather(*(send(client, server.url()) for _ in range(200)))
        assert len(server.requests) == 200
        assert server.connections <= 10


async def test_large_answers_wait_for_each_other_and_all_arrive():
    body = b"x" * 2_000_000
    async with RawServer(reply(200, body)) as server, http_client(large_responses=1) as client:
        responses = await asyncio.gather(*(send(client, server.url()) for _ in range(5)))
    assert all(response.body == body for response in responses)


async def test_a_cancelled_request_leaves_no_connection_behind():
    arrived = asyncio.Event()

    async def answer(_received: Received, _writer: asyncio.StreamWriter) -> None:
        arrived.set()

    async with RawServer(answer) as server, http_client() as client:
        task = asyncio.create_task(
            client.send(HttpRequest("GET", server.url(), {}, b"", None), EgressRules(7, None, LOCAL))
        )
        await arrived.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await asyncio.wait_for(server.gone.wait(), 30)
    assert task.cancelled()


async def test_a_closed_client_sends_nothing():
    async with RawServer() as server, http_client() as client:
        await send(client, server.url())
        await client.close()
        with pytest.raises(FetchFailed, match="stopping"):
            await send(client, server.url())
        assert len(server.requests) == 1

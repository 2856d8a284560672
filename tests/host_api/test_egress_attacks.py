"""Ways to make the host ask what it must not: each is refused before a byte is sent."""

from __future__ import annotations

import asyncio

import pytest

from plugin_server.host_api.egress import PUBLIC_ONLY, EgressRules, PrivateAccess, parse_pattern, private_access
from plugin_server.host_api.own_hosts import leads_to, make_own_hosts, make_redirect_check
from plugin_server.model.errors import FetchFailed, FetchRefused, InvalidArgument
from tests.host_api.clients import LOCAL, Names, http_client, send
from tests.host_api.raw_server import RawServer, redirect, reply

EVERYWHERE = PrivateAccess(everywhere=True)
CREDENTIALS = {"Authorization": "Bearer s", "Cookie": "s", "X-Api-Key": "s", "Accept": "text/plain"}


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["10.0.0.1"],
        ["169.254.169.254"],
        ["::1"],
        ["fd00:ec2::254"],
        ["::ffff:127.0.0.1"],
        ["0.0.0.0"],
        ["93.184.216.34", "127.0.0.1"],
        ["127.0.0.1", "93.184.216.34"],
    ],
)
async def test_a_name_that_resolves_to_a_private_address_is_refused(addresses: list[str]):
    async with RawServer() as server, http_client(resolve=Names(evil=[addresses])) as client:
        with pytest.raises(FetchRefused, match="ALLOWED_PRIVATE_HOSTS"):
            await send(client, server.url(host="evil.test"), access=PUBLIC_ONLY)
        assert server.connections == 0


async def test_many_who_ask_for_a_refused_name_at_once_are_all_refused():
    async with RawServer() as server, http_client(resolve=Names(evil=[["127.0.0.1"]])) as client:
        asked = [send(client, server.url(host="evil.test"), access=PUBLIC_ONLY) for _ in range(50)]
        outcomes = await asyncio.gather(*asked, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {FetchRefused}
        assert server.connections == 0


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "2130706433", "0x7f.1", "0177.1", "127.1", "0", "[::1]", "[::ffff:7f00:1]", "localhost", "①②⑦.0.0.1"],
)
async def test_an_address_in_any_notation_is_refused(host: str):
    async with RawServer() as server, http_client() as client:
        with pytest.raises(FetchRefused):
            await send(client, server.url(host=host), access=PUBLIC_ONLY)
        assert server.connections == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "2130706433", "0x7f.1", "[::ffff:7f00:1]"])
async def test_what_the_operator_allows_is_reached_in_any_notation(host: str):
    async with RawServer(reply(200, b"here")) as server, http_client() as client:
        assert (await send(client, server.url(host=host), access=EVERYWHERE)).body == b"here"


async def test_a_name_is_resolved_once_so_that_its_second_answer_never_counts():
    names = Names(rebind=[["127.0.0.1"], ["169.254.169.254"]])
    async with RawServer(reply(200, b"first")) as server, http_client(resolve=names) as client:
        url = server.url(host="rebind.example")
        assert (await send(client, url)).body == b"first"
        assert (await send(client, url)).body == b"first"
    assert names.asked == ["rebind.example"]


async def test_the_system_is_not_asked_for_a_name_that_was_resolved(monkeypatch: pytest.MonkeyPatch):
    def no_lookup(*_arguments: object, **_more: object) -> None:
        raise AssertionError

    async with RawServer(reply(200, b"pinned")) as server, http_client() as client:
        monkeypatch.setattr("socket.getaddrinfo", no_lookup)
        assert (await send(client, server.url(host="not.resolvable.example"))).body == b"pinned"


async def test_a_connection_is_not_shared_with_an_install_that_may_not_open_it():
    names = Names(shared=[["127.0.0.1"]])
    async with RawServer(reply(200, b"private")) as server, http_client(resolve=names) as client:
        url = server.url(host="shared.example")
        assert (await send(client, url, access=EVERYWHERE)).body == b"private"
        for access in (PUBLIC_ONLY, private_access(["other.example"])):
            with pytest.raises(FetchRefused):
                await send(client, url, access=access)
        with pytest.raises(FetchRefused):
            await send(client, url, rules=EgressRules(8, (parse_pattern("other.example"),), EVERYWHERE))
        assert len(server.requests) == 1


# Redirects


@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.1:{port}/",
        "//127.0.0.1:{port}/",
        "http://2130706433:{port}/",
        "http://[::1]:{port}/",
        "http://169.254.169.254/latest/meta-data/",
        "http://localhost:{port}/",
        "http://evil.test:{port}/",
    ],
)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_to_a_private_address_is_refused(location: str, status: int):
    async with RawServer() as target, http_client() as client:
        async with RawServer(redirect(location.format(port=target.port), status)) as server:
            with pytest.raises(FetchRefused, match="ALLOWED_PRIVATE_HOSTS"):
                await send(client, server.url(), "POST", body=b"x")
            assert len(server.requests) == 1
        assert target.connections == 0


async def test_a_redirect_out_of_the_egress_list_is_refused():
    async with (
        RawServer() as target,
        RawServer(redirect(target.url(host="b.example"))) as server,
        http_client() as client,
    ):
        with pytest.raises(FetchRefused, match="egress"):
            await send(client, server.url(), rules=EgressRules(7, (parse_pattern("a.example"),), LOCAL))
        assert target.connections == 0


@pytest.mark.parametrize(
    "location", ["ftp://a.example/", "file:///etc/passwd", "http://u:p@a.example/", "/\\a.example", "http://["]
)
async def test_a_redirect_to_what_is_no_url_fails(location: str):
    async with RawServer(redirect(location)) as server, http_client() as client:
        with pytest.raises(FetchFailed, match="redirects to what is no URL"):
            await send(client, server.url())


async def test_a_redirect_to_this_server_is_refused():
    async with RawServer() as own, RawServer(redirect(own.url("/capture", host="own.example"), 307)) as server:
        check = make_redirect_check(make_own_hosts([own.url("", host="own.example")], None), ("/capture",))
        async with http_client(check_redirect=check) as client:
            with pytest.raises(FetchRefused, match="is this server"):
                await send(client, server.url(), "POST", body=b"{}")
        assert own.connections == 0


@pytest.mark.parametrize("host", ["any.example", "127.0.0.1", "[::ffff:7f00:1]", "127.1"])
@pytest.mark.parametrize("redirects", [False, True])
async def test_this_server_is_not_reached_by_a_name_that_is_not_known_for_its_own(host: str, *, redirects: bool):
    async with RawServer() as own, RawServer(redirect(own.url("/capture", host=host), 307)) as server:
        url = server.url() if redirects else own.url("/capture", host=host)
        async with http_client(is_own=leads_to("127.0.0.1", own.port)) as client:
            with pytest.raises(FetchRefused, match="leads to this server"):
                await send(client, url, "POST", body=b"{}", access=EVERYWHERE)
        assert own.connections == 0


async def test_redirects_within_the_rules_are_followed():
    async with (
        RawServer(reply(200, b"end")) as target,
        RawServer(redirect(target.url("/x?y", host="b.example"), 307)) as server,
        http_client() as client,
    ):
        response = await send(client, server.url(), "POST", headers=CREDENTIALS, body=b"body")
        assert (response.body, response.url) == (b"end", target.url("/x?y", host="b.example"))
        first, second = server.requests[0], target.requests[0]
    assert {"authorization", "cookie", "x-api-key"} <= set(first.headers)
    assert not {"authorization", "cookie", "x-api-key"} & set(second.headers)
    assert (second.method, second.body, second.headers["accept"]) == ("POST", b"body", "text/plain")
    assert second.headers["idempotency-key"] == "key-1"


async def test_another_port_is_another_origin():
    async with RawServer(reply(200)) as target, RawServer(redirect(target.url())) as server, http_client() as client:
        await send(client, server.url(), headers=CREDENTIALS)
        assert "authorization" not in target.requests[0].headers


async def test_the_same_origin_keeps_its_credentials():
    async with RawServer() as server, http_client() as client:
        first, second = redirect("/next", 303), reply(200, b"end")
        server.answer = lambda received, writer: (second if received.target == "/next" else first)(received, writer)
        assert (await send(client, server.url(), "POST", headers=CREDENTIALS, body=b"x")).body == b"end"
        assert server.requests[1].headers["authorization"] == "Bearer s"
        assert (server.requests[1].method, server.requests[1].body) == ("GET", b"")


async def test_redirects_end():
    async with RawServer(redirect("/again")) as server, http_client(redirects=5) as client:
        with pytest.raises(FetchFailed, match="more than 5 redirects"):
            await send(client, server.url())
        assert len(server.requests) == 6


async def test_a_redirect_without_a_location_is_an_answer():
    async with RawServer(reply(302, b"nowhere")) as server, http_client() as client:
        assert (await send(client, server.url())).body == b"nowhere"


async def test_a_url_with_a_password_is_refused():
    async with RawServer() as server, http_client() as client:
        with pytest.raises(InvalidArgument, match="Authorization"):
            await send(client, f"http://a.example:{server.port}@a.example:{server.port}/")
        assert server.connections == 0

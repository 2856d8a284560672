"""Servers that answer too much, too slowly, wrongly or not at all: the app gets an error, the host keeps nothing of it."""

from __future__ import annotations

import asyncio
import gzip
import zlib

import pytest

from plugin_server.host_api.http_client import AiohttpClient
from plugin_server.model.errors import FetchFailed
from tests.host_api.clients import Names, http_client, send
from tests.host_api.raw_server import Answer, RawServer, Received, endless, raw

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
CHUNK = b"10000\r\n" + b"x" * 65_536 + b"\r\n"


def bomb() -> Answer:
    """A gzip stream of zeros without an end."""
    packer = zlib.compressobj(9, wbits=31)
    start = OK + b"Content-Encoding: gzip\r\n\r\n" + packer.compress(bytes(1_000_000)) + packer.flush(zlib.Z_FULL_FLUSH)
    more = packer.compress(bytes(100_000_000)) + packer.flush(zlib.Z_FULL_FLUSH)
    return endless(start, more)


async def fails(answer: Answer, match: str, **arguments: object) -> None:
    """The request fails with this message, the connection is closed, and the client goes on."""
    async with RawServer(answer) as server, http_client(**arguments) as client:
        with pytest.raises(FetchFailed, match=match) as caught:
            await send(client, server.url("/secret-path?token=sesame"), headers={"Authorization": "Bearer sesame"})
        assert "secret" not in str(caught.value)
        assert "sesame" not in str(caught.value)
        await asyncio.wait_for(server.gone.wait(), 30)
        await is_well(client)


async def is_well(client: AiohttpClient) -> None:
    async with RawServer() as server:
        assert (await send(client, server.url())).status == 200


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(raw(OK + b"Content-Length: 1000000000\r\n\r\n", ends=False), id="a gigabyte announced"),
        pytest.param(endless(OK + b"Content-Length: 1000000000\r\n\r\n", b"x" * 65_536), id="a gigabyte sent"),
        pytest.param(endless(CHUNKED, CHUNK), id="chunks without end"),
        pytest.param(endless(OK + b"\r\n", b"x" * 65_536), id="bytes without end"),
        pytest.param(bomb(), id="a bomb without end"),
        pytest.param(
            raw(OK + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(bytes(100_000_000))),
            id="a hundred megabytes packed",
        ),
    ],
)
async def test_an_answer_that_is_too_large_is_cut_off(answer: Answer):
    await fails(answer, "larger than the 1000000", response_bytes=1_000_000)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(raw(b"", ends=False), id="silence"),
        pytest.param(raw(OK + b"Content-Length: 10\r\n\r\nabc", ends=False), id="silence in the body"),
        pytest.param(raw(b"HTTP/1.1 200", ends=False), id="silence in the first line"),
        pytest.param(endless(CHUNKED, b"1\r\nx\r\n", 0.01), id="a byte at a time"),
        pytest.param(endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.01), id="continue without end"),
        pytest.param(endless(OK, b"X-A: b\r\n", 0.05), id="headers without end, slowly"),
    ],
)
async def test_an_answer_that_takes_too_long_is_given_up(answer: Answer):
    await fails(answer, "no whole answer from http://a.example:[0-9]+ within 0.3 seconds", total_seconds=0.3)


async def test_the_time_covers_all_hops_together():
    async def answer(_received: Received, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.2)
        writer.write(b"HTTP/1.1 302 x\r\nLocation: /again\r\nContent-Length: 0\r\n\r\n")

    await fails(answer, "within 0.5 seconds", total_seconds=0.5, redirects=1_000)


@pytest.mark.parametrize(
    ("answer", "match"),
    [
        pytest.param(raw(b"SSH-2.0-OpenSSH_9.2\r\n"), "not HTTP|closed the connection", id="another protocol"),
        pytest.param(raw(b"\x00\xff" * 100), "not HTTP|closed the connection", id="noise"),
        pytest.param(raw(b""), "closed the connection", id="the end at once"),
        pytest.param(raw(OK + b"Content-Le"), "not HTTP|closed the connection", id="the end in the headers"),
        pytest.param(raw(OK + b"Content-Length: 10\r\n\r\nabc"), "ends in the middle", id="the end in the body"),
        pytest.param(raw(CHUNKED + b"zz\r\n"), "not HTTP|ends in the middle", id="a wrong chunk"),
        pytest.param(raw(OK + b"Content-Length: -5\r\n\r\n"), "not HTTP", id="a negative length"),
        pytest.param(raw(OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n"), "not HTTP", id="two lengths"),
        pytest.param(raw(OK + b"X-A: " + b"b" * 100_000 + b"\r\n\r\n"), "not HTTP", id="a long header"),
        pytest.param(endless(OK, b"X-A: " + b"b" * 1_000 + b"\r\n"), "not HTTP", id="headers without end"),
        pytest.param(raw(OK + b"Content-Encoding: br\r\n\r\nabc"), "not asked for", id="an unknown packing"),
        pytest.param(raw(OK + b"Content-Encoding: gzip\r\n\r\nabc"), "not packed", id="not packed at all"),
        pytest.param(
            raw(OK + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(b"x" * 999)[:-9]),
            "ends in the middle",
            id="packed in part",
        ),
    ],
)
async def test_an_answer_that_is_wrong_is_an_error(answer: Answer, match: str):
    await fails(answer, match)


async def test_a_port_that_nobody_listens_on_is_an_error():
    async with RawServer() as server:
        url = server.url()
    async with http_client() as client:
        with pytest.raises(FetchFailed, match=r"no connection to http://a\.example"):
            await send(client, url)


async def test_a_name_without_an_address_is_an_error():
    async def resolve(_host: str) -> list[str]:
        raise OSError

    async with http_client(resolve=resolve) as client:
        with pytest.raises(FetchFailed, match=r"nowhere\.example has no address"):
            await send(client, "https://nowhere.example/")
    async with http_client(resolve=Names(nowhere=[[]])) as client:
        with pytest.raises(FetchFailed, match=r"nowhere\.example"):
            await send(client, "https://nowhere.example/")


async def test_a_resolver_that_hangs_is_given_up():
    async def resolve(_host: str) -> list[str]:
        await asyncio.Event().wait()
        return []

    async with http_client(resolve=resolve, total_seconds=0.1) as client:
        with pytest.raises(FetchFailed, match="within"):
            await send(client, "https://slow.example/")


async def test_a_server_without_tls_is_an_error_for_https():
    async with RawServer() as server, http_client(connect_seconds=0.3) as client:
        with pytest.raises(FetchFailed, match=r"a\.example"):
            await send(client, f"https://a.example:{server.port}/")

"""What the HTTP client decides without a network: redirects, and what it makes of packed bodies."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugin_server.host_api.egress import PUBLIC_ONLY, PrivateAccess, Reach, reach_of
from plugin_server.host_api.http_client import _CheckedResolver
from plugin_server.host_api.redirects import REDIRECT_STATUSES, Hop, next_hop
from plugin_server.host_api.response_body import ResponseBody
from plugin_server.host_api.urls import parse_url
from plugin_server.model.errors import FetchFailed, FetchRefused

HERE = parse_url("https://a.example/x")
HEADERS = {
    "Authorization": "Bearer s",
    "Cookie": "s",
    "X-Api-Key": "s",
    "Content-Type": "application/json",
    "Accept": "*/*",
    "Idempotency-Key": "k",
}


@pytest.mark.parametrize(
    ("method", "status", "next_method", "keeps_body"),
    [
        ("POST", 301, "GET", False),
        ("POST", 302, "GET", False),
        ("POST", 303, "GET", False),
        ("PUT", 303, "GET", False),
        ("PUT", 301, "PUT", True),
        ("DELETE", 302, "DELETE", True),
        ("HEAD", 303, "HEAD", True),
        ("GET", 301, "GET", True),
        ("POST", 307, "POST", True),
        ("PATCH", 308, "PATCH", True),
    ],
)
def test_methods_and_bodies_follow_the_fetch_standard(method: str, status: int, next_method: str, keeps_body: bool):  # noqa: FBT001
    hop = next_hop(Hop(method, HERE, HEADERS, b"body"), status, parse_url("https://a.example/y"))
    assert (hop.method, hop.body, "Content-Type" in hop.headers) == (
        next_method,
        b"body" if keeps_body else b"",
        keeps_body,
    )
    assert hop.headers["Authorization"] == "Bearer s"


@pytest.mark.parametrize(
    "url", ["https://b.example/", "http://a.example/", "https://a.example:8443/", "https://x.a.example/"]
)
def test_credentials_do_not_cross_origins(url: str):
    hop = next_hop(Hop("POST", HERE, HEADERS, b"body"), 307, parse_url(url))
    assert set(hop.headers) == {"Content-Type", "Accept", "Idempotency-Key"}


@given(st.lists(st.tuples(st.sampled_from(sorted(REDIRECT_STATUSES)), st.sampled_from(["a", "b"])), max_size=6))
def test_credentials_that_were_dropped_never_come_back(way: list[tuple[int, str]]):
    hop, left = Hop("POST", HERE, HEADERS, b"body"), False
    for status, host in way:
        hop = next_hop(hop, status, parse_url(f"https://{host}.example/"))
        left = left or host == "b"
        assert ("X-Api-Key" in hop.headers) is not left


def unpack(encoding: str, packed: bytes, chunk_bytes: int = 7, limit_bytes: int = 10_000) -> bytes:
    body = ResponseBody(encoding, limit_bytes)
    for start in range(0, len(packed), chunk_bytes):
        body.feed(packed[start : start + chunk_bytes])
    return body.finish()


@given(st.binary(max_size=300), st.integers(1, 50))
def test_bodies_come_out_as_they_went_in(body: bytes, chunk_bytes: int):
    raw = zlib.compressobj(wbits=-15)
    packings = {
        "": body,
        "identity": body,
        "gzip": gzip.compress(body),
        "X-GZIP": gzip.compress(body[:9]) + gzip.compress(body[9:]),
        "deflate": zlib.compress(body),
        " Deflate": raw.compress(body) + raw.flush(),
    }
    for encoding, packed in packings.items():
        assert unpack(encoding, packed, max(chunk_bytes, 2)) == body


def test_an_empty_body_needs_no_packing():
    assert ResponseBody("gzip", 10).finish() == b""


def test_a_bomb_is_not_unpacked_beyond_the_limit():
    with pytest.raises(FetchFailed, match="larger than the 10000 bytes"):
        unpack("gzip", gzip.compress(bytes(50_000_000)), 65_536)


def test_a_bomb_of_empty_members_ends():
    with pytest.raises(FetchFailed, match="members"):
        unpack("gzip", gzip.compress(b"") * 2_000, limit_bytes=1_000_000)


def test_packed_bytes_are_bounded_too():
    with pytest.raises(FetchFailed, match="larger"):
        unpack("gzip", b"\x1f\x8b\x08\x10" + bytes(6) + b"a" * 20_000)


@pytest.mark.parametrize(
    ("encoding", "packed"),
    [
        ("gzip", b"plain text"),
        ("gzip", gzip.compress(b"x" * 99)[:-9]),
        ("deflate", b"\xff" * 9),
        ("gzip", gzip.compress(b"") + b"x"),
    ],
)
def test_a_body_that_is_not_packed_as_said_fails(encoding: str, packed: bytes):
    with pytest.raises(FetchFailed, match="packed"):
        unpack(encoding, packed)


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "x" * 999])
def test_a_packing_that_was_not_asked_for_fails(encoding: str):
    with pytest.raises(FetchFailed, match="not asked for"):
        ResponseBody(encoding, 10)


_NEAR = [
    "127.0.0.1",
    "10.0.0.1",
    "169.254.169.254",
    "::1",
    "fe80::1%eth0",
    "::ffff:10.0.0.1",
    "93.184.216.34",
    "2606:2800:220:1::1",
]


@given(
    st.lists(st.ip_addresses().map(str) | st.sampled_from(_NEAR), min_size=1, max_size=5),
    st.sampled_from([PUBLIC_ONLY, PrivateAccess(everywhere=True)]),
)
def test_a_name_is_as_good_as_the_worst_of_its_addresses(addresses: list[str], access: PrivateAccess):
    async def resolve(_host: str) -> list[str]:
        return addresses

    worst = max(reach_of(ip_address(address)) for address in addresses)
    allowed = worst is Reach.PUBLIC or (access.everywhere and worst is Reach.PRIVATE)
    try:
        found = asyncio.run(_CheckedResolver(resolve, access, lambda _address, _port: False).resolve("a.example", 80))
    except FetchRefused:
        assert not allowed
        return
    assert allowed
    assert [result["host"] for result in found] == [str(ip_address(address)) for address in addresses]

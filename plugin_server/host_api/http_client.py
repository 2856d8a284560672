"""Requests of apps to the network: a port, and its implementation by aiohttp.

What keeps an app inside its egress rules: each hop's URL is checked, its host's name resolved once by a resolver of ours
that checks every address, and the connection made to those addresses and to nothing else. An idle connection is only used again
under the same operator's rules as it was opened with: each PrivateAccess has a pool of its own.

What keeps apps from each other and from the server: for each install a rate, a number of requests under way, and a number of large
answers read at a time; for each request a time-out over all hops, and bounds on both bodies. Messages name origins, never
paths, queries or headers, which may hold secrets.

Rejected: aiohttp's own redirects (no check between hops; it drops `Authorization` but not `X-Api-Key`) and its own
unpacking (a bomb is bounded for each chunk only).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final, Protocol

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from multidict import CIMultiDict
from yarl import URL

from plugin_server.host_api.egress import EgressRules, PrivateAccess
from plugin_server.host_api.redirects import REDIRECT_STATUSES, Hop, next_hop
from plugin_server.host_api.request_rules import check_body_size, check_headers, check_method, has_header
from plugin_server.host_api.response_body import ACCEPT_ENCODING, ResponseBody
from plugin_server.host_api.urls import IpAddress, WebUrl, join_url
from plugin_server.model.errors import FetchFailed, FetchRefused, InvalidArgument, LimitReached
from plugin_server.model.token_bucket import TokenBucket

_SMALL_BYTES: Final = 256 * 1024
_KEPT_INSTALLS: Final = 50_000
_DNS_THREADS: Final = 16
_DNS_CACHE_SECONDS: Final = 10
_KEEP_ALIVE_SECONDS: Final = 15.0


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """As an app gave it. `idempotency_key` is sent unless the app set the header itself."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes
    idempotency_key: str | None


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """Header names are in lower case, repeated ones joined by `, `; `url` is that of the last hop; `body` is unpacked."""

    status: int
    headers: Mapping[str, str]
    url: str
    body: bytes


class HttpClient(Protocol):
    """The port. Every status is an answer, not an error."""

    async def send(self, request: HttpRequest, rules: EgressRules) -> HttpResponse:
        """Raises InvalidArgument, LimitReached, FetchFailed (network, time, size) and FetchRefused (egress rules).

        On cancellation the connection is closed; whether the request was carried out is unknown.
        """


Resolve = Callable[[str], Awaitable[list[str]]]
"""The addresses of a host's name. Raises OSError when there are none."""
CheckRedirect = Callable[[WebUrl, str], None]
"""Given URL and method of a hop that a server redirects to. Raises FetchRefused."""
IsOwn = Callable[[IpAddress, int], bool]
"""Whether a connection to this address and port would end at this server itself."""


class AiohttpClient:
    """HttpClient over the network. One a worker; made and closed in the worker's event loop."""

    def __init__(
        self,
        *,
        user_agent: str = "plugin-server",
        total_seconds: float = 10.0,
        connect_seconds: float = 5.0,
        request_bytes: int = 10 * 2**20,
        response_bytes: int = 10 * 2**20,
        redirects: int = 5,
        connections: int = 2_000,
        connections_per_host: int = 200,
        requests_per_second: float = 5_000,
        requests_burst: int = 10_000,
        requests_under_way: int = 250,
        large_responses: int = 4,
        check_redirect: CheckRedirect | None = None,
        is_own: IsOwn | None = None,
        resolve: Resolve | None = None,
        ssl_context: ssl.SSLContext | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`requests_*` and `large_responses` (answers above 256 KiB read at a time) count for each install.

        `total_seconds` covers all hops from the first connection to the last byte, not the wait for others of the install.
        """
        self._user_agent = user_agent
        self._total_seconds = total_seconds
        self._connect_seconds = connect_seconds
        self._request_bytes = request_bytes
        self._response_bytes = response_bytes
        self._redirects = redirects
        self._connections = connections
        self._connections_per_host = connections_per_host
        self._requests_per_second = requests_per_second
        self._requests_burst = requests_burst
        self._requests_under_way = requests_under_way
        self._large_responses = large_responses
        self._check_redirect = check_redirect
        self._is_own = is_own or (lambda _address, _port: False)
        self._threads = ThreadPoolExecutor(_DNS_THREADS, "resolve") if resolve is None else None
        self._resolve = resolve or self._ask_system
        self._ssl: ssl.SSLContext | bool = True if ssl_context is None else ssl_context
        self._clock = clock
        self._sessions: dict[PrivateAccess, aiohttp.ClientSession] = {}
        self._installs: dict[int, _Install] = {}
        self._is_closed = False

    async def close(self) -> None:
        """Close all connections. Requests under way fail, and so do new ones."""
        self._is_closed = True
        sessions = list(self._sessions.values())
        self._sessions.clear()
        for session in sessions:
            await session.close()
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    async def send(self, request: HttpRequest, rules: EgressRules) -> HttpResponse:
        """See HttpClient."""
        if self._is_closed:
            raise FetchFailed("the server is stopping: the request was not sent")
        url = rules.check_url(request.url)
        hop = Hop(check_method(request.method), url, self._headers(request), request.body)
        check_body_size(request.body, self._request_bytes)
        install = self._install(rules.install_id)
        if not install.bucket.take(self._clock()):
            raise LimitReached(
                f"more than {self._requests_per_second:g} requests a second: wait between them, or let the operator raise "
                "PLUGIN_SERVER_FETCH_PER_SECOND"
            )
        async with install.under_way:
            try:
                async with asyncio.timeout(self._total_seconds):
                    return await self._follow(hop, rules, install)
            except TimeoutError:
                message = f"no whole answer from {url.origin} within {self._total_seconds:g} seconds"
                raise FetchFailed(message) from None

    def _headers(self, request: HttpRequest) -> dict[str, str]:
        headers = check_headers(request.headers)
        if not has_header(headers, "user-agent"):
            headers["User-Agent"] = self._user_agent
        if request.idempotency_key is not None and not has_header(headers, "idempotency-key"):
            headers["Idempotency-Key"] = request.idempotency_key
        return headers

    def _install(self, install_id: int) -> _Install:
        install = self._installs.get(install_id)
        if install is None:
            if len(self._installs) >= _KEPT_INSTALLS:
                self._installs.clear()
            install = self._installs[install_id] = _Install(
                TokenBucket(self._requests_burst, self._requests_per_second),
                asyncio.Semaphore(self._requests_under_way),
                asyncio.Semaphore(self._large_responses),
            )
        return install

    async def _follow(self, hop: Hop, rules: EgressRules, install: _Install) -> HttpResponse:
        session = self._session(rules.access)
        for _ in range(self._redirects + 1):
            answer = await self._ask(session, hop, install)
            if isinstance(answer, HttpResponse):
                return answer
            hop = answer
            rules.check(hop.url)
            if self._check_redirect is not None:
                self._check_redirect(hop.url, hop.method)
        raise FetchFailed(f"more than {self._redirects} redirects, the last to {hop.url.origin}")

    async def _ask(self, session: aiohttp.ClientSession, hop: Hop, install: _Install) -> HttpResponse | Hop:
        """One request: its answer, or the request that it redirects to."""
        if hop.url.address is not None:  # for which no resolver is asked
            _refuse_own(self._is_own, hop.url.host, hop.url.port, hop.url.address)
        url = URL(hop.url.text, encoded=True)
        if url.raw_host != hop.url.host or url.port != hop.url.port:  # the one check that two parsers agree
            raise FetchRefused("the URL could be read in two ways: write it without unusual characters")
        headers = CIMultiDict(hop.headers)
        headers["Accept-Encoding"] = ACCEPT_ENCODING
        try:
            async with session.request(
                hop.method, url, headers=headers, data=hop.body or None, allow_redirects=False
            ) as response:
                location = response.headers.get("Location")
                if response.status in REDIRECT_STATUSES and location is not None:
                    return next_hop(hop, response.status, _join(hop.url, _readable(location)))
                body = await self._read(response, install)
                return HttpResponse(response.status, _response_headers(response, body), hop.url.text, body.finish())
        except aiohttp.ClientError as error:
            raise FetchFailed(_explain(error, hop.url)) from None
        except (OSError, ValueError) as error:
            if isinstance(error, TimeoutError):
                raise
            raise FetchFailed(f"the request to {hop.url.origin} failed ({type(error).__name__})") from None

    async def _read(self, response: aiohttp.ClientResponse, install: _Install) -> ResponseBody:
        body = ResponseBody(response.headers.get("Content-Encoding", ""), self._response_bytes)
        if (response.content_length or 0) > self._response_bytes and response.method != "HEAD":
            raise FetchFailed(
                f"the answer of {response.content_length} bytes is larger than the {self._response_bytes} that are read: "
                "ask for less of it"
            )
        async with contextlib.AsyncExitStack() as stack:
            is_large = False
            async for chunk in response.content.iter_any():
                body.feed(chunk)
                if not is_large and len(body) > _SMALL_BYTES:
                    is_large = True
                    await stack.enter_async_context(install.large)
        return body

    def _session(self, access: PrivateAccess) -> aiohttp.ClientSession:
        session = self._sessions.get(access)
        if session is None:
            connector = aiohttp.TCPConnector(
                resolver=_CheckedResolver(self._resolve, access, self._is_own),
                ttl_dns_cache=_DNS_CACHE_SECONDS,
                limit=self._connections,
                limit_per_host=self._connections_per_host,
                keepalive_timeout=_KEEP_ALIVE_SECONDS,
                ssl=self._ssl,
            )
            session = self._sessions[access] = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._connect_seconds),
                auto_decompress=False,
                trust_env=False,
                skip_auto_headers=("Content-Type",),
            )
        return session

    async def _ask_system(self, host: str) -> list[str]:
        """In threads of our own: a resolver that hangs must not take those that the server needs."""
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._threads, _addresses, host)
        return list(dict.fromkeys(found))


@dataclass(slots=True)
class _Install:
    bucket: TokenBucket
    under_way: asyncio.Semaphore
    large: asyncio.Semaphore


class _CheckedResolver(AbstractResolver):
    """Resolves a name once for a new connection. One address that is not allowed refuses them all."""

    def __init__(self, resolve: Resolve, access: PrivateAccess, is_own: IsOwn) -> None:
        self._resolve = resolve
        self._access = access
        self._is_own = is_own

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        del family
        results: list[ResolveResult] = []
        for text in await self._resolve(host):
            address = ip_address(text)
            self._access.check_address(host, port, address)
            _refuse_own(self._is_own, host, port, address)
            version = socket.AF_INET if address.version == 4 else socket.AF_INET6
            results.append(
                ResolveResult(
                    hostname=host, host=str(address), port=port, family=version, proto=0, flags=socket.AI_NUMERICHOST
                )
            )
        if not results:
            raise OSError(f"{host} has no address")
        return results

    async def close(self) -> None:
        pass


def _refuse_own(is_own: IsOwn, host: str, port: int, address: IpAddress) -> None:
    """What this server would send itself it would not know for an app's, so loops would not end."""
    if is_own(address, port):
        raise FetchRefused(
            f"{host}:{port} leads to this server by a name that it does not know as its own: leave the host out of "
            "posthog.api, or let the operator add it to PLUGIN_SERVER_OWN_HOSTS"
        )


def _addresses(host: str) -> list[str]:
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    return [str(address[0]) for _, _, _, _, address in found]


def _join(base: WebUrl, location: str) -> WebUrl:
    try:
        return join_url(base, location)
    except InvalidArgument as error:
        raise FetchFailed(f"{base.origin} redirects to what is no URL to fetch: {error}") from None


def _response_headers(response: aiohttp.ClientResponse, body: ResponseBody) -> dict[str, str]:
    headers: dict[str, str] = {}
    for name, value in response.headers.items():
        lowered = _readable(name).lower()
        if body.is_packed and lowered in ("content-encoding", "content-length"):
            continue  # they describe what is not there any more
        text = _readable(value)
        headers[lowered] = f"{headers[lowered]}, {text}" if lowered in headers else text
    return headers


def _readable(text: str) -> str:
    """What came as other bytes than UTF-8 becomes U+FFFD, so that it can travel on as JSON."""
    return text if text.isascii() else text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _explain(error: aiohttp.ClientError, url: WebUrl) -> str:
    match error:
        case aiohttp.ClientConnectorDNSError():
            return f"the name {url.host} has no address: check how it is spelt"
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientSSLError():
            return f"no secure connection to {url.origin}: its certificate or TLS is not accepted"
        case aiohttp.ServerTimeoutError():
            return f"{url.origin} took no connection in time"
        case aiohttp.ClientConnectorError():
            return f"no connection to {url.origin}: {error.os_error.strerror or 'it cannot be reached'}"
        case aiohttp.ServerDisconnectedError() | aiohttp.ClientOSError():
            return f"{url.origin} closed the connection before it answered"
        case aiohttp.ClientPayloadError():
            return f"the answer of {url.origin} ends in the middle"
        case _:
            return f"{url.origin} answered with what is not HTTP ({type(error).__name__})"

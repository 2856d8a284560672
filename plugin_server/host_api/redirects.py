"""What is asked next when a server redirects: pure, after the Fetch standard."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from plugin_server.host_api.urls import WebUrl

REDIRECT_STATUSES: Final = frozenset({301, 302, 303, 307, 308})
_KEPT_ACROSS_ORIGINS: Final = frozenset(
    {"accept", "accept-language", "content-language", "content-type", "idempotency-key", "user-agent"}
)
"""Any other header may be a credential: `X-Api-Key` is as secret as `Authorization`."""


@dataclass(frozen=True, slots=True)
class Hop:
    """One request on the way."""

    method: str
    url: WebUrl
    headers: Mapping[str, str]
    body: bytes


def next_hop(hop: Hop, status: int, url: WebUrl) -> Hop:
    """The request that follows a redirect to `url`. Headers dropped on the way do not come back."""
    method, headers, body = hop.method, hop.headers, hop.body
    if (status in (301, 302) and method == "POST") or (status == 303 and method not in ("GET", "HEAD")):
        method, body = "GET", b""
        headers = {name: value for name, value in headers.items() if not name.lower().startswith("content-")}
    if url.origin != hop.url.origin:
        headers = {name: value for name, value in headers.items() if name.lower() in _KEPT_ACROSS_ORIGINS}
    return Hop(method, url, headers, body)

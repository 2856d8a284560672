"""The request that `composeWebhook` returned, made by the host as if the hook had fetched it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from plugin_server.host_api.calls import CallContext
from plugin_server.host_api.egress import PUBLIC_ONLY, PrivateAccess, rules_of
from plugin_server.host_api.fetch import REQUEST_BYTES, key_of
from plugin_server.host_api.http_client import HttpClient, HttpRequest
from plugin_server.host_api.request_rules import check_body_size, check_headers, check_method
from plugin_server.host_api.side_doors import SideDoors
from plugin_server.host_api.urls import parse_url

Send = Callable[[CallContext, str, str, Mapping[str, str], bytes], Awaitable[int]]
"""Method, URL, headers and body; the status of the answer."""


def make_webhook_sender(client: HttpClient, doors: SideDoors, *, access: PrivateAccess = PUBLIC_ONLY) -> Send:
    """It raises as `fetch` does: InvalidArgument, LimitReached, FetchFailed, FetchRefused."""

    async def send(context: CallContext, method: str, url: str, headers: Mapping[str, str], body: bytes) -> int:
        check_body_size(body, REQUEST_BYTES)
        request = HttpRequest(check_method(method), url, check_headers(headers), body, key_of(context))
        answer = await doors.answer(context, parse_url(url), request)
        if answer is not None:
            status: int = answer["status"]
            return status
        return (await client.send(request, rules_of(context.install, access))).status

    return send

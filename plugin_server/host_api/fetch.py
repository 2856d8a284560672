"""The host's side of `fetch`: what the sandbox sent is checked again, and goes out, or through a side door."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from plugin_server.host_api.answers import encode_answer
from plugin_server.host_api.calls import CallContext, Handler
from plugin_server.host_api.egress import PUBLIC_ONLY, PrivateAccess, rules_of
from plugin_server.host_api.http_client import HttpClient, HttpRequest
from plugin_server.host_api.request_rules import (
    check_body_size,
    check_headers,
    check_method,
    has_header,
    is_text_body,
    read_body,
)
from plugin_server.host_api.side_doors import SideDoors
from plugin_server.host_api.urls import parse_url
from plugin_server.model.errors import AppError, InvalidArgument, LimitReached
from plugin_server.model.ids import idempotency_key

REQUEST_BYTES: Final = 10 * 2**20
RUN_ANSWERS_BYTES: Final = 64 * 2**20
"""Of one install in one run. Answers are journaled for a replay, so a hook that asks on and on would fill the host's memory."""


def make_fetch(
    client: HttpClient,
    doors: SideDoors,
    *,
    access: PrivateAccess = PUBLIC_ONLY,
    request_bytes: int = REQUEST_BYTES,
) -> Handler:
    """The handler of the call `fetch`: `[method, url, headers, body]`.

    It raises InvalidArgument, LimitReached, FetchFailed and FetchRefused, each with what to do about it.
    """

    async def fetch(context: CallContext, arguments: list[Any]) -> Any:
        with named("fetch"):
            match arguments:
                case [str() as raw_method, str() as url, dict() as raw_headers, raw_body]:
                    pass
                case _:
                    raise InvalidArgument("it takes a URL, a method, headers and a body")
            headers, body = check_headers(raw_headers), read_body(raw_body)
            check_body_size(body, request_bytes)
            if is_text_body(raw_body) and not has_header(headers, "content-type"):
                headers["Content-Type"] = "text/plain;charset=UTF-8"
            request = HttpRequest(check_method(raw_method), url, headers, body, key_of(context))
            answer = await doors.answer(context, parse_url(url), request)
            if answer is not None:
                return answer
            return await send_out(client, context, request, access)

    return fetch


async def send_out(
    client: HttpClient, context: CallContext, request: HttpRequest, access: PrivateAccess
) -> dict[str, Any]:
    """The answer from the network. Raises as HttpClient.send, and LimitReached for more than a run may keep of them."""
    response = await client.send(request, rules_of(context.install, access))
    effects = context.effects.of(context.install.id)
    effects.answer_bytes += len(response.body)
    if effects.answer_bytes > RUN_ANSWERS_BYTES:
        raise LimitReached(
            f"the answers to this hook's requests are more than {RUN_ANSWERS_BYTES} bytes together: spread them over jobs"
        )
    return encode_answer(response)


def key_of(context: CallContext) -> str:
    """The Idempotency-Key of this call, the same whenever the hook runs again for the same origin."""
    origin = context.effects.origin
    return idempotency_key(
        context.project.id, origin.parent_uuid, origin.source, context.install.id, origin.hook, context.number
    )


@contextmanager
def named(call: str) -> Iterator[None]:
    """Puts the call's name before the message of what it raises."""
    try:
        yield
    except AppError as error:
        raise type(error)(f"{call}: {error}") from None

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
from plugin_server.model.errors import AppError, InvalidArgument
from plugin_server.model.ids import idempotency_key

REQUEST_BYTES: Final = 10 * 2**20


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
            return encode_answer(await client.send(request, rules_of(context.install, access)))

    return fetch


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

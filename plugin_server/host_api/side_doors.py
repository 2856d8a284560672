"""Requests of apps that do not go out: those to this server, and events posted to a capture path of the project's own (docs/decisions/007).

A request to an own host is answered in process, as the project. Events that it posts to a capture path, there or on the linked
PostHog, join the captures of the hook that sent them: same share, same limits, same transaction. So a loop over HTTP is
counted like any other, and the event that was processed twice posts its events once.

Rejected: a header that marks such requests. It is lost on the way, can be sent by anybody, and shares no transaction.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Collection
from dataclasses import replace
from typing import Any, Final
from urllib.parse import parse_qsl, unquote

from plugin_server.host_api.answers import json_answer
from plugin_server.host_api.calls import CallContext
from plugin_server.host_api.http_client import HttpRequest
from plugin_server.host_api.own_hosts import OwnHosts, Side, is_capture_path
from plugin_server.host_api.urls import WebUrl
from plugin_server.model.api import ApiRequest, ApiResponse
from plugin_server.model.errors import FetchRefused, LimitReached
from plugin_server.model.posted import PostedCapture
from plugin_server.model.project import Project
from sandbox.wire import JOB_PREFIX

OwnApi = Callable[[ApiRequest, int], Awaitable[ApiResponse]]
"""This server's API, given a request and the id of the project that asks."""
ParseCapture = Callable[[ApiRequest, Project], list[PostedCapture] | ApiResponse]
"""The events of a request to a capture path, as many as are to be captured; or the refusal that an HTTP client would get.

The token is the body's, else the query's. One that is not the project's is a refusal: a project captures for itself.
Content-Encoding is undone. Called in a thread when the body is large.
"""

_CAPTURED: Final = b'{"status": 1}'
_LARGE_BODY_BYTES: Final = 256 * 1024
_READ_PACKINGS: Final = frozenset({"", "identity", "base64", "gzip", "x-gzip", "gzip-js"})
_FORM_COMPRESSION: Final = re.compile(rb"(?:^|&)compression=([^&]{0,40})")
_RUN_HOOKS: Final = (JOB_PREFIX, "runEvery")


class SideDoors:
    """One a worker. `capture_paths` without final slashes."""

    def __init__(
        self, hosts: OwnHosts, own_api: OwnApi, parse_capture: ParseCapture, capture_paths: Collection[str]
    ) -> None:
        self._hosts = hosts
        self._own_api = own_api
        self._parse_capture = parse_capture
        self._capture_paths = frozenset(capture_paths)

    async def answer(self, context: CallContext, url: WebUrl, request: HttpRequest) -> dict[str, Any] | None:
        """The answer to a request that stays in this process. None: it goes out.

        `url` is `request.url` as it was read. Raises LimitReached for more events than the hook may capture,
        FetchRefused for events that only the linked PostHog could unpack.
        """
        side = self._hosts.side_of(url.origin)
        if side is Side.FOREIGN:
            return None
        asked = ApiRequest(
            request.method,
            unquote(url.path),
            dict(parse_qsl(url.query.removeprefix("?"), keep_blank_values=True)),
            {name.lower(): value for name, value in request.headers.items()}
            | {"host": url.origin.partition("//")[2], "x-forwarded-proto": url.scheme}  # for the URLs of next pages
            | ({} if request.idempotency_key is None else {"idempotency-key": request.idempotency_key}),
            request.body,
        )
        # PostHog takes events by GET as well, in the parameter `data`; our own endpoints do not.
        may_post = request.method == "POST" or (side is Side.LINKED and "data" in asked.query)
        if may_post and is_capture_path(url.path, self._capture_paths):
            return await self._capture(context, url, asked, is_own=side is Side.OWN)
        if side is Side.LINKED:
            return None
        response = await self._own_api(asked, context.project.id)
        return json_answer(response.status, url.text, response.body, response.headers)

    async def _capture(
        self, context: CallContext, url: WebUrl, asked: ApiRequest, *, is_own: bool
    ) -> dict[str, Any] | None:
        parsed = await self._parse(asked, context.project)
        if isinstance(parsed, ApiResponse):
            if is_own:
                return json_answer(parsed.status, url.text, parsed.body, parsed.headers)
            packing = _unread_packing(asked)
            if packing is not None:
                raise FetchRefused(f"events packed as {packing[:20]!r} cannot be counted: send JSON or gzip")
            if asked.body and "data" in asked.query:
                # Which of the two counts depends on the method and the release of the linked PostHog.
                query = {name: value for name, value in asked.query.items() if name != "data"}
                parsed = await self._parse(replace(asked, query=query), context.project)
        if isinstance(parsed, ApiResponse):
            # The linked PostHog judges for itself what is no capture of ours: another project's, or none at all.
            return None
        posted = context.effects.of(context.install.id).posted
        limit, name = _captures_allowed(context)
        if sum(map(len, posted.values())) + len(parsed) > limit:
            raise LimitReached(f"more than {limit} captures for one event, those posted over HTTP included ({name})")
        posted[context.number] = parsed
        return {**json_answer(200, url.text, _CAPTURED), "captured": len(parsed)}

    async def _parse(self, asked: ApiRequest, project: Project) -> list[PostedCapture] | ApiResponse:
        if len(asked.body) > _LARGE_BODY_BYTES:
            return await asyncio.to_thread(self._parse_capture, asked, project)
        return self._parse_capture(asked, project)


def _unread_packing(asked: ApiRequest) -> str | None:
    """How the sender says that the events are packed, if nobody here reads that; a PostHog may."""
    form = _FORM_COMPRESSION.search(asked.body)
    said = (
        asked.query.get("compression", ""),
        form[1].decode(errors="replace") if form is not None else "",
        asked.headers.get("content-encoding", ""),
    )
    return next((text for text in said if text.strip().lower() not in _READ_PACKINGS), None)


def _captures_allowed(context: CallContext) -> tuple[int, str]:
    """The most that any run of this hook may capture. What this very run may is counted in the sandbox and judged at its end."""
    limits = context.project.limits
    if context.effects.origin.hook.startswith(_RUN_HOOKS):
        return max(limits.captures_per_run, limits.captures_per_event), "captures_per_run"
    return limits.captures_per_event, "captures_per_event"

"""The host's side of `posthog.api`: a request built as PostHog's plugin server builds it, then answered here or sent.

Without keys the host acts for the project on its own and the linked host, and adds nothing of ours anywhere else. With
both keys, they are what is sent.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote, urlencode

import orjson

from plugin_server.host_api.answers import json_answer
from plugin_server.host_api.calls import CallContext, Handler
from plugin_server.host_api.egress import PUBLIC_ONLY, PrivateAccess
from plugin_server.host_api.fetch import REQUEST_BYTES, key_of, named, send_out
from plugin_server.host_api.http_client import HttpClient, HttpRequest
from plugin_server.host_api.own_hosts import OwnHosts, Side
from plugin_server.host_api.request_rules import check_body_size, check_headers, has_header
from plugin_server.host_api.side_doors import SideDoors
from plugin_server.host_api.urls import parse_url
from plugin_server.model.errors import AppError, InvalidArgument
from plugin_server.model.project import Project

ONE_KEY: Final = "You must specify a personalApiKey if you specify a projectApiKey and vice-versa!"
"""Upstream's words"""
_METHODS: Final = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE"})
_IN_QUERY: Final = frozenset({"GET", "DELETE"})
_OPTIONS: Final = ("data", "host", "projectApiKey", "personalApiKey", "headers")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_UNESCAPES: Final = 5
_WRONG_KEY: Final = (
    b'{"type": "authentication_error", "code": "authentication_failed", '
    b'"detail": "projectApiKey is not the key of this app\'s project: leave both keys out to act for it."}'
)

PersonalApiKey = Callable[[Project], str | None]
"""The personal API key that the operator configured for a project on the linked PostHog."""


@dataclass(frozen=True, slots=True)
class _Options:
    data: Any
    host: str | None
    keys: tuple[str, str] | None
    """projectApiKey, personalApiKey"""
    headers: dict[str, str]


def make_api(
    client: HttpClient,
    doors: SideDoors,
    hosts: OwnHosts,
    personal_api_key: PersonalApiKey,
    *,
    access: PrivateAccess = PUBLIC_ONLY,
    request_bytes: int = REQUEST_BYTES,
) -> Handler:
    """The handler of the call `api`: `[method, path, options]`.

    It raises InvalidArgument, LimitReached, FetchFailed and FetchRefused, and AppError when the linked PostHog has no key.
    """

    async def api(context: CallContext, arguments: list[Any]) -> Any:
        match arguments:
            case [str() as raw_method, str() as raw_path, dict() as raw_options] if raw_method.upper() in _METHODS:
                method = raw_method.upper()
            case _:
                raise InvalidArgument("posthog.api: it takes get, post, put, patch or delete, a path and options")
        with named(f"posthog.api.{method.lower()}"):
            options = _read_options(raw_options)
            path = check_path(raw_path.replace("@current", str(context.project.id)))
            origin = hosts.api_origin(options.host)
            side = hosts.side_of(origin)
            token, bearer = options.keys or (None, None)
            if token is None and side is not Side.FOREIGN:
                token = context.project.token
            url = parse_url(origin + _with_query(path, _parameters(method, options.data, token)))
            body = b"" if method in _IN_QUERY else _encode({} if options.data is None else options.data)
            check_body_size(body, request_bytes)
            headers = dict(options.headers)
            if method not in _IN_QUERY and not has_header(headers, "content-type"):
                headers["Content-Type"] = "application/json"
            if side is Side.OWN and token != context.project.token:
                return json_answer(401, url.text, _WRONG_KEY)
            request = HttpRequest(method, url.text, headers, body, key_of(context))
            answer = await doors.answer(context, url, request)
            if answer is not None:
                return answer
            if bearer is None and side is Side.LINKED and not has_header(headers, "authorization"):
                bearer = personal_api_key(context.project)
                if bearer is None:
                    raise AppError(_no_key(context.project, origin))
            if bearer is not None:
                headers = {name: value for name, value in headers.items() if name.lower() != "authorization"}
                headers["Authorization"] = f"Bearer {bearer}"
            request = HttpRequest(method, url.text, headers, body, request.idempotency_key)
            return await send_out(client, context, request, access)

    return api


def check_path(untrusted: str) -> str:
    """A path that stays on its host and under its root, `@current` replaced. Raises InvalidArgument for any other."""
    if _CONTROL.search(untrusted):
        raise InvalidArgument("the path has a line end or another control character: percent-encode it")
    path, _, _ = untrusted.partition("?")
    if "#" in untrusted:
        raise InvalidArgument("the path has a #, which ends it: write %23 if it is meant")
    for _ in range(_UNESCAPES):
        if not path.startswith("/") or path.startswith("//"):
            raise InvalidArgument("the path must begin with exactly one /, as in /api/projects/@current/annotations")
        if ".." in path or "\\" in path or _CONTROL.search(path):
            raise InvalidArgument("the path must not have .. or a backslash, nor control characters, escaped or not")
        plain = unquote(path)
        if plain == path:
            return untrusted
        path = plain
    raise InvalidArgument("the path is percent-encoded too many times over: encode it once")


def _read_options(untrusted: dict[str, Any]) -> _Options:
    for name in untrusted:
        if name not in _OPTIONS:
            raise InvalidArgument(f"there is no option {str(name)[:40]!r}: known are {', '.join(_OPTIONS)}")
    texts = {name: untrusted.get(name) for name in ("host", "projectApiKey", "personalApiKey")}
    for name, value in texts.items():
        if value is not None and not isinstance(value, str):
            raise InvalidArgument(f"{name} must be a text, not {type(value).__name__}")
    project_key, personal_key = texts["projectApiKey"] or None, texts["personalApiKey"] or None
    if (project_key is None) != (personal_key is None):
        raise InvalidArgument(ONE_KEY)
    keys = None
    if project_key is not None and personal_key is not None:
        if not (personal_key.isascii() and personal_key.isprintable()):
            raise InvalidArgument("personalApiKey has characters that no key has")
        keys = project_key, personal_key
    return _Options(untrusted.get("data"), texts["host"] or None, keys, check_headers(untrusted.get("headers") or {}))


def _parameters(method: str, data: Any, token: str | None) -> list[tuple[str, str]]:
    """`data` of GET and DELETE, then the token, as PostHog orders them. None leaves a parameter out."""
    parameters: list[tuple[str, str]] = []
    if method in _IN_QUERY and data is not None:
        if not isinstance(data, dict):
            raise InvalidArgument(f"data must be a dict for {method}, whose data are URL parameters")
        parameters += [(str(name), _parameter(value)) for name, value in data.items() if value is not None]
    return parameters if token is None else [*parameters, ("token", token)]


def _parameter(value: Any) -> str:
    return value if isinstance(value, str) else _encode(value).decode()


def _with_query(path: str, parameters: list[tuple[str, str]]) -> str:
    if not parameters:
        return path
    try:
        query = urlencode(parameters)
    except UnicodeEncodeError:
        raise InvalidArgument("data has half of a surrogate pair, which is no character") from None
    if "?" not in path:
        return f"{path}?{query}"
    return f"{path}{query}" if path.endswith(("?", "&")) else f"{path}&{query}"


def _encode(data: Any) -> bytes:
    try:
        return orjson.dumps(data)
    except (orjson.JSONEncodeError, RecursionError):
        raise InvalidArgument("data is not JSON that can be sent") from None


def _no_key(project: Project, origin: str) -> str:
    return (
        f"this server has no personal API key of project {project.id} for {origin}: let the operator set "
        "`personal_api_key` of the project in the projects file, or give projectApiKey and personalApiKey"
    )

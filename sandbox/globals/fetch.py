"""`fetch`: an HTTP request, which the host makes."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from typing import Any, Final

from sandbox import codec
from sandbox.globals.arguments import check_text, read_options
from sandbox.globals.response import response_reader
from sandbox.invocation import Context, HostCall

OPTIONS: Final = ("method", "headers", "body", "json")
METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_BODILESS: Final = ("GET", "HEAD")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


def make_fetch(install: int, context: Context) -> Callable[..., HostCall]:
    """`fetch(url, options=None, **options)` of one install."""

    def fetch(url: str, options: dict[str, Any] | None = None, **named: Any) -> HostCall:
        effects = context.current("fetch")
        given = read_options("fetch", options, named, OPTIONS)
        method = check_text("fetch", "method", given.get("method", "GET")).upper()
        if method not in METHODS:
            raise ValueError(f"fetch: method must be one of {', '.join(METHODS)}")
        headers = read_headers("fetch", given.get("headers"))
        body = _read_body(given, headers)
        if body is not None and method in _BODILESS:
            raise ValueError(f"fetch: a {method} request has no body: put the values into the URL, or use POST")
        arguments = [method, _check_url(url), headers, body]
        return context.start(install, "fetch", arguments, response_reader(effects, install))

    return fetch


def read_headers(what: str, value: Any) -> dict[str, str]:
    """Headers as text; numbers are written out. Raises TypeError or ValueError."""
    if value is None:
        return {}
    if type(value) is not dict:
        raise TypeError(f"{what}: headers must be a dict, not {type(value).__name__}")
    headers: dict[str, str] = {}
    for name, content in value.items():
        check_text(what, "the name of a header", name)
        if type(content) is int or type(content) is float:
            text = str(content)
        else:
            text = check_text(what, f"the header {name[:60]!r}", content)
        if _CONTROL.search(name) or _CONTROL.search(text.replace("\t", "")):
            raise ValueError(f"{what}: the header {name[:60]!r} has a line end or control character: remove it")
        headers[name] = text
    return headers


def _check_url(value: Any) -> str:
    url = check_text("fetch", "url", value)
    if _CONTROL.search(url):
        raise ValueError("fetch: url has a line end or control character: encode it with urllib.parse.quote")
    return url


def _read_body(given: dict[str, Any], headers: dict[str, str]) -> dict[str, str] | None:
    if "json" in given:
        if "body" in given:
            raise ValueError("fetch: give body or json, not both")
        return _json_body(given["json"], headers)
    body = given.get("body")
    if body is None:
        return None
    if type(body) is str:
        return {"text": body}
    if type(body) is bytes:
        return {"base64": base64.b64encode(body).decode()}
    return _json_body(body, headers)


def _json_body(value: Any, headers: dict[str, str]) -> dict[str, str]:
    try:
        text = codec.dumps(value).decode()
    except codec.NotJson as error:
        raise codec.NotJson(f"fetch: the body must be text, bytes or JSON: {error}") from None
    if not any(name.lower() == "content-type" for name in headers):
        headers["Content-Type"] = "application/json"
    return {"text": text}

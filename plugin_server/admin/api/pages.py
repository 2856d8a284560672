"""Lists in pages: `limit` and `offset` in, `count`, `next`, `previous` and `results` out."""

from __future__ import annotations

import re
from typing import Any, NamedTuple
from urllib.parse import urlencode

from plugin_server.admin.api.errors import invalid
from plugin_server.model.api import ApiRequest

DEFAULT_LIMIT = 100
MAX_LIMIT = 1000
_NUMBER = re.compile(r"[0-9]{1,15}")
_HOST = re.compile(r"[A-Za-z0-9._-]+(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?")
_DEFAULT_HOST = "app.posthog.com"
_CREDENTIALS = ("token", "api_key", "personal_api_key")


class Page(NamedTuple):
    """Which part of a list is asked for."""

    limit: int
    offset: int


def page_of(request: ApiRequest) -> Page:
    """From the query; a limit beyond MAX_LIMIT is cut to it. Raises ApiRefusal 400."""
    limit = _number(request, "limit", DEFAULT_LIMIT, at_least=1)
    return Page(min(limit, MAX_LIMIT), _number(request, "offset", 0, at_least=0))


def listing(request: ApiRequest, page: Page, count: int, results: list[Any]) -> dict[str, Any]:
    """The body of a list that has `count` entries in all."""
    following, preceding = page.offset + page.limit, page.offset - page.limit
    return {
        "count": count,
        "next": link(request, limit=page.limit, offset=following) if following < count else None,
        "previous": link(request, limit=page.limit, offset=max(preceding, 0)) if page.offset > 0 else None,
        "results": results,
    }


def link(request: ApiRequest, **changes: Any) -> str:
    """The URL of the request with other parameters, by the host that it named, and without any credentials."""
    query = {name: value for name, value in request.query.items() if name not in _CREDENTIALS}
    host = request.headers.get("host", "")
    if not _HOST.fullmatch(host):
        host = _DEFAULT_HOST
    scheme = request.headers.get("x-forwarded-proto", "https")
    origin = f"{'http' if scheme == 'http' else 'https'}://{host}"
    return f"{origin}{request.path}?{urlencode({**query, **changes})}"


def _number(request: ApiRequest, name: str, default: int, *, at_least: int) -> int:
    text = request.query.get(name, "")
    if not text:
        return default
    if not _NUMBER.fullmatch(text) or int(text) < at_least:
        raise invalid(name, "invalid", f"`{name}` must be a whole number from {at_least} on. Write, say, {name}=100.")
    return int(text)

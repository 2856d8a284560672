"""Bodies of requests."""

from __future__ import annotations

from typing import Any

from plugin_server.admin.api.errors import not_json
from sandbox import codec


def json_object(body: bytes) -> dict[str, Any]:
    """The JSON object of a body, which may be empty. A lone surrogate in it becomes U+FFFD. Raises ApiRefusal 400."""
    if not body.strip():
        return {}
    try:
        document = codec.loads(body)
    except (codec.InvalidJson, codec.TooDeep):
        raise not_json() from None
    if type(document) is not dict:
        raise not_json()
    return document

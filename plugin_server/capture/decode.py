"""Bytes to JSON values, with every malformed, oversized or hostile document refused as 400.

orjson first. It refuses lone surrogates, which JavaScript clients do send (a text cut in the middle of an emoji), so a
second, slower decoder turns those into U+FFFD. Integers beyond 64 bits become floats; numbers beyond a float, NaN and
Infinity are refused.
"""

from __future__ import annotations

import json
import re
from typing import Any

import orjson

from plugin_server.capture.refusal import invalid

DEPTH_LIMIT = 100
"""Objects and lists inside each other in one event; the pipeline takes no deeper ones."""

_ESCAPED_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_SURROGATE = re.compile("[\ud800-\udfff]")


def decode_json(raw: bytes) -> Any:
    """The document in `raw`. Raises Refusal 400."""
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        if _ESCAPED_SURROGATE.search(raw) is None:
            raise invalid("The body is not valid JSON.") from None
    try:
        text = json.dumps(json.loads(raw.decode()), ensure_ascii=False)
        return orjson.loads(_SURROGATE.sub("\ufffd", text))
    except (ValueError, RecursionError):
        raise invalid("The body is not valid JSON.") from None


def encode_event(event: dict[str, Any]) -> bytes:
    """An event as JSON. Raises Refusal 400 when it is deeper than DEPTH_LIMIT."""
    try:
        encoded = orjson.dumps(event)
    except TypeError:  # orjson's own limit of 254, the only thing that it can refuse in what it has decoded itself
        raise _too_deep() from None
    if encoded.count(b"{") + encoded.count(b"[") > DEPTH_LIMIT and is_deeper_than(event, DEPTH_LIMIT):
        raise _too_deep()
    return encoded


def is_deeper_than(value: object, limit: int) -> bool:
    """Whether more than `limit` objects and lists are inside each other. Does not recurse."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(limit):
        level = [
            child
            for container in level
            for child in (container.values() if isinstance(container, dict) else container)
            if isinstance(child, dict | list)
        ]
        if not level:
            return False
    return bool(level)


def _too_deep() -> Exception:
    return invalid(f"An event has more than {DEPTH_LIMIT} objects and lists inside each other.")

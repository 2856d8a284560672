"""The clicked elements of an event, from the text that `clickhouse_events_json` keeps them as.

    tag.class.class:attr_id="x"nth-child="1"text="Buy";div:…

One pass, front to back: the text is anybody's, and the regular expressions of PostHog's parser can be made to crawl.
"""

from __future__ import annotations

import re
from typing import Any, Final

_ATTRIBUTES: Final = re.compile(r":(?=[a-zA-Z\-_0-9]*=)")
"""Where a tag with its classes ends: a class may have a colon too"""
_TEXT_FIELDS: Final = {"text": "text", "href": "href", "attr_id": "attr_id"}
_NUMBER_FIELDS: Final = {"nth-child": "nth_child", "nth-of-type": "nth_of_type"}
_ELEMENTS: Final = 1_000
"""More than any page nests"""
_CHARACTERS: Final = 128 * 1024
"""Of a chain: what is beyond is left out, so that a sender cannot keep the host busy with it"""


def parse_elements(chain: str) -> list[dict[str, Any]]:
    """The elements, the innermost first, as hooks get them. What is not as it should be is left out."""
    if not chain:
        return []
    return [_element(text, order) for order, text in enumerate(_split(chain[:_CHARACTERS])[:_ELEMENTS])]


def _split(chain: str) -> list[str]:
    """At semicolons, but for those in quotes."""
    parts: list[str] = []
    start = place = 0
    quoted = False
    for found in re.finditer(r'\\.|[";]', chain):
        mark = found.group()
        if mark == '"':
            quoted = not quoted
        elif mark == ";" and not quoted:
            place = found.start()
            parts.append(chain[start:place])
            start = place + 1
    parts.append(chain[start:])
    return [part for part in map(str.strip, parts) if part]


def _element(text: str, order: int) -> dict[str, Any]:
    found = _ATTRIBUTES.search(text)
    head, rest = (text, "") if found is None else (text[: found.start()], text[found.end() :])
    tag, *classes = head.split(".")
    attributes: dict[str, str] = {}
    element: dict[str, Any] = {"order": order, "attributes": attributes}
    if tag:
        element["tag_name"] = tag
    if classes := [name for name in classes if name]:
        element["attr_class"] = classes
    for key, value in _attributes(rest):
        if key in _TEXT_FIELDS:
            element[_TEXT_FIELDS[key]] = value
        elif key in _NUMBER_FIELDS:
            element[_NUMBER_FIELDS[key]] = int(value) if value.isdecimal() and len(value) < 10 else 0
        elif key:
            attributes[key] = value
    if "text" in element:
        element["$el_text"] = element["text"]
    return element


def _attributes(text: str) -> list[tuple[str, str]]:
    """`key="value"` one behind the other; a quote in a value has a backslash before it."""
    pairs: list[tuple[str, str]] = []
    place = 0
    while (equals := text.find('="', place)) >= 0:
        end = _closing_quote(text, equals + 2)
        pairs.append((text[place:equals], text[equals + 2 : end].replace('\\"', '"')))
        place = end + 1
    return pairs


def _closing_quote(text: str, place: int) -> int:
    """Its place, or the end of a text that lacks it."""
    while (end := text.find('"', place)) >= 0:
        if text[end - 1] != "\\":
            return end
        place = end + 1
    return len(text)

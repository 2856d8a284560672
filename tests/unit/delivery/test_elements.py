"""Elements from the chain that the output topic keeps."""

from __future__ import annotations

import time
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from plugin_server.delivery.elements import parse_elements
from sandbox.event import finish


def chain_of(*elements: dict[str, Any]) -> str:
    """As ingestion writes it."""
    event = {"event": "x", "distinct_id": "d", "properties": {"$elements": list(elements)}}
    return finish(event, b"{}", "2026-01-01T00:00:00Z", b"").elements_chain


def test_what_ingestion_writes_is_read_back() -> None:
    chain = chain_of(
        {
            "tag_name": "a",
            "$el_text": 'Buy "now"; here',
            "attr__class": "btn hover:red",
            "attr__href": "/x?a=1;b",
            "nth_child": 2,
        },
        {"tag_name": "div", "attr__id": "main", "attr__data-x": 'q"uoted', "nth_of_type": 3},
    )
    link, div = parse_elements(chain)
    assert link["tag_name"] == "a"
    assert link["attr_class"] == ["btn", "hover:red"]
    assert link["text"] == link["$el_text"] == 'Buy "now"; here'
    assert link["href"] == "/x?a=1;b"
    assert (link["nth_child"], link["nth_of_type"], link["order"]) == (2, 0, 0)
    assert link["attributes"] == {"attr__href": "/x?a=1;b", "attr__class": "btn hover:red"}
    assert (div["attr_id"], div["nth_of_type"], div["order"]) == ("main", 3, 1)
    assert div["attributes"]["attr__data-x"] == 'q"uoted'


def test_no_chain_has_no_elements() -> None:
    assert parse_elements("") == []
    assert parse_elements(" ; ;") == []


@given(st.text(alphabet='a.:;="\\ -1é', max_size=200))
def test_any_text_is_read(chain: str) -> None:
    for order, element in enumerate(parse_elements(chain)):
        assert element["order"] == order
        assert all(type(value) is str for value in element["attributes"].values())


def test_hostile_text_takes_no_longer_for_it() -> None:
    started = time.process_time()
    for unit in ('"', "\\", ":a", '="', ";", 'a="\\"', ".", ':a="'):
        parse_elements(unit * (1_000_000 // len(unit)))
    assert time.process_time() - started < 30  # a bound on failures: quadratic text takes hours

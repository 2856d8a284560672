from __future__ import annotations

import uuid

from hypothesis import given
from hypothesis import strategies as st

from plugin_server.model import ids
from plugin_server.model.ids import capture_uuid

PARENT = "018f0000-0000-7000-8000-000000000001"


def test_the_same_capture_has_the_same_id_whenever_it_is_made():
    first = capture_uuid(2, PARENT, "events-0-17", 39, "processEvent", 0)
    assert first == capture_uuid(2, PARENT, "events-0-17", 39, "processEvent", 0)
    assert uuid.UUID(first).version == 5


def test_any_other_capture_has_another_id():
    made = {
        capture_uuid(2, PARENT, "events-0-17", 39, "processEvent", 0),
        capture_uuid(3, PARENT, "events-0-17", 39, "processEvent", 0),
        capture_uuid(2, PARENT.replace("1", "2"), "events-0-17", 39, "processEvent", 0),
        capture_uuid(2, PARENT, "events-0-18", 39, "processEvent", 0),
        capture_uuid(2, PARENT, "events-0-17", 40, "processEvent", 0),
        capture_uuid(2, PARENT, "events-0-17", 39, "onEvent", 0),
        capture_uuid(2, PARENT, "events-0-17", 39, "processEvent", 1),
    }
    assert len(made) == 7


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_ids_are_those_of_uuid5(source: str):
    name = f"2|{PARENT}|{source}|39|onEvent|0"
    assert capture_uuid(2, PARENT, source, 39, "onEvent", 0) == str(uuid.uuid5(ids._NAMESPACE, name))

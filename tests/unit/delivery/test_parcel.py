"""Deliveries: what ids they have, and how the database keeps them."""

from __future__ import annotations

from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from plugin_server.delivery.event import DeliveryEvent, iso_time
from plugin_server.delivery.parcel import Member, Parcel, kept_records, read_body
from plugin_server.registry.registry import Registry
from tests.unit.delivery.doubles import Record, decode_for, install, project_of, record

INSTALL = install(1)
PROJECT = project_of(INSTALL)
REGISTRY = Registry([PROJECT])
DECODE = decode_for(PROJECT)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3),
    max_leaves=8,
)


def event(one: Record) -> DeliveryEvent:
    decoded = DECODE(one)
    assert isinstance(decoded, DeliveryEvent)
    return decoded


def parcel(*events: DeliveryEvent, hook: str = "exportEvents") -> Parcel:
    return Parcel(PROJECT, INSTALL, hook, tuple(Member(each, n) for n, each in enumerate(events)), 0)


def test_hooks_get_the_event_as_posthog_has_it() -> None:
    chain = 'a.link:attr__href="/x"href="/x"nth-child="1"nth-of-type="2"text="Go"'
    properties: dict[str, Any] = {"$ip": "1.2.3.4", "$set": {"a": 1}, "$set_once": "no object"}
    one = record(1, chain=chain, **properties)
    got = orjson.loads(event(one).json)
    [element] = got.pop("elements")
    assert (element["tag_name"], element["href"], element["$el_text"]) == ("a", "/x", "Go")
    assert got == {
        "uuid": "018f0000-0000-7000-8000-000000000001",
        "event": "x",
        "distinct_id": "ada",
        "team_id": 2,
        "ip": "1.2.3.4",
        "properties": {"n": 1, "$ip": "1.2.3.4", "$set": {"a": 1}, "$set_once": "no object"},
        "timestamp": "2026-01-02T03:04:05.678Z",
        "$set": {"a": 1},
    }


def test_a_time_that_is_not_clickhouses_is_left_as_it_is() -> None:
    assert iso_time("2026-01-02T03:04:05Z") == "2026-01-02T03:04:05Z"


@given(st.lists(st.dictionaries(st.text(max_size=8), JSON, max_size=4), min_size=1, max_size=4))
def test_a_parked_delivery_comes_back_as_it_was(properties: list[dict[str, Any]]) -> None:
    events = []
    for number, each in enumerate(properties):
        one = record(number)
        message = {**orjson.loads(one.value or b""), "properties": orjson.dumps(each).decode()}
        events.append(event(one._replace(value=orjson.dumps(message))))
    before = parcel(*events)
    members = read_body(before.body(), REGISTRY)
    assert members is not None
    after = Parcel(PROJECT, INSTALL, "exportEvents", members, 0)
    assert after.arguments == before.arguments
    assert (after.id, after.source, after.origin) == (before.id, before.source, before.origin)
    assert after.parent == before.parent
    assert [kept.value for kept in kept_records(before.body())] == [each.value for each in events]


def test_ids_are_the_same_for_the_same_delivery_alone() -> None:
    first, second, third = (event(record(n)) for n in range(3))
    ids = {
        parcel(first).id,
        parcel(first, second).id,
        parcel(first, third).id,
        parcel(first, hook="onEvent").id,
        parcel(first, hook="composeWebhook").id,
        parcel(second, hook="onEvent").id,
    }
    assert len(ids) == 6
    assert parcel(first, second).id == parcel(first, second).id


def test_a_record_that_does_not_say_where_it_comes_from_is_named_by_its_own_place() -> None:
    one = record(7)
    assert event(one._replace(headers=())).source == "out-0-7"
    assert event(one._replace(headers=[("ps-source", b"a\x00b")])).source == "out-0-7"
    assert event(one).source == "in-0-7"


def test_a_lone_surrogate_is_kept_as_what_it_became() -> None:
    one = record(1)
    broken = (one.value or b"").replace(b'"ada"', b'"a\\ud800a"')
    before = event(one._replace(value=broken))
    members = read_body(parcel(before, hook="onEvent").body(), REGISTRY)
    assert members is not None
    assert members[0].event.json == before.json


@given(st.binary(max_size=50))
def test_a_body_that_cannot_be_read_is_none(raw: bytes) -> None:
    assert read_body(raw, REGISTRY) is None
    assert read_body(b'{"v":1,"members":[' + raw + b"]}", REGISTRY) is None
    assert read_body(b'{"v":2,"members":[]}', REGISTRY) is None


def test_a_body_of_a_project_that_is_gone_is_none() -> None:
    assert read_body(parcel(event(record(1))).body(), Registry()) is None

"""From the envelope to the fields of the output: PostHog's rules, as tables."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox import codec
from sandbox.event import (
    InvalidEvent,
    check_whole,
    event_name,
    event_timestamp,
    finish,
    open_envelope,
    open_event,
    stamps,
)

NOW = "2026-01-01T12:00:00.000Z"
UUID = "018f0000-0000-7000-8000-000000000001"


def envelope(data: object, **fields: object) -> bytes:
    text = data if isinstance(data, str) else orjson.dumps(data).decode()
    return orjson.dumps({"uuid": UUID, "distinct_id": "ada", "now": NOW, "data": text, **fields})


def finished(data: object, stamped: bytes = b"", **fields: object):
    event = open_envelope(envelope(data, **fields), 2)
    return finish(event, codec.dumps(event["properties"]), event["now"], stamped)


def properties_of(data: object, stamped: bytes = b"", **fields: object) -> dict[str, object]:
    return orjson.loads(finished(data, stamped, **fields).properties)


@pytest.mark.parametrize(
    ("timestamp", "sent_at", "offset", "expected"),
    [
        # nothing given
        (None, None, None, "2026-01-01 12:00:00.000"),
        ("", None, None, "2026-01-01 12:00:00.000"),
        # as the client says
        ("2025-12-31T10:00:00Z", None, None, "2025-12-31 10:00:00.000"),
        ("2025-12-31T10:00:00.123456Z", None, None, "2025-12-31 10:00:00.123"),
        ("2025-12-31T10:00:00+05:30", None, None, "2025-12-31 04:30:00.000"),
        ("2025-12-31T23:00:00-02:00", None, None, "2026-01-01 01:00:00.000"),
        ("2025-12-31T10:00:00", None, None, "2025-12-31 10:00:00.000"),
        ("2025-12-31", None, None, "2025-12-31 00:00:00.000"),
        # the client's clock is an hour fast, or a year slow
        ("2026-01-01T12:59:50Z", "2026-01-01T13:00:00Z", None, "2026-01-01 11:59:50.000"),
        ("2025-01-01T00:00:00Z", "2025-01-01T00:00:05Z", None, "2026-01-01 11:59:55.000"),
        ("2026-01-01T14:59:50+02:00", "2026-01-01T13:00:00Z", None, "2026-01-01 11:59:50.000"),
        ("2026-01-01T11:59:50", "2026-01-01T12:00:00Z", None, "2026-01-01 11:59:50.000"),
        # a sent_at that says nothing
        ("2025-12-31T10:00:00Z", "", None, "2025-12-31 10:00:00.000"),
        ("2025-12-31T10:00:00Z", "yesterday", None, "2025-12-31 10:00:00.000"),
        ("2025-12-31T10:00:00Z", 17, None, "2025-12-31 10:00:00.000"),
        (None, "2026-01-01T13:00:00Z", None, "2026-01-01 12:00:00.000"),
        # milliseconds before now
        (None, None, 1_500, "2026-01-01 11:59:58.500"),
        (None, None, 0, "2026-01-01 12:00:00.000"),
        (None, None, 0.5, "2026-01-01 11:59:59.999"),
        (None, None, -1_000, "2026-01-01 12:00:01.000"),
        ("2025-12-31T10:00:00Z", None, 1_500, "2025-12-31 10:00:00.000"),
        ("yesterday", None, 1_500, "2026-01-01 11:59:58.500"),
        # what cannot be read counts as absent
        (None, None, "1500", "2026-01-01 12:00:00.000"),
        (None, None, True, "2026-01-01 12:00:00.000"),
        (None, None, 1e300, "2026-01-01 12:00:00.000"),
        (None, None, 2**64 - 1, "2026-01-01 12:00:00.000"),
        ("yesterday", None, None, "2026-01-01 12:00:00.000"),
        ("2026-13-01T00:00:00Z", None, None, "2026-01-01 12:00:00.000"),
        (1767225600, None, None, "2026-01-01 12:00:00.000"),
        (["2025-12-31"], None, None, "2026-01-01 12:00:00.000"),
        # the first and the last year
        ("0001-01-01T00:00:00Z", None, None, "0001-01-01 00:00:00.000"),
        ("9999-12-31T23:59:59.999Z", None, None, "9999-12-31 23:59:59.999"),
        ("0001-01-01T00:00:00+14:00", None, None, "2026-01-01 12:00:00.000"),
        ("9999-12-31T23:59:59-14:00", None, None, "2026-01-01 12:00:00.000"),
        ("10000-01-01T00:00:00Z", None, None, "2026-01-01 12:00:00.000"),
        ("9999-12-31T00:00:00Z", "0001-01-01T00:00:00Z", None, "2026-01-01 12:00:00.000"),
        ("0001-01-01T00:00:00Z", "9999-12-31T00:00:00Z", None, "2026-01-01 12:00:00.000"),
    ],
)
def test_when_an_event_happened(timestamp, sent_at, offset, expected):
    assert event_timestamp(timestamp, sent_at, NOW, offset) == expected


def test_the_time_of_receipt_may_be_in_another_zone():
    assert event_timestamp(None, None, "2026-01-01T14:00:00+02:00", None) == "2026-01-01 12:00:00.000"


TIMES = st.none() | st.text(max_size=30) | st.datetimes().map(str) | st.integers() | st.lists(st.none(), max_size=1)


@given(TIMES, TIMES, st.text(max_size=25) | st.datetimes().map(str), st.none() | st.integers() | st.floats())
def test_whatever_is_sent_gives_a_time(timestamp, sent_at, now, offset):
    text = event_timestamp(timestamp, sent_at, now, offset)
    assert len(text) == 23
    assert text[4] == "-"
    assert text[19] == "."


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("signed up", "signed up"),
        ("é" * 250, "é" * 200),
        ({"a": [1, "x"]}, '{"a":[1,"x"]}'),
        ([1, None], "[1,null]"),
        (17, "17"),
        (True, "true"),
        (["x" * 300], '["' + "x" * 198),
    ],
)
def test_a_name_is_text_of_at_most_200_characters(name, expected):
    assert event_name(name) == expected
    assert finished({"event": name}).event == expected


@pytest.mark.parametrize(
    ("ip", "properties", "expected"),
    [
        ("1.2.3.4", {}, {"$ip": "1.2.3.4"}),
        ("1.2.3.4", {"a": 1}, {"a": 1, "$ip": "1.2.3.4"}),
        ("1.2.3.4", {"$ip": "9.9.9.9"}, {"$ip": "9.9.9.9"}),
        ("1.2.3.4", {"$ip": None}, {"$ip": None}),
        (None, {"a": 1}, {"a": 1}),
        ("", {}, {}),
        ('1"\\', {}, {"$ip": '1"\\'}),
    ],
)
def test_the_address_is_added_unless_it_is_there(ip, properties, expected):
    assert properties_of({"event": "x", "properties": properties}, ip=ip) == expected


def test_set_at_the_top_joins_that_of_the_properties_and_wins():
    event = {
        "event": "x",
        "$set": {"plan": "pro"},
        "$set_once": {"first": 1},
        "properties": {"$set": {"plan": "free", "name": "Ada"}, "a": 1},
    }
    assert properties_of(event) == {"a": 1, "$set": {"plan": "pro", "name": "Ada"}, "$set_once": {"first": 1}}


@pytest.mark.parametrize("value", ["text", [1], 5, {}, None])
def test_a_set_that_is_no_object_changes_nothing(value):
    assert properties_of({"event": "x", "$set": value, "properties": {"$set": {"a": 1}}}) == {"$set": {"a": 1}}


def test_a_set_of_the_properties_that_is_no_object_is_replaced():
    assert properties_of({"event": "x", "$set": {"a": 1}, "properties": {"$set": 5}}) == {"$set": {"a": 1}}


ELEMENTS = [
    {
        "tag_name": "a",
        "attr__class": "small  btn-primary",
        "$el_text": "bla bla",
        "attr__href": "/a-url",
        "attr__id": "buy",
        "attr__data-x": 'say "hi"; then',
        "nth_child": 1,
        "nth_of_type": 2,
        "order": 0,
    },
    {"tag_name": "button", "attr__class": ["btn", "alpha", 'q"uote']},
    {"tag_name": "div", "nth_child": None},
    {"$el_text": "no tag"},
]
CHAIN = (
    'a.btn-primary.small:attr__class="small  btn-primary"attr__data-x="say \\"hi\\"; then"attr__href="/a-url"attr__id="buy"'
    'attr_id="buy"href="/a-url"nth-child="1"nth-of-type="2"text="bla bla";'
    'button.alpha.btn.quote:attr__class="[\\"btn\\",\\"alpha\\",\\"q\\\\"uote\\"]"nth-child="0"nth-of-type="0";'
    'div:nth-child="0"nth-of-type="0";'
    ':nth-child="0"nth-of-type="0"text="no tag"'
)


def test_elements_become_a_chain_and_leave_the_properties():
    event = {"event": "$autocapture", "properties": {"$elements": ELEMENTS, "a": 1}}
    assert properties_of(event) == {"a": 1}
    assert finished(event).elements_chain == CHAIN


def test_quotes_in_the_name_of_an_attribute_are_escaped():
    event = {"event": "x", "properties": {"$elements": [{"tag_name": "a", 'attr__x"y': "z"}]}}
    assert finished(event).elements_chain == 'a:attr__x\\"y="z"nth-child="0"nth-of-type="0"'


def test_long_text_and_links_of_elements_are_cut():
    event = {
        "event": "x",
        "properties": {"$elements": [{"tag_name": "a", "$el_text": "t" * 500, "attr__href": "h" * 3_000}]},
    }
    chain = finished(event).elements_chain
    assert f'text="{"t" * 400}"' in chain
    assert f'href="{"h" * 2048}"nth' in chain


@pytest.mark.parametrize("elements", [None, "a", 5, {}, [], ["a", 5, None]])
def test_elements_that_are_none_leave_an_empty_chain(elements):
    event = {"event": "x", "properties": {"$elements": elements}}
    assert finished(event).elements_chain == ""
    assert properties_of(event) == {}


def test_a_chain_that_came_ready_is_kept():
    event = {"event": "x", "properties": {"$elements_chain": 'a:nth-child="1"', "$elements": ELEMENTS}}
    assert finished(event).elements_chain == 'a:nth-child="1"'
    assert properties_of(event) == {}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(st.characters(exclude_categories=("Cs",)), max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('a$_"\\', max_size=3), inner, max_size=3),
    max_leaves=6,
)
ELEMENT = st.dictionaries(
    st.sampled_from(["tag_name", "attr__class", "$el_text", "attr__href", "attr__id", "nth_child", "attr__x"]), JSON
)


@given(st.lists(ELEMENT | JSON, max_size=3) | JSON, JSON, JSON, JSON)
def test_whatever_a_client_sends_is_finished_or_invalid(elements, name, own, properties):
    data = {"event": name, "$set": own, "$set_once": own, "offset": own, "timestamp": name}
    data["properties"] = {**properties, "$elements": elements} if isinstance(properties, dict) else properties
    try:
        done = finished(data, stamped=b'"$plugins_failed":[]', ip="1.1.1.1")
    except InvalidEvent:
        return
    assert isinstance(orjson.loads(done.properties), dict)
    assert isinstance(done.elements_chain, str)


def test_stamps_of_clients_are_removed_and_ours_are_set():
    sent = {"$plugins_succeeded": ["mine"], "$plugins_failed": 1, "$plugins_deferred": [], "a": 1}
    assert open_envelope(envelope({"event": "x", "properties": sent}), 2)["properties"] == {"a": 1}
    ours = stamps(["App (1)"], [])
    for properties, rest in (({}, {}), ({"a": 1}, {"a": 1}), (sent, {"a": 1})):
        assert properties_of({"event": "x", "properties": properties}, ours) == {
            **rest,
            "$plugins_succeeded": ["App (1)"],
            "$plugins_failed": [],
        }


def test_the_envelope_wins_over_the_data():
    event = open_envelope(
        envelope(
            {"event": "x", "distinct_id": "eve", "uuid": "other", "team_id": 1, "now": "1999", "ip": "6.6.6.6"},
            ip=None,
        ),
        2,
    )
    assert event["distinct_id"] == "ada"
    assert event["uuid"] == UUID
    assert event["team_id"] == 2
    assert event["now"] == NOW
    assert event["ip"] is None


@pytest.mark.parametrize("properties", [None, {}])
def test_missing_properties_are_empty(properties):
    assert open_envelope(envelope({"event": "x", "properties": properties}), 2)["properties"] == {}
    assert open_envelope(envelope({"event": "x"}), 2)["properties"] == {}


@pytest.mark.parametrize(
    ("data", "error"),
    [
        ([], InvalidEvent),
        ("null", InvalidEvent),
        ({"event": "x", "properties": []}, InvalidEvent),
        ({"event": "x", "properties": "text"}, InvalidEvent),
        ({"event": ""}, InvalidEvent),
        ({"event": None}, InvalidEvent),
        ({}, InvalidEvent),
        ("", codec.InvalidJson),
        ("{", codec.InvalidJson),
        ('{"event":NaN}', codec.InvalidJson),
        ("[" * 10_000, codec.TooDeep),
        ('{"event":' + "[" * 101 + "]" * 101 + "}", codec.TooDeep),
    ],
)
def test_data_that_is_no_event_is_refused(data, error):
    with pytest.raises(error):
        open_envelope(envelope(data), 2)


def test_stamps_name_who_ran_and_are_nothing_when_nobody_did():
    assert stamps([], []) == b""
    members = orjson.loads(b"{" + stamps(["A (1)", 'B" (2)'], ["C (3)"]) + b"}")
    assert members == {"$plugins_succeeded": ["A (1)", 'B" (2)'], "$plugins_failed": ["C (3)"]}
    assert orjson.loads(b"{" + stamps([], ["C (3)"]) + b"}") == {"$plugins_succeeded": [], "$plugins_failed": ["C (3)"]}


EVENT = {"event": "x", "distinct_id": "ada", "uuid": UUID, "team_id": 2, "properties": {"a": [1]}, "own": None}
NO_EVENTS = [
    None, 5, "text", [], [EVENT], {},
    *({key: value for key, value in EVENT.items() if key != missing}
      for missing in ("event", "distinct_id", "uuid", "team_id", "properties")),
    *(EVENT | {name: None} for name in ("event", "distinct_id", "uuid", "team_id", "properties")),
    EVENT | {"event": ""}, EVENT | {"distinct_id": ""}, EVENT | {"distinct_id": 5}, EVENT | {"uuid": 5},
    EVENT | {"team_id": "2"}, EVENT | {"team_id": 2.0}, EVENT | {"team_id": True}, EVENT | {"properties": [1]},
]  # fmt: skip


@pytest.mark.parametrize("event", NO_EVENTS, ids=lambda event: str(event)[:60])
def test_what_is_no_event_is_neither_opened_nor_passed_on(event):
    raw = orjson.dumps(event)
    with pytest.raises(InvalidEvent):
        open_event(raw)
    assert check_whole(raw.decode(), UUID, 2)


@pytest.mark.parametrize(
    "raw",
    [
        "",
        "{",
        "\x00",
        "NaN",
        orjson.dumps(EVENT).decode() + "x",
        '{"properties":' + "[" * 101 + "]" * 101 + "}",
        "[" * 10_000,
    ],
)
def test_what_is_no_json_or_too_deep_is_neither_opened_nor_passed_on(raw):
    with pytest.raises((codec.InvalidJson, codec.TooDeep)):
        open_event(raw.encode())
    assert check_whole(raw, UUID, 2)


def test_an_event_is_opened_as_it_is():
    assert open_event(orjson.dumps(EVENT)) == EVENT


@pytest.mark.parametrize(
    ("fields", "accepted"),
    [
        ({}, True),
        ({"event": {"kind": 1}, "distinct_id": "eve", "properties": {}}, True),
        ({"uuid": UUID[:-1] + "2"}, False),
        ({"uuid": UUID.upper()}, False),
        ({"team_id": 3}, False),
    ],
)
def test_only_the_event_that_was_given_is_passed_on(fields, accepted):
    assert (check_whole(orjson.dumps(EVENT | fields).decode(), UUID, 2) is None) is accepted


@given(JSON | st.fixed_dictionaries({}, optional={name: JSON | st.just(EVENT[name]) for name in EVENT}))
def test_whatever_a_sandbox_sends_is_refused_or_can_be_finished(event):
    raw = orjson.dumps(event)
    if check_whole(raw.decode(), UUID, 2) is None:
        done = finish(event, orjson.dumps(event["properties"]), NOW, b"")
        assert isinstance(orjson.loads(done.properties), dict)

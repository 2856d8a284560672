"""From bytes to an event of a known project: every envelope gives an event or a dead letter with its reason."""

from __future__ import annotations

import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugin_server.ingestion.decode import make_decode
from plugin_server.ingestion.normalise import normalise
from plugin_server.ingestion.pending import PendingEvent
from plugin_server.model.outcome import DeadLetter
from plugin_server.registry.registry import Registry
from plugin_server.runtime.replies import ChainResult
from tests.unit.ingestion.doubles import WITH_APPS, WITHOUT_APPS, Record, message, uuid_of

DECODE = make_decode(Registry([WITH_APPS, WITHOUT_APPS]), 10_000)


def decode(value: bytes, *headers: tuple[str, bytes]):
    return DECODE(Record(5, value, None, headers))


def test_a_good_message_is_its_event():
    event = decode(message(1))
    assert isinstance(event, PendingEvent)
    assert (event.project, event.uuid, event.now, event.raw) == (
        WITH_APPS,
        uuid_of(1),
        "2026-01-01T00:00:00Z",
        message(1),
    )
    assert not event.historical_migration


@pytest.mark.parametrize(
    ("value", "headers"),
    [
        (message(1, token=None, team_id=3), ()),
        (message(1, token=None), (("token", b"phc_bare"),)),
        (message(1, token="phc_bare", team_id=2), (("token", b"phc_acme"),)),
    ],
)
def test_a_project_is_named_by_token_then_team_then_header(value, headers):
    event = decode(value, *headers)
    assert isinstance(event, PendingEvent)
    assert event.project is WITHOUT_APPS


@pytest.mark.parametrize(
    ("fields", "reason", "words"),
    [
        ({"token": "phc_nobody"}, "unknown_project", "phc_nobody"),
        ({"token": 5}, "invalid_envelope", "token"),
        ({"token": ""}, "invalid_envelope", "token"),
        ({"token": None, "team_id": "2"}, "invalid_envelope", "team_id"),
        ({"token": None, "team_id": True}, "invalid_envelope", "team_id"),
        ({"token": None, "team_id": 77}, "unknown_project", "77"),
        ({"token": None}, "no_project", "neither"),
        ({"uuid": None}, "invalid_envelope", "uuid is missing"),
        ({"uuid": "x"}, "invalid_envelope", "not a UUID"),
        ({"uuid": 5}, "invalid_envelope", "not a UUID"),
        ({"uuid": uuid_of(1) + "\n"}, "invalid_envelope", "not a UUID"),
        ({"data": None}, "invalid_envelope", "data is missing"),
        ({"data": {}}, "invalid_envelope", "data is not"),
        ({"distinct_id": None}, "invalid_envelope", "distinct_id is missing"),
        ({"distinct_id": ""}, "invalid_envelope", "distinct_id is empty"),
        ({"distinct_id": True}, "invalid_envelope", "distinct_id is not"),
        ({"distinct_id": ["a"]}, "invalid_envelope", "distinct_id is not"),
        ({"now": 5}, "invalid_envelope", "now"),
        ({"ip": 5}, "invalid_envelope", "ip"),
        ({"site_url": []}, "invalid_envelope", "site_url"),
        ({"sent_at": 5}, "invalid_envelope", "sent_at"),
    ],
)
def test_a_faulty_envelope_says_what_is_wrong(fields, reason, words):
    letter = decode(message(1, **fields))
    assert isinstance(letter, DeadLetter)
    assert (letter.step, letter.reason) == ("decode", reason)
    assert words in letter.error


@pytest.mark.parametrize(
    ("number", "text"), [(b"5", "5"), (b"1.5", "1.5"), (b"1180591620717411303424", "1.1805916207174113e+21")]
)
def test_a_number_is_taken_as_a_distinct_id(number, text):
    event = decode(message(1).replace(b'"ada"', number))
    assert isinstance(event, PendingEvent)
    assert orjson.loads(event.raw)["distinct_id"] == text


def test_a_missing_now_is_when_the_log_took_it():
    event = decode(message(1, now=None))
    assert isinstance(event, PendingEvent)
    assert event.now == orjson.loads(event.raw)["now"] == "2026-01-01T00:00:00.000+00:00"


def test_a_lone_surrogate_and_a_nul_do_not_stop_an_event():
    value = message(1, token="phc_bare").replace(b'"ada"', b'"a\\ud800\\u0000"')
    event = decode(value)
    assert isinstance(event, PendingEvent)
    result = normalise(event)
    assert isinstance(result, ChainResult)
    assert result.distinct_id == "a\ufffd\x00"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
NAMES = ("uuid", "distinct_id", "token", "team_id", "now", "data", "ip", "site_url", "sent_at", "historical_migration")


@given(st.dictionaries(st.sampled_from(NAMES), JSON, max_size=4), st.binary(max_size=3), st.integers(0, 200))
def test_whatever_is_in_a_message_it_is_an_event_or_a_dead_letter(fields, noise, place):
    value = json.dumps(orjson.loads(message(1, token="phc_bare")) | fields).encode()
    for raw in (value, value[:place] + noise + value[place + len(noise) :]):
        found = decode(raw)
        if isinstance(found, PendingEvent):
            assert isinstance(normalise(found), ChainResult | DeadLetter)
        else:
            assert isinstance(found, DeadLetter)


@given(JSON, JSON, JSON)
def test_whatever_is_in_the_data_it_is_an_output_or_a_dead_letter(name, properties, own):
    data = json.dumps({"event": name, "properties": properties, "$set": own, "timestamp": own, "offset": own})
    found = decode(message(1, token="phc_bare", data=data))
    assert isinstance(found, PendingEvent)
    assert isinstance(normalise(found), ChainResult | DeadLetter)

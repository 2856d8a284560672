"""What an event leaves behind: records whose size was checked, with its lineage on."""

from __future__ import annotations

import orjson
import pytest

from plugin_server.eventlog.headers_codec import encode_headers
from plugin_server.host_api.captures import Captures
from plugin_server.host_api.logs import LogEntries
from plugin_server.ingestion.guard_loop import guard_loop
from plugin_server.ingestion.pending import PendingEvent
from plugin_server.model.lineage import LINEAGE_HEADER, Lineage, parse_lineage
from plugin_server.model.outcome import DeadLetter, DeadLetterReason, Drop
from plugin_server.runtime.replies import Capture, ChainResult, LogLine, Notes
from sandbox.wire import EventOutcome
from tests.unit.ingestion.doubles import NOW, RECORD_BYTES, TOPICS, WITH_APPS, Record, emitter, message, uuid_of

OTHER = uuid_of(99)


def pending(*headers: tuple[str, bytes], number: int = 1) -> PendingEvent:
    record = Record(17, message(number), b"key", headers)
    event = PendingEvent(
        record, record.value or b"", WITH_APPS, uuid_of(number), "2026-01-01T00:00:00Z", historical_migration=False
    )
    return guard_loop(event)


def lineage_header(lineage: Lineage) -> tuple[str, bytes]:
    return (LINEAGE_HEADER, lineage.encode())


def result(properties: str = '{"a":1}', notes: Notes | None = None, distinct_id: str = "ada") -> ChainResult:
    return ChainResult(EventOutcome.EMIT, "x", distinct_id, "2026-01-01 00:00:00.000", "", properties, notes)


def make(record_bytes: int = RECORD_BYTES):
    captures = Captures(TOPICS.ingestion, TOPICS.dead_letters, record_bytes, lambda: NOW)
    return emitter(captures, LogEntries(TOPICS.log_entries, "worker"), record_bytes)


def lineage_of(record) -> Lineage:
    return parse_lineage(dict(record.headers)[LINEAGE_HEADER])


def test_an_event_goes_to_the_partition_of_its_source_with_key_source_and_itself_as_root():
    (record,) = make().emit(pending(), result(), has_delivery=False).records
    assert (record.topic, record.partition, record.key) == (TOPICS.events, 2, b"phc_acme:ada")
    assert dict(record.headers)["ps-source"] == b"events_plugin_ingestion-6-17"
    assert lineage_of(record) == Lineage(uuid_of(1), 0, (), 1_000)
    assert orjson.loads(record.value)["created_at"] == "2026-01-01 00:00:00.000"
    assert orjson.loads(record.value)["captured_at"] == "2026-01-01T00:00:00Z"


def test_a_derived_event_carries_its_lineage_on():
    own = Lineage(OTHER, 2, (39, 40), 100)
    (record,) = make().emit(pending(lineage_header(own)), result(), has_delivery=False).records
    assert lineage_of(record) == own
    (record,) = make().emit(pending(lineage_header(own)), result(), has_delivery=True).records
    assert lineage_of(record) == Lineage(OTHER, 2, (39, 40), 50)


@pytest.mark.parametrize(
    "headers",
    [
        [(LINEAGE_HEADER, b"{}")],
        [(LINEAGE_HEADER, b"")],
        [lineage_header(Lineage(OTHER)), lineage_header(Lineage(OTHER))],
    ],
)
def test_an_event_of_malformed_lineage_is_processed_and_its_captures_are_refused(headers):
    event = pending(*headers)
    notes = Notes(captures=(Capture(39, 0, "y", "eve", None, {}),))
    emitted = make().emit(event, result(notes=notes), has_delivery=False)
    assert emitted.ended is None
    assert emitted.captured == 0
    assert [cut.reason for cut in emitted.cuts] == ["malformed_lineage"]
    assert sorted({record.topic for record in emitted.records}) == sorted(
        [TOPICS.events, TOPICS.dead_letters, TOPICS.log_entries]
    )
    output = next(record for record in emitted.records if record.topic == TOPICS.events)
    assert lineage_of(output).budget == 0


def test_captures_enter_ingestion_with_their_lineage_and_ids_of_their_own():
    captures = (Capture(39, 0, "y", "eve", None, {"a": 1}), Capture(40, 0, "z", "ada", "2020-01-01", {}))
    emitted = make().emit(pending(), result(notes=Notes(captures=captures)), has_delivery=False)
    again = make().emit(pending(), result(notes=Notes(captures=captures)), has_delivery=False)
    made = [record for record in emitted.records if record.topic == TOPICS.ingestion]
    assert [record.key for record in made] == [b"phc_acme:eve", b"phc_acme:ada"]
    assert [lineage_of(record) for record in made] == [
        Lineage(uuid_of(1), 1, (39,), 499),
        Lineage(uuid_of(1), 1, (40,), 499),
    ]
    envelopes = [orjson.loads(record.value) for record in made]
    assert len({envelope["uuid"] for envelope in envelopes}) == 2
    assert [envelope["uuid"] for envelope in envelopes] == [
        orjson.loads(record.value)["uuid"] for record in again.records if record.topic == TOPICS.ingestion
    ]
    data = [orjson.loads(envelope["data"]) for envelope in envelopes]
    assert [entry["timestamp"] for entry in data] == ["2026-01-01T00:00:00.000+00:00", "2020-01-01"]
    assert data[0] == {
        "event": "y",
        "distinct_id": "eve",
        "properties": {"a": 1},
        "timestamp": "2026-01-01T00:00:00.000+00:00",
        "uuid": envelopes[0]["uuid"],
    }
    assert {(envelope["team_id"], envelope["token"], envelope["ip"]) for envelope in envelopes} == {
        (2, "phc_acme", None)
    }
    output = next(record for record in emitted.records if record.topic == TOPICS.events)
    assert lineage_of(output).budget == 0


def test_an_event_too_large_for_a_record_is_a_dead_letter_of_its_original():
    emitted = make().emit(pending(), result('{"a":"' + '\\"' * 40_000 + '"}'), has_delivery=False)
    assert isinstance(emitted.ended, DeadLetter)
    assert emitted.ended.reason is DeadLetterReason.TOO_LARGE
    (record,) = emitted.records
    assert (record.topic, record.value, record.key) == (TOPICS.dead_letters, message(1), b"key")


@pytest.mark.parametrize("path", [(), tuple(range(2**31 - 32, 2**31))])
def test_no_record_is_larger_than_it_may_be(path):
    event = pending(lineage_header(Lineage(OTHER, 100, path, 10**6)))
    ends = set()
    for length in range(95_000, 100_000, 50):
        (record,) = make().emit(event, result('{"a":"' + "x" * length + '"}'), has_delivery=False).records
        ends.add(record.topic)
        assert len(record.value) + len(record.key or b"") + len(encode_headers(record.headers) or b"") <= RECORD_BYTES
    assert ends == {TOPICS.events, TOPICS.dead_letters}


def test_a_too_large_event_with_captures_keeps_them():
    notes = Notes(captures=(Capture(39, 0, "y", "eve", None, {}),), logs=(LogLine(39, "LOG", "hello", "CONSOLE"),))
    emitted = make().emit(pending(), result('{"a":"' + "x" * 200_000 + '"}', notes), has_delivery=False)
    assert isinstance(emitted.ended, DeadLetter)
    assert sorted(record.topic for record in emitted.records) == sorted(
        [TOPICS.ingestion, TOPICS.dead_letters, TOPICS.log_entries]
    )


def test_a_capture_too_large_for_a_record_is_a_dead_letter_and_a_line_for_its_owner():
    notes = Notes(captures=(Capture(39, 0, "y", "eve", None, {"a": "x" * 100_000}),))
    emitted = make().emit(pending(), result(notes=notes), has_delivery=False)
    letters = [record for record in emitted.records if record.topic == TOPICS.dead_letters]
    lines = [orjson.loads(record.value) for record in emitted.records if record.topic == TOPICS.log_entries]
    assert dict(letters[0].headers)["reason"] == b"too_large"
    assert len(letters[0].value) < RECORD_BYTES
    assert [(line["type"], line["plugin_config_id"]) for line in lines] == [("ERROR", 39)]
    assert not [record for record in emitted.records if record.topic == TOPICS.ingestion]


def test_a_dropped_event_says_who_dropped_it():
    dropped = ChainResult(EventOutcome.DROP, "", "", "", "", "", Notes(dropped_by=40))
    emitted = make().emit(pending(), dropped, has_delivery=False)
    assert isinstance(emitted.ended, Drop)
    assert (emitted.ended.install_id, emitted.records) == (40, [])


def test_a_cut_is_told_once_per_install_and_rule_with_the_chain():
    own = Lineage(OTHER, 6, (39, 40, 39, 40, 39, 40), 100)
    captures = tuple(Capture(39, number, f"e{number}", "eve", None, {"a": "x" * 3_000}) for number in range(15))
    notes = Notes(captures=(*captures, Capture(40, 0, "p", "eve", None, {})))
    emitted = make().emit(pending(lineage_header(own)), result(notes=notes), has_delivery=False)
    assert [(cut.install_id, cut.reason, cut.count) for cut in emitted.cuts] == [(39, "visits", 15), (40, "visits", 1)]
    chain = "Ping (39) → Pong (40) → Ping (39) → Pong (40) → Ping (39) → Pong (40) → Ping (39)"
    assert emitted.cuts[0].chain == chain
    letter = next(record for record in emitted.records if record.topic == TOPICS.dead_letters)
    kept = orjson.loads(letter.value)
    assert (kept["count"], kept["chain"], len(kept["captures"]), kept["root"]) == (15, chain, 10, OTHER)
    assert len(letter.value) < 64 * 1024
    lines = [orjson.loads(record.value)["message"] for record in emitted.records if record.topic == TOPICS.log_entries]
    assert len(lines) == 2
    assert chain in lines[0]

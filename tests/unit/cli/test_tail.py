"""What `tail` prints, as a person reads it."""

from __future__ import annotations

from plugin_server.cli.tail import describe
from plugin_server.host_api.captures import CutNotice
from plugin_server.ingestion.emit import Emitted
from plugin_server.ingestion.pending import PendingEvent
from plugin_server.ingestion.report import describe_event
from plugin_server.model.lineage import Lineage
from plugin_server.model.loop_guard import CutReason
from plugin_server.model.outcome import DeadLetter, DeadLetterReason, Drop, DropReason
from plugin_server.runtime.replies import Capture, ChainResult, HookFailure, LogLine, Notes
from sandbox.wire import EventOutcome
from tests.unit.ingestion.doubles import WITH_APPS, Record, message, uuid_of


def event(**properties: object) -> dict[str, object]:
    return {"event": "x", "distinct_id": "ada", "properties": properties}


def lines(
    notes: Notes | None, emitted: Emitted, outcome: EventOutcome = EventOutcome.EMIT, lineage: Lineage | None = None
):
    pending = PendingEvent(Record(1, message(1)), message(1), WITH_APPS, uuid_of(1), "", historical_migration=False)
    pending.lineage = lineage
    result = ChainResult(outcome, "x", "ada", "2026-01-01 00:00:00.000", "", '{"a":1}', notes)
    return [text.plain for text in describe(describe_event(pending, result, emitted))]


def test_an_event_is_shown_with_what_each_app_changed():
    notes = Notes(trace=((0, event(a=1, b=2)), (39, event(a=5, c=3)), (40, event(a=5, c=3))))
    shown = lines(notes, Emitted([], None))
    assert shown[0] == f"● x  by ada  in Acme  {uuid_of(1)}"
    assert shown[1:6] == [
        "    Ping (39): ",
        "      ~ properties.a: 1 → 5",
        "      - properties.b: 2",
        "      + properties.c: 3",
        "    Pong (40): no change",
    ]
    assert "emitted at 2026-01-01 00:00:00.000" in shown[6]


def test_failures_captures_cuts_and_logs_are_shown():
    notes = Notes(
        captures=(Capture(39, 0, "y", "eve", None, {}),),
        logs=(LogLine(40, "LOG", "hello\x1b[31m", "CONSOLE"),),
        failures=(HookFailure(40, "app", "ValueError: no", 3),),
        trace=((0, event()), (39, event()), (40, event())),
    )
    cut = CutNotice(39, CutReason.VISITS, 2, "Ping (39) → Ping (39)", was_cut=True)
    shown = "\n".join(lines(notes, Emitted([], None, 0, (cut,)), lineage=Lineage(uuid_of(9), 1, (39,), 5)))
    assert "captured by Ping (39)  (depth 1)" in shown
    assert "Pong (40): failed, ValueError: no (line 3); undone" in shown
    assert "+ Ping (39) captures y for eve  (some of this app's captures were cut" in shown
    assert "2 capture(s) cut by visits: Ping (39) → Ping (39)" in shown
    assert "hello\ufffd[31m" in shown
    assert "\x1b" not in shown


def test_a_drop_and_a_dead_letter_say_why():
    dropped = lines(Notes(dropped_by=39), Emitted([], Drop(DropReason.APP, 39)), EventOutcome.DROP)
    assert "    ✗ dropped by Ping (39): its processEvent returned None" in dropped
    letter = DeadLetter("emit", DeadLetterReason.TOO_LARGE, "too\nlarge", 2)
    assert "    ✗ dead letter, emit: too\ufffdlarge" in lines(None, Emitted([], letter))


def test_other_entries_are_a_line_each():
    assert "Following" in describe({"kind": "following"})[0].plain
    assert "7 events were too fast" in describe({"kind": "missed", "count": 7})[0].plain
    refused = describe({"kind": "dead_letter", "step": "decode", "error": "bad\x00", "raw": "{"})
    assert [text.plain for text in refused] == ["✗ dead letter decode: bad\ufffd", "    {", ""]

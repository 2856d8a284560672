"""The deliveries of one install: many at a time, and none in the way of others."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from plugin_server.delivery.caller import Caller
from plugin_server.delivery.event import DeliveryEvent
from plugin_server.delivery.parcel import Member, Parcel
from plugin_server.delivery.parked_store import RowEnd
from plugin_server.delivery.queue import LATE_SECONDS, LONG_SECONDS, SLOTS
from plugin_server.eventlog.port import OutputRecord
from plugin_server.host_api.commit import Outcome
from plugin_server.model.errors import DatabaseUnavailable, FetchFailed, FetchRefused, Transient
from plugin_server.runtime.replies import Capture
from tests.unit.delivery.doubles import (
    DEAD_LETTERS,
    PLAIN,
    RETRY,
    Bench,
    decode_for,
    install,
    project_of,
    record,
    settled,
)

INSTALL = install(1)
PROJECT = project_of(INSTALL)
DECODE = decode_for(PROJECT)


class Lane:
    """The owner."""

    def __init__(self) -> None:
        self.closed = False
        self.is_lost = False
        self.holds_up = False
        self.ended: list[tuple[Parcel, Sequence[OutputRecord]]] = []

    def holds_up_others(self, install_id: int) -> bool:
        return self.holds_up

    def completion(self, parcel: Parcel) -> tuple[Any, Any]:
        return self, ("mark", parcel.source)

    def done(self, parcel: Parcel, records: Sequence[OutputRecord]) -> None:
        self.ended.append((parcel, records))


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    yield made
    await made.close()


@pytest.fixture
def lane() -> Lane:
    return Lane()


def parcel(number: int = 1, hook: str = "onEvent") -> Parcel:
    event = DECODE(record(number))
    assert isinstance(event, DeliveryEvent)
    created_ms = 4_000_000_000_000  # in the future, so that it is of no age
    return Parcel(PROJECT, INSTALL, hook, (Member(event, 10),), created_ms)


async def kill(bench: Bench, lane: Lane) -> None:
    """Let the destination count as dead."""
    for number in range(5):
        bench.queue().offer(parcel(9_000 + number), lane)
    await bench.hooks.end(RETRY, 5)
    assert bench.queue().destination.is_dead
    await bench.parking.store_all()
    bench.parking.rows.clear()
    lane.ended.clear()
    bench.hooks.calls.clear()


async def test_what_arrives_is_done_and_touches_no_database(bench: Bench, lane: Lane) -> None:
    sent = parcel()
    bench.queue().offer(sent, lane)
    await bench.hooks.end()
    assert lane.ended == [(sent, [])]
    [(install_id, hook, [event], origin)] = bench.hooks.calls
    assert (install_id, hook, event["properties"]) == (1, "onEvent", {"n": 1})
    assert (origin.source, origin.hook) == ("in-0-1", "onEvent")
    assert not bench.hooks.settled
    assert not bench.parking.rows
    assert bench.count("delivered") == 1


async def test_what_leaves_effects_is_marked_with_them(bench: Bench, lane: Lane) -> None:
    bench.hooks.captures = (Capture(1, 0, "y", "ada", None, {}),)
    bench.queue().offer(parcel(), lane)
    await bench.hooks.end()
    [(parent, token)] = bench.hooks.settled
    assert token == ("mark", "in-0-1")
    assert (parent.source, parent.share, parent.hook) == ("in-0-1", 10, "onEvent")
    assert len(lane.ended) == 1


async def test_what_read_what_has_changed_is_called_again(bench: Bench, lane: Lane) -> None:
    bench.hooks.captures = (Capture(1, 0, "y", "ada", None, {}),)
    bench.hooks.answer = None
    bench.hooks.stale = 1
    bench.hooks.outcomes = [Outcome.STALE]
    bench.queue().offer(parcel(), lane)
    await settled()
    assert len(bench.hooks.calls) == 3
    assert len(lane.ended) == 1


async def test_what_another_worker_has_is_not_done_here(bench: Bench, lane: Lane) -> None:
    bench.hooks.captures = (Capture(1, 0, "y", "ada", None, {}),)
    bench.hooks.outcomes = [Outcome.LOST]
    lane.is_lost = True
    bench.queue().offer(parcel(), lane)
    await bench.hooks.end()
    assert lane.ended == []


async def test_an_error_of_the_app_is_over(bench: Bench, lane: Lane) -> None:
    bench.queue().offer(parcel(), lane)
    await bench.hooks.end(PLAIN)
    assert len(lane.ended) == 1
    assert not bench.parking.rows
    assert bench.count("failed") == 1


async def test_a_failure_that_may_pass_is_parked_and_done_when_the_row_is_there(bench: Bench, lane: Lane) -> None:
    bench.queue().offer(parcel(), lane)
    await bench.hooks.end(RETRY)
    [(parked, error, delay, under_way)] = bench.parking.rows
    assert (parked.attempts, error, under_way) == (1, "not now", False)
    assert 5 <= delay <= 5.5
    assert lane.ended == []
    await bench.parking.store_all()
    assert len(lane.ended) == 1


async def test_past_a_bound_it_is_a_dead_letter_with_the_message_as_it_came(bench: Bench, lane: Lane) -> None:
    bench.parking.full = "1000 events are parked for it (PARKED_EVENTS 1000)"
    bench.queue().offer(parcel(), lane)
    await bench.hooks.end(RETRY)
    [(_, [letter])] = lane.ended
    assert (letter.topic, letter.value) == (DEAD_LETTERS, record(1).value)
    headers = dict(letter.headers)
    assert headers["reason"] == b"undeliverable"
    assert headers["error"] == b"onEvent of App1 (1): 1000 events are parked for it (PARKED_EVENTS 1000): not now"
    assert headers["source"] == b"in-0-1"
    assert bench.count("dead_letter") == 1


async def test_as_many_as_there_are_slots_are_under_way_and_the_others_follow(bench: Bench, lane: Lane) -> None:
    for number in range(SLOTS + 10):
        bench.queue().offer(parcel(number), lane)
    await settled()
    assert bench.hooks.under_way == SLOTS
    await bench.hooks.end(None, 10)
    assert bench.hooks.under_way == SLOTS
    await bench.hooks.end(None, SLOTS)
    assert len(lane.ended) == SLOTS + 10


async def test_a_dead_destination_has_its_events_parked_without_a_call(bench: Bench, lane: Lane) -> None:
    await kill(bench, lane)
    for number in range(50):
        bench.queue().offer(parcel(number), lane)
    await settled()
    assert bench.hooks.calls == []
    assert len(bench.parking.rows) == 50


async def test_a_dead_destination_is_probed_by_one_delivery_and_a_success_wakes_it(bench: Bench, lane: Lane) -> None:
    await kill(bench, lane)
    bench.tick(5.0)
    for number in range(3):
        bench.queue().offer(parcel(number), lane)
    await settled()
    assert len(bench.hooks.calls) == 1
    assert len(bench.parking.rows) == 2
    await bench.hooks.end()
    assert bench.recovered == [1]
    assert not bench.queue().destination.is_dead
    bench.queue().offer(parcel(3), lane)
    await settled()
    assert len(bench.hooks.calls) == 2


async def test_one_that_hangs_is_parked_under_way_and_its_success_removes_the_row(bench: Bench, lane: Lane) -> None:
    sent = parcel()
    bench.queue().offer(sent, lane)
    await settled()
    bench.tick(LONG_SECONDS + 0.1)
    [(_, _, _, under_way)] = bench.parking.rows
    assert under_way
    await bench.parking.store_all()
    assert lane.ended == [(sent, ())]
    assert bench.queue().row_ids == [sent.id]
    await bench.hooks.end()
    [(_, token)] = bench.hooks.settled
    assert token == RowEnd(sent.id, None)
    assert bench.parking.gone == 1
    assert len(lane.ended) == 1


async def test_one_that_hangs_and_then_fails_waits_in_its_row(bench: Bench, lane: Lane) -> None:
    sent = parcel()
    bench.queue().offer(sent, lane)
    await settled()
    bench.tick(LONG_SECONDS + 0.1)
    await bench.hooks.end(RETRY)
    assert bench.committer.ends == []  # not before the row is there
    await bench.parking.store_all()
    [end] = bench.committer.ends
    assert (end.id, end.again.attempts, end.again.error) == (sent.id, 1, "not now")


async def test_when_all_slots_hang_what_waits_is_parked_and_the_destination_is_dead(bench: Bench, lane: Lane) -> None:
    for number in range(SLOTS + 30):
        bench.queue().offer(parcel(number), lane)
    await settled()
    bench.tick(0.5)
    assert not bench.parking.rows
    bench.tick(LATE_SECONDS)
    assert len(bench.parking.rows) == 30
    bench.tick(1.0)
    assert bench.queue().destination.is_dead
    assert len(bench.parking.rows) == SLOTS + 30


async def test_an_install_that_is_merely_behind_slows_its_lane_unless_others_wait(bench: Bench, lane: Lane) -> None:
    for number in range(2 * SLOTS):
        bench.queue().offer(parcel(number), lane)
    await settled()
    for _ in range(10):
        bench.tick(0.4)
        await bench.parking.store_all()
        await bench.hooks.end()  # slow, but alive
    assert not [row for row in bench.parking.rows if not row[3]]
    lane.holds_up = True
    bench.parking.half_full = True
    bench.tick(0.1)
    assert not [row for row in bench.parking.rows if not row[3]]
    bench.parking.half_full = False
    bench.tick(0.1)
    assert len([row for row in bench.parking.rows if not row[3]]) == SLOTS - 10


async def test_a_retry_that_fails_waits_longer_and_one_that_succeeds_is_gone(bench: Bench, lane: Lane) -> None:
    bench.queue().retry(parcel(1), 100)
    await bench.hooks.end(RETRY)
    [end] = bench.committer.ends
    assert end.again.attempts == 1
    bench.queue().retry(parcel(1), 100)
    await bench.hooks.end()
    assert [token for _, token in bench.hooks.settled] == [RowEnd(parcel(1).id, None)]
    assert bench.parking.gone == 1


async def test_a_retry_that_is_too_old_is_a_dead_letter(bench: Bench) -> None:
    old = parcel(1)
    old.created_ms = 0
    bench.queue().retry(old, 100)
    await bench.hooks.end(RETRY)
    assert bench.committer.ends == [RowEnd(old.id, None)]
    [letter] = bench.committer.outbox
    assert letter.value == record(1).value
    assert b"PARKED_HOURS" in dict(letter.headers)["error"]


async def test_a_lane_that_is_over_takes_its_deliveries_along_but_for_rows(bench: Bench, lane: Lane) -> None:
    first, second = parcel(1), parcel(2)
    bench.queue().offer(first, lane)
    await settled()
    bench.tick(LONG_SECONDS + 0.1)
    bench.queue().offer(second, lane)
    await settled()
    lane.closed = True
    bench.queue().forget(lane)
    await settled()
    assert bench.queue().row_ids == [first.id]
    await bench.parking.store_all()
    await bench.hooks.end(None, 1)
    assert [token for _, token in bench.hooks.settled] == [RowEnd(first.id, None)]


async def test_a_database_that_is_away_is_waited_for(bench: Bench, lane: Lane, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[str] = []

    async def wait(_self: Caller, error: Transient, _seconds: float = 0.0) -> None:
        waits.append(str(error))

    monkeypatch.setattr(Caller, "wait", wait)
    bench.hooks.captures = (Capture(1, 0, "y", "ada", None, {}),)
    bench.hooks.answer = None
    bench.hooks.outcomes = [DatabaseUnavailable("away")]
    bench.queue().offer(parcel(), lane)
    await settled()
    assert len(bench.hooks.calls) == 2
    assert len(lane.ended) == 1
    assert waits == ["away"]


async def test_a_webhook_is_sent_and_its_answer_counts(bench: Bench, lane: Lane) -> None:
    bench.hooks.answer = None
    bench.hooks.value = {"url": "https://x/", "body": {"a": 1}}
    bench.queue().offer(parcel(1, "composeWebhook"), lane)
    await settled()
    [webhook] = bench.webhooks
    assert webhook == ("POST", "https://x/", {"Content-Type": "application/json"}, b'{"a":1}')
    assert bench.count("delivered", "composeWebhook") == 1
    bench.webhook_answer = 503
    bench.queue().offer(parcel(2, "composeWebhook"), lane)
    await settled()
    assert bench.parking.rows[0][1] == "POST to x answered 503"
    bench.webhook_answer = FetchFailed("no route")
    bench.queue().offer(parcel(3, "composeWebhook"), lane)
    await settled()
    assert len(bench.parking.rows) == 2
    bench.webhook_answer = FetchRefused("not allowed")
    bench.queue().offer(parcel(4, "composeWebhook"), lane)
    await settled()
    assert len(bench.parking.rows) == 2
    assert bench.count("failed", "composeWebhook") == 1


async def test_no_webhook_is_a_delivery_too(bench: Bench, lane: Lane) -> None:
    bench.hooks.answer = None
    bench.queue().offer(parcel(1, "composeWebhook"), lane)
    await settled()
    assert bench.webhooks == []
    assert len(lane.ended) == 1

"""A lane's records on their way to the installs that receive them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from plugin_server.delivery.event import make_decode
from plugin_server.delivery.processor import DeliveryProcessor
from plugin_server.delivery.receivers import Receivers
from plugin_server.eventlog.port import InputRecord
from plugin_server.model.outcome import DeadLetter
from plugin_server.model.project import App, Install, Project
from plugin_server.registry.registry import Registry
from tests.unit.delivery.doubles import (
    DEAD_LETTERS,
    PLAIN,
    RETRY,
    Bench,
    Lane,
    Marks,
    Record,
    decode_for,
    install,
    project_of,
    record,
    settled,
)

EACH = frozenset({"onEvent"})
BATCHES = frozenset({"exportEvents"})


class Stand(Bench):
    """A bench with one lane."""

    def __init__(self, *projects: Project) -> None:
        super().__init__()
        self.lane = Lane()
        self.marks = Marks()
        self.receivers = Receivers(self.hooks, lambda: self.now)
        self.processor = DeliveryProcessor(
            self.lane,
            decode_for(*projects),
            self.receivers,
            self.queue,
            self.marks,  # type: ignore[arg-type]
            self.letters,
            self.metrics,
            place="out-0",
            clock=lambda: self.now,
        )

    async def take(self, *records: InputRecord) -> None:
        self.processor.take(records)
        await settled()

    def tick(self, seconds: float) -> None:
        super().tick(seconds)
        self.processor.tick()


A, B = install(1), install(2)
PROJECT = project_of(A, B)


@pytest.fixture
async def stand() -> AsyncIterator[Stand]:
    made = Stand(PROJECT, project_of(project_id=3))
    made.hooks.apps[2] = {1: EACH, 2: EACH}
    yield made
    await made.processor.close()
    await made.receivers.close()
    await made.close()


async def test_an_event_is_finished_when_every_install_had_it(stand: Stand) -> None:
    await stand.take(record(1))
    assert sorted(call[0] for call in stand.hooks.calls) == [1, 2]
    await stand.hooks.end()
    assert stand.lane.offsets == []
    await stand.hooks.end(PLAIN)
    assert stand.lane.offsets == [1]


async def test_events_finish_in_any_order(stand: Stand) -> None:
    await stand.take(record(1), record(2))
    await stand.hooks.end(install_id=1)
    await stand.hooks.end(RETRY, install_id=2)
    assert stand.lane.offsets == []
    await stand.hooks.end(install_id=1)
    await stand.hooks.end(install_id=2)
    assert stand.lane.offsets == [2]
    await stand.parking.store_all()
    assert stand.lane.offsets == [1, 2]


async def test_without_receivers_an_event_is_finished_at_once(stand: Stand) -> None:
    await stand.take(record(1, project_id=3), record(2, project_id=99), record(3, "$snapshot"))
    assert stand.lane.offsets == [1, 2, 3]
    assert stand.hooks.calls == []


async def test_snapshots_are_for_on_snapshot_alone(stand: Stand) -> None:
    stand.hooks.apps[2] = {1: frozenset({"onSnapshot", "onEvent"}), 2: EACH}
    await stand.take(record(1, "$snapshot"), record(2))
    assert sorted((call[0], call[1]) for call in stand.hooks.calls) == [
        (1, "onEvent"),
        (1, "onSnapshot"),
        (2, "onEvent"),
    ]


async def test_the_budget_is_shared_evenly_by_installs_and_by_their_hooks(stand: Stand) -> None:
    stand.hooks.apps[2] = {1: frozenset({"onEvent", "composeWebhook"}), 2: EACH}
    await stand.take(record(1, budget=501))
    await stand.hooks.end(RETRY, 3)
    shares = sorted((row[0].install.id, row[0].hook, row[0].members[0].share) for row in stand.parking.rows)
    assert shares == [(1, "composeWebhook", 125), (1, "onEvent", 125), (2, "onEvent", 250)]


async def test_what_was_delivered_with_effects_before_a_crash_is_not_delivered_again(stand: Stand) -> None:
    stand.marks.had = {(1, 1, "onEvent"), (2, 1, "onEvent"), (2, 2, "onEvent")}
    await stand.take(record(1), record(2))
    assert [call[0] for call in stand.hooks.calls] == [2]
    assert stand.lane.offsets == [2]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", b"invalid_json"),
        (b"{", b"invalid_json"),
        (b"[]", b"invalid_envelope"),
        (b'{"uuid": 1}', b"invalid_envelope"),
        (orjson.dumps({**orjson.loads(record(1).value or b""), "properties": "[]"}), b"invalid_envelope"),
        (orjson.dumps({**orjson.loads(record(1).value or b""), "properties": "{"}), b"invalid_json"),
        (orjson.dumps({**orjson.loads(record(1).value or b""), "properties": "[" * 500 + "]" * 500}), b"too_deep"),
        (orjson.dumps({**orjson.loads(record(1).value or b""), "team_id": "2"}), b"invalid_envelope"),
        (orjson.dumps({**orjson.loads(record(1).value or b""), "elements_chain": 1}), b"invalid_envelope"),
    ],
)
async def test_what_is_no_event_is_a_dead_letter(stand: Stand, value: bytes, reason: bytes) -> None:
    await stand.take(Record(7, value))
    [finished] = stand.lane.done
    [letter] = finished.records
    assert (finished.offset, letter.topic, letter.value) == (7, DEAD_LETTERS, value)
    assert dict(letter.headers)["reason"] == reason
    assert dict(letter.headers)["step"] == b"deliver"


async def test_a_malformed_lineage_is_delivered_and_may_start_nothing(stand: Stand) -> None:
    one = record(1, budget=None)
    await stand.take(one._replace(headers=[*one.headers, ("ps-lineage", b"x")]))
    await stand.hooks.end(RETRY, 2)
    parent = stand.parking.rows[0][0].parent
    assert (parent.malformed_lineage, parent.share) == (True, 0)


# exportEvents


def exporter(stand: Stand, **config: Any) -> None:
    project = project_of(install(1, **config))
    stand.hooks.apps[2] = {1: BATCHES}
    stand.processor._decode = decode_for(project)


async def test_a_batch_is_delivered_when_it_is_due_and_its_events_are_finished_with_it(stand: Stand) -> None:
    exporter(stand, exportEventsBufferSeconds="10", exportEventsToIgnore="noise")
    await stand.take(record(1), record(2, "noise"), record(3))
    stand.tick(9)
    await settled()
    assert stand.hooks.calls == []
    assert stand.lane.offsets == [2]
    stand.tick(1)
    await stand.hooks.end()
    [(_, hook, [events], _)] = stand.hooks.calls
    assert (hook, [event["properties"]["n"] for event in events]) == ("exportEvents", [1, 3])
    assert stand.lane.offsets == [1, 2, 3]


async def test_a_batch_does_not_wait_while_its_lane_reads_nothing(stand: Stand) -> None:
    exporter(stand)
    await stand.take(record(1))
    stand.lane.is_full = True
    stand.tick(0.1)
    await settled()
    assert stand.hooks.calls == []
    stand.tick(0.2)
    await stand.hooks.end()
    assert stand.lane.offsets == [1]


async def test_a_batch_that_fails_is_one_row_with_an_id_of_its_own(stand: Stand) -> None:
    exporter(stand, exportEventsBufferSeconds=1)
    await stand.take(record(1), record(2))
    stand.tick(1)
    await stand.hooks.end(RETRY)
    await stand.take(record(3))
    stand.tick(1)
    await stand.hooks.end(RETRY)
    [first, second] = [row[0] for row in stand.parking.rows]
    assert [len(parcel.members) for parcel in (first, second)] == [2, 1]
    assert first.id != second.id
    assert stand.lane.offsets == []
    await stand.parking.store_all()
    assert stand.lane.offsets == [1, 2, 3]


async def test_a_batch_descends_from_the_member_with_the_largest_share(stand: Stand) -> None:
    exporter(stand, exportEventsBufferSeconds=1)
    await stand.take(record(1, budget=5), record(2, budget=50), record(3, budget=20))
    stand.tick(1)
    await stand.hooks.end(RETRY)
    parent = stand.parking.rows[0][0].parent
    assert (parent.uuid[-1], parent.share, parent.lineage.budget) == ("2", 50, 50)


async def test_a_lane_that_is_over_is_told_nothing(stand: Stand) -> None:
    await stand.take(record(1))
    stand.lane.closed = True
    await stand.processor.close()
    await settled()
    assert stand.lane.done == []


async def test_events_of_apps_that_speak_of_no_delivery_hook_are_not_even_read():
    silent = Project(
        2, "p", "phc_2", (Install(1, App("A", "v", "main.py", "def processEvent(e, m): return e", {}), 1, {}),)
    )
    receivers = Receivers(None, lambda: 0.0)  # type: ignore[arg-type] - nobody is asked
    decode = make_decode(Registry([silent]), "out", 0, receivers.are_none)
    assert decode(Record(0, b"not JSON", b"phc_2:ada")) is None
    assert receivers.known(silent) == ()
    assert isinstance(decode(Record(0, b"not JSON", b"phc_3:ada")), DeadLetter)
    assert isinstance(decode(Record(0, b"not JSON", None)), DeadLetter)


@pytest.mark.parametrize(
    "source", ["def onEvent(e, m): ...", "async def on_snapshot(e, m): ...", "export_events = f", "ｏnEvent = f"]
)
def test_an_app_that_speaks_of_a_delivery_hook_may_receive(source: str):
    loud = Project(2, "p", "phc_2", (Install(1, App("A", "v", "main.py", source, {}), 1, {}),))
    assert not Receivers(None, lambda: 0.0).are_none(loud)  # type: ignore[arg-type]

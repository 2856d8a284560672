"""The load of the chaos tests, and what must have come out of it: each event once, each capture once, in order."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

from tests.server import project
from tests.stage import Log, Stage, envelope, event_uuid

PROJECT = 7
PEOPLE = 200
_CHANGES = """
def processEvent(event, meta):
    total = 0
    for number in range(300):
        total += number
    event["properties"]["seen"] = event["properties"].get("seen", 0) + 1
    return event
"""
_DROPS = """
def processEvent(event, meta):
    if event["properties"].get("n", 0) % 100 == 7:
        return None
    return event
"""
_CAPTURES = """
def processEvent(event, meta):
    n = event["properties"].get("n")
    if n is not None and n % 10 == 3:
        posthog.capture("derived", {"distinct_id": event["distinct_id"], "of": n})
    return event
"""
PROJECTS = [project(PROJECT, _CHANGES, _DROPS, _CAPTURES)]


def messages(first: int, count: int) -> Iterator[dict[str, Any]]:
    """Envelopes `first` … , spread over PEOPLE distinct ids."""
    for number in range(first, first + count):
        yield envelope(PROJECT, number, f"d{number % PEOPLE}", n=number)


async def assert_exactly_once(stage: Stage, events: int) -> None:
    """Of messages 0 … events - 1: all that was not dropped came out once, in order, and each capture was made once."""
    log = stage.log
    outputs = await log.outputs()
    numbered = {event_uuid(number): number for number in range(events)}
    came: Counter[int] = Counter()
    derived: Counter[int] = Counter()
    order: defaultdict[str, list[int]] = defaultdict(list)
    for record in outputs:
        event, properties = record.json, record.properties
        assert properties["seen"] == 1
        number = numbered.get(event["uuid"])
        if number is None:
            assert event["event"] == "derived"
            derived[properties["of"]] += 1
        else:
            assert properties["n"] == number
            came[number] += 1
            order[event["distinct_id"]].append(number)
    _assert_same(came, Counter(number for number in range(events) if number % 100 != 7), "events")
    _assert_same(derived, Counter(number for number in range(events) if number % 10 == 3), "captures that came out")
    _assert_same(await _captured(log), derived, "captures that went in")
    assert [person for person, numbers in order.items() if numbers != sorted(numbers)] == []
    assert await log.dead_letters() == []
    assert stage.logged("emit_failed") == []
    assert stage.logged("lane_failed") == []


async def _captured(log: Log) -> Counter[int]:
    records = [record for record in await log.read(log.topics.ingestion) if "ps-lineage" in record.headers]
    return Counter(json.loads(record.json["data"])["properties"]["of"] for record in records)


def _assert_same(found: Counter[int], expected: Counter[int], what: str) -> None:
    missing, surplus = expected - found, found - expected
    assert not missing, f"{missing.total()} {what} are missing, such as {sorted(missing)[:10]}"
    assert not surplus, f"{surplus.total()} {what} are there too often, such as {sorted(surplus)[:10]}"

"""An app that has only processEventBatch in a chain, which gives it one event at a time."""

from __future__ import annotations

import pytest

from sandbox.wire import HOOKS, EventOutcome
from tests.unit.sandbox.test_chain import Bench, adds


def batch(line: str, before: str = "events[0]['properties']['seen'] = len(events)") -> str:
    return f"def processEventBatch(events, meta):\n    {before}\n    {line}\n"


def test_an_app_that_has_only_batches_gets_each_event_in_one():
    row = Bench(batch("return events"), adds("two")).run()
    assert row.properties["seen"] == 1
    assert row.properties["by"] == ["two"]
    assert row.properties["$plugins_succeeded"] == ["App1 (1)", "App2 (2)"]


@pytest.mark.parametrize("head", ["async def processEventBatch", "def process_event_batch"])
def test_batches_may_be_async_and_in_snake_case(head):
    source = batch("return events").replace("def processEventBatch", head)
    assert Bench(source).run().properties["seen"] == 1


def test_a_batch_that_waits_goes_on_with_the_answer():
    source = batch("return events", "events[0]['properties']['answer'] = await sleep(1)").replace("def", "async def", 1)
    assert Bench(source).run().properties["answer"] == "answer"


def test_process_event_wins_over_batches():
    row = Bench(batch("return 1 / 0") + adds("single")).run()
    assert row.properties["by"] == ["single"]
    assert row.failed == []


@pytest.mark.parametrize("answer", ["None", "[]", "()"])
def test_a_batch_without_an_event_drops_it(answer):
    row = Bench(batch(f"return {answer}"), adds("two")).run()
    assert row.outcome == EventOutcome.DROP
    assert row.notes["dropped_by"] == 1


def test_the_first_event_of_a_batch_is_the_one_that_goes_on():
    row = Bench(batch("return (events[0], {'other': 1})"), adds("two")).run()
    assert (row.properties["seen"], row.properties["by"]) == (1, ["two"])


@pytest.mark.parametrize("answer", ["events[0]", "5", "'text'", "[5]", "[None]", "{}", "(e for e in events)"])
def test_a_batch_that_returns_no_list_of_events_fails_and_the_event_is_as_before(answer):
    row = Bench(batch(f"return {answer}"), adds("two")).run()
    assert row.failed == [(1, "app", "processEventBatch must return a list of events, or None to drop them")]
    assert row.messages[0].startswith("processEventBatch failed: ")
    assert "seen" not in row.properties
    assert row.properties["$plugins_failed"] == ["App1 (1)"]


def test_the_page_names_the_batch_hook():
    bench = Bench(batch("return events"))
    bench.run()
    assert bench.page.hook == HOOKS.index("processEventBatch")


@pytest.mark.parametrize("head", ["def", "async def"])
def test_a_failing_batch_leaves_its_line_and_no_capture(head):
    source = f"{head} processEventBatch(events, meta):\n    posthog.capture('lost')\n    return 1 / 0\n"
    row = Bench(source).run()
    assert row.notes["failed"] == [[1, "app", "ZeroDivisionError: division by zero", 3, False]]
    assert "captures" not in row.notes

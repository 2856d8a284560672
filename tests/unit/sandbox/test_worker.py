"""The child's loop without a child: frames in, frames out, calls answered in any order."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from sandbox.page import Page, SoftTimer
from sandbox.wire import HEADER, FrameKind
from sandbox.worker import Worker

SLEEPS = """
async def processEvent(event, meta):
    if event['event'] == 'slow':
        await sleep(1)
        posthog.capture('woke', {'n': event['properties']['n']})
    return event
"""
PASSES = "def processEvent(event, meta):\n    return event\n"


class Wire:
    """Stands for the socket: takes frames apart as they are sent."""

    def __init__(self) -> None:
        self.frames: list[tuple[int, Any, bytes]] = []

    def sendall(self, data: bytes) -> None:
        kind, head, blob = HEADER.unpack_from(data)
        start = HEADER.size
        assert len(data) == start + head + blob
        self.frames.append((kind, orjson.loads(data[start : start + head]), data[start + head :]))


class Child:
    def __init__(self, *sources: str) -> None:
        self.wire = Wire()
        page = Page()
        self.worker = Worker(self.wire, page, SoftTimer(page))  # type: ignore[arg-type]
        installs = [
            {
                "id": number,
                "name": f"App{number}",
                "file_name": "main.py",
                "source": source,
                "config": {},
                "attachments": {},
                "failed": None,
            }
            for number, source in enumerate(sources, 1)
        ]
        limits = {"cpu_seconds": 1, "event_bytes": 2**20, "record_bytes": 1_000_000, "captures_per_event": 100}
        self.worker._load({"project_id": 2, "installs": installs, "library_version": "1", "limits": limits}, b"")

    def run(self, *events: tuple[str, str, int] | bytes, first: int = 1, trace: bool = False) -> None:
        raws = [event if isinstance(event, bytes) else raw_event(*event) for event in events]
        head = {"first": first, "lengths": list(map(len, raws)), "failed": {}, "trace": trace}
        self.worker._run_batch(head, b"".join(raws))
        self.worker._flush(batches_ended=1)

    def answer(self, call_id: int, value: Any = None) -> None:
        self.worker._reply(call_id, True, value)
        self.worker._flush()

    @property
    def rows(self) -> list[Any]:
        return [row for kind, head, _ in self.wire.frames if kind == FrameKind.RESULTS for row in head[1]]

    @property
    def order(self) -> list[int]:
        return [row[0] for row in self.rows]

    @property
    def calls(self) -> list[Any]:
        return [head for kind, head, _ in self.wire.frames if kind == FrameKind.CALL]

    @property
    def loaded(self) -> Any:
        return next(head for kind, head, _ in self.wire.frames if kind == FrameKind.LOADED)


@pytest.fixture(autouse=True)
def _no_timer(monkeypatch):
    monkeypatch.setattr("sandbox.page.SoftTimer.start", lambda _self, _files: None)


def raw_event(name: str, distinct_id: str, number: int) -> bytes:
    data = orjson.dumps({"event": name, "properties": {"n": number}}).decode()
    return orjson.dumps({"uuid": f"u{number}", "distinct_id": distinct_id, "now": "2026-01-01T00:00:00Z", "data": data})


def test_loading_says_what_each_app_has_and_what_is_wrong():
    child = Child(PASSES, "raise ValueError('no')\n", "def setupPlugin(meta):\n    console.log('up')\n    1 / 0\n")
    assert child.loaded["version"] == 1
    assert [(entry["id"], entry["hooks"]) for entry in child.loaded["installs"]] == [
        (1, ["processEvent"]),
        (2, []),
        (3, ["setupPlugin"]),
    ]
    assert [entry["error"] for entry in child.loaded["installs"]] == [
        None,
        ["app", "ValueError: no", 1],
        ["app", "ZeroDivisionError: division by zero", 3],
    ]
    assert child.loaded["logs"] == [[3, "LOG", "up", "CONSOLE"]]


def test_an_app_whose_setup_failed_is_not_called():
    child = Child("def setupPlugin(meta):\n    1 / 0\n" + PASSES)
    child.run(("x", "ada", 1))
    (row,) = child.rows
    assert row[7] is None


def test_a_batch_is_answered_in_one_frame_with_its_properties():
    child = Child(PASSES)
    child.run(("x", "ada", 1), ("y", "eve", 2))
    kind, (ended, rows), blob = child.wire.frames[-1]
    assert (kind, ended) == (FrameKind.RESULTS, 1)
    assert [row[:3] for row in rows] == [[1, 0, "x"], [2, 0, "y"]]
    assert len(blob) == sum(row[6] for row in rows)


def test_an_event_that_is_none_is_said_to_be_and_the_others_go_on():
    child = Child(PASSES)
    bad = orjson.dumps({"uuid": "u", "distinct_id": "ada", "now": "", "data": "{"})
    child.run(("x", "ada", 1), bad, ("x", "ada", 3))
    assert sorted(row[:2] for row in child.rows) == [[1, 0], [2, 2], [3, 0]]


def test_while_one_waits_others_overtake_and_its_own_key_waits():
    child = Child(SLEEPS)
    child.run(("slow", "ada", 1), ("x", "eve", 2), ("x", "ada", 3), ("x", "bob", 4), ("x", "ada", 5))
    assert child.order == [2, 4]
    child.run(("x", "ada", 6), ("x", "eve", 7), first=6)
    assert child.order == [2, 4, 7]
    child.answer(child.calls[0][0])
    assert child.order == [2, 4, 7, 1, 3, 5, 6]


def test_several_that_wait_of_one_key_go_one_after_the_other():
    child = Child(SLEEPS)
    child.run(("slow", "ada", 1), ("slow", "ada", 2), ("x", "ada", 3), ("slow", "eve", 4))
    assert [call[1] for call in child.calls] == [1, 4]
    child.answer(child.calls[1][0])
    child.answer(child.calls[0][0])
    assert child.order == [4, 1]
    child.answer(child.calls[2][0])
    assert child.order == [4, 1, 2, 3]
    assert [row[7]["captures"][0][2:] for row in child.rows if row[7]] == [
        [
            "woke",
            "App Server",
            None,
            {"$lib": "posthog-plugin-server", "$lib_version": "1", "n": number, "distinct_id": "App Server"},
        ]
        for number in (4, 1, 2)
    ]


def test_calls_are_numbered_per_install_and_event():
    twice = "async def processEvent(event, meta):\n    sleep(1)\n    sleep(2)\n    return event\n"
    child = Child(twice, twice)
    child.run(("x", "ada", 1))
    child.answer(child.calls[0][0])
    child.answer(child.calls[1][0])
    assert [(call[1], call[2], call[3], call[4], call[5]) for call in child.calls] == [
        (1, 1, 0, "sleep", [1]),
        (1, 1, 1, "sleep", [2]),
        (1, 2, 0, "sleep", [1]),
        (1, 2, 1, "sleep", [2]),
    ]


def test_calls_of_one_event_are_bounded():
    child = Child("def processEvent(event, meta):\n    for _ in range(5_000):\n        sleep(1)\n")
    child.run(("x", "ada", 1))
    assert len(child.calls) == 1_000
    assert child.rows[0][7]["failed"][0][:2] == [1, "limit"]


def test_an_answer_that_comes_after_the_event_has_ended_changes_nothing():
    child = Child("def processEvent(event, meta):\n    sleep(1)\n    raise ValueError('x')\n")
    child.run(("x", "ada", 1))
    assert child.order == [1]
    child.answer(child.calls[0][0])
    assert child.order == [1]


def test_a_cancelled_wait_fails_that_app_and_the_key_goes_on():
    child = Child(SLEEPS, PASSES)
    child.run(("slow", "ada", 1), ("x", "ada", 2))
    child.worker._cancel(1, "ran longer than 1 s")
    child.worker._flush()
    assert child.order == [1, 2]
    assert child.rows[0][7]["failed"] == [[1, "timeout", "ran longer than 1 s", 4]]
    child.worker._cancel(1, "again")
    child.answer(child.calls[0][0])
    assert child.order == [1, 2]


def test_a_hook_that_waits_on_when_it_is_told_to_end_fails_alone():
    stubborn = """
async def processEvent(event, meta):
    try:
        await sleep(1)
    finally:
        for _ in range(50):
            try:
                await sleep(1)
            finally:
                await sleep(1)
"""
    child = Child(stubborn, SLEEPS)
    child.run(("x", "ada", 1))
    child.worker._cancel(1, "told to")
    child.worker._flush()
    (row,) = child.rows
    assert row[1] == 0
    assert [entry[:2] for entry in row[7]["failed"]] == [[1, "timeout"]]


def test_events_that_carry_much_beside_their_properties_are_sent_in_several_frames():
    loud = (
        "def processEvent(event, meta):\n    for _ in range(25):\n        console.log('x' * 10_000)\n    return event\n"
    )
    child = Child(loud)
    child.run(*(("x", "ada", number) for number in range(100)))
    sizes = [len(orjson.dumps(head)) for kind, head, _ in child.wire.frames if kind == FrameKind.RESULTS]
    assert child.order == list(range(1, 101))
    assert max(sizes) < 8 * 2**20


def test_a_trace_flushes_by_what_it_carries():
    child = Child(PASSES, PASSES)
    child.run(*((("x" * 150_000), "ada", number) for number in range(40)), trace=True)
    sizes = [len(orjson.dumps(head)) for kind, head, _ in child.wire.frames if kind == FrameKind.RESULTS]
    assert child.order == list(range(1, 41))
    assert max(sizes) < 8 * 2**20

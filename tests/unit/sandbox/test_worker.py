"""The child's loop without a child: frames in, frames out, calls answered in any order."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from child import LIMITS, Child, opened_event

from sandbox.wire import WIRE_VERSION, FrameKind

SLEEPS = """
async def processEvent(event, meta):
    if event['event'] == 'slow':
        await sleep(1)
        posthog.capture('woke', {'n': event['properties']['n']})
    return event
"""
PASSES = "def processEvent(event, meta):\n    return event\n"


def stubborn(statement: str = "await sleep(1)", levels: int = 15) -> str:
    """The body of a hook that goes on waiting whenever it is told to end, more often than it is told to."""
    lines = [f"{'    ' * level}try:" for level in range(1, levels + 1)]
    lines.append(f"{'    ' * (levels + 1)}await sleep(1)")
    for level in range(levels, 0, -1):
        lines += [f"{'    ' * level}finally:", f"{'    ' * (level + 1)}{statement}"]
    return "\n" + "\n".join(lines) + "\n"


MARKS = "def processEvent(event, meta):\n    event['properties']['marked'] = True\n    return event\n"


# Loading


def test_loading_says_what_each_app_has_and_what_is_wrong():
    job = "def work(payload, meta):\n    pass\njobs = {'mail': work}\n"
    child = Child(PASSES, "raise ValueError('no')\n", "def setupPlugin(meta):\n    1 / 0\n" + job)
    (loaded,) = child.loaded
    assert (loaded["version"], loaded["chain"]) == (WIRE_VERSION, 1)
    assert loaded["installs"] == [
        {"id": 1, "hooks": ["processEvent"], "metrics": {}, "error": None},
        {"id": 2, "hooks": [], "metrics": {}, "error": ["app", "ValueError: no", 1, False]},
        {"id": 3, "hooks": ["setupPlugin", "jobs.mail"], "metrics": {}, "error": None},
    ]
    assert set(loaded) == {"version", "chain", "installs"}


def test_what_broke_a_sandbox_before_is_not_loaded_again():
    child = Child("raise ValueError('again')\n", failed=["timeout", "took too long", None, False])
    assert child.loaded[0]["installs"] == [
        {"id": 1, "hooks": [], "metrics": {}, "error": ["timeout", "took too long", None, False]}
    ]


def test_attachments_are_cut_from_the_blob():
    child = Child()
    source = "def processEvent(event, meta):\n    event['properties']['a'] = [str(meta.attachments[n].contents) for n in 'xy']\n    return event\n"
    install = {"id": 5, "name": "A", "file_name": "m.py", "source": source, "config": {}, "failed": None}
    install["attachments"] = {"x": ["text/plain", "x.txt", 2, 4], "y": ["text/plain", "y.txt", 0, 2]}
    head = {"chain": 2, "project_id": 2, "installs": [install], "library_version": "1", "now": None, "limits": LIMITS}
    child.send(FrameKind.LOAD, head, b"abcd")
    child.run(("x", "ada", 1), chain=2)
    assert child.results[0][1]["a"] == ["b'cd'", "b'ab'"]


def test_the_apps_clock_stands_where_the_host_says():
    source = (
        "import time\ndef processEvent(event, meta):\n    event['properties']['t'] = time.time()\n    return event\n"
    )
    child = Child(source, now=1_767_225_600.5)
    child.load(2, source, first_install=7, now=5)
    child.run(("x", "ada", 1))
    child.run(("x", "ada", 2), chain=2, first=2)
    assert [properties["t"] for _, properties in child.results] == [1_767_225_600.5, 5.0]


@pytest.mark.parametrize("kind", [0, 15, FrameKind.LOADED, FrameKind.RESULTS, 255])
def test_a_frame_that_is_not_the_hosts_ends_the_child(kind):
    with pytest.raises(ValueError, match="unexpected frame"):
        Child(PASSES).send(kind, [])


# Setting up


def test_setup_is_called_when_the_host_says_so_and_not_before():
    child = Child("def setupPlugin(meta):\n    console.log('up')\n    meta.global_['up'] = 1\n" + PASSES)
    assert child.done == []
    child.invoke(1, "setupPlugin")
    assert child.done == [(1, None, None, {"logs": [[1, "LOG", "up", "CONSOLE"]]})]
    child.run(("x", "ada", 1), first=2)
    assert child.results[0][1]["$plugins_succeeded"] == ["App1 (1)"]


def test_an_app_whose_setup_failed_is_not_called_and_the_others_are():
    child = Child("def setupPlugin(meta):\n    console.log('up')\n    1 / 0\n" + MARKS, PASSES)
    child.invoke(1, "setupPlugin")
    failure = ["app", "ZeroDivisionError: division by zero", 3, False]
    assert child.done[0][1:3] == (failure, None)
    assert [line[1:3] for line in child.done[0][3]["logs"]] == [
        ["LOG", "up"],
        ["ERROR", "setupPlugin failed: ZeroDivisionError: division by zero (line 3)"],
    ]
    child.run(("x", "ada", 1), first=2)
    ((row, properties),) = child.results
    assert row[7] is None
    assert properties == {"n": 1, "$plugins_succeeded": ["App2 (2)"], "$plugins_failed": []}


def test_setup_may_wait_for_the_host_while_another_is_set_up():
    source = "async def setupPlugin(meta):\n    await sleep(1)\n    meta.global_['up'] = True\n" + MARKS
    child = Child(source, source)
    child.invoke(1, "setupPlugin")
    child.invoke(2, "setupPlugin", install=2)
    assert [call[1:3] for call in child.calls] == [[1, 1], [2, 2]]
    child.answer(child.calls[1][0])
    child.answer(child.calls[0][0])
    assert child.order == [2, 1]
    child.run(("x", "ada", 1), first=3)
    assert child.results[0][1]["$plugins_succeeded"] == ["App1 (1)", "App2 (2)"]


def test_setup_that_times_out_takes_the_app_out_of_the_chain():
    child = Child("async def setupPlugin(meta):\n    await sleep(1)\n" + MARKS)
    child.invoke(1, "setupPlugin")
    child.cancel(1, "ran longer than 1 s")
    assert child.done[0][1] == ["timeout", "ran longer than 1 s", 2, False]
    child.run(("x", "ada", 1), first=2)
    assert child.results[0][1] == {"n": 1}


def test_set_up_and_tear_down_may_capture():
    source = "def setupPlugin(meta):\n    posthog.capture('x')\ndef teardownPlugin(meta):\n    posthog.capture('x')\n"
    child = Child(source)
    child.invoke(1, "setupPlugin")
    child.invoke(2, "teardownPlugin")
    done = child.done
    assert [failure for _, failure, _, _ in done] == [None, None]
    assert [len(notes["captures"]) for *_, notes in done] == [1, 1]


@pytest.mark.parametrize(("allowed", "made"), [(None, 100), (0, 0), (3, 3), (250, 250)])
def test_the_host_says_how_much_an_invocation_may_capture(allowed, made):
    source = (
        "def runEveryDay(meta):\n    for n in range(300):\n        try:\n            posthog.capture('x', {'n': n})\n"
        "        except LimitExceeded:\n            return\n"
    )
    child = Child(source)
    child.invoke(1, "runEveryDay", max_captures=allowed)
    _, failure, _, notes = child.done[0]
    assert failure is None
    captures = (notes or {}).get("captures", [])
    assert [(capture[1], capture[5]["n"]) for capture in captures] == [(n, n) for n in range(made)]


# Hooks outside of the chain


def test_an_invocation_is_answered_with_its_value_and_captures():
    source = """
async def composeWebhook(event, meta):
    posthog.capture('asked', {'n': 1})
    await sleep(1)
    posthog.capture('answered', {'n': 22})
    console.log('ok')
    return {'url': event['event']}
"""
    child = Child(source)
    child.invoke(9, "composeWebhook", {"event": "x"})
    assert child.done == []
    child.answer(child.calls[0][0])
    ((sequence, failure, value, notes),) = child.done
    assert (sequence, failure, value) == (9, None, {"url": "x"})
    assert [(capture[0], capture[1], capture[2], capture[5]["n"]) for capture in notes["captures"]] == [
        (1, 0, "asked", 1),
        (1, 1, "answered", 22),
    ]
    assert notes["logs"] == [[1, "LOG", "ok", "CONSOLE"]]


def test_jobs_are_invoked_by_their_names():
    source = """
def mail(payload, meta):
    console.log(payload['to'])
async def other(payload, meta):
    await sleep(payload)
jobs = {'mail': mail, 'Other one': other}
"""
    child = Child(source)
    child.invoke(1, "jobs.mail", {"to": "ada"})
    child.invoke(2, "jobs.Other one", 3)
    child.answer(child.calls[0][0])
    assert child.calls[0][4:] == ["sleep", [3]]
    assert child.done == [(1, None, None, {"logs": [[1, "LOG", "ada", "CONSOLE"]]}), (2, None, None, None)]


def test_invocations_wait_for_no_event_and_no_event_for_them():
    child = Child(SLEEPS + "async def onEvent(event, meta):\n    await sleep(2)\n")
    child.run(("slow", "ada", 1))
    child.invoke(2, "onEvent", {"distinct_id": "ada"})
    child.invoke(3, "onEvent", {"distinct_id": "ada"})
    child.run(("x", "ada", 4), ("x", "eve", 5), first=4)
    assert [call[1] for call in child.calls] == [1, 2, 3]
    assert child.order == [5]
    child.answer(child.calls[2][0])
    child.answer(child.calls[0][0])
    child.answer(child.calls[1][0])
    assert child.order == [5, 3, 1, 4, 2]


def test_a_hook_that_is_given_up_is_answered_as_timed_out_and_says_so_in_its_log():
    child = Child(f"async def onEvent(event, meta):{stubborn()}")
    child.invoke(1, "onEvent", {})
    child.cancel(1, "told to")
    ((sequence, failure, value, notes),) = child.done
    assert (sequence, failure, value) == (1, ["timeout", "did not end when it was told to", None, False], None)
    assert notes is not None
    assert [line[1] for line in notes["logs"]] == ["ERROR"]


def test_rows_that_were_finished_earlier_are_sent_before_an_answer():
    child = Child(PASSES + "def onEvent(event, meta):\n    pass\n")
    child.run(("x", "ada", 1))
    child.invoke(2, "onEvent", {})
    assert child.order == [1, 2]


# Chains


def test_two_chains_keep_to_their_own_apps_and_limits():
    child = Child(PASSES)
    child.load(2, MARKS, PASSES, first_install=5, event_bytes=2_000)
    child.run(("x", "ada", 1), chain=2)
    child.run(("x", "ada", 2), chain=1, first=2)
    child.run(("x" * 3_000, "ada", 3), chain=2, first=3)
    assert [properties.get("$plugins_succeeded") for _, properties in child.results] == [
        ["App5 (5)", "App6 (6)"],
        ["App1 (1)"],
        [],
    ]
    assert [loaded["chain"] for loaded in child.loaded] == [1, 2]


def test_each_chain_has_its_own_cpu_time_also_after_a_wait():
    child = Child(SLEEPS, cpu_seconds=5)
    child.load(2, SLEEPS, first_install=5, cpu_seconds=0.25)
    child.run(("slow", "ada", 1))
    assert child.timer.cpu_seconds == 5
    child.run(("slow", "eve", 2), chain=2, first=2)
    assert child.timer.cpu_seconds == 0.25
    child.answer(child.calls[0][0])
    assert child.timer.cpu_seconds == 5
    child.answer(child.calls[1][0])
    assert child.timer.cpu_seconds == 0.25
    child.invoke(3, "processEvent", {})
    assert child.timer.cpu_seconds == 5


def test_a_chain_that_was_unloaded_is_gone_and_the_others_stay():
    child = Child(PASSES)
    child.load(2, MARKS, first_install=5)
    child.send(FrameKind.UNLOAD, [1])
    child.send(FrameKind.UNLOAD, [1])
    child.send(FrameKind.UNLOAD, [77])
    child.run(("x", "ada", 1), chain=2)
    assert child.results[0][1]["marked"] is True
    with pytest.raises(KeyError):
        child.run(("x", "ada", 2), first=2)


def test_a_chain_may_be_unloaded_while_it_waits():
    child = Child(SLEEPS)
    child.run(("slow", "ada", 1), ("x", "ada", 2))
    child.send(FrameKind.UNLOAD, [1])
    child.answer(child.calls[0][0])
    assert child.order == [1, 2]


# Events


def test_a_batch_is_answered_in_one_frame_with_its_properties():
    child = Child(PASSES)
    child.run(("x", "ada", 1), ("y", "eve", 2))
    kind, (ended, rows), blob = child.wire.frames[-1]
    assert (kind, ended) == (FrameKind.RESULTS, 1)
    assert [row[:3] for row in rows] == [[1, 0, "x"], [2, 0, "y"]]
    assert len(blob) == sum(row[6] for row in rows)
    assert [properties["n"] for _, properties in child.results] == [1, 2]


def test_an_event_that_is_none_is_said_to_be_and_the_others_go_on():
    child = Child(PASSES)
    bad = orjson.dumps({"uuid": "u", "distinct_id": "ada", "now": "", "data": "{"})
    child.run(("x", "ada", 1), bad, ("x", "ada", 3))
    assert sorted(row[:2] for row in child.rows) == [[1, 0], [2, 2], [3, 0]]


def test_whole_events_come_back_as_events_and_opened_ones_are_taken_as_events():
    child = Child(MARKS)
    child.run(opened_event("x", "ada", 1), opened_event("y", "ada", 2), b"{}", whole=True, keys=["ada", "ada", "ada"])
    child.run(opened_event("z", "ada", 4), keys=["ada"], first=4)
    child.run(("w", "ada", 5), whole=True, first=5)
    assert [row[:2] for row, _ in child.results] == [[1, 3], [2, 3], [3, 2], [4, 0], [5, 3]]
    found = {row[0]: value for row, value in child.results}
    assert [found[number]["event"] for number in (1, 2, 5)] == ["x", "y", "w"]
    assert all(found[number]["properties"] == {"n": number, "marked": True} for number in (1, 2, 5))
    assert found[4]["$plugins_succeeded"] == ["App1 (1)"]


def test_captures_and_trace_follow_the_event_in_the_blob():
    child = Child("def processEvent(event, meta):\n    posthog.capture('c', {'n': 7})\n    return event\n")
    child.run(("x", "ada", 1), ("x", "ada", 2), trace=True)
    blob = child.wire.frames[-1][2]
    start = 0
    for row, properties in child.results:
        assert properties["$plugins_succeeded"] == ["App1 (1)"]
        lengths = [row[6], row[7]["captures"][0][5], *(step[1] for step in row[7]["trace"])]
        parts = []
        for length in lengths:
            parts.append(orjson.loads(blob[start : start + length]))
            start += length
        assert parts[1]["n"] == 7
        assert [step["properties"] for step in parts[2:]] == [{"n": row[0]}, {"n": row[0]}]
    assert start == len(blob)


# Waiting for the host


def test_while_one_waits_others_overtake_and_its_own_key_waits():
    child = Child(SLEEPS)
    child.run(("slow", "ada", 1), ("x", "eve", 2), ("x", "ada", 3), ("x", "bob", 4), ("x", "ada", 5))
    assert child.order == [2, 4]
    child.run(("x", "ada", 6), ("x", "eve", 7), first=6)
    assert child.order == [2, 4, 7]
    child.answer(child.calls[0][0])
    assert child.order == [2, 4, 7, 1, 3, 5, 6]


def test_events_that_are_given_keys_keep_the_order_of_those():
    # An earlier segment changed the distinct ids; the order to be kept is that of the ids that they came with.
    child = Child(SLEEPS)
    events = [opened_event(name, distinct_id, n) for n, (name, distinct_id) in enumerate(
        [("slow", "ada"), ("x", "other"), ("x", "ada"), ("x", "eve")], 1
    )]  # fmt: skip
    child.run(*events, keys=["k", "k", "free", "k"])
    assert child.order == [3]
    child.answer(child.calls[0][0])
    assert child.order == [3, 1, 2, 4]


def test_an_event_that_cannot_be_opened_takes_no_key_of_another():
    child = Child(SLEEPS)
    child.run(opened_event("slow", "a", 1), b"[]", opened_event("x", "b", 3), keys=["one", "two", "one"])
    assert child.order == [2]
    child.answer(child.calls[0][0])
    assert child.order == [2, 1, 3]


def test_chains_that_share_a_key_wait_for_nobody_longer_than_they_must():
    child = Child(SLEEPS)
    child.load(2, MARKS, first_install=5)
    child.run(("slow", "ada", 1))
    child.run(("x", "eve", 2), chain=2, first=2)
    assert child.order == [2]
    child.run(("x", "ada", 3), chain=2, first=3)
    child.answer(child.calls[0][0])
    assert sorted(child.order) == [1, 2, 3]


def test_several_that_wait_of_one_key_go_one_after_the_other():
    child = Child(SLEEPS)
    child.run(("slow", "ada", 1), ("slow", "ada", 2), ("x", "ada", 3), ("slow", "eve", 4))
    assert [call[1] for call in child.calls] == [1, 4]
    child.answer(child.calls[1][0])
    child.answer(child.calls[0][0])
    assert child.order == [4, 1]
    child.answer(child.calls[2][0])
    assert child.order == [4, 1, 2, 3]
    assert captures_of(child) == [
        [
            "woke",
            "App Server",
            None,
            {"$lib": "posthog-plugin-server", "$lib_version": "1", "n": number, "distinct_id": "App Server"},
        ]
        for number in (4, 1, 2)
    ]


def captures_of(child: Child) -> list[Any]:
    found = []
    for kind, head, blob in child.wire.frames:
        start = 0
        for row in head[1] if kind == FrameKind.RESULTS else ():
            start += row[6]
            for *fields, length in (row[7] or {}).get("captures", ()):
                found.append([*fields[2:], orjson.loads(blob[start : start + length])])
                start += length
    return found


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


@pytest.mark.parametrize("hook", ["processEvent", "onEvent"])
def test_calls_of_one_event_are_bounded(hook):
    child = Child(f"def {hook}(event, meta):\n    for _ in range(5_000):\n        sleep(1)\n")
    if hook == "onEvent":
        child.invoke(1, hook, {})
        failure = child.done[0][1]
    else:
        child.run(("x", "ada", 1))
        failure = child.rows[0][7]["failed"][0][1:]
    assert len(child.calls) == 1_000
    assert failure[0] == "limit"


def test_an_answer_that_comes_after_the_event_has_ended_changes_nothing():
    child = Child("def processEvent(event, meta):\n    sleep(1)\n    raise ValueError('x')\n")
    child.run(("x", "ada", 1))
    assert child.order == [1]
    child.answer(child.calls[0][0])
    assert child.order == [1]


def test_a_cancelled_wait_fails_that_app_and_the_key_goes_on():
    child = Child(SLEEPS, PASSES)
    child.run(("slow", "ada", 1), ("x", "ada", 2))
    child.cancel(1, "ran longer than 1 s")
    assert child.order == [1, 2]
    assert child.rows[0][7]["failed"] == [[1, "timeout", "ran longer than 1 s", 4, False]]
    child.cancel(1, "again")
    child.answer(child.calls[0][0])
    assert child.order == [1, 2]


def test_a_hook_that_waits_on_when_it_is_told_to_end_fails_alone():
    child = Child(f"async def processEvent(event, meta):{stubborn()}", SLEEPS)
    child.run(("x", "ada", 1))
    child.cancel(1, "told to")
    (row,) = child.rows
    assert row[1] == 0
    assert row[7]["failed"] == [[1, "timeout", "did not end when it was told to", None, False]]
    assert child.results[0][1]["$plugins_succeeded"] == ["App2 (2)"]


def test_an_install_that_failed_an_event_before_is_left_out_of_that_one_alone():
    child = Child(MARKS)
    child.run(("x", "ada", 1), ("x", "ada", 2), failed={"2": {"1": ["timeout", "too long", 3, False]}})
    assert [properties.get("marked") for _, properties in child.results] == [True, None]
    assert child.rows[1][7]["failed"] == [[1, "timeout", "too long", 3, False]]


# Long frames


def test_events_that_carry_much_beside_their_properties_are_sent_in_several_frames():
    loud = (
        "def processEvent(event, meta):\n    for _ in range(25):\n        console.log('x' * 10_000)\n    return event\n"
    )
    child = Child(loud)
    child.run(*(("x", "ada", number) for number in range(100)))
    assert child.order == list(range(1, 101))
    assert max(sizes(child)) < 8 * 2**20


def test_a_trace_flushes_by_what_it_carries():
    child = Child(PASSES, PASSES)
    child.run(*((("x" * 150_000), "ada", number) for number in range(40)), trace=True)
    assert child.order == list(range(1, 41))
    assert max(sizes(child)) < 8 * 2**20


def test_captures_flush_by_what_they_carry():
    child = Child("def processEvent(event, meta):\n    posthog.capture('c', {'a': 'x' * 900_000})\n    return event\n")
    child.run(*(("x", "ada", number) for number in range(20)))
    assert child.order == list(range(1, 21))
    assert max(sizes(child)) < 8 * 2**20


def test_what_waited_behind_a_key_is_sent_in_several_frames_too():
    large = SLEEPS.replace("return event", "event['properties']['x'] = 'x' * 500_000\n    return event")
    child = Child(large)
    child.run(("slow", "ada", 1), *(("x", "ada", number) for number in range(2, 41)))
    child.answer(child.calls[0][0])
    assert child.order == list(range(1, 41))
    assert max(sizes(child)) < 8 * 2**20


def sizes(child: Child) -> list[int]:
    return [len(orjson.dumps(head)) + len(blob) for kind, head, blob in child.wire.frames if kind == FrameKind.RESULTS]


# Who is to blame when the process dies


class Probe:
    """Notes, when it is freed, whether the page named an app, and which."""

    def __init__(self, child: Child, seen: list[tuple[bool, int]]) -> None:
        self.child = child
        self.seen = seen

    def __del__(self) -> None:
        self.seen.append((self.child.page.in_app, self.child.page.install))


FREED = {
    "with the event of a dropped event": "event['x'] = Probe()\n    return None",
    "with the properties of a dropped event": "event['properties']['x'] = [Probe()]\n    return None",
    "with an event that was replaced": (
        "event['x'] = Probe()\n    return {'event': 'n', 'distinct_id': 'd', 'properties': {}}"
    ),
    "with an event that is no JSON": "event['x'] = Probe()\n    return event",
    "with a value that is no event": "return [Probe()]",
    "with the event of a failure": "event['x'] = Probe()\n    raise ValueError('x')",
    "with the failure": "raise ValueError(Probe())",
    "with the local variables of a failure": "x = Probe()\n    raise ValueError('x')",
    "with what a failure came from": (
        "try:\n        raise ValueError(Probe())\n    except ValueError as error:\n        raise KeyError('x') from error"
    ),
    "when the hook returned": "x = Probe()\n    return event",
}


def child_with_probes(seen: list[tuple[bool, int]], *sources: str) -> Child:
    child = Child(*sources)
    for app in child.worker._chains[1].apps.values():
        assert app.error is None, app.error
        for hook in app.hooks.values():
            hook.__globals__["Probe"] = lambda: Probe(child, seen)
    return child


@pytest.mark.parametrize("others", [False, True], ids=["alone", "before another app"])
@pytest.mark.parametrize("waits", [False, True], ids=["at once", "after a wait"])
@pytest.mark.parametrize("body", FREED.values(), ids=FREED)
def test_the_page_names_the_app_until_its_values_are_freed(body, waits, others):
    seen: list[tuple[bool, int]] = []
    head = "async def processEvent(event, meta):\n    await sleep(1)\n" if waits else "def processEvent(event, meta):\n"
    child = child_with_probes(seen, f"{head}    {body}\n", *([PASSES] if others else []))
    child.run(("x", "ada", 1), ("y", "ada", 2))
    for number in range(2):
        if waits:
            child.answer(child.calls[number][0])
    assert child.order == [1, 2]
    assert seen == [(True, 1), (True, 1)]


@pytest.mark.parametrize(
    "body",
    [
        "event['x'] = Probe()\n    await sleep(1)\n    return event",
        "x = Probe()\n    await sleep(1)\n    return event",
        "event['x'] = Probe()\n    sleep(1)\n    return None",
        "try:\n        await sleep(1)\n    finally:\n        event['x'] = Probe()",
        f"event['x'] = Probe(){stubborn()}",
        f"x = Probe(){stubborn()}",
    ],
    ids=["event", "local", "dropped", "in the end", "stubborn with its event", "stubborn with a local"],
)
def test_the_page_names_an_app_that_is_ended_until_its_values_are_freed(body):
    seen: list[tuple[bool, int]] = []
    child = child_with_probes(seen, f"async def processEvent(event, meta):\n    {body}\n")
    child.run(("x", "ada", 1))
    child.cancel(1, "told to")
    assert child.order == [1]
    assert seen == [(True, 1)]


@pytest.mark.parametrize("waits", [False, True], ids=["at once", "after a wait"])
@pytest.mark.parametrize(
    "body",
    [
        "event['x'] = Probe()",
        "event['x'] = Probe()\n    raise ValueError('x')",
        "raise ValueError(Probe())",
        "return Probe()",
        "x = Probe()",
    ],
)
@pytest.mark.parametrize("hook", ["onEvent", "composeWebhook", "jobs.work"])
def test_the_page_names_the_app_until_the_values_of_another_hook_are_freed(hook, body, waits):
    seen: list[tuple[bool, int]] = []
    name = hook.rpartition(".")[2]
    head = f"async def {name}(event, meta):\n    await sleep(1)\n" if waits else f"def {name}(event, meta):\n"
    child = child_with_probes(
        seen, f"{head}    {body}\njobs = {{'work': work}}\n" if name == "work" else f"{head}    {body}\n"
    )
    child.invoke(1, hook, {"event": "x"})
    if waits:
        child.answer(child.calls[0][0])
    assert child.order == [1]
    assert seen == [(True, 1)]


def test_no_code_of_an_app_that_is_given_up_runs_while_nobody_is_to_blame():
    seen: list[tuple[bool, int]] = []
    body = stubborn("Probe(); await sleep(1)")
    child = child_with_probes(seen, f"async def processEvent(event, meta):{body}", PASSES)
    child.run(("x", "ada", 1))
    child.cancel(1, "told to")
    assert child.order == [1]
    assert seen
    assert set(seen) == {(True, 1)}


def test_whether_an_opened_event_is_a_snapshot_is_what_the_host_says_or_else_its_name():
    child = Child("def processEvent(event, meta):\n    event['properties']['ran'] = True\n    return event\n")
    names = ("$snapshot", "$snapshot", "$snapshot", "x")
    events = [opened_event(name, "ada", number) for number, name in enumerate(names)]
    child.run(*events, keys=["ada"] * 4, snapshots=[False, True, None, None])
    assert ["ran" in properties for _, properties in child.results] == [True, False, False, True]

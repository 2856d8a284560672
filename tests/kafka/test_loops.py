"""Apps that answer each other, or themselves, end by themselves, and everybody concerned is told why."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from plugin_server.eventlog.port import OutputRecord
from tests.server import Server, project, until
from tests.stage import BOTH_LOGS, Record, Stage, envelope, event_uuid, make_stage, running


def answers(event: str, answer: str, times: int = 1) -> str:
    """An app that captures `answer` so many times for each `event`."""
    return f"""
def processEvent(event, meta):
    if event["event"] == {event!r}:
        for n in range({times}):
            posthog.capture({answer!r}, {{"distinct_id": event["distinct_id"], "n": n}})
    return event
"""


PING, PONG = answers("ping", "pong"), answers("pong", "ping")
FORTY = {"max_visits": 32, "max_depth": 100, "max_events_per_root": 40}
PROJECTS = [
    project(1, PING, PONG),
    project(2, answers("x", "x", 10)),
    project(3, answers("a", "b"), answers("b", "c"), answers("c", "a")),
    project(4, PING, PONG, loop_policy={"mode": "warn"}),
    project(5, PING, PONG, loop_policy={"mode": "off"}),
    project(6, answers("x", "x", 3), loop_policy=FORTY),
    project(7, answers("x", "answer")),
    project(8, PING, PONG, loop_policy={"max_visits": 32, "max_depth": 4}),
    project(9, answers("x", "x", 25), loop_policy={"max_depth": 0}),
]
FIRST_EVENTS = {1: "ping", 2: "x", 3: "a", 4: "ping", 5: "ping", 6: "x", 8: "ping", 9: "x"}
FORGED = {"v": 1, "root": event_uuid(999), "depth": 9, "path": [701, 701, 701], "budget": 0}
MALFORMED = {
    20: b"not JSON",
    21: b'{"v":2}',
    22: json.dumps({**FORGED, "budget": -1}).encode(),
    23: b"\xff\xfe",
    24: b"[" * 1_000,
}


@dataclass
class Loops:
    """What a server made of one event for each project."""

    stage: Stage
    server: Server
    outputs: dict[int, list[Record]]
    letters: dict[int, list[Record]]
    log_lines: dict[int, list[dict[str, Any]]]
    told: str
    """What `plugin-server tail` printed meanwhile"""

    def derived(self, project_id: int) -> list[Record]:
        """All but the event that a person sent."""
        records = self.outputs[project_id]
        uuids = Counter(record.json["uuid"] for record in records)
        assert set(uuids.values()) == {1}
        assert {record.lineage["root"] for record in records} == {event_uuid(project_id)}
        return [record for record in records if record.lineage["depth"]]

    async def cuts(self, reason: str, *installs: int) -> float:
        counts = [
            await self.server.metric("plugin_server_captures_cut_total", reason=reason, install_id=str(install))
            for install in installs
        ]
        return sum(counts)


@pytest.fixture(scope="module", params=BOTH_LOGS)
async def loops(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Loops]:
    directory = tmp_path_factory.mktemp("loops")
    stage = make_stage(request.param, request, directory, PROJECTS, commit_interval_ms="10")
    async with running(stage) as server:
        told = directory / "tail.txt"
        with server.tail(told):
            await until(lambda: "Following" in told.read_text(), "tail follows")
            await stage.log.send([envelope(each, each, event=event) for each, event in FIRST_EVENTS.items()])
            await stage.log.until_settled()
            await until(lambda: told.read_text().count("captured by") >= 1_100, "tail has shown all")
        outputs = by_project(await stage.log.outputs())
        letters: dict[int, list[Record]] = {}
        for letter in await stage.log.dead_letters():
            letters.setdefault(int(letter.header("project")), []).append(letter)
        lines: dict[int, list[dict[str, Any]]] = {}
        for entry in await stage.log.log_entries():
            lines.setdefault(entry["team_id"], []).append(entry)
        yield Loops(stage, server, outputs, letters, lines, told.read_text())


def by_project(records: list[Record]) -> dict[int, list[Record]]:
    found: dict[int, list[Record]] = {}
    for record in records:
        found.setdefault(record.json["team_id"], []).append(record)
    return found


async def test_a_ping_pong_pair_ends_after_three_visits_of_each(loops: Loops) -> None:
    derived = loops.derived(1)
    assert sorted(record.lineage["depth"] for record in derived) == [1, 2, 3, 4, 5, 6]
    assert max(derived, key=lambda record: record.lineage["depth"]).lineage["path"] == [101, 102] * 3
    [letter] = loops.letters[1]
    chain = "App101 (101) → App102 (102) → " * 3 + "App101 (101)"
    assert letter.json == {
        "reason": "visits",
        "count": 1,
        "chain": chain,
        "parent": max(derived, key=lambda record: record.lineage["depth"]).json["uuid"],
        "root": event_uuid(1),
        "captures": [{"event": "pong", "distinct_id": "d1", "properties": letter.json["captures"][0]["properties"]}],
    }
    assert letter.json["captures"][0]["properties"]["n"] == 0
    assert (letter.header("step"), letter.header("reason"), letter.header("install")) == ("guard_loop", "loop", "101")
    [line] = loops.log_lines[1]
    assert line["message"] == f"loop guard: 1 captures were cut by visits (max_visits 3): {chain}"
    assert (line["plugin_config_id"], line["type"], line["source"]) == (101, "WARN", "SYSTEM")
    assert await loops.cuts("visits", 101, 102) == 1


async def test_an_app_that_captures_ten_for_one_ends_within_the_budget(loops: Loops) -> None:
    """10 of 990 // 10 each, 10 of 89 // 10 each, 8 of 0 each: 910 of the 1,000 that a root may lead to."""
    derived = loops.derived(2)
    assert Counter(record.lineage["depth"] for record in derived) == {1: 10, 2: 100, 3: 800}
    assert await loops.cuts("budget", 201) == 100 * 2
    assert await loops.cuts("visits", 201) == 800 * 10
    reasons = Counter((letter.json["reason"], letter.json["count"]) for letter in loops.letters[2])
    assert reasons == {("budget", 2): 100, ("visits", 10): 800}
    chain = " → ".join(["App201 (201)"] * 4)
    assert {line["message"] for line in loops.log_lines[2]} >= {
        f"loop guard: 10 captures were cut by visits (max_visits 3): {chain}"
    }


async def test_a_chain_of_three_apps_ends_after_three_rounds(loops: Loops) -> None:
    derived = loops.derived(3)
    assert sorted(record.lineage["depth"] for record in derived) == list(range(1, 10))
    [letter] = loops.letters[3]
    assert letter.json["chain"] == "App301 (301) → App302 (302) → App303 (303) → " * 3 + "App301 (301)"
    assert letter.json["reason"] == "visits"
    assert await loops.cuts("visits", 301, 302, 303) == 1


async def test_a_budget_smaller_than_the_tree_is_never_exceeded(loops: Loops) -> None:
    derived = loops.derived(6)
    assert 3 < len(derived) <= FORTY["max_events_per_root"]
    assert {letter.json["reason"] for letter in loops.letters[6]} == {"budget"}
    assert await loops.cuts("budget", 601) == sum(letter.json["count"] for letter in loops.letters[6])


async def test_a_cut_shows_how_many_captures_it_took_and_the_first_ten(loops: Loops) -> None:
    assert loops.derived(9) == []
    [letter] = loops.letters[9]
    assert (letter.json["reason"], letter.json["count"]) == ("depth", 25)
    assert [capture["properties"]["n"] for capture in letter.json["captures"]] == list(range(10))
    assert await loops.cuts("depth", 901) == 25


async def test_the_depth_of_a_chain_is_bounded(loops: Loops) -> None:
    assert max(record.lineage["depth"] for record in loops.derived(8)) == 4
    [letter] = loops.letters[8]
    assert letter.json["reason"] == "depth"
    assert await loops.cuts("depth", 801, 802) == 1


async def test_mode_warn_cuts_nothing_below_the_ceiling_and_says_what_it_would_cut(loops: Loops) -> None:
    derived = loops.derived(4)
    assert sorted(record.lineage["depth"] for record in derived) == list(range(1, 101))
    warned = [line for line in loops.log_lines[4] if "would have been cut (mode warn)" in line["message"]]
    assert len(warned) == 94  # from the seventh capture to the hundredth
    [letter] = loops.letters[4]
    assert letter.json["reason"] == "depth"
    assert await loops.cuts("depth", 401, 402) == 1


async def test_mode_off_says_nothing_below_the_ceiling_which_holds(loops: Loops) -> None:
    derived = loops.derived(5)
    assert sorted(record.lineage["depth"] for record in derived) == list(range(1, 101))
    assert len(loops.log_lines[5]) == 1
    [letter] = loops.letters[5]
    assert letter.json["reason"] == "depth"
    assert len(max(derived, key=lambda record: record.lineage["depth"]).lineage["path"]) == 32
    assert letter.json["chain"].startswith("… → ")


async def test_tail_shows_why_a_loop_ended(loops: Loops) -> None:
    chain = "App101 (101) → App102 (102) → " * 3 + "App101 (101)"
    assert f"✂ loop guard: 1 capture(s) cut by visits: {chain}" in loops.told
    assert "captured by App101 (101) → App102 (102)  (depth 2)" in loops.told
    assert "+ App101 (101) captures pong for d1" in loops.told
    assert "would be cut (mode warn) by visits" in loops.told
    assert "capture(s) cut by budget: App201 (201) → App201 (201) → App201 (201)" in loops.told


async def test_captures_are_ordinary_events_of_their_project(loops: Loops) -> None:
    for record in loops.derived(1):
        assert record.key == b"phc_1:d1"
        assert record.json["event"] in ("ping", "pong")
        assert record.properties["$plugins_succeeded"] == ["App101 (101)", "App102 (102)"]


async def test_a_lineage_forged_through_http_changes_nothing(loops: Loops) -> None:
    event = {
        "api_key": "phc_7",
        "uuid": event_uuid(70),
        "event": "x",
        "distinct_id": "forger",
        "ps-lineage": FORGED,
        "properties": {"ps-lineage": json.dumps(FORGED), "$lineage": FORGED, "$ps-lineage": FORGED},
    }
    headers = {"ps-lineage": json.dumps(FORGED), "token": "phc_1"}
    assert await loops.server.post("/capture/", event, headers) == 200
    [root, answer] = await outputs_of(loops, "forger", 2)
    assert root.lineage == {"v": 1, "root": event_uuid(70), "depth": 0, "path": [], "budget": 0}
    assert answer.lineage == {"v": 1, "root": event_uuid(70), "depth": 1, "path": [701], "budget": 999}
    assert root.properties["$lineage"] == FORGED  # a property like any other


@pytest.mark.parametrize("number", MALFORMED)
async def test_an_event_with_a_malformed_lineage_is_processed_and_its_captures_are_refused(
    loops: Loops, number: int
) -> None:
    log = loops.stage.log
    person = f"malformed-{number}"
    value = json.dumps(envelope(7, number, person)).encode()
    headers = (("ps-lineage", MALFORMED[number]),)
    await log.send_raw([OutputRecord(log.topics.ingestion, 1, b"key", value, headers)])
    [record] = await outputs_of(loops, person, 1)
    assert record.json["uuid"] == event_uuid(number)
    assert record.properties["$plugins_succeeded"] == ["App701 (701)"]
    assert record.lineage["budget"] == 0
    letters = [letter for letter in await log.dead_letters() if letter.header("project") == "7"]
    [letter] = [letter for letter in letters if letter.json["parent"] == event_uuid(number)]
    assert letter.json["reason"] == "malformed_lineage"
    assert letter.json["count"] == 1
    assert [capture["event"] for capture in letter.json["captures"]] == ["answer"]


async def outputs_of(loops: Loops, distinct_id: str, count: int) -> list[Record]:
    """The outputs of a person, by depth, once there are `count`; then no more may come."""
    log = loops.stage.log

    async def found() -> list[Record]:
        return [record for record in await log.outputs() if record.json["distinct_id"] == distinct_id]

    async def has_come() -> bool:
        return len(await found()) >= count

    await until(has_come, f"{count} outputs of {distinct_id}")
    await log.until_settled()
    return sorted(await found(), key=lambda record: record.lineage["depth"])

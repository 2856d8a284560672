"""Every kind of bad input has one exact outcome, its neighbours come out unchanged, and its lane goes on.

All cases of a log go through one partition of one server, in one batch, each between two good events.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from plugin_server.eventlog.port import OutputRecord
from tests.server import Server, project, write_projects
from tests.stage import BOTH_LOGS, Record, Stage, envelope, event_uuid, make_stage, running

PARTITION = 2
FIRST_BAD = 1_000
"""Good events are numbered from 0, cases from here"""
DEEP = 10_000
FIRST = """
def processEvent(event, meta):
    event["properties"]["first"] = True
    return event
"""
LAST = """
def processEvent(event, meta):
    event["properties"]["last"] = True
    return event
"""


def at_bad_events(*lines: str, hook: str = "def") -> str:
    """An app that does this at events named `bad`, after it has changed them."""
    body = "".join(f"        {line}\n" for line in lines)
    return f"""
{hook} processEvent(event, meta):
    if event["event"] == "bad":
        event["properties"]["changed"] = True
        posthog.capture("of a failed hook", {{}})
{body}    return event
"""


FAILURES: dict[str, tuple[str, str]] = {
    "a number instead of an event": (at_bad_events("return 5"), "processEvent returned int"),
    "a list instead of an event": (at_bad_events("return [event]"), "processEvent returned list"),
    "another team_id": (at_bad_events("event['team_id'] = 1"), "tried to change event.team_id"),
    "another uuid": (at_bad_events("event['uuid'] = 'x'"), "tried to change event.uuid"),
    "an exception after changes": (at_bad_events("raise ValueError('no luck')"), "no luck (line 6)"),
    "an infinite loop": (at_bad_events("while True:", "    pass"), "0.3 s of CPU time (cpu_seconds)"),
    "an infinite loop that catches": (
        at_bad_events(
            "while True:", "    try:", "        [n for n in range(10**9)]", "    except Exception:", "        pass"
        ),
        "0.3 s of CPU time (cpu_seconds)",
    ),
    "a sleep without end": (at_bad_events("await sleep(3600)", hook="async def"), "ran longer than 1 s (hook_seconds)"),
    "not a number": (at_bad_events("event['properties']['x'] = float('nan')"), "NaN and infinities are not JSON"),
    "a huge integer": (at_bad_events("event['properties']['x'] = 2**70"), "an integer beyond 64 bits is not JSON"),
    "an event too large": (at_bad_events("event['properties']['x'] = 'x' * 1500000"), "1048576 bytes (event_bytes)"),
    "a cycle": (at_bad_events("event['properties']['x'] = event"), "contains itself or is nested too deep"),
}
FAILING = {name: 10 + number for number, name in enumerate(FAILURES)}
"""Project ids"""
LIMITS = {"cpu_seconds": 0.3, "hook_seconds": 1}
BROKEN_APP = 5
PROJECTS = [
    project(1, FIRST, LAST),
    project(2),
    project(BROKEN_APP, FIRST, "def processEvent(event, meta)\n    return event\n", LAST),
    *(project(FAILING[name], FIRST, source, LAST, limits=LIMITS) for name, (source, _) in FAILURES.items()),
]


def without(name: str) -> dict[str, Any]:
    message = envelope(1, 0)
    del message[name]
    return message


def changed(project_id: int = 1, **fields: Any) -> bytes:
    return json.dumps({**envelope(project_id, 0), **fields}).encode()


def raw_data(data: str, project_id: int = 1) -> bytes:
    return changed(project_id, data=data)


def data_with(properties: str) -> str:
    return f'{{"event":"x","properties":{properties}}}'


def nested(levels: int) -> str:
    return "[" * levels + "]" * levels


@dataclass(frozen=True)
class Refused:
    """A message that must become a dead letter."""

    value: bytes | None
    step: str
    reason: str
    error: str
    project: str = ""
    headers: tuple[tuple[str, bytes], ...] = ()


JSON, ENVELOPE, EVENT = "invalid_json", "invalid_envelope", "invalid_event"
REFUSED: dict[str, Refused] = {
    "no value": Refused(None, "decode", JSON, "the message is empty"),
    "an empty value": Refused(b"", "decode", JSON, "the message is empty"),
    "not JSON": Refused(b"{not json", "decode", JSON, ""),
    "JSON that breaks off": Refused(changed()[:-20], "decode", JSON, ""),
    "JSON and more": Refused(changed() + b"}", "decode", JSON, ""),
    "invalid UTF-8": Refused(changed(distinct_id="?").replace(b"?", b"\xff\xfe"), "decode", JSON, ""),
    "nothing but invalid UTF-8": Refused(b"\xff" * 100, "decode", JSON, ""),
    "raw NUL in a text": Refused(changed(distinct_id="?").replace(b"?", b"\0"), "decode", JSON, ""),
    "nothing but NUL": Refused(b"\0" * 100, "decode", JSON, ""),
    "NaN in the envelope": Refused(changed(more=float("nan")), "decode", JSON, ""),
    "Infinity in the envelope": Refused(changed(more=float("inf")), "decode", JSON, ""),
    "a list": Refused(b"[]", "decode", ENVELOPE, "not a JSON object"),
    "a number": Refused(b"5", "decode", ENVELOPE, "not a JSON object"),
    "null": Refused(b"null", "decode", ENVELOPE, "not a JSON object"),
    "no project": Refused(json.dumps(without("token")).encode(), "decode", "no_project", "neither token nor team_id"),
    "an unknown token": Refused(
        changed(token="phc_x"), "decode", "unknown_project", "no project has the token 'phc_x'"
    ),
    "an unknown team_id": Refused(changed(token=None, team_id=99), "decode", "unknown_project", "the id 99"),
    "a token that is a number": Refused(changed(token=5), "decode", ENVELOPE, "token is not a non-empty string"),
    "an empty token": Refused(changed(token=""), "decode", ENVELOPE, "token is not a non-empty string"),
    "a team_id that is text": Refused(changed(token=None, team_id="1"), "decode", ENVELOPE, "team_id is not a number"),
    "no uuid": Refused(json.dumps(without("uuid")).encode(), "decode", ENVELOPE, "uuid is missing", "1"),
    "a uuid that is none": Refused(changed(uuid="x"), "decode", ENVELOPE, "uuid is not a UUID: 'x'", "1"),
    "a uuid that is a number": Refused(changed(uuid=5), "decode", ENVELOPE, "uuid is not a UUID: '5'", "1"),
    "no data": Refused(json.dumps(without("data")).encode(), "decode", ENVELOPE, "data is missing", "1"),
    "data that is an object": Refused(changed(data={}), "decode", ENVELOPE, "data is not JSON text", "1"),
    "no distinct_id": Refused(json.dumps(without("distinct_id")).encode(), "decode", ENVELOPE, "is missing", "1"),
    "an empty distinct_id": Refused(changed(distinct_id=""), "decode", ENVELOPE, "distinct_id is empty", "1"),
    "a distinct_id that is a list": Refused(changed(distinct_id=[]), "decode", ENVELOPE, "is not a string", "1"),
    "a distinct_id that is true": Refused(changed(distinct_id=True), "decode", ENVELOPE, "is not a string", "1"),
    "now that is a number": Refused(changed(now=5), "decode", ENVELOPE, "now is not ISO 8601 text", "1"),
    "an ip that is a list": Refused(changed(ip=[1]), "decode", ENVELOPE, "ip is not a string", "1"),
    "sent_at that is a number": Refused(changed(sent_at=5), "decode", ENVELOPE, "sent_at is not a string", "1"),
    "a deep envelope": Refused(
        changed().replace(b"{", b'{"deep":' + nested(DEEP).encode() + b",", 1), "decode", "too_deep", "100 levels"
    ),
    "too deep by one": Refused(
        changed().replace(b"{", b'{"deep":' + nested(100).encode() + b",", 1), "decode", "too_deep", "100 levels"
    ),
    "an object that never ends": Refused(b'{"a":' * DEEP, "decode", "", ""),
    "more than a megabyte": Refused(changed(data="x" * 2**20), "decode", "too_large", "(RECORD_BYTES)"),
    "three megabytes of brackets": Refused(b"[" * (3 * 2**20), "decode", "too_large", "(RECORD_BYTES)"),
    "an output above the limit": Refused(
        raw_data(json.dumps({"event": "x", "properties": {"x": "y" * 999_500}}), 2), "emit", "too_large", "", "2"
    ),
    "an output above the limit after apps": Refused(
        raw_data(json.dumps({"event": "x", "properties": {"x": "y" * 999_500}})), "emit", "too_large", "", "1"
    ),
}
for _project in (1, 2):
    for _name, _data, _reason, _error in (
        ("data that is not JSON", "{nope", JSON, ""),
        ("data that is empty", "", JSON, ""),
        ("data with raw NUL", '{"event":"x\0"}', JSON, ""),
        ("data with NaN", '{"event":"x","properties":{"x":NaN}}', JSON, ""),
        ("data that is a list", "[]", EVENT, "data is not a JSON object"),
        ("deep data", data_with(f'{{"x":{nested(DEEP)}}}'), "too_deep", "100 levels"),
        ("data without a name", '{"properties":{}}', EVENT, "event, its name, is missing"),
        ("properties that are a list", '{"event":"x","properties":[]}', EVENT, "properties is not a JSON object"),
    ):
        REFUSED[f"{_name}, {'with apps' if _project == 1 else 'without apps'}"] = Refused(
            raw_data(_data, _project), "normalise", _reason, _error, str(_project)
        )


@dataclass(frozen=True)
class Taken:
    """A message that must be processed."""

    value: bytes
    properties: dict[str, Any] = field(default_factory=dict)
    fields: dict[str, Any] = field(default_factory=dict)
    headers: tuple[tuple[str, bytes], ...] = ()


TAKEN: dict[str, Taken] = {
    "escaped NUL": Taken(raw_data(data_with(r'{"a":"x\u0000y"}')), {"a": "x\0y"}),
    "escaped NUL in a distinct_id": Taken(changed(distinct_id="d\0"), fields={"distinct_id": "d\0"}),
    "an integer beyond 64 bits": Taken(raw_data(data_with(f'{{"a":{10**30}}}')), {"a": 1e30}),
    "an integer just beyond 64 bits": Taken(raw_data(data_with(f'{{"a":{2**64}}}')), {"a": float(2**64)}),
    "the largest integer": Taken(raw_data(data_with(f'{{"a":{2**64 - 1}}}')), {"a": 2**64 - 1}),
    "a lone surrogate": Taken(raw_data(data_with(r'{"a":"x\ud83d"}')), {"a": "x\ufffd"}),
    "as deep as allowed": Taken(raw_data(data_with(f'{{"a":{nested(97)}}}')), {"a": json.loads(nested(97))}),
    "a distinct_id that is a number": Taken(changed(distinct_id=12), fields={"distinct_id": "12"}),
    "a team_id alone": Taken(changed(token=None, team_id=1)),
    "a token in a header": Taken(json.dumps(without("token")).encode(), headers=(("token", b"phc_1"),)),
    "no now": Taken(json.dumps(without("now")).encode()),
    "a name of 300 characters": Taken(raw_data(json.dumps({"event": "n" * 300})), fields={"event": "n" * 200}),
    "a name that is an object": Taken(raw_data('{"event":{"a":1}}'), fields={"event": '{"a":1}'}),
    "another project's id in data": Taken(raw_data('{"event":"x","team_id":2}'), fields={"team_id": 1}),
    "another uuid in data": Taken(raw_data('{"event":"x","uuid":"no"}')),
    "a time that is none": Taken(
        raw_data('{"event":"x","timestamp":"yesterday"}'), fields={"timestamp": "2026-11-23 12:00:00.000"}
    ),
    "stamps of the client": Taken(raw_data(data_with('{"$plugins_failed":["x"]}')), {}),
}


@dataclass
class Aftermath:
    """What one server made of all cases."""

    stage: Stage
    server: Server
    outputs: list[Record]
    by_uuid: dict[str, Record]
    letters: dict[str, list[Record]]
    """By source"""
    log_lines: list[dict[str, Any]]
    sources: dict[str, str]
    """Of each case, `topic-partition-offset`"""
    good: int


@pytest.fixture(scope="module", params=BOTH_LOGS)
async def aftermath(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Aftermath]:
    stage = make_stage(request.param, request, tmp_path_factory.mktemp("bad"), PROJECTS)
    topic = stage.log.topics.ingestion
    records: list[OutputRecord] = []
    sources: dict[str, str] = {}
    good = 0

    def add(value: bytes | None, headers: tuple[tuple[str, bytes], ...] = ()) -> None:
        records.append(OutputRecord(topic, PARTITION, b"key", value, headers))  # type: ignore[arg-type]

    def add_good(project_id: int) -> None:
        nonlocal good
        add(json.dumps(envelope(project_id, good, "neighbour", n=good)).encode())
        good += 1

    def add_case(name: str, value: bytes | None, headers: tuple[tuple[str, bytes], ...], project_id: int) -> None:
        add_good(project_id)
        sources[name] = f"{topic}-{PARTITION}-{len(records)}"
        number = FIRST_BAD + len(sources) - 1
        add(value and value.replace(event_uuid(0).encode(), event_uuid(number).encode()), headers)
        add_good(project_id)

    for name, refused in REFUSED.items():
        add_case(name, refused.value, refused.headers, int(refused.project or 1))
    for name, taken in TAKEN.items():
        add_case(name, taken.value, taken.headers, 1)
    for name, project_id in FAILING.items():
        add_case(name, json.dumps(envelope(project_id, 0, event="bad", kept=1)).encode(), (), project_id)
    add_case("a broken app", json.dumps(envelope(BROKEN_APP, 0)).encode(), (), BROKEN_APP)
    async with running(stage) as server:
        await stage.log.send_raw(records)
        await stage.log.until_settled()
        outputs = await stage.log.outputs()
        letters: dict[str, list[Record]] = {}
        for letter in await stage.log.dead_letters():
            letters.setdefault(letter.header("source"), []).append(letter)
        by_uuid = {record.json["uuid"]: record for record in outputs}
        yield Aftermath(stage, server, outputs, by_uuid, letters, await stage.log.log_entries(), sources, good)


def output_of(aftermath: Aftermath, name: str) -> Record:
    number = FIRST_BAD + list(aftermath.sources).index(name)
    return aftermath.by_uuid[event_uuid(number)]


def value_of(aftermath: Aftermath, name: str, value: bytes) -> bytes:
    number = FIRST_BAD + list(aftermath.sources).index(name)
    return value.replace(event_uuid(0).encode(), event_uuid(number).encode())


@pytest.mark.parametrize("name", REFUSED)
def test_bad_messages_become_dead_letters(aftermath: Aftermath, name: str) -> None:
    refused = REFUSED[name]
    [letter] = aftermath.letters[aftermath.sources[name]]
    assert letter.header("step") == refused.step
    if refused.reason:
        assert letter.header("reason") == refused.reason
    assert letter.header("error")
    assert refused.error in letter.header("error")
    assert letter.header("project") == refused.project
    assert letter.header("install") == ""
    assert letter.key == b"key"
    original = value_of(aftermath, name, refused.value or b"")
    if "truncated" in letter.headers:
        assert len(original) > 990_000
        assert letter.value == original[: 64 * 1024]
        assert letter.header("truncated") == "true"
        assert letter.header("length") == str(len(original))
        assert letter.header("sha256") == hashlib.sha256(original).hexdigest()
    else:
        assert letter.value == original


@pytest.mark.parametrize("name", TAKEN)
def test_odd_messages_that_mean_something_are_processed(aftermath: Aftermath, name: str) -> None:
    taken = TAKEN[name]
    record = output_of(aftermath, name)
    assert {name: record.json[name] for name in taken.fields} == taken.fields
    assert record.properties == {
        **taken.properties,
        "$ip": "10.0.0.1",
        "first": True,
        "last": True,
        "$plugins_succeeded": ["App101 (101)", "App102 (102)"],
        "$plugins_failed": [],
    }


@pytest.mark.parametrize("name", FAILING)
async def test_an_app_that_fails_is_undone_and_the_others_run(aftermath: Aftermath, name: str) -> None:
    project_id = FAILING[name]
    labels = [f"App{project_id * 100 + number} ({project_id * 100 + number})" for number in (1, 2, 3)]
    record = output_of(aftermath, name)
    assert record.json["team_id"] == project_id
    assert record.properties == {
        "kept": 1,
        "$ip": "10.0.0.1",
        "first": True,
        "last": True,
        "$plugins_succeeded": [labels[0], labels[2]],
        "$plugins_failed": [labels[1]],
    }
    lines = [line for line in aftermath.log_lines if line["team_id"] == project_id]
    assert [(line["plugin_config_id"], line["type"]) for line in lines] == [(project_id * 100 + 2, "ERROR")]
    assert FAILURES[name][1] in lines[0]["message"]
    failures = await aftermath.server.metric("plugin_server_app_failures_total", install_id=str(project_id * 100 + 2))
    assert failures == 1


def test_what_a_failed_hook_captured_is_not_sent(aftermath: Aftermath) -> None:
    assert [record for record in aftermath.outputs if record.lineage["depth"]] == []


def test_an_app_with_a_syntax_error_is_left_out_and_its_owner_told(aftermath: Aftermath) -> None:
    record = output_of(aftermath, "a broken app")
    assert record.properties["first"] is True
    assert record.properties["last"] is True
    assert record.properties["$plugins_succeeded"] == ["App501 (501)", "App503 (503)"]
    lines = [line for line in aftermath.log_lines if line["team_id"] == BROKEN_APP]
    assert [(line["plugin_config_id"], line["type"], line["source"]) for line in lines] == [(502, "ERROR", "SYSTEM")]
    assert lines[0]["message"].startswith("the app does not run: ")
    assert "line 1: " in lines[0]["message"]


def test_the_neighbours_come_out_once_and_unchanged(aftermath: Aftermath) -> None:
    neighbours = [record for record in aftermath.outputs if record.json["distinct_id"] == "neighbour"]
    assert sorted(record.properties["n"] for record in neighbours) == list(range(aftermath.good))
    for record in neighbours:
        assert record.json["uuid"] == event_uuid(record.properties["n"])
        team_id = record.json["team_id"]
        apps = {} if team_id == 2 else {"first": True, "last": True}
        numbers = (1, 2) if team_id == 1 else (1, 3) if team_id == BROKEN_APP else (1, 2, 3)
        labels = [f"App{team_id * 100 + number} ({team_id * 100 + number})" for number in numbers]
        stamps = {} if team_id == 2 else {"$plugins_succeeded": labels, "$plugins_failed": []}
        assert record.properties == {"n": record.properties["n"], "$ip": "10.0.0.1", **apps, **stamps}


def test_neighbours_of_one_project_keep_their_order(aftermath: Aftermath) -> None:
    order: dict[int, list[int]] = {}
    for record in aftermath.outputs:
        if record.json["distinct_id"] == "neighbour":
            order.setdefault(record.json["team_id"], []).append(record.properties["n"])
    for numbers in order.values():
        assert numbers == sorted(numbers)


def test_every_message_left_exactly_one_trace(aftermath: Aftermath) -> None:
    assert sum(map(len, aftermath.letters.values())) == len(REFUSED)
    assert len(aftermath.outputs) == aftermath.good + len(TAKEN) + len(FAILING) + 1
    assert aftermath.stage.logged("emit_failed") == []
    assert aftermath.stage.logged("lane_failed") == []
    assert aftermath.stage.logged("lane_restarts") == []


async def test_dead_letters_are_counted(aftermath: Aftermath) -> None:
    assert await aftermath.server.metric("plugin_server_dead_letters_total") == len(REFUSED)


async def test_the_lane_goes_on(aftermath: Aftermath) -> None:
    log = aftermath.stage.log
    await log.send([envelope(1, 900_000, "later")], partition=PARTITION)
    await log.until_settled()
    assert [r.json["uuid"] for r in await log.outputs() if r.json["distinct_id"] == "later"] == [event_uuid(900_000)]


@pytest.mark.parametrize("command", ["run", "check"])
def test_a_missing_plugin_json_refuses_the_start_and_names_the_file(tmp_path: Path, command: str) -> None:
    projects_file = write_projects(tmp_path, [project(1, FIRST)])
    missing = tmp_path / "apps" / "101" / "plugin.json"
    missing.unlink()
    finished = Server(tmp_path, projects_file=str(projects_file)).command(command)
    assert finished.returncode == {"run": 2, "check": 1}[command]
    told = finished.stdout + finished.stderr
    assert str(missing) in told or ("plugin.json" in told and str(missing.parent) in told)
    assert "Traceback" not in told

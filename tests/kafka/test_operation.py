"""What an operator sees and does: start, stop, readiness, metrics, settings, and the exact form of what comes out."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from plugin_server.eventlog.partitioning import Partitioner
from tests.kafka_broker.broker import KafkaBroker
from tests.server import Server, free_port, project, until, write_projects
from tests.stage import BOTH_LOGS, KafkaLog, Stage, envelope, event_uuid, make_stage, running

COUNTS = """
def processEvent(event, meta):
    total = 0
    for number in range(2000):
        total += number
    if event["properties"].get("n", 1) % 10 == 0:
        posthog.capture("derived", {"distinct_id": event["distinct_id"], "of": event["properties"]["n"]})
    return event
"""
PROJECTS = [project(1, COUNTS), project(2)]
CHECKS = ("start", "event_log", "lanes", "delivery lanes", "deliveries")
"""What a worker with all roles says of its readiness"""


@pytest.mark.parametrize("kind", BOTH_LOGS)
async def test_sigterm_finishes_what_is_under_way_and_a_restart_repeats_nothing(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    events = 6_000
    async with make_stage(kind, request, tmp_path, PROJECTS) as stage:
        server = stage.server()
        await server.start_ready()
        await stage.log.send(envelope(1, number, f"d{number % 50}", n=number) for number in range(events))
        await until(lambda: _some_outputs(stage), "the work has begun")
        assert await server.terminate() == 0
        stopping, stopped = server.log_entries("stopping"), server.log_entries("stopped")
        assert len(stopping) == len(stopped) == 1
        assert server.log_entries("shutdown_left_events") == []  # else it gave up what did not finish in 7 of 10 s
        remaining = not await stage.log.is_settled()
        await server.start_ready()
        await stage.log.until_settled()
        outputs = await stage.log.outputs()
        assert sorted(r.properties["n"] for r in outputs if r.json["event"] == "x") == list(range(events))
        assert sorted(r.properties["of"] for r in outputs if r.json["event"] != "x") == list(range(0, events, 10))
    print(f"{kind}: stopped with events {'left' if remaining else 'all done'}")


async def _some_outputs(stage: Stage) -> bool:
    return await stage.log.count_outputs() > 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_an_idle_server_stops_at_once_with_exit_code_0(
    number: signal.Signals, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    async with running(make_stage("embedded", request, tmp_path, PROJECTS)) as server:
        server.signal(number)
        assert await server.exit_code() == 0
        assert server.log_entries("shutdown_left_events") == []


async def test_sigterm_while_starting_ends_with_exit_code_0(tmp_path: Path) -> None:
    """Kafka is away, so it would wait for ever."""
    server = Server(tmp_path, kafka_brokers=f"127.0.0.1:{free_port()}", single_worker="true")
    server.start()
    try:
        await until(lambda: bool(server.log_entries("dependency_unavailable")), "it has noticed that Kafka is away")
        assert await server.terminate() == 0
    finally:
        server.kill()


async def test_readiness_says_that_kafka_is_away_and_recovers_when_it_comes_back(
    own_kafka: KafkaBroker, tmp_path: Path
) -> None:
    """Not ready is not unhealthy: a restart would not help."""
    log = KafkaLog("ready_", 2, own_kafka.bootstrap_servers)
    async with Stage(tmp_path, log, write_projects(tmp_path, PROJECTS), {"worker_id": "worker-0"}) as stage:
        await log.send([envelope(2, 1)])
        own_kafka.stop()
        server = stage.server()
        server.start()
        await until(lambda: _not_ready(server, "event log"), "it says that the event log is away")
        status, body = await server.get("/_health")
        assert (status, json.loads(body)["status"]) == (200, "ok")
        assert await server.post("/capture/", {"api_key": "phc_2", "event": "x", "distinct_id": "d"}) == 503
        own_kafka.start()
        await server.until_ready()
        await log.until_settled()
        own_kafka.kill()
        assert (await server.get("/_health"))[0] == 200
        own_kafka.start()
        await log.send([envelope(2, number) for number in range(2, 50)])
        await log.until_settled()
        await server.until_ready()
        outputs = await log.outputs()
        assert sorted(record.json["uuid"] for record in outputs) == [event_uuid(number) for number in range(1, 50)]
        status, body = await server.get("/_ready")
        assert json.loads(body) == {"status": "ok", "checks": dict.fromkeys(CHECKS, "ok")}


async def test_readiness_says_that_kafka_has_gone_away_from_a_running_server(
    own_kafka: KafkaBroker, tmp_path: Path
) -> None:
    """An idle one too: it must not look well for as long as nobody sends it anything."""
    log = KafkaLog("gone_", 2, own_kafka.bootstrap_servers)
    async with running(Stage(tmp_path, log, write_projects(tmp_path, PROJECTS), {"worker_id": "worker-0"})) as server:
        await log.send([envelope(2, 1)])
        await log.until_settled()
        own_kafka.kill()
        try:
            await until(lambda: _has_status(server, 503), "it says that the event log is away", seconds=30)
            assert (await server.get("/_health"))[0] == 200
        finally:
            own_kafka.start()
        await server.until_ready()


async def _has_status(server: Server, status: int) -> bool:
    return (await server.get("/_ready"))[0] == status


async def _not_ready(server: Server, reason: str) -> bool:
    status, body = await server.get("/_ready")
    return status == 503 and reason in json.loads(body)["checks"]["start"]


@pytest.mark.parametrize("kind", BOTH_LOGS)
async def test_an_output_event_has_exactly_the_documented_form(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    stage = make_stage(kind, request, tmp_path, PROJECTS)
    async with running(stage):
        data = {
            "event": "signed up",
            "timestamp": "2026-11-23T11:59:58.250+02:00",
            "properties": {"plan": "free", "$elements": [{"tag_name": "a", "$el_text": "Go"}]},
            "$set": {"email": "a@b.c"},
        }
        for partition in range(4):
            message = envelope(2, partition, f"person {partition}", data=json.dumps(data))
            await stage.log.send([message], partition=partition)
        await stage.log.send([{**envelope(2, 9, "late", data='{"event":"x"}'), "historical_migration": True}])
        await stage.log.until_settled()
        outputs = {record.json["uuid"]: record for record in await stage.log.outputs()}
        for partition in range(4):
            record = outputs[event_uuid(partition)]
            assert record.partition == partition
            assert record.key == f"phc_2:person {partition}".encode()
            assert record.lineage == {
                "v": 1,
                "root": event_uuid(partition),
                "depth": 0,
                "path": [],
                "budget": 1000,
            }
            offsets = [r.offset for r in await stage.log.read(stage.log.topics.ingestion) if r.partition == partition]
            assert record.header("ps-source") == f"{stage.log.topics.ingestion}-{partition}-{offsets[0]}"
            _assert_documented(record.json, f"person {partition}", event_uuid(partition))
            assert record.properties == {
                "plan": "free",
                "$set": {"email": "a@b.c"},
                "$ip": "10.0.0.1",
            }
        assert outputs[event_uuid(9)].json["historical_migration"] is True


def _assert_documented(event: dict[str, Any], distinct_id: str, uuid: str) -> None:
    created_at, person_id = event.pop("created_at"), event.pop("person_id")
    properties = event.pop("properties")
    assert event == {
        "uuid": uuid,
        "event": "signed up",
        "timestamp": "2026-11-23 09:59:58.250",
        "team_id": 2,
        "project_id": 2,
        "distinct_id": distinct_id,
        "elements_chain": 'a:nth-child="0"nth-of-type="0"text="Go"',
        "captured_at": "2026-11-23T12:00:00.000Z",
        "person_created_at": "1970-01-01 00:00:05",
        "person_properties": "{}",
        "person_mode": "propertyless",
    }
    assert isinstance(properties, str)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}", created_at)
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-5[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", person_id)


async def test_outputs_go_to_the_input_partition_modulo_their_own(
    kafka: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Where the output topic has fewer partitions than the input."""
    stage = make_stage("kafka", request, tmp_path, PROJECTS)
    assert isinstance(stage.log, KafkaLog)
    stage.log.output_partitions = 3
    async with running(stage):
        for partition in range(4):
            await stage.log.send([envelope(2, partition)], partition=partition)
        await stage.log.until_settled()
        outputs = await stage.log.outputs()
        assert {record.json["uuid"]: record.partition for record in outputs} == {
            event_uuid(partition): partition % 3 for partition in range(4)
        }


@pytest.mark.parametrize("kind", BOTH_LOGS)
async def test_events_sent_over_http_come_out_and_are_counted(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    stage = make_stage(kind, request, tmp_path, PROJECTS)
    async with running(stage) as server:
        batch = [{"event": "x", "distinct_id": f"d{n}", "properties": {"n": n}} for n in range(1, 21)]
        assert await server.post("/batch/", {"api_key": "phc_1", "batch": batch}) == 200
        await stage.log.until_settled()
        outputs = await stage.log.outputs()
        assert sorted(r.properties["n"] for r in outputs if r.json["event"] == "x") == list(range(1, 21))
        partitioner = Partitioner()
        for record in await stage.log.read(stage.log.topics.ingestion):
            assert record.partition == partitioner.choose(record.key, 4)
        assert await server.metric("plugin_server_events_taken_total") == 22
        assert await server.metric("plugin_server_events_emitted_total") == 22
        assert await server.metric("plugin_server_captures_total") == 2
        assert await server.metric("plugin_server_http_captured_total") == 20
        assert await server.metric("plugin_server_lanes_running", role="ingestion") == 4
        assert await server.metric("plugin_server_flush_seconds_count") >= 1


async def test_kafka_beside_sqlite_is_refused_unless_there_is_a_single_worker(tmp_path: Path) -> None:
    server = Server(tmp_path, kafka_brokers="127.0.0.1:1")
    finished = server.command("run")
    assert finished.returncode == 2
    assert "PLUGIN_SERVER_KAFKA_BROKERS is set, but the database is SQLite" in finished.stderr
    assert "PLUGIN_SERVER_SINGLE_WORKER=true" in finished.stderr
    assert "Traceback" not in finished.stderr


async def test_at_least_once_processes_everything_even_when_it_is_killed(
    kafka: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    stage = make_stage("kafka", request, tmp_path, PROJECTS, delivery_guarantee="at_least_once", worker_id="worker-0")
    async with running(stage) as server:
        await stage.log.send(envelope(1, number, f"d{number % 50}", n=number) for number in range(3_000))
        await until(lambda: _some_outputs(stage), "the work has begun")
        server.kill()
        await server.start_ready()
        await stage.log.until_settled()
        outputs = await stage.log.outputs()
        events = [record for record in outputs if record.json["event"] == "x"]
        assert {record.properties["n"] for record in events} == set(range(3_000))
        assert {record.json["uuid"] for record in events} == {event_uuid(number) for number in range(3_000)}
        derived = {(record.json["uuid"], record.properties["of"]) for record in outputs if record not in events}
        assert len(derived) == 300  # a repeated capture has the uuid of the first


@pytest.mark.parametrize("kind", BOTH_LOGS)
async def test_the_topic_prefix_goes_before_every_topic(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Events of another prefix are not touched."""
    stage = make_stage(kind, request, tmp_path, PROJECTS)
    other = make_stage(kind, request, tmp_path, PROJECTS)
    async with other, running(stage) as server:
        assert server.log_entries("started")[0]["topics"] == f"{stage.log.prefix}events_plugin_ingestion"
        await other.log.send([envelope(2, 2)])
        await stage.log.send([envelope(2, 1)])
        await stage.log.until_settled()
        assert [record.json["uuid"] for record in await stage.log.outputs()] == [event_uuid(1)]
        assert await other.log.outputs() == []
        assert not await other.log.is_settled()


class TestCheck:
    """`plugin-server check`"""

    async def test_all_is_well(self, kafka: str, tmp_path: Path, topic_prefix: str) -> None:
        projects_file = write_projects(tmp_path, PROJECTS)
        settings = {"kafka_brokers": kafka, "single_worker": "true", "topic_prefix": topic_prefix}
        finished = Server(tmp_path, projects_file=str(projects_file), **settings).command("check")
        assert finished.returncode == 0, finished.stdout + finished.stderr
        for part in ("settings", "projects", "event log", "database", "sandbox"):
            assert re.search(rf"^ok      {part}", finished.stdout, re.MULTILINE)

    async def test_kafka_that_is_away(self, tmp_path: Path) -> None:
        server = Server(tmp_path, kafka_brokers=f"127.0.0.1:{free_port()}", single_worker="true")
        finished = server.command("check")
        assert finished.returncode == 1
        assert "FAILED  event log" in finished.stdout
        assert "ok      sandbox" in finished.stdout

    async def test_an_app_that_does_not_load(self, tmp_path: Path) -> None:
        projects_file = write_projects(tmp_path, [project(1, "def processEvent(event, meta)\n    return event\n")])
        finished = Server(tmp_path, projects_file=str(projects_file)).command("check")
        assert finished.returncode == 1
        assert "FAILED  projects: apps that do not load: App101 (101)" in finished.stdout

    async def test_settings_that_cannot_be_read(self, tmp_path: Path) -> None:
        finished = Server(tmp_path, topic_partitions="many").command("check")
        assert finished.returncode == 2
        assert "PLUGIN_SERVER_TOPIC_PARTITIONS ('many'): must be a whole number" in finished.stderr

    async def test_records_larger_than_the_broker_takes(self, kafka: str, tmp_path: Path, topic_prefix: str) -> None:
        settings = {"kafka_brokers": kafka, "single_worker": "true", "topic_prefix": topic_prefix}
        finished = Server(tmp_path, record_bytes="900000000", **settings).command("check")
        assert finished.returncode == 1
        assert "RECORD_BYTES is 900000000, more than the" in finished.stdout

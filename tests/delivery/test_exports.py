"""exportEvents: batches as PostHog cuts them (behaviours 85–90), and none of their events lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml

from tests.delivery.destinations import Destination, destinations, sends_batches, sends_each
from tests.server import project, until, write_projects
from tests.stage import BOTH_LOGS, Stage, envelope, make_stage


def with_config(directory: Path, entry: dict[str, Any], **config: Any) -> None:
    """Write the projects file again, with this config for the project's first install."""
    path = write_projects(directory, [entry])
    written = yaml.safe_load(path.read_text())
    written["projects"][0]["installs"][0]["config"] = config
    path.write_text(yaml.safe_dump(written))


def exporting(
    request: pytest.FixtureRequest, directory: Path, entry: dict[str, Any], kind: str = "embedded", **config: Any
) -> Stage:
    stage = make_stage(kind, request, directory, [entry], allowed_private_hosts="*", topic_partitions="1")
    with_config(directory, entry, **config)
    return stage


def sizes(destination: Destination) -> list[int]:
    return sorted((len(body) for body in destination.bodies), reverse=True)


async def test_batches_end_by_time_and_leave_out_what_is_ignored(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    async with destinations(1) as [destination]:
        entry = project(2, sends_batches(destination.url))
        stage = exporting(
            request, tmp_path, entry, exportEventsBufferSeconds=1, exportEventsToIgnore="noise , other noise"
        )
        async with stage:
            await stage.server().start_ready()
            names = ["x", "noise", "x", "other noise"]
            await stage.log.send([envelope(2, n, event=name, n=n) for n, name in enumerate(names)])
            await until(lambda: len(destination.numbers()) == 2, "the batch")
            assert sizes(destination) == [2]


async def test_batches_end_by_size_and_an_app_with_on_event_gets_both(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    async with destinations(2) as [batches, singles]:
        entry = project(2, sends_batches(batches.url) + sends_each(singles.url))
        stage = exporting(request, tmp_path, entry, exportEventsBufferBytes=2_000, exportEventsBufferSeconds=2)
        async with stage:
            await stage.server().start_ready()
            await stage.log.send([envelope(2, n, n=n) for n in range(100, 200)])
            await until(lambda: len(batches.numbers()) == len(singles.numbers()) == 100, "all, twice")
            assert max(batches.numbers().values()) == 1
            each = 2_000 // len(orjson.dumps(batches.bodies[0][0]))
            assert sizes(batches) == [each] * (100 // each) + [100 % each] * bool(100 % each)


async def test_one_byte_makes_a_call_of_each(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    async with destinations(1) as [destination]:
        stage = exporting(request, tmp_path, project(2, sends_batches(destination.url)), exportEventsBufferBytes=1)
        async with stage:
            await stage.server().start_ready()
            await stage.log.send([envelope(2, n, n=n) for n in range(100)])
            await until(lambda: len(destination.numbers()) == 100, "all")
            assert sizes(destination) == [1] * 100


async def test_a_stop_sends_what_is_gathered(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    async with destinations(1) as [destination]:
        entry = project(2, sends_batches(destination.url))
        stage = exporting(request, tmp_path, entry, exportEventsBufferSeconds=600)
        async with stage:
            server = stage.server()
            await server.start_ready()
            await stage.log.send([envelope(2, n, n=n) for n in range(10)])

            async def taken() -> bool:
                return await server.metric("plugin_server_delivery_events_taken_total") == 10

            await until(taken, "all are in the buffer")
            assert not destination.bodies
            assert await server.terminate() == 0
            assert sizes(destination) == [10]


@pytest.mark.parametrize("kind", BOTH_LOGS)
async def test_a_killed_worker_loses_nothing_that_was_gathered(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    async with destinations(1) as [destination]:
        entry = project(2, sends_batches(destination.url))
        stage = exporting(request, tmp_path, entry, kind, exportEventsBufferSeconds=5)
        async with stage:
            server = stage.server()
            await server.start_ready()
            await stage.log.send([envelope(2, n, n=n) for n in range(50)])

            async def taken() -> bool:
                return await server.metric("plugin_server_delivery_events_taken_total") == 50

            await until(taken, "all are in the buffer")
            server.kill()
            assert not destination.bodies
            await server.start_ready()
            await until(lambda: len(destination.numbers()) == 50, "all, by the worker's next life")
            assert max(destination.numbers().values()) == 1


async def test_a_batch_that_fails_is_parked_and_retried_as_one(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    async with destinations(1) as [destination]:
        destination.mode = "fail"
        entry = project(2, sends_batches(destination.url))
        stage = exporting(request, tmp_path, entry, exportEventsBufferSeconds=1)
        async with stage:
            server = stage.server()
            await server.start_ready()
            await stage.log.send([envelope(2, n, n=n) for n in range(20)])
            await until(lambda: destination.calls == 1, "the first attempt")
            listed = server.command("parked", "list")

            async def one_row() -> bool:
                nonlocal listed
                listed = server.command("parked", "list", "--json")
                return bool(listed.stdout)

            await until(one_row, "it is parked")
            assert '"events":20' in listed.stdout
            assert "answered 500" in listed.stdout
            destination.work()
            await until(lambda: bool(destination.bodies), "the retry")
            assert sizes(destination) == [20]

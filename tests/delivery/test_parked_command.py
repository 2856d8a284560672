"""`plugin-server parked` beside a running server."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.delivery.destinations import composes, destinations, sends_each
from tests.server import Server, project, until
from tests.stage import envelope, make_stage


async def command(server: Server, *arguments: str) -> subprocess.CompletedProcess[str]:
    """In a thread: the destinations answer meanwhile, they live in this event loop."""
    return await asyncio.to_thread(server.command, "parked", *arguments)


async def listed(server: Server, *filters: str) -> list[dict[str, Any]]:
    done = await command(server, "list", "--json", "--limit", "1000", *filters)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


async def test_parked_deliveries_are_listed_retried_and_dropped(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    async with destinations(2) as [first, second]:
        first.mode = second.mode = "fail"
        apps = project(2, sends_each(first.url), composes(second.url))
        stage = make_stage("embedded", request, tmp_path, [apps], allowed_private_hosts="*")
        async with stage:
            server = stage.server()
            await server.start_ready()
            await stage.log.send([envelope(2, n, n=n) for n in range(3)])

            async def are_parked(count: int) -> bool:
                return len(await listed(server)) == count

            await until(lambda: are_parked(6), "all are parked")
            text = (await command(server, "list")).stdout
            assert "App201 (201)" in text
            assert "answered 500" in text
            of_first = await listed(server, "--install", "201")
            assert {row["hook"] for row in of_first} == {"onEvent"}
            assert all(row["project"] == 2 and row["events"] == 1 and row["attempts"] >= 1 for row in of_first)
            assert len(await listed(server, "--project", "3")) == 0
            assert len(await listed(server, "--hook", "composeWebhook")) == 3

            asked = await command(server, "drop", "--install", "202")
            assert asked.returncode == 1  # nobody answered

            async def dropped() -> bool:
                done = await command(server, "drop", "--install", "202", "--yes")
                assert done.returncode == 0, done.stderr
                return not await listed(server, "--install", "202")

            await until(dropped, "none is left of one install")  # one that is under way is left alone
            second.work()
            first.work()
            done = await command(server, "retry", "--install", "201", "--json")
            assert json.loads(done.stdout)["deliveries"] + json.loads(done.stdout)["under_way"] <= 3
            await until(lambda: set(first.numbers()) == {0, 1, 2}, "the other install's arrive")
            await until(lambda: are_parked(0), "nothing is parked")
            assert not second.bodies
            assert "Nothing is parked." in (await command(server, "list")).stdout


async def test_an_install_that_is_gone_leaves_dead_letters(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    async with destinations(1) as [destination]:
        destination.mode = "fail"
        apps = project(2, "def processEvent(event, meta):\n    return event", sends_each(destination.url))
        stage = make_stage("embedded", request, tmp_path, [apps], allowed_private_hosts="*")
        async with stage:
            server = stage.server()
            await server.start_ready()
            await stage.log.send([envelope(2, n, n=n) for n in range(2)])

            async def are_parked() -> bool:
                return len(await listed(server)) == 2

            await until(are_parked, "both are parked")
            await server.terminate()
            projects = tmp_path / "projects.yaml"
            written = yaml.safe_load(projects.read_text())
            del written["projects"][0]["installs"][1]
            projects.write_text(yaml.safe_dump(written))
            await server.start_ready()

            async def letters() -> bool:
                return len(await stage.log.dead_letters()) == 2

            await until(letters, "the dead letters")
            outputs = {record.value for record in await stage.log.outputs()}
            for letter in await stage.log.dead_letters():
                assert letter.value in outputs
                assert letter.header("reason") == "undeliverable"
                assert letter.header("install") == "202"
                assert "the install is gone" in letter.header("error")
            assert not await listed(server)


def test_without_a_server_there_is_nothing_to_list(tmp_path: Path) -> None:
    done = Server(tmp_path).command("parked", "list")
    assert done.returncode == 2
    assert "there is no database" in done.stderr

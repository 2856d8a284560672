"""`plugin-server parked` beside a running server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.delivery.destinations import composes, destinations, sends_each
from tests.server import Server, project, until
from tests.stage import envelope, make_stage


def listed(server: Server, *filters: str) -> list[dict[str, Any]]:
    done = server.command("parked", "list", "--json", "--limit", "1000", *filters)
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
            await until(lambda: len(listed(server)) == 6, "all are parked")
            text = server.command("parked", "list").stdout
            assert "App201 (201)" in text
            assert "answered 500" in text
            [*of_first] = listed(server, "--install", "201")
            assert {row["hook"] for row in of_first} == {"onEvent"}
            assert all(row["project"] == 2 and row["events"] == 1 and row["attempts"] >= 1 for row in of_first)
            assert len(listed(server, "--project", "3")) == 0
            assert len(listed(server, "--hook", "composeWebhook")) == 3

            asked = server.command("parked", "drop", "--install", "202")
            assert asked.returncode == 1  # nobody answered

            def dropped() -> bool:
                done = server.command("parked", "drop", "--install", "202", "--yes")
                assert done.returncode == 0, done.stderr
                return not listed(server, "--install", "202")

            await until(dropped, "none is left of one install")  # one that is under way is left alone
            second.work()
            first.work()
            done = server.command("parked", "retry", "--install", "201", "--json")
            assert json.loads(done.stdout)["deliveries"] + json.loads(done.stdout)["under_way"] <= 3
            await until(lambda: set(first.numbers()) == {0, 1, 2}, "the other install's arrive")
            await until(lambda: not listed(server), "nothing is parked")
            assert not second.bodies
            assert "Nothing is parked." in server.command("parked", "list").stdout


async def test_an_install_that_is_gone_leaves_dead_letters(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    async with destinations(1) as [destination]:
        destination.mode = "fail"
        apps = project(2, "def processEvent(event, meta):\n    return event", sends_each(destination.url))
        stage = make_stage("embedded", request, tmp_path, [apps], allowed_private_hosts="*")
        async with stage:
            server = stage.server()
            await server.start_ready()
            await stage.log.send([envelope(2, n, n=n) for n in range(2)])
            await until(lambda: len(listed(server)) == 2, "both are parked")
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
            assert not listed(server)


def test_without_a_server_there_is_nothing_to_list(tmp_path: Path) -> None:
    done = Server(tmp_path).command("parked", "list")
    assert done.returncode == 2
    assert "there is no database" in done.stderr

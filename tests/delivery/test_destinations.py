"""Done when: one destination hangs, one fails, one is healthy. Nobody waits for anybody, and nothing is missed."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from tests.delivery.destinations import composes, destinations, sends_each
from tests.server import project, until
from tests.stage import BOTH_LOGS, envelope, make_stage

EVENTS = 301
WAVE, WAVE_SECONDS = 20, 0.2


@pytest.mark.parametrize("kind", BOTH_LOGS)
async def test_a_dead_destination_delays_nobody_and_misses_nothing_although_the_worker_is_killed(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    async with destinations(3) as (hanging, failing, healthy):
        hanging.mode, failing.mode = "hang", "fail"
        apps = project(2, sends_each(hanging.url), composes(failing.url), sends_each(healthy.url))
        stage = make_stage(kind, request, tmp_path, [apps], allowed_private_hosts="127.0.0.0/8")
        async with stage:
            server = stage.server()
            await server.start_ready()
            # The first event loads the apps; what is timed comes after it.
            await stage.log.send([envelope(2, 0, n=0)])
            await until(lambda: 0 in healthy.numbers(), "the first event")
            sent: dict[int, float] = {}
            for first in range(1, EVENTS, WAVE):
                wave = range(first, min(first + WAVE, EVENTS))
                sent.update(dict.fromkeys(wave, time.monotonic()))
                await stage.log.send([envelope(2, n, f"d{n % 7}", n=n) for n in wave])
                await asyncio.sleep(WAVE_SECONDS)
            await until(lambda: len(healthy.numbers()) == EVENTS, "the healthy destination has all")
            arrived = {body["properties"]["n"]: at for body, at in zip(healthy.bodies, healthy.times, strict=True)}
            waits = sorted(arrived[n] - at for n, at in sent.items())
            print(
                f"{kind}: at the healthy one after {waits[len(waits) // 2]:.2f} s (median), {waits[-1]:.2f} s (longest)"
            )

            async def until_parked() -> bool:
                return await server.metric("plugin_server_parked_events") >= 2 * EVENTS

            await until(until_parked, "what the others missed is parked")
            server.kill()
            await server.start_ready()
            await stage.log.send([envelope(2, n, n=n) for n in range(EVENTS, EVENTS + 10)])
            await until(lambda: len(healthy.numbers()) == EVENTS + 10, "the healthy destination goes on")
            assert not hanging.bodies
            assert not failing.bodies
            hanging.work()
            failing.work()
            everything = set(range(EVENTS + 10))
            await until(lambda: set(hanging.numbers()) == everything, "the one that hung has all")
            await until(lambda: set(failing.numbers()) == everything, "the one that failed has all")

            async def until_empty() -> bool:
                return await server.metric("plugin_server_parked_events") == 0

            await until(until_empty, "nothing is parked any more")
            assert max(healthy.numbers().values()) <= 2  # in flight when it was killed
            assert not await stage.log.dead_letters()


async def test_a_hook_gets_the_event_as_it_left_ingestion_and_its_captures_descend_from_it(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    async with destinations(1) as [destination]:
        changes = "def processEvent(event, meta):\n    event['properties']['changed'] = True\n    return event"
        sends = (
            sends_each(destination.url)
            + """
    if event['event'] == 'x':
        posthog.capture('followed up', {'distinct_id': event['distinct_id'], 'n': -1})
"""
        )
        apps = project(2, changes, sends)
        stage = make_stage("embedded", request, tmp_path, [apps], allowed_private_hosts="*")
        async with stage:
            server = stage.server()
            await server.start_ready()
            chain = 'button.buy:attr_id="b1"nth-child="2"nth-of-type="1"text="Buy"'
            properties: dict[str, Any] = {"n": 1, "$elements_chain": chain, "$set": {"plan": "pro"}}
            await stage.log.send([envelope(2, 1, **properties)])
            await until(lambda: len(destination.bodies) == 2, "the event and the capture")
            first, second = sorted(destination.bodies, key=lambda body: -body["properties"]["n"])
            assert first["properties"] == {
                "n": 1,
                "$set": {"plan": "pro"},
                "changed": True,
                "$ip": "10.0.0.1",
                "$plugins_succeeded": ["App201 (201)"],
                "$plugins_failed": [],
            }
            assert (first["ip"], first["distinct_id"], first["team_id"]) == ("10.0.0.1", "d1", 2)
            assert first["timestamp"] == "2026-11-23T12:00:00.000Z"
            assert first["$set"] == {"plan": "pro"}
            [element] = first["elements"]
            assert (element["tag_name"], element["attr_class"], element["text"]) == ("button", ["buy"], "Buy")
            assert second["event"] == "followed up"
            [captured] = [record for record in await stage.log.outputs() if record.json["event"] == "followed up"]
            assert captured.lineage["depth"] == 1
            assert captured.lineage["path"] == [202]
            # Half of 1,000 for the delivery, all of it for the one install that receives, less the capture itself.
            assert captured.lineage["budget"] == (1000 // 2 - 1) // 2
            assert len(set(destination.keys)) == 2


async def test_snapshots_are_for_on_snapshot_alone(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    async with destinations(2) as [snapshots, events]:
        of_snapshots = sends_each(snapshots.url).replace("onEvent", "onSnapshot")
        apps = project(2, of_snapshots, sends_each(events.url))
        stage = make_stage("embedded", request, tmp_path, [apps], allowed_private_hosts="*")
        async with stage:
            server = stage.server()
            await server.start_ready()
            await stage.log.send([envelope(2, 1, event="$snapshot", n=1), envelope(2, 2, n=2)])
            await until(lambda: len(snapshots.bodies) + len(events.bodies) == 2, "both")
            assert (set(snapshots.numbers()), set(events.numbers())) == ({1}, {2})


async def test_an_error_of_the_app_is_logged_for_its_owner_and_not_tried_again(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    raises = "def onEvent(event, meta):\n    raise ValueError('no')"
    async with destinations(1) as [healthy]:
        apps = project(2, raises, sends_each(healthy.url))
        stage = make_stage("embedded", request, tmp_path, [apps], allowed_private_hosts="*")
        async with stage:
            server = stage.server()
            await server.start_ready()
            await stage.log.send([envelope(2, n, n=n) for n in range(3)])
            await until(lambda: len(healthy.bodies) == 3, "the other install has all")

            async def logged() -> bool:
                entries = await stage.log.log_entries()
                return len([entry for entry in entries if "ValueError: no" in entry["message"]]) == 3

            await until(logged, "the owner sees each")
            assert await server.metric("plugin_server_deliveries_total", install_id="201", outcome="failed") == 3
            assert await server.metric("plugin_server_parked_events") == 0


async def test_what_an_install_misses_until_its_setup_succeeds_it_gets_afterwards(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    async with destinations(3) as [gate, late, healthy]:
        gate.mode = "fail"
        needs_gate = f"""
async def setupPlugin(meta):
    response = await fetch({gate.url!r}, method='POST', json={{}})
    if not response.ok:
        raise RetryError('the warehouse does not answer')
"""
        apps = project(2, needs_gate + sends_each(late.url), sends_each(healthy.url))
        stage = make_stage("embedded", request, tmp_path, [apps], allowed_private_hosts="*")
        async with stage:
            server = stage.server()
            await server.start_ready()
            await stage.log.send([envelope(2, n, n=n) for n in range(10)])
            await until(lambda: len(healthy.bodies) == 10, "the other install has all")
            assert not late.bodies
            gate.work()
            await until(lambda: set(late.numbers()) == set(range(10)), "all that it missed")

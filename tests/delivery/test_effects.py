"""What a delivery leaves behind counts once, however often a crash delivers its event again."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from plugin_server.database.engine import SQLITE_FILE_NAME
from tests.delivery.destinations import destinations
from tests.server import project, until
from tests.stage import envelope, make_stage

EVENTS = 400
KILLS = 4


async def test_effects_count_once_across_kills(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """Each event is counted by get and set, captures once, and is sent out in between."""
    chance = random.Random(7)
    async with destinations(1) as [destination]:
        counts = f"""
async def onEvent(event, meta):
    if event['event'] != 'x':
        return
    seen = await meta.storage.get('seen', 0)
    await fetch({destination.url!r}, method='POST', json=event)
    await meta.storage.set('seen', seen + 1)
    posthog.capture('seen', {{'n': event['properties']['n'], 'distinct_id': event['distinct_id']}})
"""
        stage = make_stage("embedded", request, tmp_path, [project(2, counts)], allowed_private_hosts="*")
        async with stage:
            server = stage.server()
            await server.start_ready()
            wave = EVENTS // KILLS

            def sent(goal: int) -> bool:
                return len(destination.numbers()) >= goal

            for number in range(KILLS):
                first = number * wave
                await stage.log.send([envelope(2, n, f"d{n % 5}", n=n) for n in range(first, first + wave)])
                goal = first + int(chance.uniform(0.1, 0.9) * wave)
                await until(partial(sent, goal), "some of the wave")
                await asyncio.sleep(chance.uniform(0, 0.05))  # the random moment itself
                server.kill()
                await server.start_ready()

            async def seen() -> bool:
                outputs = await stage.log.outputs()
                return len({record.json["uuid"] for record in outputs if record.json["event"] == "seen"}) >= EVENTS

            await until(partial(sent, EVENTS), "all are sent")
            await until(seen, "all are captured")
            await asyncio.sleep(1)  # for what comes too often
            captured = [record for record in await stage.log.outputs() if record.json["event"] == "seen"]
            # The outbox may send a record again after a kill: it is the same event then, uuid and all.
            assert sorted({record.json["uuid"]: record.properties["n"] for record in captured}.values()) == list(
                range(EVENTS)
            )
            with closing(sqlite3.connect(server.data_dir / SQLITE_FILE_NAME)) as connection:
                rows = connection.execute(
                    "SELECT value FROM storage WHERE install_id = 201 AND key = 'seen'"
                ).fetchall()
            assert [int(value) for (value,) in rows] == [EVENTS]

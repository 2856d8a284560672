"""Workers on a real database: each with its ledger and its committer, several on one Postgres."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import Table, select
from sqlalchemy.ext.asyncio import AsyncConnection

from plugin_server.database.engine import Database
from plugin_server.database.errors import database_errors
from plugin_server.host_api.commit import Commitment, Committer, Outcome, read_stored
from plugin_server.host_api.ledger import Ledger
from plugin_server.host_api.storage_transaction import StorageTransaction
from plugin_server.host_api.storage_values import Key, Stored
from plugin_server.model.job import NewJob

K: Key = (1, "k")


class Worker:
    """What a worker has for the effects of its runs."""

    def __init__(self, url: str) -> None:
        self.database = Database(url)
        self.ledger = Ledger(self._read)
        self.woken = 0
        self.committer = Committer(self.database, self.ledger, self._wake)
        self.runs = 0

    def _wake(self) -> None:
        self.woken += 1

    async def _read(self, keys: Sequence[Key]) -> Mapping[Key, Stored]:
        with database_errors("cannot read storage"):
            async with self.database.read() as connection:
                return await read_stored(connection, keys)

    def write(self, key: Key, value: bytes | None, **given: Any) -> Commitment:
        """A run that sets one key."""
        run = StorageTransaction()
        self.ledger.set(run, key, value)
        return self.add(run, **given)

    def add(self, run: StorageTransaction, **given: Any) -> Commitment:
        commitment = self.committer.add(run, **given)
        assert commitment is not None
        return commitment

    async def store(self, *commitments: Commitment) -> list[Outcome]:
        await self.committer.store(commitments)
        return [commitment.decided.result() for commitment in commitments]

    async def get(self, key: Key = K) -> bytes | None:
        return await self.ledger.get(StorageTransaction(), key)

    async def count(self, key: Key = K, **given: Any) -> None:
        """One run that reads a number and sets the next, made again until it is stored."""
        run = StorageTransaction()
        while True:
            self.runs += 1
            found = await self.ledger.get(run, key)
            await asyncio.sleep(0)
            self.ledger.set(run, key, str(int(found or b"0") + 1).encode())
            if not self.ledger.is_stale(run) and await self.store(self.add(run, **given)) == [Outcome.STORED]:
                return
            run = run.again()

    async def increment(self, key: Key = K) -> None:
        """One run that adds 1 and does not look."""
        run = StorageTransaction()
        await self.ledger.increment(run, key, 1, (1, 0))
        run.look_at_increments([(1, 0)])
        assert await self.store(self.add(run)) == [Outcome.STORED]


class Completions:
    """A Completion that some tokens are lost for, and that may be held back in the middle of a transaction."""

    def __init__(self, lost: Collection[Any] = ()) -> None:
        self.lost = set(lost)
        self.asked: list[list[Any]] = []
        self.began = asyncio.Event()
        self.may_go_on = asyncio.Event()
        self.may_go_on.set()

    async def complete(self, connection: AsyncConnection, tokens: Sequence[Any]) -> Collection[Any]:
        del connection
        self.asked.append(list(tokens))
        self.began.set()
        await self.may_go_on.wait()
        return [token for token in tokens if token in self.lost]


@asynccontextmanager
async def working(url: str, count: int = 1) -> AsyncIterator[list[Worker]]:
    workers = [Worker(url) for _ in range(count)]
    tasks = [asyncio.create_task(worker.committer.run()) for worker in workers]
    try:
        async with asyncio.timeout(60):
            yield workers
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for worker in workers:
            await worker.database.close()


async def rows(database: Database, table: Table) -> list[Any]:
    async with database.read() as connection:
        return list((await connection.execute(select(table).order_by(*table.primary_key.columns))).all())


def job(job_id: str, **fields: Any) -> NewJob:
    given: dict[str, Any] = {
        "project_id": 2,
        "install_id": 1,
        "name": "mail",
        "payload": b"{}",
        "run_at_ms": 5,
        "lineage": None,
        "share": 0,
        "link": 0,
    }
    return NewJob(id=job_id, **given | fields)

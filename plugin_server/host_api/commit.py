"""Stores what finished runs leave in the database: storage, jobs, and whatever completes them, many runs in one transaction.

Units are stored in the order in which runs finished (ledger.py), so none is stored before one that it read from. A
transaction checks three things and begins again without those that fail: that what completes a unit was still its
worker's (`Completion`: a lane's epoch, a job's lease), and that the database has the versions that were read. Whoever read
from a unit that fell out has to run again.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import islice
from typing import Any, Final, Protocol

import structlog
from sqlalchemy import delete, insert, select, text, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from plugin_server.database.engine import Database
from plugin_server.database.errors import database_errors
from plugin_server.database.insert import insert_into
from plugin_server.database.tables import jobs, outbox, storage
from plugin_server.eventlog.headers_codec import encode_headers
from plugin_server.eventlog.port import OutputRecord
from plugin_server.host_api.ledger import Ledger, Unit
from plugin_server.host_api.storage_transaction import StorageTransaction
from plugin_server.host_api.storage_values import MISSING, Key, Stored
from plugin_server.model.errors import DatabaseUnavailable
from plugin_server.model.job import NewJob

_KEYS_PER_STATEMENT: Final = 200
_UNITS_PER_TRANSACTION: Final = 5_000
_LOCK_SPACE: Final = 0x5053
"""Of Postgres' advisory locks, ours for storage"""
_log = structlog.get_logger(__name__)


class Completion(Protocol):
    """What completes units of one kind, as part of the transaction that stores them."""

    async def complete(self, connection: AsyncConnection, tokens: Sequence[Any]) -> Collection[Any]:
        """Do it for these; returns those that are not ours any more, for which nothing counts. Tokens are hashable."""
        ...


class Outcome(StrEnum):
    STORED = "stored"
    STALE = "stale"
    """Something that it read has changed: run it again"""
    LOST = "lost"
    """Its completion is not ours any more: somebody else runs it"""


@dataclass(eq=False, slots=True)
class Commitment:
    """One finished run on its way to the database."""

    unit: Unit
    jobs: Sequence[NewJob]
    outbox: Sequence[OutputRecord]
    completion: Completion | None
    token: Any
    decided: asyncio.Future[Outcome] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def when_stored(self, count: Callable[[], None]) -> None:
        """Call this once it is stored, before whoever waits for that goes on; never if it is not. It must not raise."""

        def ended(decided: asyncio.Future[Outcome]) -> None:
            if not decided.cancelled() and decided.exception() is None and decided.result() is Outcome.STORED:
                count()

        self.decided.add_done_callback(ended)

    def decide(self, outcome: Outcome) -> None:
        if not self.decided.done():
            self.decided.set_result(outcome)


class _Lost(Exception):
    def __init__(self, members: list[Commitment]) -> None:
        super().__init__()
        self.members = members


class _Changed(Exception):
    def __init__(self, found: Mapping[Key, Stored]) -> None:
        super().__init__()
        self.found = found


class Committer:
    """One a worker. `run` is its life; `on_outbox` and `on_jobs` are called when records were left in the outbox, and jobs stored."""

    def __init__(
        self,
        database: Database,
        ledger: Ledger,
        on_outbox: Callable[[], None] = lambda: None,
        on_jobs: Callable[[], None] = lambda: None,
    ) -> None:
        self.ledger = ledger
        self._database = database
        self._on_outbox = on_outbox
        self._on_jobs = on_jobs
        self._pending: dict[Unit, Commitment] = {}
        """Finished and not stored, in order"""
        self._wanted = asyncio.Event()
        self._storing: set[Commitment] = set()
        self._at_most = _UNITS_PER_TRANSACTION

    def add(
        self,
        transaction: StorageTransaction,
        *,
        jobs: Sequence[NewJob] = (),
        outbox: Sequence[OutputRecord] = (),
        completion: Completion | None = None,
        token: Any = None,
        always: bool = False,
    ) -> Commitment | None:
        """Take a run that has finished; later runs see its writes at once. One that is stale is decided already.

        None when there is nothing to store and nothing to wait for. With `always`, its completion alone is worth a transaction.
        """
        if self.ledger.is_stale(transaction):
            return self.stale(transaction)
        unit = self.ledger.finish(transaction, always=always or bool(jobs or outbox))
        if unit is None:
            return None
        commitment = Commitment(unit, jobs, outbox, completion, token)
        self._pending[unit] = commitment
        return commitment

    def stale(self, transaction: StorageTransaction) -> Commitment:
        """One that is decided: the run does not count."""
        transaction.abandon()
        commitment = Commitment(Unit(frozenset(), {}, is_stale=True), (), (), None, None)
        commitment.decide(Outcome.STALE)
        return commitment

    async def store(self, commitments: Sequence[Commitment]) -> None:
        """Returns when these are decided. Raises DatabaseUnavailable: none that was pending counts any more."""
        waiting = [commitment.decided for commitment in commitments if not commitment.decided.done()]
        if waiting:
            self._wanted.set()
            await asyncio.wait(waiting)
        for commitment in commitments:
            commitment.decided.result()

    def withdraw(self, commitments: Iterable[Commitment]) -> None:
        """Nobody waits for these any more. One that is being stored is left to its completion's own check."""
        members = [each for each in commitments if each.unit in self._pending and each not in self._storing]
        if members:
            self._set_aside(members, Outcome.LOST)

    async def run(self) -> None:
        """Store until cancelled. What it is that a transaction fails over is found by trying fewer units at a time."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            while self._pending:
                await self._store_next()

    async def _store_next(self) -> None:
        members = list(islice(self._pending.values(), self._at_most))
        try:
            while members:
                self._storing = set(members)
                try:
                    await self._store_together(members)
                except _Lost as lost:
                    self._set_aside(lost.members, Outcome.LOST)
                except _Changed as changed:
                    self.ledger.read_anew(changed.found)
                    self._stale(self.ledger.withdraw((), changed.found))
                else:
                    self._at_most = min(self._at_most * 2, _UNITS_PER_TRANSACTION)
                    return
                members = [member for member in members if member.unit in self._pending]
        except DatabaseUnavailable as error:
            _log.warning("effects_not_stored", error=str(error), units=len(self._pending))
            self._fail(error)
        except Exception as error:  # noqa: BLE001 - the committer's boundary: logged, and everybody who waits is told
            self._at_most = max(1, len(members) // 2)
            if len(members) <= 1:
                _log.exception("effects_not_stored", units=len(self._pending))
                self._refuse(members, DatabaseUnavailable(f"effects could not be stored: {type(error).__name__}"))
        finally:
            self._storing = set()

    def _fail(self, error: DatabaseUnavailable) -> None:
        for unit in self.ledger.forget():
            _tell(self._pending.pop(unit), error)

    def _refuse(self, members: Sequence[Commitment], error: DatabaseUnavailable) -> None:
        """Of all that is pending, only these cannot be stored."""
        self._stale(self.ledger.withdraw([member.unit for member in members]))
        for member in members:
            del self._pending[member.unit]
            _tell(member, error)

    def _set_aside(self, members: Sequence[Commitment], outcome: Outcome) -> None:
        stale = self.ledger.withdraw([member.unit for member in members])
        for member in members:
            del self._pending[member.unit]
            member.decide(outcome)
        self._stale(stale)

    def _stale(self, units: Iterable[Unit]) -> None:
        for unit in units:
            self._pending.pop(unit).decide(Outcome.STALE)

    async def _store_together(self, members: Sequence[Commitment]) -> None:
        with database_errors("cannot store effects"):
            written = await self._transact(members)
        self.ledger.stored([member.unit for member in members], written)
        for member in members:
            self._pending.pop(member.unit, None)
            member.decide(Outcome.STORED)
        if any(member.outbox for member in members):
            self._on_outbox()
        if any(member.jobs for member in members):
            self._on_jobs()

    async def _transact(self, members: Sequence[Commitment]) -> Mapping[Key, Stored]:
        """One transaction; what the database has then. Raises _Lost, _Changed and SQLAlchemy's errors: it has nothing of it."""
        async with self._database.write() as connection:
            keys = sorted({key for member in members for key in (*member.unit.reads, *member.unit.writes)})
            await self._lock(connection, keys)
            await _complete(connection, members)
            found = await read_stored(connection, keys)
            self._check_versions(members, found)
            written = await _write(connection, members, found)
            await _insert_jobs(connection, members)
            await _insert_outbox(connection, members)
            return written

    async def _lock(self, connection: AsyncConnection, keys: Sequence[Key]) -> None:
        """On Postgres, workers that store keys of the same install come one after another; SQLite has one writer anyway."""
        if self._database.is_sqlite:
            return
        # Locks have numbers of 32 bits. In the order of the numbers, so that no two workers wait for each other.
        for lock in sorted({install_id % 2**32 - 2**31 for install_id, _ in keys}):
            await connection.execute(
                text("SELECT pg_advisory_xact_lock(:space, :lock)"), {"space": _LOCK_SPACE, "lock": lock}
            )

    def _check_versions(self, members: Sequence[Commitment], found: Mapping[Key, Stored]) -> None:
        changed = {
            key: found.get(key, MISSING)
            for member in members
            for key in member.unit.reads
            if found.get(key, MISSING).version != self.ledger.base_version(key)
        }
        if changed:
            raise _Changed(changed)


def _tell(commitment: Commitment, error: DatabaseUnavailable) -> None:
    if not commitment.decided.done():
        commitment.decided.set_exception(error)
        commitment.decided.exception()  # its owner may be gone


async def read_stored(connection: AsyncConnection, keys: Sequence[Key]) -> dict[Key, Stored]:
    """These keys as the database has them; those that it lacks are left out. Raises SQLAlchemy's errors."""
    found: dict[Key, Stored] = {}
    columns = storage.c
    for start in range(0, len(keys), _KEYS_PER_STATEMENT):
        some = keys[start : start + _KEYS_PER_STATEMENT]
        query = select(columns.install_id, columns.key, columns.value, columns.version).where(
            tuple_(columns.install_id, columns.key).in_(some)
        )
        for install_id, key, value, version in await connection.execute(query):
            found[install_id, key] = Stored(value, version)
    return found


async def _complete(connection: AsyncConnection, members: Sequence[Commitment]) -> None:
    by_completion: dict[int, tuple[Completion, dict[Any, Commitment]]] = {}
    for member in members:
        if member.completion is not None:
            entry = by_completion.setdefault(id(member.completion), (member.completion, {}))
            entry[1][member.token] = member
    for completion, by_token in by_completion.values():
        lost = await completion.complete(connection, list(by_token))
        if lost:
            raise _Lost([by_token[token] for token in lost])


async def _write(
    connection: AsyncConnection, members: Sequence[Commitment], found: Mapping[Key, Stored]
) -> dict[Key, Stored]:
    values: dict[Key, bytes | None] = {}
    for member in members:
        for key, operation in member.unit.writes.items():
            before = values[key] if key in values else found.get(key, MISSING).value
            values[key] = operation.apply(before)
    written: dict[Key, Stored] = {}
    rows: list[dict[str, Any]] = []
    gone: list[Key] = []
    for key, value in values.items():
        if value is None:
            written[key] = MISSING
            gone.append(key)
        else:
            written[key] = Stored(value, secrets.randbits(62) | 1)
            rows.append({"install_id": key[0], "key": key[1], "value": value, "version": written[key].version})
    for start in range(0, len(gone), _KEYS_PER_STATEMENT):
        some = gone[start : start + _KEYS_PER_STATEMENT]
        await connection.execute(delete(storage).where(tuple_(storage.c.install_id, storage.c.key).in_(some)))
    if rows:
        await connection.execute(_upsert(connection), rows)
    return written


def _upsert(connection: AsyncConnection) -> Any:
    statement = insert_into(storage, is_sqlite=connection.dialect.name == "sqlite")
    return statement.on_conflict_do_update(
        index_elements=[storage.c.install_id, storage.c.key],
        set_={"value": statement.excluded.value, "version": statement.excluded.version},
    )


async def _insert_jobs(connection: AsyncConnection, members: Sequence[Commitment]) -> None:
    now_ms = time.time_ns() // 1_000_000
    rows = [
        {
            "id": job.id,
            "project_id": job.project_id,
            "install_id": job.install_id,
            "name": job.name,
            "payload": job.payload,
            "state": "waiting",
            "run_at_ms": now_ms if job.run_at_ms is None else job.run_at_ms,
            "lineage": None if job.lineage is None else job.lineage.encode(),
            "share": job.share,
            "link": job.link,
            "created_at_ms": now_ms,
        }
        for member in members
        for job in member.jobs
    ]
    if rows:
        statement = insert_into(jobs, is_sqlite=connection.dialect.name == "sqlite")
        # The same id is the same job, asked for again by what ran again.
        await connection.execute(statement.on_conflict_do_nothing(index_elements=[jobs.c.id]), rows)


async def _insert_outbox(connection: AsyncConnection, members: Sequence[Commitment]) -> None:
    rows = [
        {
            "topic": record.topic,
            "key": record.key,
            "value": record.value,
            "headers": encode_headers(record.headers) if record.headers else None,
        }
        for member in members
        for record in member.outbox
    ]
    if rows:
        await connection.execute(insert(outbox), rows)

"""The table of jobs, as the jobs role uses it: what is due, claims and their leases, completion, the dead.

A job waits or is dead; one that is done is deleted. A claim is a lease: `claimed_by` names the worker's life that holds it,
`claimed_until_ms` its end, after which whoever comes takes the job over. What is done to a claimed job asks that it is
still ours. All times are of the hosts' clocks, so leases are long against what clocks differ by.

Rejected: one claim over all installs by a window function (it sorts all that is due, each time), and claims in the order
of time alone (an install with a hundred thousand jobs starves the others).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import bindparam, delete, func, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from plugin_server.background.fair import Due
from plugin_server.database.engine import Database
from plugin_server.database.errors import database_errors
from plugin_server.database.tables import jobs
from plugin_server.model.lineage import Lineage, MalformedLineage, parse_lineage, refused

WAITING: Final = "waiting"
DEAD: Final = "dead"
LEASE_MS: Final = 60_000
SEEN_ROWS: Final = 2_000
"""Of what is due, the oldest so many are looked at; beyond them each install is asked for"""
_UNSEEN_COUNT: Final = 50
DEAD_KEPT_MS: Final = 30 * 86_400_000
DEAD_KEPT_PER_INSTALL: Final = 1_000


@dataclass(frozen=True, slots=True)
class ClaimedJob:
    """A job that this worker may run until the lease ends. `payload` is JSON; `lineage` None where captures are new roots."""

    id: str
    project_id: int
    install_id: int
    name: str
    payload: bytes
    attempts: int
    lineage: Lineage | None
    share: int
    link: int
    run_at_ms: int


@dataclass(frozen=True, slots=True)
class Done:
    """The job has run."""

    job_id: str


@dataclass(frozen=True, slots=True)
class Failed:
    """The job is tried again at `run_at_ms`, or dead since then."""

    job_id: str
    state: str
    run_at_ms: int
    attempts: int
    error: str


class JobStore:
    """One worker's way to the table. `owner` names this life of the worker, and no other one."""

    def __init__(self, database: Database, owner: str) -> None:
        self._database = database
        self.owner = owner

    async def due(self, now_ms: int) -> list[Due]:
        """Installs with jobs to be claimed. Looks at a bounded number of rows. Raises DatabaseUnavailable."""
        with database_errors("cannot look for jobs"):
            async with self._database.read() as connection:
                rows = (await connection.execute(_DUE, {"now_ms": now_ms, "seen": SEEN_ROWS})).all()
                found = {row.install_id: Due(*row) for row in rows}
                if sum(each.count for each in found.values()) >= SEEN_ROWS:
                    others = (await connection.execute(_ALL_DUE, {"now_ms": now_ms})).all()
                    for install_id, project_id, oldest_ms in others:
                        if project_id is not None and install_id not in found:
                            found[install_id] = Due(install_id, project_id, _UNSEEN_COUNT, 0, oldest_ms)
        return list(found.values())

    async def claim(self, places: Mapping[int, int], now_ms: int) -> list[ClaimedJob]:
        """Claim so many due jobs of each install, the oldest first. Raises DatabaseUnavailable."""
        if not places:
            return []
        with database_errors("cannot claim jobs"):
            async with self._database.write() as connection:
                claim = _claim_sqlite if self._database.is_sqlite else _claim_postgres
                rows = await claim(connection, places, self.owner, now_ms)
        return [_claimed(row) for row in rows]

    async def renew(self, job_ids: Sequence[str], now_ms: int) -> None:
        """Hold these for another lease. Raises DatabaseUnavailable."""
        await self._update_mine(job_ids, claimed_until_ms=now_ms + LEASE_MS)

    async def release(self, job_ids: Sequence[str]) -> None:
        """Give these back: anybody may take them now. Raises DatabaseUnavailable."""
        await self._update_mine(job_ids, claimed_until_ms=0, claimed_by=None)

    async def bury(self, install_id: int, error: str, *, due_before_ms: int, now_ms: int) -> int:
        """Keep the waiting jobs of an install that is gone as dead; their number. Raises DatabaseUnavailable."""
        condition = (
            (jobs.c.install_id == install_id)
            & (jobs.c.state == WAITING)
            & (jobs.c.run_at_ms <= due_before_ms)
            & (jobs.c.claimed_until_ms <= now_ms)
        )
        with database_errors("cannot put jobs away"):
            async with self._database.write() as connection:
                values = {"state": DEAD, "error": error, "run_at_ms": now_ms, "claimed_by": None}
                return int((await connection.execute(update(jobs).where(condition).values(**values))).rowcount)

    async def prune(self, now_ms: int) -> int:
        """Delete the dead that are old, or too many of one install; their number. Raises DatabaseUnavailable."""
        old = (jobs.c.state == DEAD) & (jobs.c.run_at_ms < now_ms - DEAD_KEPT_MS)
        rank = func.row_number().over(partition_by=jobs.c.install_id, order_by=jobs.c.run_at_ms.desc())
        ranked = select(jobs.c.id, rank.label("place")).where(jobs.c.state == DEAD).subquery()
        surplus = select(ranked.c.id).where(ranked.c.place > DEAD_KEPT_PER_INSTALL)
        with database_errors("cannot delete dead jobs"):
            async with self._database.write() as connection:
                deleted = (await connection.execute(delete(jobs).where(old))).rowcount
                deleted += (await connection.execute(delete(jobs).where(jobs.c.id.in_(surplus)))).rowcount
        return int(deleted)

    async def complete(self, connection: AsyncConnection, tokens: Sequence[Done | Failed]) -> Collection[Done | Failed]:
        """Completion of the committer: delete what is done, put away what failed; those that are not ours any more."""
        done = {token.job_id: token for token in tokens if isinstance(token, Done)}
        failed = {token.job_id: token for token in tokens if isinstance(token, Failed)}
        lost: list[Done | Failed] = []
        if done:
            mine = jobs.c.id.in_(list(done)) & (jobs.c.claimed_by == self.owner)
            deleted = set((await connection.scalars(delete(jobs).where(mine).returning(jobs.c.id))).all())
            lost += [token for job_id, token in done.items() if job_id not in deleted]
        if failed:
            mine = jobs.c.id.in_(sorted(failed)) & (jobs.c.claimed_by == self.owner)
            locked = set((await connection.scalars(select(jobs.c.id).where(mine).with_for_update())).all())
            lost += [token for job_id, token in failed.items() if job_id not in locked]
            rows = [
                {
                    "job_id": token.job_id,
                    "new_state": token.state,
                    "new_run_at_ms": token.run_at_ms,
                    "new_attempts": token.attempts,
                    "new_error": token.error,
                }
                for token in failed.values()
            ]
            await connection.execute(_FAIL, rows)
        return lost

    async def _update_mine(self, job_ids: Iterable[str], **values: Any) -> None:
        ids = sorted(job_ids)
        if not ids:
            return
        mine = jobs.c.id.in_(ids) & (jobs.c.claimed_by == self.owner)
        with database_errors("cannot hold jobs"):
            async with self._database.write() as connection:
                await connection.execute(update(jobs).where(mine).values(**values))


def _claimed(row: Any) -> ClaimedJob:
    try:
        lineage = None if row.lineage is None else parse_lineage(row.lineage)
    except MalformedLineage:
        lineage = refused(row.id)
    return ClaimedJob(
        row.id,
        row.project_id,
        row.install_id,
        row.name,
        row.payload,
        row.attempts,
        lineage,
        row.share,
        row.link,
        row.run_at_ms,
    )


_DUE: Final = text("""
    SELECT install_id, project_id, count(*), CAST(avg(bytes) AS integer), min(run_at_ms)
    FROM (
        SELECT install_id, project_id, length(payload) AS bytes, run_at_ms FROM jobs
        WHERE state = 'waiting' AND run_at_ms <= :now_ms AND claimed_until_ms <= :now_ms
        ORDER BY run_at_ms LIMIT :seen
    ) AS oldest
    GROUP BY install_id, project_id
""")
# Steps from one install to the next in the index, instead of through all of their rows.
_ALL_DUE: Final = text("""
    WITH RECURSIVE installs(install_id) AS (
        SELECT min(install_id) FROM jobs
        UNION ALL
        SELECT (SELECT min(install_id) FROM jobs WHERE jobs.install_id > installs.install_id)
        FROM installs WHERE installs.install_id IS NOT NULL
    )
    SELECT install_id,
        (SELECT project_id FROM jobs WHERE jobs.install_id = installs.install_id AND state = 'waiting'
            AND run_at_ms <= :now_ms AND claimed_until_ms <= :now_ms ORDER BY run_at_ms LIMIT 1),
        (SELECT run_at_ms FROM jobs WHERE jobs.install_id = installs.install_id AND state = 'waiting'
            AND run_at_ms <= :now_ms AND claimed_until_ms <= :now_ms ORDER BY run_at_ms LIMIT 1)
    FROM installs WHERE install_id IS NOT NULL
""")
# Materialised: a join that ran the inner query twice would claim twice as many.
_CLAIM_POSTGRES: Final = text("""
    WITH claimed AS MATERIALIZED (
        SELECT mine.id FROM unnest(CAST(:installs AS bigint[]), CAST(:counts AS integer[])) AS wanted(install_id, places)
        CROSS JOIN LATERAL (
            SELECT id FROM jobs
            WHERE install_id = wanted.install_id AND state = 'waiting' AND run_at_ms <= :now_ms
                AND claimed_until_ms <= :now_ms
            ORDER BY run_at_ms LIMIT wanted.places FOR UPDATE SKIP LOCKED
        ) AS mine
    )
    UPDATE jobs SET claimed_by = :owner, claimed_until_ms = :until_ms
    FROM claimed WHERE jobs.id = claimed.id
    RETURNING jobs.*
""")
_CLAIM_SQLITE: Final = text("""
    UPDATE jobs SET claimed_by = :owner, claimed_until_ms = :until_ms
    WHERE id IN (
        SELECT id FROM jobs
        WHERE install_id = :install_id AND state = 'waiting' AND run_at_ms <= :now_ms AND claimed_until_ms <= :now_ms
        ORDER BY run_at_ms LIMIT :places
    )
    RETURNING *
""")
_FAIL: Final = (
    update(jobs)
    .where(jobs.c.id == bindparam("job_id"))
    .values(
        state=bindparam("new_state"),
        run_at_ms=bindparam("new_run_at_ms"),
        attempts=bindparam("new_attempts"),
        error=bindparam("new_error"),
        claimed_by=None,
        claimed_until_ms=0,
    )
)


async def _claim_postgres(
    connection: AsyncConnection, places: Mapping[int, int], owner: str, now_ms: int
) -> Sequence[Any]:
    values = {
        "owner": owner,
        "now_ms": now_ms,
        "until_ms": now_ms + LEASE_MS,
        "installs": list(places),
        "counts": list(places.values()),
    }
    return (await connection.execute(_CLAIM_POSTGRES, values)).all()


async def _claim_sqlite(
    connection: AsyncConnection, places: Mapping[int, int], owner: str, now_ms: int
) -> Sequence[Any]:
    rows: list[Any] = []
    for install_id, count in places.items():
        values = {"owner": owner, "now_ms": now_ms, "until_ms": now_ms + LEASE_MS}
        result = await connection.execute(_CLAIM_SQLITE, {**values, "install_id": install_id, "places": count})
        rows += result.all()
    return rows

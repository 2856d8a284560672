"""The table of schedules: one row for each task of an install, and a lease over all rows of an install at once.

So no two tasks of one install run at the same time, on whichever workers.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import delete, func, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from plugin_server.background.ticks import next_run_ms, tasks_in
from plugin_server.database.engine import Database
from plugin_server.database.errors import database_errors
from plugin_server.database.insert import insert_into
from plugin_server.database.tables import schedules
from plugin_server.model.project import Project

LEASE_MS: Final = 60_000
_ROWS_PER_STATEMENT: Final = 500
_CANDIDATES: Final = 200


@dataclass(frozen=True, slots=True)
class DueTask:
    """A task of an install that this worker holds."""

    install_id: int
    project_id: int
    task: str
    run_at_ms: int


@dataclass(frozen=True, slots=True)
class Ticked:
    """It has run, or is put off; next at `next_run_at_ms`, None if there is no such task."""

    install_id: int
    task: str
    next_run_at_ms: int | None


class ScheduleStore:
    """One worker's way to the table. `owner` names this life of the worker."""

    def __init__(self, database: Database, owner: str) -> None:
        self._database = database
        self.owner = owner

    async def sync(self, projects: Iterable[Project], now_ms: int) -> None:
        """Make the rows those of these projects' apps; those that stay keep their time. Raises DatabaseUnavailable."""
        wanted = {
            (install.id, task): project.id
            for project in projects
            for install in project.installs
            for task in tasks_in(install.app.source)
        }
        with database_errors("cannot store schedules"):
            async with self._database.write() as connection:
                columns = schedules.c
                rows = (await connection.execute(select(columns.install_id, columns.task, columns.project_id))).all()
                there = {(install_id, task): project_id for install_id, task, project_id in rows}
                gone = [key for key in there if wanted.get(key) != there[key]]
                for some in _portions(gone):
                    key = tuple_(columns.install_id, columns.task)
                    await connection.execute(delete(schedules).where(key.in_(some)))
                new = [
                    {
                        "install_id": install_id,
                        "task": task,
                        "project_id": project_id,
                        "next_run_at_ms": next_run_ms(task, install_id, now_ms),
                    }
                    for (install_id, task), project_id in wanted.items()
                    if there.get((install_id, task)) != project_id
                ]
                if new:
                    statement = insert_into(schedules, is_sqlite=self._database.is_sqlite)
                    await connection.execute(statement.on_conflict_do_nothing(), new)

    async def claim(
        self, known: Collection[int], places: int, now_ms: int, busy: Container[int] = ()
    ) -> Mapping[int, list[DueTask]]:
        """Hold installs with due tasks, at most so many; their due tasks, oldest first. Raises DatabaseUnavailable.

        Only of `known` projects: others are another worker's. None of the `busy` installs, which this worker has in hand.
        """
        columns = schedules.c
        due = (
            select(columns.install_id, columns.project_id)
            .where((columns.next_run_at_ms <= now_ms) & (columns.claimed_until_ms <= now_ms))
            .order_by(columns.next_run_at_ms)
            .limit(_CANDIDATES)
        )
        with database_errors("cannot claim schedules"):
            async with self._database.read() as connection:
                found = (await connection.execute(due)).all()
            mine = (install for install, project in found if project in known and install not in busy)
            wanted = list(dict.fromkeys(mine))[:places]
            if not wanted:
                return {}
            async with self._database.write() as connection:
                return await self._hold(connection, wanted, now_ms)

    async def _hold(
        self, connection: AsyncConnection, installs: Sequence[int], now_ms: int
    ) -> dict[int, list[DueTask]]:
        columns = schedules.c
        mine = columns.install_id.in_(installs)
        counting = select(columns.install_id, func.count()).where(mine).group_by(columns.install_id)
        counts: dict[int, int] = dict((await connection.execute(counting)).all())
        query = select(schedules).where(mine).order_by(columns.install_id, columns.task)
        rows = (await connection.execute(query.with_for_update(skip_locked=True))).all()
        held: dict[int, list[DueTask]] = {}
        for install_id in installs:
            own = [row for row in rows if row.install_id == install_id]
            # Fewer than there are: another worker is about to take them.
            if len(own) < counts.get(install_id, 0) or any(row.claimed_until_ms > now_ms for row in own):
                continue
            tasks = [
                DueTask(install_id, row.project_id, row.task, row.next_run_at_ms)
                for row in own
                if row.next_run_at_ms <= now_ms
            ]
            if tasks:
                held[install_id] = sorted(tasks, key=lambda each: each.run_at_ms)
        values = {"claimed_by": self.owner, "claimed_until_ms": now_ms + LEASE_MS}
        await connection.execute(update(schedules).where(columns.install_id.in_(list(held))).values(**values))
        return held

    async def renew(self, installs: Collection[int], now_ms: int) -> None:
        """Hold these for another lease. Raises DatabaseUnavailable."""
        await self._update_mine(installs, self.owner, now_ms + LEASE_MS)

    async def release(self, installs: Collection[int]) -> None:
        """Give these back. Raises DatabaseUnavailable."""
        await self._update_mine(installs, None, 0)

    async def _update_mine(self, installs: Collection[int], claimed_by: str | None, until_ms: int) -> None:
        if not installs:
            return
        mine = schedules.c.install_id.in_(sorted(installs)) & (schedules.c.claimed_by == self.owner)
        with database_errors("cannot hold schedules"):
            async with self._database.write() as connection:
                values = {"claimed_by": claimed_by, "claimed_until_ms": until_ms}
                await connection.execute(update(schedules).where(mine).values(**values))

    async def complete(self, connection: AsyncConnection, tokens: Sequence[Ticked]) -> Collection[Ticked]:
        """Completion of the committer: when they run next; those whose installs are not ours any more."""
        lost: list[Ticked] = []
        for token in sorted(tokens, key=lambda each: (each.install_id, each.task)):
            mine = (
                (schedules.c.install_id == token.install_id)
                & (schedules.c.task == token.task)
                & (schedules.c.claimed_by == self.owner)
            )
            if token.next_run_at_ms is None:
                result = await connection.execute(delete(schedules).where(mine))
            else:
                values = {"next_run_at_ms": token.next_run_at_ms}
                result = await connection.execute(update(schedules).where(mine).values(**values))
            if not result.rowcount:
                lost.append(token)
        return lost


def _portions(keys: Sequence[tuple[int, str]]) -> Iterable[Sequence[tuple[int, str]]]:
    return (keys[start : start + _ROWS_PER_STATEMENT] for start in range(0, len(keys), _ROWS_PER_STATEMENT))

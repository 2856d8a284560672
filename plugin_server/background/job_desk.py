"""Jobs as a person sees them: listed, tried again, dropped, while servers run. What a worker holds is left alone."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, RowMapping, and_, delete, func, select, true, update

from plugin_server.background.job_store import DEAD, WAITING
from plugin_server.database.engine import Database
from plugin_server.database.errors import database_errors
from plugin_server.database.tables import jobs

_IDS_PER_STATEMENT: Final = 500


class JobFilters(NamedTuple):
    """Which jobs are meant; None and empty mean any."""

    state: str | None = None
    project: int | None = None
    install: int | None = None
    name: str | None = None
    ids: Sequence[str] = ()

    def condition(self) -> ColumnElement[bool]:
        columns = jobs.c
        wanted: list[ColumnElement[bool]] = [true()]
        pairs = (
            (columns.state, self.state),
            (columns.project_id, self.project),
            (columns.install_id, self.install),
            (columns.name, self.name),
        )
        wanted += [column == value for column, value in pairs if value is not None]
        if self.ids:
            wanted.append(columns.id.in_(self.ids))
        return and_(*wanted)


async def list_jobs(database: Database, filters: JobFilters, limit: int) -> tuple[int, Sequence[RowMapping]]:
    """How many there are, and the first of them by time, without payload but with its `bytes`. Raises DatabaseUnavailable."""
    columns = [column for column in jobs.c if column.name not in ("payload", "lineage")]
    query = select(*columns, func.length(jobs.c.payload).label("bytes")).where(filters.condition())
    with database_errors("cannot list jobs"):
        async with database.read() as connection:
            counting = select(func.count()).select_from(jobs).where(filters.condition())
            total = int((await connection.execute(counting)).scalar_one())
            rows = (await connection.execute(query.order_by(jobs.c.run_at_ms, jobs.c.id).limit(limit))).mappings().all()
    return total, rows


async def retry_jobs(database: Database, filters: JobFilters, now_ms: int | None = None) -> int:
    """Make them due now, with all their attempts before them; their number. Raises DatabaseUnavailable."""
    now_ms = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    values: dict[str, Any] = {"state": WAITING, "run_at_ms": now_ms, "attempts": 0}
    return await _change(database, filters, values, now_ms)


async def drop_jobs(database: Database, filters: JobFilters, now_ms: int | None = None) -> int:
    """Delete them; their number. Raises DatabaseUnavailable."""
    now_ms = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    return await _change(database, filters, None, now_ms)


async def _change(database: Database, filters: JobFilters, values: dict[str, Any] | None, now_ms: int) -> int:
    idle = and_(filters.condition(), jobs.c.claimed_until_ms <= now_ms)
    query = select(jobs.c.id).where(idle).order_by(jobs.c.id)
    with database_errors("cannot change jobs"):
        async with database.write() as connection:
            ids = (await connection.scalars(query.with_for_update(skip_locked=True))).all()
            for start in range(0, len(ids), _IDS_PER_STATEMENT):
                some = jobs.c.id.in_(ids[start : start + _IDS_PER_STATEMENT])
                if values is None:
                    await connection.execute(delete(jobs).where(some))
                else:
                    await connection.execute(update(jobs).where(some).values(**values))
    return len(ids)


def state_of(*, dead: bool, waiting: bool) -> str | None:
    """The state that is meant by these flags; both, or neither, mean any."""
    if dead == waiting:
        return None
    return DEAD if dead else WAITING

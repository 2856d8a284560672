"""SQLite connections whose statements are not torn apart by cancellation.

aiosqlite runs statements in a thread. Cancel a task that awaits one, and the statement runs all the same, while
SQLAlchemy throws the connection away: a BEGIN that nobody knows of, or a cursor that is still open, then keeps the
write lock of the database until the garbage collector comes by. So a statement is always waited for (milliseconds;
at most the busy time-out), and the cancellation is asked for again afterwards: it takes effect at the first await
that is not a statement. `Database.write` and `Database.read` have such an await at their end.
"""

# mypy: allow-untyped-calls
# (aiosqlite is only partly annotated)

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from typing import Any

import aiosqlite

_FETCH_CHUNK_ROWS = 64


class UninterruptedConnection(aiosqlite.Connection):
    """See above. Its thread does not keep the process alive."""

    def __init__(self, connector: Callable[[], sqlite3.Connection]) -> None:
        super().__init__(connector, iter_chunk_size=_FETCH_CHUNK_ROWS)
        self._thread.daemon = True

    async def _execute(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        statement = asyncio.ensure_future(super()._execute(fn, *args, **kwargs))
        cancellations = 0
        while not statement.done():
            try:
                await asyncio.wait([statement])
            except asyncio.CancelledError:
                cancellations += 1
        task = asyncio.current_task()
        if task is not None:
            for _ in range(cancellations):
                task.uncancel()  # the one that was caught; asyncio.timeout counts them
                task.cancel()
        return statement.result()

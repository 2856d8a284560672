"""INSERT with ON CONFLICT, which SQLite and Postgres have alike and SQLAlchemy has once for each."""

from __future__ import annotations

from sqlalchemy import Table
from sqlalchemy.dialects import postgresql, sqlite


def insert_into(table: Table, *, is_sqlite: bool) -> sqlite.Insert | postgresql.Insert:
    """As `sqlalchemy.insert`, with `on_conflict_do_nothing` and `on_conflict_do_update` besides."""
    return sqlite.insert(table) if is_sqlite else postgresql.insert(table)

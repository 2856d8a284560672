"""What the errors of drivers mean to those who work: the database is away, and the same work is done again later."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolExhausted

from plugin_server.model.errors import DatabaseUnavailable

_SQLITE_ERROR: Final = 1
"""SQLite's code for statements that it does not understand: no table of that name, bad syntax"""
_AWAY_SQLSTATES: Final = frozenset({"25006", "25P03"})
"""Not OperationalErrors in psycopg: only reads are taken (a standby after a failover), the transaction was ended"""
_TOO_MUCH: Final = "54"
"""Class of SQLSTATEs for what no server takes, though an OperationalError in psycopg: a key too long for its index"""
_MESSAGE_CHARACTERS: Final = 300


@contextmanager
def database_errors(what: str = "the database does not answer") -> Iterator[None]:
    """Turn what says that the database is away, or too busy, into DatabaseUnavailable; all other errors are left.

    `what` is what was tried: "cannot read jobs". No parameters of statements get into the message.
    """
    try:
        yield
    except (DBAPIError, PoolExhausted, ConnectionError) as error:
        if not _is_away(error):
            raise
        raise DatabaseUnavailable(f"{what}: {_first_line(error)}") from error


def _is_away(error: BaseException) -> bool:
    if not isinstance(error, DBAPIError) or error.connection_invalidated:
        return True
    sqlstate = getattr(error.orig, "sqlstate", None)
    if not isinstance(error, OperationalError | InterfaceError):
        return sqlstate in _AWAY_SQLSTATES
    if sqlstate is not None:
        return not sqlstate.startswith(_TOO_MUCH)
    sqlite_code = getattr(error.orig, "sqlite_errorcode", None)
    return sqlite_code is None or sqlite_code & 0xFF != _SQLITE_ERROR


def _first_line(error: BaseException) -> str:
    cause = getattr(error, "orig", None) or error
    return str(cause).partition("\n")[0][:_MESSAGE_CHARACTERS]

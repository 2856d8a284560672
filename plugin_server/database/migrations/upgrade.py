"""Alembic without its command line, its files of settings and its env.py: one connection in, its tables upgraded."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory
from alembic.script.revision import RevisionError
from alembic.util.exc import CommandError
from sqlalchemy import Connection

from plugin_server.model.errors import ConfigurationError

SCRIPTS: Final = ScriptDirectory(str(Path(__file__).parent))


def upgrade(connection: Connection) -> list[str]:
    """Bring the database up to date in the caller's transaction; the steps that were taken, by number.

    Raises ConfigurationError when the database is newer than this server, SQLAlchemy's errors.
    """
    context = MigrationContext.configure(connection)
    current = context.get_current_revision()
    try:
        steps = list(SCRIPTS.iterate_revisions("head", current or "base"))[::-1]
    except (CommandError, RevisionError) as error:
        raise ConfigurationError(
            f"the database was written by a newer plugin-server (its tables are at {current}, which this version does "
            "not know): run that version, or restore the backup from before the upgrade"
        ) from error
    with Operations.context(context):
        for step in steps:
            step.module.upgrade()
    context.stamp(SCRIPTS, "head")
    return [step.revision for step in steps]

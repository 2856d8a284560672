"""What commands share that look into the database of a server, while it runs or not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import typer
from sqlalchemy import Table, inspect

from plugin_server.database.engine import SQLITE_FILE_NAME, Database, sqlite_url
from plugin_server.database.errors import database_errors
from plugin_server.model.errors import ConfigurationError, PluginServerError
from plugin_server.settings import Settings, load_settings

ResultT = TypeVar("ResultT")
SHOWN: Final = 50
ERROR_CHARACTERS: Final = 120
CONTROL: Final = dict.fromkeys((*range(32), *range(127, 160)), "�")
"""For str.translate: what could move the cursor, in names and errors, which are apps' text"""

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", help="TOML file of settings; environment variables PLUGIN_SERVER_* go before it."),
]
ProjectOption = Annotated[int | None, typer.Option("--project", help="Only those of the project with this id.")]
InstallOption = Annotated[int | None, typer.Option("--install", help="Only those of the install with this id.")]
IdOption = Annotated[list[str] | None, typer.Option("--id", help="Only the one with this id; may be repeated.")]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object a line instead of text.")]


@asynccontextmanager
async def open_database(settings: Settings, table: Table, *, holds: str) -> AsyncIterator[Database]:
    """The server's database, closed at the end of the block. `holds` says what the table is of: "jobs".

    Raises ConfigurationError where there is no database, or no such table yet; DatabaseUnavailable, also in the block.
    """
    if settings.database_url is None and not (settings.data_dir / SQLITE_FILE_NAME).exists():
        raise ConfigurationError(
            f"there is no database in {settings.data_dir}: name the same --config, PLUGIN_SERVER_DATA_DIR or "
            "PLUGIN_SERVER_DATABASE_URL here as the server has"
        )
    database = Database(settings.database_url or sqlite_url(settings.data_dir))
    try:
        with database_errors(f"cannot work on {holds}"):
            async with database.read() as connection:
                if not await connection.run_sync(lambda sync: inspect(sync).has_table(table.name)):
                    raise ConfigurationError(f"the database has no table of {holds}: start the server once")
            yield database
    finally:
        await database.close()


def read_settings(config: Path | None) -> Settings:
    """Ends the command with the error's message where they cannot be read."""
    try:
        return load_settings(config)
    except PluginServerError as error:
        raise failure(error) from None


def run(work: Coroutine[Any, Any, ResultT]) -> ResultT:
    """Do it. Ends the command with the message of an error of ours."""
    try:
        return asyncio.run(work)
    except PluginServerError as error:
        raise failure(error) from None


def failure(error: PluginServerError) -> typer.Exit:
    """Says what is wrong; to be raised."""
    typer.secho(str(error), fg=typer.colors.RED, err=True)
    return typer.Exit(2)


def iso(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds")

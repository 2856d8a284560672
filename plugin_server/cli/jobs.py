"""`plugin-server jobs`: jobs that wait or died, and public jobs that a person starts, while the server runs."""

from __future__ import annotations

import asyncio
import getpass
import os
import sys
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import orjson
import typer
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text
from sqlalchemy import RowMapping, inspect

from plugin_server.background.job_desk import JobFilters, drop_jobs, list_jobs, retry_jobs, state_of
from plugin_server.background.job_store import DEAD, WAITING
from plugin_server.background.public_jobs import start_public_job
from plugin_server.database.engine import SQLITE_FILE_NAME, Database, sqlite_url
from plugin_server.database.errors import database_errors
from plugin_server.database.tables import jobs
from plugin_server.model.errors import ConfigurationError, PluginServerError
from plugin_server.model.project import Install, Project
from plugin_server.registry.registry import load_registry
from plugin_server.settings import Settings, load_settings

ResultT = TypeVar("ResultT")
_SHOWN: Final = 50
_ERROR_CHARACTERS: Final = 120
_WIDTH: Final = 300
"""Of what goes to a file or another program"""
_CONTROL: Final = dict.fromkeys((*range(32), *range(127, 160)), "�")
"""What could move the cursor: names and errors are apps' text"""

app = typer.Typer(
    help="Jobs of apps: look at them, start public ones, try dead ones again, or drop them.", no_args_is_help=True
)
ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", help="TOML file of settings; environment variables PLUGIN_SERVER_* go before it."),
]
ProjectOption = Annotated[int | None, typer.Option("--project", help="Only those of the project with this id.")]
InstallOption = Annotated[int | None, typer.Option("--install", help="Only those of the install with this id.")]
NameOption = Annotated[str | None, typer.Option("--name", help="Only jobs of this name.")]
IdOption = Annotated[list[str] | None, typer.Option("--id", help="Only the one with this id; may be repeated.")]
WaitingOption = Annotated[bool, typer.Option("--waiting", help="Those that wait for their time, instead of the dead.")]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object a line instead of text.")]


@app.command("list")
def list_command(
    config: ConfigOption = None,
    project: ProjectOption = None,
    install: InstallOption = None,
    name: NameOption = None,
    job_id: IdOption = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="So many at most, those that are due first.")] = _SHOWN,
    *,
    dead: Annotated[bool, typer.Option("--dead", help="Only those that were given up.")] = False,
    waiting: Annotated[bool, typer.Option("--waiting", help="Only those that wait for their time, or run.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show jobs that wait, run or died."""
    filters = JobFilters(state_of(dead=dead, waiting=waiting), project, install, name, job_id or ())
    total, rows = _run(_with_database(_settings(config), lambda database: list_jobs(database, filters, limit)))
    if as_json:
        for row in rows:
            sys.stdout.write(orjson.dumps(_as_json(row)).decode() + "\n")
        return
    console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else _WIDTH)
    if not rows:
        console.print("There are no such jobs.")
        return
    table = Table(
        Column("id", no_wrap=True), "project", "install", "job", "state", "attempts", "bytes", "due", "error", box=None
    )
    for row in rows:
        table.add_row(
            row["id"],
            str(row["project_id"]),
            str(row["install_id"]),
            Text(row["name"].translate(_CONTROL)),
            _state(row),
            str(row["attempts"]),
            str(row["bytes"]),
            _due(row),
            Text((row["error"] or "")[:_ERROR_CHARACTERS].translate(_CONTROL)),
        )
    console.print(table)
    if total > len(rows):
        console.print(f"… and {total - len(rows)} more: --limit shows them")


@app.command()
def start(
    install: Annotated[int, typer.Argument(help="Id of the install.")],
    name: Annotated[str, typer.Argument(help="One of its publicJobs.")],
    config: ConfigOption = None,
    payload: Annotated[str, typer.Option(help="JSON object with the job's fields.")] = "{}",
) -> None:
    """Start a public job of an install with this payload; a running server runs it within a second."""
    settings = _settings(config)
    try:
        fields = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        raise _failure(ConfigurationError(f"--payload is not JSON: {error}")) from None

    async def started(database: Database) -> str:
        project, found = _find_install(settings, install)
        return await start_public_job(database, project, found, name, fields, person=getpass.getuser())

    typer.echo(_run(_with_database(settings, started)))


@app.command()
def retry(
    config: ConfigOption = None,
    project: ProjectOption = None,
    install: InstallOption = None,
    name: NameOption = None,
    job_id: IdOption = None,
    *,
    waiting: WaitingOption = False,
) -> None:
    """Make dead jobs due now, with all their attempts before them."""
    filters = JobFilters(WAITING if waiting else DEAD, project, install, name, job_id or ())
    count = _run(_with_database(_settings(config), lambda database: retry_jobs(database, filters)))
    typer.echo(f"{count} jobs are due now.")


@app.command()
def drop(
    config: ConfigOption = None,
    project: ProjectOption = None,
    install: InstallOption = None,
    name: NameOption = None,
    job_id: IdOption = None,
    *,
    waiting: WaitingOption = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete dead jobs for good. Asks before it does."""
    settings = _settings(config)
    filters = JobFilters(WAITING if waiting else DEAD, project, install, name, job_id or ())
    if not yes:
        total, _ = _run(_with_database(settings, lambda database: list_jobs(database, filters, 1)))
        if not typer.confirm(f"Delete {total} jobs for good?", err=True):
            raise typer.Exit(1)
    count = _run(_with_database(settings, lambda database: drop_jobs(database, filters)))
    typer.echo(f"{count} jobs are deleted; those that run were left alone.")


def _find_install(settings: Settings, install_id: int) -> tuple[Project, Install]:
    """Raises ConfigurationError."""
    if settings.projects_file is None:
        raise ConfigurationError("there is no PROJECTS_FILE, so no install: set it as the server has it")
    for project in load_registry(settings.projects_file, os.environ).projects:
        for install in project.installs:
            if install.id == install_id:
                return project, install
    raise ConfigurationError(f"there is no install {install_id} in {settings.projects_file}")


async def _with_database(settings: Settings, work: Any) -> Any:
    async with _open(settings) as database:
        return await work(database)


@asynccontextmanager
async def _open(settings: Settings) -> AsyncIterator[Database]:
    """The server's database. Raises ConfigurationError where there is none, DatabaseUnavailable."""
    if settings.database_url is None and not (settings.data_dir / SQLITE_FILE_NAME).exists():
        raise ConfigurationError(
            f"there is no database in {settings.data_dir}: name the same --config, PLUGIN_SERVER_DATA_DIR or "
            "PLUGIN_SERVER_DATABASE_URL here as the server has"
        )
    database = Database(settings.database_url or sqlite_url(settings.data_dir))
    try:
        with database_errors("cannot look for the table of jobs"):
            async with database.read() as connection:
                if not await connection.run_sync(lambda sync: inspect(sync).has_table(jobs.name)):
                    raise ConfigurationError("the database has no table of jobs: start the server once")
        yield database
    finally:
        await database.close()


def _settings(config: Path | None) -> Settings:
    try:
        return load_settings(config)
    except PluginServerError as error:
        raise _failure(error) from None


def _run(work: Coroutine[Any, Any, ResultT]) -> ResultT:
    try:
        return asyncio.run(work)
    except PluginServerError as error:
        raise _failure(error) from None


def _failure(error: PluginServerError) -> typer.Exit:
    typer.secho(str(error), fg=typer.colors.RED, err=True)
    return typer.Exit(2)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _state(row: RowMapping) -> str:
    if row["state"] == WAITING and row["claimed_until_ms"] > _now_ms():
        return "runs"
    return str(row["state"])


def _due(row: RowMapping) -> str:
    if row["state"] == DEAD:
        return f"died {_iso(row['run_at_ms'])}"
    return "now" if row["run_at_ms"] <= _now_ms() else _iso(row["run_at_ms"])


def _iso(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds")


def _as_json(row: RowMapping) -> dict[str, Any]:
    return {
        "id": row["id"],
        "project": row["project_id"],
        "install": row["install_id"],
        "job": row["name"],
        "state": _state(row),
        "attempts": row["attempts"],
        "bytes": row["bytes"],
        "run_at": _iso(row["run_at_ms"]),
        "created_at": _iso(row["created_at_ms"]),
        "error": row["error"],
    }

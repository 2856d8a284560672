"""`plugin-server jobs`: jobs that wait or died, and public jobs that a person starts, while the server runs."""

from __future__ import annotations

import getpass
import os
import sys
import time
from typing import Annotated, Any, Final

import orjson
import typer
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text
from sqlalchemy import RowMapping

from plugin_server.background.job_desk import JobFilters, drop_jobs, list_jobs, retry_jobs, state_of
from plugin_server.background.job_store import DEAD, WAITING
from plugin_server.background.public_jobs import start_public_job
from plugin_server.cli.beside_server import (
    CONTROL,
    ERROR_CHARACTERS,
    SHOWN,
    ConfigOption,
    IdOption,
    InstallOption,
    JsonOption,
    ProjectOption,
    failure,
    iso,
    open_database,
    read_settings,
    run,
)
from plugin_server.database.engine import Database
from plugin_server.database.tables import jobs
from plugin_server.model.errors import ConfigurationError
from plugin_server.model.project import Install, Project
from plugin_server.registry.registry import load_registry
from plugin_server.settings import Settings

_WIDTH: Final = 300
"""Of what goes to a file or another program"""

app = typer.Typer(
    help="Jobs of apps: look at them, start public ones, try dead ones again, or drop them.", no_args_is_help=True
)
NameOption = Annotated[str | None, typer.Option("--name", help="Only jobs of this name.")]
WaitingOption = Annotated[bool, typer.Option("--waiting", help="Those that wait for their time, instead of the dead.")]


@app.command("list")
def list_command(
    config: ConfigOption = None,
    project: ProjectOption = None,
    install: InstallOption = None,
    name: NameOption = None,
    job_id: IdOption = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="So many at most, those that are due first.")] = SHOWN,
    *,
    dead: Annotated[bool, typer.Option("--dead", help="Only those that were given up.")] = False,
    waiting: Annotated[bool, typer.Option("--waiting", help="Only those that wait for their time, or run.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show jobs that wait, run or died."""
    filters = JobFilters(state_of(dead=dead, waiting=waiting), project, install, name, job_id or ())
    total, rows = run(_with_database(read_settings(config), lambda database: list_jobs(database, filters, limit)))
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
            Text(row["name"].translate(CONTROL)),
            _state(row),
            str(row["attempts"]),
            str(row["bytes"]),
            _due(row),
            Text((row["error"] or "")[:ERROR_CHARACTERS].translate(CONTROL)),
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
    settings = read_settings(config)
    try:
        fields = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        raise failure(ConfigurationError(f"--payload is not JSON: {error}")) from None

    async def started(database: Database) -> str:
        project, found = _find_install(settings, install)
        return await start_public_job(database, project, found, name, fields, person=getpass.getuser())

    typer.echo(run(_with_database(settings, started)))


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
    count = run(_with_database(read_settings(config), lambda database: retry_jobs(database, filters)))
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
    settings = read_settings(config)
    filters = JobFilters(WAITING if waiting else DEAD, project, install, name, job_id or ())
    if not yes:
        total, _ = run(_with_database(settings, lambda database: list_jobs(database, filters, 1)))
        if not typer.confirm(f"Delete {total} jobs for good?", err=True):
            raise typer.Exit(1)
    count = run(_with_database(settings, lambda database: drop_jobs(database, filters)))
    typer.echo(f"{count} jobs are deleted; those that run were left alone.")


def _find_install(settings: Settings, install_id: int) -> tuple[Project, Install]:
    """Raises ConfigurationError."""
    if settings.projects_file is None:
        raise ConfigurationError("there is no PLUGIN_SERVER_PROJECTS_FILE, so no install: set it as the server has it")
    for project in load_registry(settings.projects_file, os.environ).projects:
        for install in project.installs:
            if install.id == install_id:
                return project, install
    raise ConfigurationError(f"there is no install {install_id} in {settings.projects_file}")


async def _with_database(settings: Settings, work: Any) -> Any:
    async with open_database(settings, jobs, holds="jobs") as database:
        return await work(database)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _state(row: RowMapping) -> str:
    if row["state"] == WAITING and row["claimed_until_ms"] > _now_ms():
        return "runs"
    return str(row["state"])


def _due(row: RowMapping) -> str:
    if row["state"] == DEAD:
        return f"died {iso(row['run_at_ms'])}"
    return "now" if row["run_at_ms"] <= _now_ms() else iso(row["run_at_ms"])


def _as_json(row: RowMapping) -> dict[str, Any]:
    return {
        "id": row["id"],
        "project": row["project_id"],
        "install": row["install_id"],
        "job": row["name"],
        "state": _state(row),
        "attempts": row["attempts"],
        "bytes": row["bytes"],
        "run_at": iso(row["run_at_ms"]),
        "created_at": iso(row["created_at_ms"]),
        "error": row["error"],
    }

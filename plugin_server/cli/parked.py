"""`plugin-server parked`: deliveries that wait in the database, seen and dealt with by a person while the server runs."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final, NamedTuple

import orjson
import typer
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text
from sqlalchemy import ColumnElement, and_, delete, func, select, true, update

from plugin_server.cli.beside_server import (
    CONTROL,
    ERROR_CHARACTERS,
    SHOWN,
    ConfigOption,
    IdOption,
    InstallOption,
    JsonOption,
    ProjectOption,
    iso,
    open_database,
    read_settings,
    run,
)
from plugin_server.database.tables import parked
from plugin_server.model.errors import PluginServerError
from plugin_server.registry.registry import load_registry
from plugin_server.settings import Settings

_WIDTH: Final = 240
"""Of tables that are written to a file"""
_IDS_PER_STATEMENT: Final = 500
_HOLDS: Final = "parked deliveries"

app = typer.Typer(
    help="Deliveries that wait for their destination: look at them, try them now, or give them up.",
    no_args_is_help=True,
)
HookOption = Annotated[str | None, typer.Option("--hook", help="Only those of this hook, such as onEvent.")]
LimitOption = Annotated[int | None, typer.Option("--limit", min=1, help="So many at most, those that wait longest.")]


class Filters(NamedTuple):
    """Which rows are meant."""

    project: int | None
    install: int | None
    hook: str | None
    ids: Sequence[str]

    def condition(self) -> ColumnElement[bool]:
        columns = parked.c
        wanted: list[ColumnElement[bool]] = [true()]
        if self.project is not None:
            wanted.append(columns.project_id == self.project)
        if self.install is not None:
            wanted.append(columns.install_id == self.install)
        if self.hook is not None:
            wanted.append(columns.hook == self.hook)
        if self.ids:
            wanted.append(columns.id.in_(self.ids))
        return and_(*wanted)


@app.command("list")
def list_parked(
    config: ConfigOption = None,
    project: ProjectOption = None,
    install: InstallOption = None,
    hook: HookOption = None,
    row_id: IdOption = None,
    limit: LimitOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Show what is parked, by install, and the deliveries that have waited longest."""
    settings = read_settings(config)
    filters = Filters(project, install, hook, row_id or ())
    run(_list(settings, filters, limit or SHOWN, as_json=as_json))


@app.command("retry")
def retry_parked(
    config: ConfigOption = None,
    project: ProjectOption = None,
    install: InstallOption = None,
    hook: HookOption = None,
    row_id: IdOption = None,
    limit: LimitOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Make deliveries due now; a running server tries them within seconds, a dead destination's one at a time."""
    settings = read_settings(config)
    filters = Filters(project, install, hook, row_id or ())
    run(_change(settings, filters, limit, drop=False, as_json=as_json))


@app.command("drop")
def drop_parked(
    config: ConfigOption = None,
    project: ProjectOption = None,
    install: InstallOption = None,
    hook: HookOption = None,
    row_id: IdOption = None,
    limit: LimitOption = None,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Give deliveries up for good. Asks before it does; those under way are left."""
    settings = read_settings(config)
    filters = Filters(project, install, hook, row_id or ())
    if not yes:
        rows, events = run(_count(settings, filters, limit))
        if not typer.confirm(f"Give up {rows} deliveries of {events} events for good?", err=True):
            raise typer.Exit(1)
    run(_change(settings, filters, limit, drop=True, as_json=as_json))


async def _list(settings: Settings, filters: Filters, limit: int, *, as_json: bool) -> None:
    columns = parked.c
    shown = [column for column in columns if column.name != "body"]
    async with open_database(settings, parked, holds=_HOLDS) as database, database.read() as connection:
        totals = (
            await connection.execute(
                select(
                    columns.project_id,
                    columns.install_id,
                    columns.hook,
                    func.count(),
                    func.sum(columns.events),
                    func.sum(func.length(columns.body)),
                    func.min(columns.created_at_ms),
                    func.min(columns.next_try_at_ms),
                )
                .where(filters.condition())
                .group_by(columns.project_id, columns.install_id, columns.hook)
                .order_by(columns.project_id, columns.install_id, columns.hook)
            )
        ).all()
        query = select(*shown, func.length(columns.body).label("bytes")).where(filters.condition())
        rows = (await connection.execute(query.order_by(columns.created_at_ms).limit(limit))).mappings().all()
    if as_json:
        for row in rows:
            sys.stdout.write(orjson.dumps(_as_json(row)).decode() + "\n")
        return
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH)
    if not totals:
        console.print("Nothing is parked.")
        return
    labels = _labels(settings)
    by_install = Table("project", "install", "hook", "deliveries", "events", "bytes", "oldest", "next try", box=None)
    for project, install, hook, count, events, size, oldest_ms, next_ms in totals:
        by_install.add_row(
            str(project), labels.get(install, str(install)), hook, str(count), str(int(events)), str(int(size)),
            _time(oldest_ms), _due(next_ms),
        )  # fmt: skip
    console.print(by_install)
    console.print()
    table = Table(
        Column("id", no_wrap=True), "install", "hook", "events", "attempts", "since", "next try", "error", box=None
    )
    for row in rows:
        under_way = row["claimed_until_ms"] > _now_ms()
        table.add_row(
            row["id"],
            str(row["install_id"]),
            row["hook"],
            str(row["events"]),
            str(row["attempts"]),
            _time(row["created_at_ms"]),
            "under way" if under_way else _due(row["next_try_at_ms"]),
            Text(row["error"][:ERROR_CHARACTERS].translate(CONTROL)),
        )
    console.print(table)
    total = sum(row[3] for row in totals)
    if total > len(rows):
        console.print(f"… and {total - len(rows)} more: --limit shows them")


async def _count(settings: Settings, filters: Filters, limit: int | None) -> tuple[int, int]:
    async with open_database(settings, parked, holds=_HOLDS) as database, database.read() as connection:
        oldest = select(parked.c.events).where(filters.condition()).order_by(parked.c.created_at_ms).limit(limit)
        query = select(func.count(), func.sum(oldest.subquery().c.events))
        count, events = (await connection.execute(query)).one()
    return count, int(events or 0)


async def _change(settings: Settings, filters: Filters, limit: int | None, *, drop: bool, as_json: bool) -> None:
    columns = parked.c
    async with open_database(settings, parked, holds=_HOLDS) as database, database.write() as connection:
        idle = and_(filters.condition(), columns.claimed_until_ms <= _now_ms())
        query = select(columns.id, columns.events).where(idle).order_by(columns.created_at_ms).limit(limit)
        if not database.is_sqlite:
            query = query.with_for_update(skip_locked=True)
        found = (await connection.execute(query)).all()
        ids = [row.id for row in found]
        for start in range(0, len(ids), _IDS_PER_STATEMENT):
            some = columns.id.in_(ids[start : start + _IDS_PER_STATEMENT])
            if drop:
                await connection.execute(delete(parked).where(some))
            else:
                await connection.execute(update(parked).where(some).values(next_try_at_ms=columns.created_at_ms))
        left = (
            await connection.execute(
                select(func.count()).where(filters.condition(), columns.claimed_until_ms > _now_ms())
            )
        ).scalar_one()
    events = sum(row.events for row in found)
    if as_json:
        done = {"deliveries": len(ids), "events": events, "under_way": left}
        sys.stdout.write(orjson.dumps(done).decode() + "\n")
        return
    verb = "given up" if drop else "due now"
    typer.echo(f"{len(ids)} deliveries of {events} events are {verb}; {left} are under way and were left alone.")


def _as_json(row: Any) -> dict[str, Any]:
    return {
        "id": row["id"],
        "project": row["project_id"],
        "install": row["install_id"],
        "hook": row["hook"],
        "source": row["source"],
        "events": row["events"],
        "bytes": row["bytes"],
        "attempts": row["attempts"],
        "parked_at": iso(row["created_at_ms"]),
        "next_try_at": iso(row["next_try_at_ms"]),
        "under_way": row["claimed_until_ms"] > _now_ms(),
        "error": row["error"],
    }


def _labels(settings: Settings) -> dict[int, str]:
    """Names of installs, where the projects file can be read here."""
    if settings.projects_file is None:
        return {}
    try:
        registry = load_registry(settings.projects_file, os.environ)
    except PluginServerError:
        return {}
    return {install.id: install.label for project in registry.projects for install in project.installs}


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _time(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _due(time_ms: int) -> str:
    seconds = (time_ms - _now_ms()) / 1000
    return "now" if seconds <= 0 else f"in {seconds:.0f} s"

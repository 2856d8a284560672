"""`plugin-server`: the commands. Each is a few lines here; what it does lives beside."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from plugin_server.cli.app import app as authors
from plugin_server.cli.check import run_checks
from plugin_server.cli.jobs import app as jobs
from plugin_server.cli.logging import set_up_logging
from plugin_server.cli.parked import app as parked
from plugin_server.cli.service import Service
from plugin_server.cli.tail import follow
from plugin_server.cli.welcome import welcome
from plugin_server.model.errors import PluginServerError
from plugin_server.settings import Settings, load_settings

app = typer.Typer(
    help="Runs each project's apps on its events, sandboxed and exactly once.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(authors, name="app")
app.add_typer(parked, name="parked")
app.add_typer(jobs, name="jobs")
ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", help="TOML file of settings; environment variables PLUGIN_SERVER_* go before it."),
]


@app.command()
def run(config: ConfigOption = None) -> None:
    """Start the server; SIGTERM stops it and finishes what is under way."""
    settings = _settings(config)
    set_up_logging(settings.log_level, settings.log_format)
    try:
        _run_loop(settings, config)
    except PluginServerError as error:
        _fail(error)


@app.command()
def check(config: ConfigOption = None) -> None:
    """Check settings, projects, connections and the sandbox; exit 1 if something is wrong."""
    settings = _settings(config)
    if not asyncio.run(run_checks(settings, os.environ)):
        raise typer.Exit(1)


@app.command()
def tail(
    config: ConfigOption = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line instead of text.")] = False,
    count: Annotated[int | None, typer.Option(help="Stop after so many events.")] = None,
) -> None:
    """Follow the server of this data directory: each event before and after, drops, captures, cuts."""
    settings = _settings(config)
    try:
        asyncio.run(follow(settings.data_dir, as_json=as_json, count=count))
    except PluginServerError as error:
        _fail(error)
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


def _run_loop(settings: Settings, config: Path | None) -> None:
    async def serve() -> None:
        service = Service(settings, os.environ)
        if sys.stdout.isatty() or settings.kafka_brokers is None:
            typer.echo(welcome(settings, service.registry, config))
        await service.run()

    import uvloop  # noqa: PLC0415 - only this command needs it

    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)  # thousands of events are alive at a time, and next to no cycles
    uvloop.run(serve())


def _settings(config: Path | None) -> Settings:
    try:
        return load_settings(config)
    except PluginServerError as error:
        _fail(error)
        raise


def _fail(error: PluginServerError) -> None:
    typer.secho(str(error), fg=typer.colors.RED, err=True)
    raise typer.Exit(2) from None


if __name__ == "__main__":
    app()

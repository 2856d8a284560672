"""`plugin-server app`: what authors of apps need, without a server."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Annotated, Final

import typer

from plugin_server.app_check.check import check_app
from plugin_server.app_check.finding import Finding, Severity
from plugin_server.cli.app_run import run_app, run_cases
from plugin_server.cli.logging import set_up_logging
from plugin_server.cli.new_app import write_new_app
from plugin_server.model.errors import ConfigurationError, PluginServerError
from plugin_server.registry.app_source import load_app
from plugin_server.settings import LogFormat, LogLevel
from sandbox.policy import AppSyntaxError, compile_app

app = typer.Typer(help="Write apps: start one, check it, run it, test it.", no_args_is_help=True)

_LOCATED: Final = re.compile(r"line (\d+): (.*)")
_COLOURS: Final = {Severity.ERROR: typer.colors.RED, Severity.WARNING: typer.colors.YELLOW, Severity.NOTE: None}


@app.command()
def init(
    directory: Annotated[Path, typer.Argument(help="Folder of the new app; made if it is missing.")],
    name: Annotated[str | None, typer.Option(help="The app's name; the folder's unless given.")] = None,
) -> None:
    """Start a new app: plugin.json and main.py with a working example."""
    try:
        written = write_new_app(directory, name)
    except ConfigurationError as error:
        typer.secho(str(error), fg=typer.colors.RED, err=True)
        raise typer.Exit(1) from None
    for path in written:
        typer.echo(f"wrote {path}")
    typer.echo(f"Next: plugin-server app check {directory}")


@app.command()
def check(
    directory: Annotated[Path, typer.Argument(help="The app's folder, .zip or .tgz.")],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of text.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings fail the check too.")] = False,
) -> None:
    """Read an app and say what is wrong with it, by line; exit 1 if it cannot work. Nothing of it is run."""
    try:
        loaded = load_app(str(directory), Path())
    except ConfigurationError as error:
        name, file, findings = str(directory), None, [Finding(None, Severity.ERROR, str(error))]
    else:
        name, file = loaded.app.name, loaded.app.file_name
        findings = _merged(compile_findings(loaded.app.source, file), check_app(loaded.app.source, loaded.manifest))
    counts = Counter(finding.severity for finding in findings)
    ok = not counts[Severity.ERROR] and not (strict and counts[Severity.WARNING])
    if as_json:
        typer.echo(json.dumps({"app": name, "ok": ok, "findings": [_as_json(file, found) for found in findings]}))
    else:
        _print(name, file, findings, counts)
    if not ok:
        raise typer.Exit(1)


@app.command()
def run(
    directory: Annotated[Path, typer.Argument(help="The app's folder, .zip or .tgz.")],
    event: Annotated[
        Path | None, typer.Option("--event", help="JSON file with the event (or a list, or a payload); - is stdin.")
    ] = None,
    hook: Annotated[str, typer.Option(help="processEvent, onEvent, jobs.<name>, runEveryMinute, …")] = "processEvent",
    config: Annotated[list[str] | None, typer.Option("--config", help="KEY=VALUE; may be repeated.")] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of text.")] = False,
) -> None:
    """Run a hook in the sandbox and show what it made of the event; exit 1 if it failed."""
    _exit_by(run_app(directory, event, hook, _config(config or []), as_json=as_json))


@app.command("test")
def run_tests(
    directory: Annotated[Path, typer.Argument(help="The app's folder, with cases/*.json in it.")],
    only: Annotated[str | None, typer.Option("-k", help="Only cases with this in their id or title.")] = None,
) -> None:
    """Run an app's cases in the sandbox; exit 1 if one fails."""
    _exit_by(run_cases(directory, only))


def _exit_by(running: Coroutine[None, None, bool]) -> None:
    set_up_logging(LogLevel.ERROR, LogFormat.AUTO)
    try:
        well = asyncio.run(running)
    except PluginServerError as error:
        typer.secho(str(error), fg=typer.colors.RED, err=True)
        raise typer.Exit(2) from None
    if not well:
        raise typer.Exit(1)


def _config(pairs: Sequence[str]) -> dict[str, str]:
    values: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise typer.BadParameter(f"{pair!r} is not KEY=VALUE", param_hint="--config")
        values[key] = value
    return values


def compile_findings(source: str, file_name: str) -> list[Finding]:
    """What the dialect refuses.

    Compiled in this process: it runs nothing of the app, bounds size and depth, and the author's own machine is at stake, not a server.
    """
    try:
        compile_app(source, file_name)
    except AppSyntaxError as error:
        return [_located(text) for text in error.message.splitlines()]
    return []


def _located(text: str) -> Finding:
    found = _LOCATED.fullmatch(text)
    if found is None:
        return Finding(None, Severity.ERROR, text)
    return Finding(int(found[1]), Severity.ERROR, found[2])


def _merged(refused: Sequence[Finding], found: Sequence[Finding]) -> list[Finding]:
    """Both in the order of lines; where the compiler refuses a line, or the whole, its word is enough."""
    said = {finding.line for finding in refused}
    rest = [finding for finding in found if finding.severity is not Severity.ERROR or finding.line not in said]
    return sorted([*refused, *rest], key=lambda finding: finding.line or 0)


def _as_json(file: str | None, found: Finding) -> dict[str, str | int | None]:
    return {"file": file, "line": found.line, "severity": str(found.severity), "message": found.message}


def _print(name: str, file: str | None, findings: Sequence[Finding], counts: Counter[Severity]) -> None:
    if not findings:
        typer.secho(f"{name}: nothing wrong was found", fg=typer.colors.GREEN)
        return
    for found in findings:
        place = f"{file}:{found.line}" if found.line is not None and file else name
        typer.echo(typer.style(f"{found.severity:<8}", fg=_COLOURS[found.severity]) + f"{place}: {found.message}")
    words = [f"{counts[kind]} {kind}{'' if counts[kind] == 1 else 's'}" for kind in Severity if counts[kind]]
    typer.echo(f"{name}: {', '.join(words)}")

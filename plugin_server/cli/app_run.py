"""`plugin-server app run` and `app test`: an author's app in the real sandbox, without a server."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

import typer
from rich.console import Console
from rich.text import Text

from plugin_server.cli.tail import changed
from plugin_server.model.errors import ConfigurationError
from plugin_server.testing.cases import CaseResult, read_cases, run_case
from plugin_server.testing.harness import AppHarness, HookNotFound
from plugin_server.testing.run import Run

_WITHOUT_ARGUMENT: Final = frozenset({"setupPlugin", "teardownPlugin", "runEveryMinute", "runEveryHour", "runEveryDay"})


async def run_app(
    directory: Path, event_file: Path | None, hook: str, config: dict[str, Any], *, as_json: bool
) -> bool:
    """Run a hook on the event in a file (`-`: standard input) and print what it did; whether it did without error.

    There is no network: every request is answered 200 `{}`.
    Raises ConfigurationError for an app or a file that cannot be read, and for a hook that the app lacks.
    """
    takes_none = hook in _WITHOUT_ARGUMENT
    if event_file is None and not takes_none:
        raise ConfigurationError(f"{hook} needs --event FILE: what it is called with, as JSON.")
    argument = _read_json(event_file) if event_file is not None else {}
    async with AppHarness(str(directory), config=config) as app:
        for log in app.setup_logs if not as_json else ():
            typer.echo(f"set-up logs {log['level']}: {log['message']}")
        for request in app.setup_requests if not as_json else ():
            typer.echo(f"set-up asks {request['method']} {request['url']}")
        try:
            run = await app.run(hook, *([] if takes_none else [argument]))
        except HookNotFound as error:
            raise ConfigurationError(f"{error}.") from error
    if as_json:
        typer.echo(json.dumps(_as_json(run), indent=2, default=str))
    else:
        _print(run, argument if isinstance(argument, dict) else {})
    return run.error is None


async def run_cases(directory: Path, wanted: str | None) -> bool:
    """Run the app's cases, print each one's fate; whether all that could be run pass, and there was one.

    Raises ConfigurationError when none is `wanted`.
    """
    results: list[CaseResult] = []
    for case in read_cases(directory):
        if wanted is None or wanted in case["id"] or wanted in str(case["title"]):
            results.append(result := await run_case(str(directory), case))
            _print_result(result)
    if not results:
        raise ConfigurationError(f"No case of {directory} has {wanted!r} in its id or title.")
    passed, not_run = sum(result.passed for result in results), sum(result.not_run is not None for result in results)
    failed = len(results) - passed - not_run
    typer.echo(f"{passed} passed, {failed} failed" + (f", {not_run} could not be run" if not_run else ""))
    return failed == 0 and passed > 0


def _read_json(file: Path) -> Any:
    try:
        raw = sys.stdin.read() if str(file) == "-" else file.read_text("utf-8")
        return json.loads(raw)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{file} cannot be read as JSON: {error}.") from error


def _print(run: Run, before: dict[str, Any]) -> None:
    console = Console(highlight=False, soft_wrap=True)
    if run.error is not None:
        console.print(Text(f"✗ {run.hook} failed ({run.error.kind}): {run.error}", style="red"))
    elif run.hook == "processEvent" and run.event is None:
        console.print(Text("✗ dropped: processEvent returned None", style="yellow"))
    elif run.hook == "processEvent":
        changes = changed(before, run.event)
        console.print(Text(f"✓ {run.hook}{'' if changes else ': no change'}", style="green"))
        for line in changes:
            console.print(line)
    else:
        console.print(Text(f"✓ {run.hook}", style="green"))
        if run.event is not None or run.value is not None:
            console.print_json(json.dumps(run.event if run.value is None else run.value))
    for log in run.logs:
        console.print(Text(f"  logs {log['level']}: {log['message']}", style="blue"))
    for request in run.requests:
        console.print(Text(f"  → asks {request['method']} {request['url']}", style="cyan"))
    for job in run.jobs:
        when = "now" if job["run_at"] is None else f"at {job['run_at']}"
        console.print(Text(f"  + starts job {job['job']} {when} {json.dumps(job['payload'])}", style="magenta"))
    for name, value in run.metrics.items():
        console.print(Text(f"  counts {name} {value:g}", style="blue"))
    for capture in run.captured:
        properties = {key: value for key, value in capture["properties"].items() if not key.startswith("$lib")}
        console.print(Text(f"  + captures {capture['event']} {json.dumps(properties)}", style="magenta"))
    for cut in run.cuts:
        console.print(Text(f"  ✂ {cut['count']} {cut['what']} cut by {cut['reason']}: {cut['chain']}", style="yellow"))
    console.print(Text(f"  {run.duration_seconds * 1000:.1f} ms", style="dim"))


def _print_result(result: CaseResult) -> None:
    if result.not_run is not None:
        typer.secho(f"- {result.id} {result.title}: {result.not_run}", fg=typer.colors.YELLOW)
    elif result.passed:
        typer.secho(f"✓ {result.id} {result.title}", fg=typer.colors.GREEN)
    else:
        typer.secho(f"✗ {result.id} {result.title}", fg=typer.colors.RED)
        for problem in result.problems:
            typer.echo(f"    {problem}")


def _as_json(run: Run) -> dict[str, Any]:
    error = run.error
    return {
        "hook": run.hook,
        "event": run.event,
        "value": run.value,
        "error": None if error is None else {"kind": error.kind, "message": error.message, "line": error.line},
        "captured": run.captured,
        "requests": run.requests,
        "jobs": run.jobs,
        "metrics": run.metrics,
        "logs": run.logs,
        "cuts": run.cuts,
        "duration_seconds": run.duration_seconds,
    }

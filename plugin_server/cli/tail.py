"""`plugin-server tail`: follows a running server on this machine and prints what becomes of each event."""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp
import orjson
from rich.console import Console
from rich.text import Text

from plugin_server.admin.tail import tail_socket_path
from plugin_server.model.errors import ConfigurationError

_VALUE_LENGTH = 100
_CONTROL = dict.fromkeys((*range(32), *range(127, 160)), "�")
"""What could move the cursor or change colours of the terminal, since events are anybody's text"""


async def follow(data_dir: Path, *, as_json: bool, count: int | None = None) -> None:
    """Print until the server stops, or `count` events were shown. Raises ConfigurationError if no server runs there."""
    path = tail_socket_path(data_dir)
    console = Console(highlight=False, soft_wrap=True)
    shown = 0
    try:
        connector = aiohttp.UnixConnector(path=str(path))
        timeout = aiohttp.ClientTimeout(total=None)
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout, read_bufsize=64 * 2**20) as session,
            session.get("http://server/") as response,
        ):
            async for line in response.content:
                entry = orjson.loads(line)
                if as_json:
                    sys.stdout.write(line.decode())
                    sys.stdout.flush()
                else:
                    for text in describe(entry):
                        console.print(text)
                shown += entry["kind"] in ("event", "dead_letter")
                if count is not None and shown >= count:
                    return
    except aiohttp.ClientPayloadError:
        console.print("The server has stopped.")
    except (aiohttp.ClientConnectorError, FileNotFoundError) as error:
        raise ConfigurationError(
            f"no server runs with the data directory {data_dir}: start it with `plugin-server run`, "
            "or name the same --config or PLUGIN_SERVER_DATA_DIR here as there",
        ) from error


def describe(entry: dict[str, Any]) -> list[Text]:
    """One entry as lines for a terminal."""
    match entry["kind"]:
        case "following":
            return [Text("Following. Send an event to see it here; Ctrl-C ends.", style="dim")]
        case "missed":
            return [Text(f"… {entry['count']} events were too fast to be shown", style="yellow")]
        case "dead_letter":
            lines = [Text.assemble(("✗ dead letter ", "bold red"), f"{entry['step']}: {_clean(entry['error'])}")]
            return [*lines, Text(f"    {_clean(entry['raw'][:200])}", style="dim"), Text("")]
        case _:
            return _describe_event(entry)


def _describe_event(entry: dict[str, Any]) -> list[Text]:
    steps = entry["steps"]
    before = steps[0]["event"] if steps else {}
    name = before.get("event") or entry.get("output", {}).get("event", "")
    person = before.get("distinct_id") or entry.get("output", {}).get("distinct_id", "")
    head = Text.assemble(
        ("● ", "cyan"), (_short(name), "bold"), f"  by {_short(person)}  in {_clean(entry['project'])}"
    )
    head.append(f"  {entry['uuid']}", style="dim")
    lines = [head]
    if entry["depth"]:
        way = " → ".join(map(_clean, entry["path"]))
        lines.append(Text(f"    captured by {way}  (depth {entry['depth']})", style="magenta"))
    failed = {failure["app"]: failure for failure in entry["failed"]}
    for previous, step in pairwise(steps):
        app = step["app"]
        if app in failed:
            failure = failed[app]
            at = f" (line {failure['line']})" if failure["line"] else ""
            lines.append(Text(f"    {_clean(app)}: failed, {_clean(failure['message'])}{at}; undone", style="red"))
            continue
        changes = changed(previous["event"], step["event"])
        lines.append(Text(f"    {_clean(app)}: {'no change' if not changes else ''}", style="" if changes else "dim"))
        lines.extend(changes)
    lines.extend(_describe_effects(entry))
    if entry.get("dropped_by"):
        lines.append(
            Text(f"    ✗ dropped by {_clean(entry['dropped_by'])}: its processEvent returned None", style="yellow")
        )
    elif entry.get("dead_letter"):
        letter = entry["dead_letter"]
        lines.append(Text(f"    ✗ dead letter, {letter['step']}: {_clean(letter['error'])}", style="bold red"))
    else:
        output = entry["output"]
        lines.append(Text(f"    ✓ emitted at {output['timestamp']} with properties", style="green"))
        lines.append(Text(f"      {_clean(output['properties'][:600])}", style="dim"))
    return [*lines, Text("")]


def _describe_effects(entry: dict[str, Any]) -> list[Text]:
    lines = [
        Text(f"    {_clean(log['app'])} logs {log['level']}: {_clean(log['message'][:300])}", style="blue")
        for log in entry["logs"]
    ]
    cut_apps = {cut["app"] for cut in entry["cuts"] if cut["cut"]}
    for captured in entry["captured"]:
        note = "  (some of this app's captures were cut, see below)" if captured["app"] in cut_apps else ""
        who = f"{_clean(captured['app'])} captures {_short(captured['event'])} for {_short(captured['distinct_id'])}"
        lines.append(Text(f"    + {who}{note}", style="magenta"))
    for cut in entry["cuts"]:
        verb = "cut" if cut["cut"] else "would be cut (mode warn)"
        lines.append(
            Text(
                f"    ✂ loop guard: {cut['count']} capture(s) {verb} by {cut['reason']}: {_clean(cut['chain'])}",
                style="bold yellow",
            ),
        )
    return lines


def changed(before: dict[str, Any], after: dict[str, Any]) -> list[Text]:
    """The differences between two events, top-level fields first, then properties."""
    lines = _differences(
        "",
        {k: v for k, v in before.items() if k != "properties"},
        {k: v for k, v in after.items() if k != "properties"},
    )
    return lines + _differences("properties.", before.get("properties", {}), after.get("properties", {}))


def _differences(prefix: str, before: dict[str, Any], after: dict[str, Any]) -> list[Text]:
    lines = []
    for key in sorted(before.keys() | after.keys()):
        name = _clean(f"{prefix}{key}")
        if key not in after:
            lines.append(Text(f"      - {name}: {_short(before[key])}", style="red"))
        elif key not in before:
            lines.append(Text(f"      + {name}: {_short(after[key])}", style="green"))
        elif before[key] != after[key]:
            lines.append(Text(f"      ~ {name}: {_short(before[key])} → {_short(after[key])}", style="yellow"))
    return lines


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    text = _clean(text)
    return text if len(text) <= _VALUE_LENGTH else f"{text[:_VALUE_LENGTH]}…"


def _clean(text: Any) -> str:
    return str(text).translate(_CONTROL)

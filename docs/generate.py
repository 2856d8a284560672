"""Writes docs/settings.md from plugin_server/settings.py, the table of metrics in docs/operations.md from metrics.py,
docs/app-reference.md from sandbox/stubs/, and docs/dialect.md from the tables of the dialect's tests, so that it says nothing
that is not tried.

`python docs/generate.py` writes them; with `--check` it changes nothing, and exits with 1 if they are stale.
"""

# ruff: noqa: INP001 - a script beside the pages that it writes

from __future__ import annotations

import enum
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import SecretStr
from pydantic_core import PydanticUndefined

from plugin_server.metrics import Metrics
from plugin_server.settings import ENV_PREFIX, Settings
from sandbox.builtins import REFUSED as REFUSED_BUILTINS
from sandbox.builtins import app_builtins
from sandbox.policy import AppSyntaxError, compile_app

DOCS: Final = Path(__file__).parent
sys.path.insert(0, str(DOCS.parent))  # for the tables, which are not installed

from docs.stub_pages import app_reference_page  # noqa: E402
from tests.unit.sandbox.test_dialect import ALLOWED, REFUSED, TOPICS  # noqa: E402
from tests.unit.sandbox.test_modules_listed import LISTED, NOTES  # noqa: E402

DIALECT: Final = DOCS / "dialect.md"
SETTINGS: Final = DOCS / "settings.md"
OPERATIONS: Final = DOCS / "operations.md"
APP_REFERENCE: Final = DOCS / "app-reference.md"
METRICS_BEGIN: Final = "<!-- metrics: written by docs/generate.py -->"
METRICS_END: Final = "<!-- end of metrics -->"
_PACKAGE: Final = DOCS.parent / "plugin_server"
_SETTINGS_HEAD: Final = f"""\
# Settings

<!-- Written by docs/generate.py from plugin_server/settings.py: change that, not this. -->

Each setting can come from the environment as `{ENV_PREFIX}<NAME>`, or from a TOML file (`--config`, or `{ENV_PREFIX}CONFIG`) under its name in lower case.
The environment goes first. An empty variable counts as not set. Paths in the file are relative to the file, paths in the environment to the working directory.
A name that is almost a setting's is refused with the right one; `plugin-server check` shows every mistake at once.
"""


_DIALECT_HEAD: Final = """\
# The language of apps

<!-- Written by docs/generate.py from tests/unit/sandbox/test_dialect.py and test_modules_listed.py: change those, not this. -->

Apps are written in Python without what could leave the sandbox. Each program below runs as a test and gives what plain Python gives. What is refused is refused
when the app is loaded, and by `plugin-server app check`, with the line and what to write instead. What an app is given besides (`posthog`, `console`, `meta`, …)
is in [What an app is given](app-reference.md).

## From JavaScript

| in a JavaScript app | here |
|---|---|
| `export function processEvent(event, { config })` | `def processEvent(event, meta):`, then `meta.config` |
| `event.properties.plan` | `event["properties"]["plan"]`; a missing one is a `KeyError` |
| `event.properties?.plan ?? "free"` | `event["properties"].get("plan", "free")` |
| `delete event.properties.$ip` | `event["properties"].pop("$ip", None)` |
| `undefined`, `null`; `===`; `!`, `&&`, `\\|\\|` | `None`; `==`; `not`, `and`, `or` |
| `` `${name}: ${n}` `` | `f"{name}: {n}"` |
| `items.map(f)`, `items.filter(g)` | `[f(item) for item in items]`, `[item for item in items if g(item)]` |
| `{ ...a, b: 1 }`, `[...x, y]` | `{**a, "b": 1}`, `[*x, y]` |
| `JSON.parse(text)`, `JSON.stringify(value)` | `json.loads(text)`, `json.dumps(value)` after `import json` |
| `/a(b)/i.exec(text)` | `re.search("a(b)", text, re.I)` after `import re` |
| `new Date(event.timestamp)` | `datetime.fromisoformat(event["timestamp"])` after `from datetime import datetime` |
| `new URL(url).searchParams` | `parse_qs(urlsplit(url).query)` after `from urllib.parse import parse_qs, urlsplit` |
| `createHash("sha256").update(text).digest("hex")` | `hashlib.sha256(text.encode()).hexdigest()` after `import hashlib` |
| `Buffer.from(text).toString("base64")` | `base64.b64encode(text.encode()).decode()` after `import base64` |
| `try { … } catch (error) { … } finally { … }` | `try: …`, `except Exception as error: …`, `finally: …` |
| `throw new Error("no")` | `raise ValueError("no")` |
| `switch (event.event)` | `match event["event"]:`, or a dict of functions |
| `async`, `await` | the same; a call without `await` runs nothing |
| `await Promise.all([a(), b()])` | `await gather(a(), b())` |
| `setTimeout`, `require("package")` | not there: `await sleep(seconds)`; an app is one file |
"""


def dialect_page() -> str:
    """The whole of docs/dialect.md."""
    examples = {case.title: case.program for case in ALLOWED}
    parts = [_DIALECT_HEAD]
    for topic, titles in TOPICS.items():
        parts.append(f"## {topic}\n")
        parts += [f"**{_title(title)}**\n\n```python\n{examples[title]}\n```\n" for title in titles.split("|")]
    parts += [_modules_table(), _builtins_tables(), "## What is refused\n"]
    parts += [
        f"**{_title(title)}**\n\n```text\n{program}\n\n{_refusal(program)}\n```\n" for title, program, *_ in REFUSED
    ]
    return "\n".join(parts).rstrip() + "\n"


def _title(title: str) -> str:
    return title.replace("_", r"\_").replace("*", r"\*")


def _refusal(program: str) -> str:
    try:
        compile_app(program, "app")
    except AppSyntaxError as error:
        return "\n".join(f"→ {line}" for line in error.message.splitlines())
    raise ValueError(f"is not refused: {program}")


def _modules_table() -> str:
    rows = ["## Modules\n", "Each holds what is listed here, as in Python unless it says otherwise.\n"]
    rows += ["| module | differs | has |", "|---|---|---|"]
    for module, members in LISTED.items():
        rows.append(f"| `{module}` | {NOTES[module]} | {_in_code(members.split())} |")
    return "\n".join(rows) + "\n"


def _builtins_tables() -> str:
    names = {name: value for name, value in app_builtins(len).items() if not name.startswith("_")}
    errors = {name for name, value in names.items() if isinstance(value, type) and issubclass(value, Exception)}
    rows = ["## Builtins\n", f"{_in_code(sorted(names.keys() - errors, key=str.lower))}.\n"]
    rows.append(
        "`print` writes to the log. `type` takes one argument. `hash` takes data, and objects with a `__hash__` of their own.\n"
    )
    rows += [f"Errors: {_in_code(sorted(errors))}.\n", "Not there:\n", "| builtin | instead |", "|---|---|"]
    rows += [f"| `{name}` | {instead} |" for name, instead in REFUSED_BUILTINS.items()]
    return "\n".join(rows) + "\n"


def _in_code(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def settings_page() -> str:
    """The whole of docs/settings.md."""
    used = _used_settings()
    parts = [_SETTINGS_HEAD]
    for name, field in Settings.model_fields.items():
        example = field.examples[0] if field.examples else None
        parts.append(f"## `{ENV_PREFIX}{name.upper()}`\n")
        parts.append((field.description or "").strip())
        if name not in used:
            parts.append("Accepted, but nothing in this version uses it yet.")
        parts.append(
            f"\nIn a file: `{name}`. Default: {_shown(field.default)}.{_for_example(example, field.default)}\n"
        )
    return "\n".join(parts).rstrip() + "\n"


def metrics_table() -> str:
    """What stands between the markers in docs/operations.md."""
    rows = ["| metric | type | labels | meaning, and what to do |", "|---|---|---|---|"]
    for collector in vars(Metrics()).values():
        if not hasattr(collector, "describe"):
            continue
        for family in collector.describe():
            name = f"{family.name}_total" if family.type == "counter" else family.name
            labels = ", ".join(f"`{label}`" for label in collector._labelnames)  # noqa: SLF001 - it has no public name
            rows.append(f"| `{name}` | {family.type} | {labels} | {family.documentation} |")
    return "\n".join(rows)


def operations_page(current: str) -> str:
    """docs/operations.md with the table of metrics as it should be. Raises ValueError if a marker is missing."""
    before, begin, rest = current.partition(METRICS_BEGIN)
    _, end, after = rest.partition(METRICS_END)
    if not begin or not end:
        raise ValueError(f"docs/operations.md lacks {METRICS_BEGIN} or {METRICS_END}: put both lines back")
    return f"{before}{METRICS_BEGIN}\n\n{metrics_table()}\n\n{METRICS_END}{after}"


def pages() -> dict[Path, str]:
    """Each page as it should be."""
    return {
        DIALECT: dialect_page(),
        SETTINGS: settings_page(),
        APP_REFERENCE: app_reference_page(),
        OPERATIONS: operations_page(OPERATIONS.read_text("utf-8")),
    }


def _used_settings() -> set[str]:
    """Settings that some module reads."""
    text = "\n".join(path.read_text("utf-8") for path in _PACKAGE.rglob("*.py"))
    used = set(re.findall(r"\b_?settings\.([a-z_]+)", text))
    return used | ({"database_url"} if "uses_sqlite" in used else set())


def _shown(value: Any) -> str:
    if value is None or value is PydanticUndefined:
        return "not set"
    if value in ("", ()):
        return "empty"
    return f"`{_text(value)}`"


def _for_example(example: Any, default: Any) -> str:
    if example is None or _text(example) == _text(default):
        return ""
    text = _text(example)
    return f" For example: {text if '`' in text else f'`{text}`'}."


def _text(value: Any) -> str:
    if isinstance(value, tuple | list):
        return ",".join(map(_text, value))
    if isinstance(value, enum.Enum):
        return str(value.value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, SecretStr):
        return "…"
    return str(value)


def main(arguments: list[str]) -> int:
    """Write or check; the exit status."""
    stale = [path for path, text in pages().items() if not path.exists() or path.read_text("utf-8") != text]
    if arguments == ["--check"]:
        for path in stale:
            sys.stderr.write(f"docs/{path.name} is stale: run `make docs` and commit what changed\n")
        return 1 if stale else 0
    for path, text in pages().items():
        path.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

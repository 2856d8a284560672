"""Writes docs/settings.md from plugin_server/settings.py, and the table of metrics in docs/operations.md from metrics.py.

`python docs/generate.py` writes them; with `--check` it changes nothing, and exits with 1 if they are stale.
"""

# ruff: noqa: INP001 - a script beside the pages that it writes

from __future__ import annotations

import enum
import re
import sys
from pathlib import Path
from typing import Any, Final

from pydantic import SecretStr
from pydantic_core import PydanticUndefined

from plugin_server.metrics import Metrics
from plugin_server.settings import ENV_PREFIX, Settings

DOCS: Final = Path(__file__).parent
SETTINGS: Final = DOCS / "settings.md"
OPERATIONS: Final = DOCS / "operations.md"
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
    return {SETTINGS: settings_page(), OPERATIONS: operations_page(OPERATIONS.read_text("utf-8"))}


def _used_settings() -> set[str]:
    """Settings that some module reads."""
    text = "\n".join(path.read_text("utf-8") for path in _PACKAGE.rglob("*.py"))
    used = set(re.findall(r"\b_?settings\.([a-z_]+)", text))
    return used | ({"database_url"} if "uses_sqlite" in used else set())


def _shown(value: Any) -> str:
    if value is None or value is PydanticUndefined:
        return "not set"
    if value == "":
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

"""The files of a new app: small, working, and right about what authors get wrong first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from plugin_server.model.errors import ConfigurationError
from plugin_server.registry.app_source import MANIFEST_FILE

_MAIN_FILE: Final = "main.py"
_SOURCE: Final = """\
FOLLOW_UP = "signup followed up"


def processEvent(event, meta):
    # Called for each event. Return it, changed or not; return None to drop it.
    event["properties"]["greeting"] = meta.config["greeting"]

    # A captured event runs through every app again, this one too. So say which events it is for, and never its own.
    if event["event"] == "signed_up":
        posthog.capture(FOLLOW_UP, {"distinct_id": event["distinct_id"]})

    return event
"""


def write_new_app(directory: Path, name: str | None) -> list[Path]:
    """Write plugin.json and main.py into `directory`, made if missing; their paths.

    Writes nothing over what is there. Raises ConfigurationError if one of the files exists, or the folder cannot be written to. Blocks.
    """
    manifest = {
        "name": (name or directory.resolve().name)[:200] or "My app",
        "description": "Greets, and follows up on signups.",
        "main": _MAIN_FILE,
        "config": [
            {"key": "greeting", "name": "Greeting", "type": "string", "default": "hello", "required": True},
        ],
    }
    texts = {
        directory / MANIFEST_FILE: json.dumps(manifest, indent=2, ensure_ascii=False) + "\n",
        directory / _MAIN_FILE: _SOURCE,
    }
    there = [str(path) for path in texts if path.exists() or path.is_symlink()]
    if there:
        raise ConfigurationError(f"{' and '.join(there)} exist already: choose another folder.")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for path, text in texts.items():
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
    except OSError as error:
        raise ConfigurationError(f"{directory} cannot be written to ({error.strerror or error}).") from None
    return list(texts)

"""Which apps a harness runs, and with which config: folders, archives or source text, as installs of one project."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import plugin_server
from plugin_server.model.errors import ConfigurationError
from plugin_server.model.project import App, Attachment, Install
from plugin_server.registry.app_source import CATALOGUE_PREFIX, app_slug, load_app
from plugin_server.registry.config_values import resolve_config
from plugin_server.registry.problems import Problems

AppLike = str | Path


def make_installs(
    apps: Sequence[AppLike],
    sources: Sequence[str],
    config: Mapping[str, Any],
    attachments: Mapping[str, Any],
) -> tuple[Install, ...]:
    """Installs 1, 2, … of these apps and then these sources, each with the config and the attachments.

    An app's declared defaults fill in what `config` leaves out. Text with a line break counts as source, all other as a
    path or a reference. Raises ConfigurationError for an app that cannot be read.
    """
    if not apps and not sources:
        raise ConfigurationError('AppHarness needs an app: AppHarness("path/to/app") or AppHarness(source="def …").')
    made = {name: _attachment(name, value) for name, value in attachments.items()}
    installs: list[Install] = []
    for entry in (*apps, *map(_Source, sources)):
        number = len(installs) + 1
        if isinstance(entry, _Source) or (isinstance(entry, str) and "\n" in entry):
            text = entry.text if isinstance(entry, _Source) else entry
            version = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
            app, values = App(f"inline-{number}", version, "main.py", text, {}), dict(config)
        else:
            app, values = _from_reference(str(entry), config)
        installs.append(Install(number, app, number, values, made))
    return tuple(installs)


class _Source:
    """Text that is known to be source."""

    def __init__(self, text: str) -> None:
        self.text = text


def _from_reference(reference: str, config: Mapping[str, Any]) -> tuple[App, dict[str, Any]]:
    loaded = load_app(_in_catalogue(reference), Path())
    problems = Problems(Path(reference))
    declared = {key: value for key, value in config.items() if key in loaded.manifest.fields}
    # What the config leaves out or writes in another type is the test's business; the app gets it as it is.
    defaults = resolve_config({}, loaded, environ={}, where="config", problems=problems)
    texts = {
        key: json.dumps(value)
        for key, value in declared.items()
        if loaded.manifest.fields[key].type == "json" and not isinstance(value, str)
    }
    return loaded.app, {**defaults, **config, **texts}


def _in_catalogue(reference: str) -> str:
    """The folder of `catalogue:<slug>`, here or beside the server's code; all else as it is."""
    slug = reference.removeprefix(CATALOGUE_PREFIX)
    if slug == reference:
        return reference
    places = (Path("catalogue") / slug, Path(plugin_server.__file__).parents[1] / "catalogue" / slug)
    found = next((place for place in places if app_slug(reference) == slug and place.is_dir()), None)
    return reference if found is None else str(found)


def _attachment(name: str, value: Any) -> Attachment:
    """Bytes, text, a JSON value, or `{content_type, file_name, contents}`."""
    if isinstance(value, dict) and "contents" in value and value.keys() <= {"content_type", "file_name", "contents"}:
        inner = _attachment(name, value["contents"])
        content_type = value.get("content_type", inner.content_type)
        return Attachment(content_type, value.get("file_name", inner.file_name), inner.contents)
    if isinstance(value, bytes):
        return Attachment("application/octet-stream", name, value)
    if isinstance(value, str):
        return Attachment("text/plain", name, value.encode())
    return Attachment("application/json", name, json.dumps(value).encode())

"""The config values and attachments of one install, checked against the app's plugin.json.

A declared `default` is given to the app when the install has no value. (PostHog used it for its form only, and the app
found nothing; whoever writes a projects file has no form.) A `json` value always reaches the app as JSON text, however
it was written, because that is what apps parse.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from plugin_server.model.project import Attachment
from plugin_server.registry.app_source import LoadedApp
from plugin_server.registry.manifest import ConfigField
from plugin_server.registry.problems import Problems, unknown_key

EXPORT_KEYS = ("exportEventsBufferBytes", "exportEventsBufferSeconds", "exportEventsToIgnore")
"""Understood by the host for every app with `exportEvents`, declared or not."""
ATTACHMENT_LIMIT_BYTES = 16 * 2**20

_BOOLEANS = {"true": True, "false": False}
_CONTENT_TYPES = {".json": "application/json", ".csv": "text/csv", ".txt": "text/plain"}


def resolve_config(
    raw: Mapping[str, Any], loaded: LoadedApp, *, environ: Mapping[str, str], where: str, problems: Problems
) -> dict[str, Any]:
    """The values as the app gets them; what is wrong goes to `problems` with its key path under `where`.

    A value `{env: NAME}` is taken from `environ`. Values never get into a message.
    """
    fields = loaded.manifest.fields
    exporter = "exportEvents" in loaded.app.source or "export_events" in loaded.app.source
    known = [*fields, *(key for key in EXPORT_KEYS if exporter and key not in fields)]
    values: dict[str, Any] = {}
    for key, raw_value in raw.items():
        place = f"{where}.{key}"
        if key not in known:
            problems.add(place, unknown_key(key, known))
            continue
        value = _from_environ(raw_value, environ, place, problems)
        if value is None:
            continue
        try:
            values[key] = _check(value, fields[key]) if key in fields else _check_export(key, value)
        except ValueError as error:
            problems.add(place, f"{error}.")
    for key, field in fields.items():
        if key in raw or field.type == "attachment":
            continue
        if field.default not in (None, "") or (field.default == "" and field.type == "string" and not field.required):
            try:
                values[key] = _check(field.default, field)
            except ValueError as error:
                problems.add(f"{where}.{key}", f"has no value, and its default in plugin.json {error}.")
    for key, field in fields.items():
        absent = raw[key] in (None, "") if key in raw else values.get(key) in (None, "")
        if field.required and absent and field.type != "attachment":
            problems.add(f"{where}.{key}", f"is required but has no value. Write `{key}: ...`.")
    return values


def read_attachments(
    paths: Mapping[str, str], loaded: LoadedApp, *, base: Path, where: str, problems: Problems
) -> dict[str, Attachment]:
    """The files of the `attachment` fields, paths relative to `base`. What is wrong goes to `problems`. Blocks."""
    fields = loaded.manifest.fields
    known = [key for key, field in fields.items() if field.type == "attachment"]
    attachments = {}
    for key, text in paths.items():
        path = base / text
        if key not in known:
            problems.add(f"{where}.{key}", unknown_key(key, known))
            continue
        try:
            with path.open("rb") as file:
                contents = file.read(ATTACHMENT_LIMIT_BYTES + 1)
        except OSError as error:
            problems.add(f"{where}.{key}", f"{path} cannot be read ({error.strerror}). Write the path of a file.")
            continue
        if len(contents) > ATTACHMENT_LIMIT_BYTES:
            problems.add(f"{where}.{key}", f"{path} is larger than {ATTACHMENT_LIMIT_BYTES} bytes. Make it smaller.")
        content_type = _CONTENT_TYPES.get(path.suffix.lower(), "application/octet-stream")
        attachments[key] = Attachment(content_type, path.name, contents)
    for key in known:
        if fields[key].required and key not in paths:
            problems.add(f"{where}.{key}", f"is required but missing. Write `{key}: path/of/the/file`.")
    return attachments


def _from_environ(value: Any, environ: Mapping[str, str], where: str, problems: Problems) -> Any:
    if not (isinstance(value, dict) and value.keys() == {"env"} and isinstance(value["env"], str)):
        return value
    name = value["env"]
    if name not in environ:
        problems.add(where, f"takes its value from the environment variable {name}, which is not set. Set {name}.")
        return None
    return environ[name]


def _check(value: Any, field: ConfigField) -> Any:
    match field.type:
        case "string":
            return _text(value)
        case "choice":
            if value != "" and value not in field.choices:
                raise ValueError(f"must be one of: {', '.join(field.choices)}")
            return value
        case "json":
            return _json_text(value)
        case "boolean":
            if isinstance(value, str) and value.strip().lower() in _BOOLEANS:
                return _BOOLEANS[value.strip().lower()]
            if not isinstance(value, bool):
                raise ValueError("must be true or false")  # noqa: TRY004
            return value
        case "dictionary":
            if not isinstance(value, dict) or not all(isinstance(part, str) for item in value.items() for part in item):
                raise ValueError("must be an object of text to text, for example {from: to}, numbers in quotes")
            return value
        case "attachment":
            raise ValueError("is a file: write its path under `attachments` of the install instead")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError('must be text: write it in quotes, as in "10"')  # noqa: TRY004
    return value


def _json_text(value: Any) -> str:
    try:
        if not isinstance(value, str):
            return json.dumps(value, allow_nan=False, ensure_ascii=False)
        if value:
            json.loads(value)
    except (ValueError, TypeError, RecursionError):
        raise ValueError("must be JSON, as an object, a list, or a text that holds one") from None
    return value


def _check_export(key: str, value: Any) -> Any:
    if key == "exportEventsToIgnore":
        return _text(value)
    try:
        number = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise ValueError("must be a number above 0")
    return str(value)

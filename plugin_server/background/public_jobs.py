"""Jobs that a person starts: `publicJobs` of plugin.json say which, and what their payload has.

A `date` is ISO 8601 text, a `daterange` a list of two of them, as PostHog's form sends them.
"""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

import structlog
from sqlalchemy import insert

from plugin_server.background.job_store import WAITING
from plugin_server.database.engine import Database
from plugin_server.database.errors import database_errors
from plugin_server.database.tables import jobs
from plugin_server.host_api.jobs import encode_payload
from plugin_server.model.errors import InvalidArgument
from plugin_server.model.project import Install, Project

OPERATION: Final = "$operation"
_SHOWN: Final = 40
_log = structlog.get_logger(__name__)


async def start_public_job(
    database: Database,
    project: Project,
    install: Install,
    name: str,
    payload: Mapping[str, Any],
    *,
    person: str,
    clock: Callable[[], float] = time.time,
) -> str:
    """Check the payload and store the job, a root of its own; its id. `person` says in the log who it was.

    Raises InvalidArgument with every mistake, DatabaseUnavailable.
    """
    checked = checked_payload(install, name, payload)
    now_ms = int(clock() * 1000)
    job_id = str(uuid.uuid4())
    row = {
        "id": job_id,
        "project_id": project.id,
        "install_id": install.id,
        "name": name,
        "payload": encode_payload(name, checked),
        "state": WAITING,
        "run_at_ms": now_ms,
        "share": project.loop_policy.max_events_per_root,
        "created_at_ms": now_ms,
    }
    with database_errors("cannot store the job"):
        async with database.write() as connection:
            await connection.execute(insert(jobs).values(**row))
    _log.info("public_job_started", job_id=job_id, install_id=install.id, name=name, person=person)
    return job_id


def checked_payload(install: Install, name: str, payload: Mapping[str, Any]) -> dict[str, Any]:
    """The payload with its defaults and `$operation: start`. Raises InvalidArgument with every mistake."""
    public = install.app.manifest.get("publicJobs") or {}
    if name not in public:
        known = ", ".join(sorted(public)) or "none"
        raise InvalidArgument(f"{install.app.name} has no public job {name[:_SHOWN]!r}; it has: {known}")
    if not isinstance(payload, Mapping):
        raise InvalidArgument(f"{name}: the payload must be a JSON object")
    fields: Mapping[str, Mapping[str, Any]] = public[name].get("payload") or {}
    mistakes = [
        f"{key[:_SHOWN]!r} is no field of it ({', '.join(fields) or 'it has none'})"
        for key in payload
        if key not in fields and key != OPERATION
    ]
    checked: dict[str, Any] = {}
    for key, rules in fields.items():
        value = payload.get(key)
        if value is None or value == "":
            value = rules.get("default") if rules.get("default") is not None else value
        if value is None or value == "":
            if rules.get("required"):
                mistakes.append(f"{key!r} is required")
            elif key in payload:
                checked[key] = value
            continue
        wanted, fits = _TYPES[rules["type"]]
        if fits(value):
            checked[key] = value
        else:
            mistakes.append(f"{key!r} must be {wanted}, not {_shown(value)}")
    if mistakes:
        raise InvalidArgument(f"{name}: " + "; ".join(mistakes))
    return {**checked, OPERATION: "start"}


def _is_number(value: Any) -> bool:
    return type(value) is int or (type(value) is float and math.isfinite(value))


def _is_date(value: Any) -> bool:
    if type(value) is not str:
        return False
    try:
        datetime.fromisoformat(value)
    except ValueError:
        return False
    return True


def _is_range(value: Any) -> bool:
    if type(value) is not list or len(value) != 2 or not all(map(_is_date, value)):
        return False
    first, last = (datetime.fromisoformat(each).replace(tzinfo=None) for each in value)
    return first <= last


_TYPES: Final[Mapping[str, tuple[str, Callable[[Any], bool]]]] = {
    "string": ("text", lambda value: type(value) is str),
    "boolean": ("true or false", lambda value: type(value) is bool),
    "number": ("a number", _is_number),
    "json": ("JSON", lambda _value: True),
    "date": ("a date like 2026-11-23", _is_date),
    "daterange": ("two dates, the earlier one first, like ['2026-11-01', '2026-11-23']", _is_range),
}


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"

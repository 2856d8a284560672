"""`posthog`: what an app asks of its own project."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

from sandbox import codec
from sandbox.facade import facade
from sandbox.globals.api import Api
from sandbox.globals.errors import LimitExceeded
from sandbox.invocation import Context, Effects, HostCall

GENERIC_DISTINCT_ID: Final = "App Server"
LIBRARY: Final = "posthog-plugin-server"
_NAME_LENGTH: Final = 200
_TIMESTAMP_LENGTH: Final = 64
"""Python reads any number of digits after the second, and any character between date and time"""


def make_posthog(install: int, context: Context, captures_per_event: int, library_version: str) -> object:
    """The `posthog` object of one install."""
    return facade(
        "posthog",
        {
            "capture": make_capture(install, context, captures_per_event, library_version),
            "api": Api(context, install),
        },
    )


def make_capture(
    install: int, context: Context, captures_per_event: int, library_version: str
) -> Callable[..., HostCall]:
    """`posthog.capture(event, properties=None)`.

    The arguments are read and encoded at once: what the app does with them later changes nothing. Raises TypeError or
    ValueError for wrong arguments, LimitExceeded past `captures_per_event` of one event and install (or what the host
    allows the run instead), or past what all captures of one event may take together.
    """
    done = HostCall()
    done._finish(None)  # noqa: SLF001 - out of reach of apps by its underscore

    def check_captures(effects: Effects, made: int) -> None:
        limit, setting = captures_per_event, "captures_per_event"
        if effects.max_captures is not None:
            limit, setting = effects.max_captures, "captures_per_run"
        if made >= limit:
            raise LimitExceeded(f"posthog.capture: more than {limit} captures for one event ({setting})")

    def capture(event: str, properties: dict[str, Any] | None = None) -> HostCall:
        effects = context.current("posthog.capture")
        if type(event) is not str or not event:
            raise TypeError("posthog.capture: event must be a non-empty string")
        if properties is not None and type(properties) is not dict:
            raise TypeError(f"posthog.capture: properties must be a dict, not {type(properties).__name__}")
        number = effects.captured.get(install, 0)
        check_captures(effects, number + effects.posted.get(install, 0))
        fields = dict(properties) if properties else {}
        for key in fields:
            if type(key) is not str:  # looked up by name, it would be asked whether it is equal
                raise TypeError(f"posthog.capture: properties must have text keys, not {type(key).__name__}")
        timestamp = _timestamp(fields.pop("timestamp", None))
        distinct_id = fields.get("distinct_id")
        if distinct_id is None:
            distinct_id = GENERIC_DISTINCT_ID
        elif type(distinct_id) is int or type(distinct_id) is float:
            distinct_id = str(distinct_id)
        elif type(distinct_id) is not str or not distinct_id:
            raise TypeError("posthog.capture: distinct_id must be a non-empty string")
        merged = {"$lib": LIBRARY, "$lib_version": library_version, **fields, "distinct_id": distinct_id}
        encoded, name = codec.dumps(merged), event[:_NAME_LENGTH]
        opened = codec.brackets(encoded)
        if opened > codec.MAX_CONTAINERS:
            raise LimitExceeded(
                f"posthog.capture: more than {codec.MAX_CONTAINERS} lists and objects in the properties"
            )
        if opened >= codec.MAX_DEPTH:
            codec.check_depth([merged])  # it comes back one level deeper, inside its event
        codec.dumps(name)
        effects.capture([install, number, name, distinct_id, timestamp], encoded)
        return done

    return capture


def _timestamp(value: Any) -> str | None:
    if value is None:
        return None
    if type(value) is str:
        try:
            parsed = datetime.fromisoformat(value)
        except ValueError:
            raise ValueError("posthog.capture: timestamp must be ISO 8601 text, such as 2026-01-31T12:00:00Z") from None
        return value if len(value) <= _TIMESTAMP_LENGTH and value.isascii() else parsed.isoformat()
    if isinstance(value, datetime):
        return datetime.isoformat(value)
    raise TypeError("posthog.capture: timestamp must be ISO 8601 text or a datetime")

"""`console`: lines for the app's owner. `print` (sandbox/builtins.py) writes to its `log`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from sandbox import codec
from sandbox.facade import facade
from sandbox.invocation import Context
from sandbox.printable import printable
from sandbox.shown import shown

LEVELS: Final = {"debug": "DEBUG", "log": "LOG", "info": "INFO", "warn": "WARN", "error": "ERROR"}
_MESSAGE_LENGTH: Final = 10_000


def make_console(install: int, context: Context) -> object:
    """The `console` object of one install: `debug, log, info, warn, error`."""
    return facade("console", {name: make_log(install, context, level) for name, level in LEVELS.items()})


def make_log(install: int, context: Context, level: str) -> Callable[..., None]:
    """A function that logs its arguments, joined by spaces. It returns nothing and never raises for a value's sake."""

    def log(*values: Any) -> None:
        effects = context.effects
        if effects is not None:
            message = " ".join(map(_text, values))
            effects.log(install, level, printable(message[:_MESSAGE_LENGTH]))

    return log


def _text(value: Any) -> str:
    """Lists and objects as compact JSON if they are that, errors as `Type: message`, all else as str() gives it."""
    kind = type(value)
    if kind is str:
        return str(value[:_MESSAGE_LENGTH])
    if kind is dict or kind is list or kind is tuple:
        try:
            return codec.dumps(value).decode()
        except (TypeError, ValueError):
            text = shown(value, _MESSAGE_LENGTH)
            return f"<{kind.__name__} that is not JSON>" if text is None else text
    if isinstance(value, Exception):
        name = kind.__name__
        text = f"{name}: {value}"
        return name if len(text) == len(name) + 2 else text
    return str(value)

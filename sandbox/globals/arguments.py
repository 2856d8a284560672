"""What apps pass to the host, checked at once and told apart from their mistakes by name and remedy.

Only exact types pass: to compare, hash or print an object of an app's would run its code in here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

KEY_BYTES: Final = 2_000
"""Of a key in UTF-8, which is what a database takes in an index"""


def check_text(what: str, name: str, value: Any) -> str:
    """Exactly text. Raises TypeError."""
    if type(value) is not str:
        raise TypeError(f"{what}: {name} must be text, not {type(value).__name__}")
    return value


def check_key(what: str, value: Any) -> str:
    """The key of something that is stored. Raises TypeError or ValueError."""
    key = check_text(what, "key", value)
    if not key:
        raise ValueError(f"{what}: key must not be empty")
    if "\0" in key:
        raise ValueError(f"{what}: key must not contain a NUL character: remove it")
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        raise ValueError(f"{what}: key must not contain a lone surrogate: replace that character") from None
    if size > KEY_BYTES:
        raise ValueError(f"{what}: key must have at most {KEY_BYTES} bytes: use a hash of it")
    return key


def check_number(what: str, name: str, value: Any) -> int | float:
    """A finite number. Raises TypeError or ValueError."""
    if type(value) is not int and type(value) is not float:
        raise TypeError(f"{what}: {name} must be a number, not {type(value).__name__}")
    if type(value) is float and not math.isfinite(value):
        raise ValueError(f"{what}: {name} must be a finite number")
    if not -(2**63) <= value < 2**63:
        raise ValueError(f"{what}: {name} must be a number of at most 63 bits")
    return value


def check_seconds(what: str, name: str, value: Any, limit_seconds: float) -> int | float:
    """A number of seconds from 0 up. Raises TypeError or ValueError."""
    seconds = check_number(what, name, value)
    if not 0 <= seconds <= limit_seconds:
        raise ValueError(f"{what}: {name} must be a number of seconds from 0 to {limit_seconds:.0f}")
    return seconds


def read_options(what: str, options: Any, named: dict[str, Any], known: Sequence[str]) -> dict[str, Any]:
    """Options of a dict and those given by name as one, without those that are None. Raises TypeError."""
    if options is not None and type(options) is not dict:
        raise TypeError(f"{what}: options must be a dict, not {type(options).__name__}")
    found: dict[str, Any] = {}
    for given in (options or {}, named):
        for name, value in given.items():
            if type(name) is not str or name not in known:
                shown = repr(name[:40]) if type(name) is str else type(name).__name__
                raise TypeError(f"{what}: there is no option {shown}; there are {', '.join(known)}")
            if value is not None:
                found[name] = value
    return found

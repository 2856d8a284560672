"""Only exact data may enter library code that is written in Python.

It asks its arguments to do things, and hands its own tables to them: an object of an app with a `translate` method would get
textwrap's, one with `__eq__` would be asked about what others had put into a cache.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_DATA = (str, bytes, int, float, bool, type(None))


def data_only(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, with a TypeError for every argument that is not exactly text, bytes, a number or None."""

    def checked(*args: Any, **named: Any) -> Any:
        for arg in (*args, *named.values()):
            if type(arg) not in _DATA:
                raise TypeError(f"expected text, bytes or a number, not {type(arg).__name__}")
        return function(*args, **named)

    checked.__name__ = checked.__qualname__ = getattr(function, "__name__", "checked")
    return checked

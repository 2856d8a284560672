"""`meta.storage` and `meta.utils.cursor`: what an install keeps, in the database."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sandbox.facade import Facade
from sandbox.globals.arguments import check_key, check_number
from sandbox.globals.host_facade import HostFacade
from sandbox.invocation import DELTA, Context, HostCall


class Storage(HostFacade):
    """`meta.storage` of one install."""

    __slots__ = ()

    def get(self, key: str, default: Any = None) -> HostCall:
        """To be awaited: the value, or `default` if there is none."""
        return self._start("storage.get", [check_key("storage.get", key)], or_default(default))

    def set(self, key: str, value: Any) -> HostCall:
        """Keep a JSON value; None deletes."""
        return self._start("storage.set", [check_key("storage.set", key), value])

    def set_if_absent(self, key: str, value: Any) -> HostCall:
        """To be awaited: was it set? It is not if there is a value already."""
        if value is None:
            raise ValueError("storage.set_if_absent: value must not be None, which is what an absent key has")
        return self._start("storage.set_if_absent", [check_key("storage.set_if_absent", key), value])

    def increment(self, key: str, by: float = 1) -> HostCall:
        """To be awaited: the new number. Counts right however many events do it at once."""
        return self._start(DELTA, [check_key(DELTA, key), check_number(DELTA, "by", by)])

    def delete(self, key: str) -> HostCall:
        """Forget a value."""
        return self._start("storage.delete", [check_key("storage.delete", key)])

    del_ = delete


class Cursor(HostFacade):
    """`meta.utils.cursor` of one install: numbers in its storage."""

    __slots__ = ()

    def init(self, key: str, value: float = 0) -> HostCall:
        """Set it once: nothing happens if there is a value already."""
        what = "cursor.init"
        arguments = [check_key(what, key), check_number(what, "value", value)]
        return self._context.start(self._install, "storage.set_if_absent", arguments, what=what)

    def increment(self, key: str, by: float = 1) -> HostCall:
        """To be awaited: the new number."""
        what = "cursor.increment"
        arguments = [check_key(what, key), check_number(what, "by", by)]
        return self._context.start(self._install, DELTA, arguments, what=what)


class Utils(Facade):
    """`meta.utils` of one install."""

    __slots__ = ("cursor",)

    cursor: Cursor

    def __init__(self, context: Context, install: int) -> None:
        object.__setattr__(self, "cursor", Cursor(context, install))

    def __repr__(self) -> str:
        return "<utils>"


def or_default(default: Any) -> Callable[[Any], Any]:
    """What makes a value of the answer `[found, value]`."""

    def read(answer: list[Any]) -> Any:
        found, value = answer
        return value if found else default

    return read

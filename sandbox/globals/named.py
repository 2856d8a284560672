"""What an app declares by name, and finds again in `meta` by attribute and by item: its jobs and its metrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from sandbox.globals.host_facade import HostFacade
from sandbox.invocation import Context


class NamedFacade(HostFacade):
    """Has a member for each name that was declared; any other is an error that names those there are."""

    __slots__ = ("_names",)

    _kind: ClassVar[str] = ""
    _names: Mapping[str, str]

    def __init__(self, context: Context, install: int) -> None:
        super().__init__(context, install)
        object.__setattr__(self, "_names", {})

    def _member(self, name: str) -> Any:
        raise NotImplementedError

    def __getattr__(self, name: str) -> Any:
        if name in self._names:
            return self._member(name)
        raise AttributeError(self._missing(name))

    def __getitem__(self, name: object) -> Any:
        # Exactly str: the hash and equality of anything else would be the app's code running in here.
        if type(name) is str and name in self._names:
            return self._member(name)
        raise KeyError(self._missing(name if type(name) is str else f"a {type(name).__name__}"))

    def __contains__(self, name: object) -> bool:
        return type(name) is str and name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._names))

    def _missing(self, name: str) -> str:
        known = ", ".join(map(repr, self._names)) or "none"
        return f"the app has no {self._kind} {name[:100]!r}; it has {known}"


def declare(facade: NamedFacade, names: Mapping[str, str]) -> None:
    """These names there are from now on, each with what is to be known of it."""
    object.__setattr__(facade, "_names", names)

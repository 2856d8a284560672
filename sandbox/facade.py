"""Facades: the frozen objects through which apps reach the host and the standard library."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

from sandbox.guards import attribute_refusal

_PLAIN_DATA = (str, int, float, bool, type(None), bytes, tuple, dict, list, frozenset)


class Facade:
    """Base of every facade. Its instances hold nothing: all members are on a class that apps cannot reach or write to."""

    __slots__ = ()

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{self!r} is read-only")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{self!r} is read-only")


def facade(name: str, members: Mapping[str, object], *, items: bool = False) -> object:
    """A frozen object named `name` with exactly `members` as attributes; with `items`, `obj["x"]` equals `obj.x`.

    Functions stay what they are; every other callable that is no class (C functions, bound methods, caches, partials) is
    hidden behind a plain function, whose only ways inside are dunder names. Classes and values are passed on unchanged: the
    caller answers for what they make reachable. Raises ValueError for a member that an app could not name.
    """
    namespace: dict[str, Any] = {"__slots__": (), "__repr__": lambda _self: f"<{name}>"}
    for member, value in members.items():
        if member.startswith("_") or attribute_refusal(member):
            raise ValueError(f"{name}.{member}: apps cannot name this attribute")
        namespace[member] = _stored(member, value)
    if items:
        namespace |= _item_access(name, {member: _exposed(member, value) for member, value in members.items()})
    made: object = type(name.rpartition(".")[2], (Facade,), namespace)()
    return made


def _stored(name: str, value: object) -> object:
    """What goes into the class: staticmethod, so that no member is bound to the facade or asked for `__get__`."""
    if isinstance(value, type) or type(value) in _PLAIN_DATA:
        return value
    return staticmethod(_exposed(name, value))  # type: ignore[arg-type]


def _exposed(name: str, value: object) -> object:
    if isinstance(value, (type, types.FunctionType, Facade)) or not callable(value):
        return value
    return _plain_function(name, value)


def _plain_function(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **named: Any) -> Any:
        return function(*args, **named)

    call.__name__ = call.__qualname__ = name
    return call


def _item_access(name: str, members: Mapping[str, object]) -> dict[str, Any]:
    def __getitem__(_self: Facade, key: object) -> object:  # noqa: N807
        # Exactly str: the hash and equality of anything else would be the app's code running in here.
        if type(key) is str and key in members:
            return members[key]
        raise KeyError(key if type(key) is str else f"{name} has text keys")

    def __contains__(_self: Facade, key: object) -> bool:  # noqa: N807
        return type(key) is str and key in members

    def __iter__(_self: Facade) -> Iterator[str]:  # noqa: N807
        return iter(members)

    return {"__getitem__": __getitem__, "__contains__": __contains__, "__iter__": __iter__}

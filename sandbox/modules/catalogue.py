"""Which modules apps can import, what each has, and who shares it."""

from __future__ import annotations

import functools
import time
import types
from collections.abc import Callable, Mapping
from typing import Any

from sandbox.facade import facade
from sandbox.modules import digests, mathematics, structures, text, times
from sandbox.modules.times import Clock

_SHARED: Mapping[str, Mapping[str, object]] = {
    "base64": digests.BASE64,
    "collections": structures.COLLECTIONS,
    "decimal": mathematics.DECIMAL,
    "functools": structures.FUNCTOOLS,
    "hashlib": digests.HASHLIB,
    "hmac": digests.HMAC,
    "html": text.HTML,
    "itertools": structures.ITERTOOLS,
    "json": text.JSON,
    "math": mathematics.MATH,
    "re": text.RE,
    "statistics": mathematics.STATISTICS,
    "string": text.STRING,
    "textwrap": text.TEXTWRAP,
    "typing": structures.TYPING,
    "urllib.parse": structures.URLLIB_PARSE,
    "uuid": digests.UUIDS,
    "zlib": digests.ZLIB,
}
"""Frozen and without state: one facade serves every install."""

_PER_INSTALL: Mapping[str, Callable[[Clock], Mapping[str, object]]] = {
    "datetime": times.datetime_members,
    "random": lambda _clock: mathematics.random_members(),
    "time": times.time_members,
}
"""With a clock or a state of its own."""


@functools.cache
def _shared_module(name: str) -> object:
    if name == "urllib":
        return facade("urllib", {"parse": _shared_module("urllib.parse")})
    return facade(name, _SHARED[name])


@functools.cache
def _all_members() -> Mapping[str, frozenset[str]]:
    members = {name: frozenset(shared) for name, shared in _SHARED.items()}
    members |= {name: frozenset(make(time.time)) for name, make in _PER_INSTALL.items()}
    return types.MappingProxyType(members | {"urllib": frozenset({"parse"})})


def module_names() -> frozenset[str]:
    """What may stand after `import` and `from`."""
    return frozenset(_all_members())


def module_members(module: str) -> frozenset[str]:
    """What may stand after `from module import`. Raises KeyError for an unknown module."""
    return _all_members()[module]


@functools.cache
def _importable_classes() -> frozenset[type]:
    return frozenset(value for members in _SHARED.values() for value in members.values() if isinstance(value, type))


def is_importable(kind: type) -> bool:
    """Is this a class that an app can import (so that type(x) may show it)?"""
    return kind in _importable_classes() or times.is_shown(kind)


def importer(clock: Clock) -> Callable[..., Any]:
    """What import statements of one install are compiled to: `(module)` or `(module, member)`, both known to exist."""
    own: dict[str, object] = {}

    def import_module(module: str, member: str | None = None) -> Any:
        if module in _PER_INSTALL:
            if module not in own:
                own[module] = facade(module, _PER_INSTALL[module](clock))
            found = own[module]
        else:
            found = _shared_module(module)
        return found if member is None else getattr(found, member)

    return import_module

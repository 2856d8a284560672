"""What is known of a value while an app is read: how it comes from the hook's event, what it refers to, which text it is.

Nothing here is certain; where two paths meet, values are joined, so that a doubt speaks for the app.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from enum import Enum, IntEnum


class Source(IntEnum):
    """How much of the event a value is. Of two that are joined, the greater counts."""

    NONE = 0
    """Does not come from the event: constants, `meta.config`."""
    PART = 1
    """Made from the event, or chosen by it."""
    PRESENT = 2
    """A field that every event has, so that asking whether it is there tells nothing."""
    NAME = 3
    """`event["event"]`"""
    EVENT = 4
    """The event itself, or its properties."""
    BATCH = 5
    """A list of events."""


class Thing(Enum):
    """What apps are given."""

    POSTHOG = "posthog"
    CAPTURE = "posthog.capture"
    META = "meta"
    CONFIG = "meta.config"


class Scope:
    """Names of one function (or of the module), and where it stands."""

    def __init__(self, parent: Scope | None = None) -> None:
        self.names: dict[str, Value] = {}
        self.parent = parent
        self.elsewhere: dict[str, Scope] = {}

    def load(self, name: str) -> Value | None:
        scope: Scope | None = self.elsewhere.get(name, self)
        while scope is not None:
            if name in scope.names:
                return scope.names[name]
            scope = scope.parent
        return None

    def store(self, name: str, value: Value) -> None:
        scope = self.elsewhere.get(name, self)
        before = scope.names.get(name)
        scope.names[name] = value if before is None else join(before, value)

    def declare(self, name: str, *, is_global: bool) -> None:
        """`global` and `nonlocal`."""
        scope = self.parent or self
        while scope.parent is not None and (is_global or name not in scope.names):
            scope = scope.parent
        self.elsewhere[name] = scope


@dataclass(eq=False, slots=True)
class Class:
    name: str
    methods: dict[str, Function]
    bases: list[Class]
    attributes: dict[str, Value] = field(default_factory=dict)
    """Of the class and of all its instances together."""

    def find(self, name: str) -> Function | None:
        if name in self.methods:
            return self.methods[name]
        return next((found for base in self.bases if (found := base.find(name))), None)


@dataclass(eq=False, slots=True)
class Function:
    node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
    scope: Scope
    """Where it was defined."""
    owner: Class | None = None


@dataclass(frozen=True, slots=True)
class Instance:
    of: Class


@dataclass(frozen=True, slots=True)
class Bound:
    """A method together with its instance; or a function whose first argument is given (`functools.partial`)."""

    function: Function
    first: Value


@dataclass(frozen=True, slots=True)
class NamedCapture:
    """`functools.partial(posthog.capture, "name")`"""

    name: Value


Reference = Thing | Class | Function | Instance | Bound | NamedCapture


@dataclass(frozen=True, slots=True)
class Value:
    source: Source = Source.NONE
    refers: frozenset[Reference] = frozenset()
    texts: frozenset[str] = frozenset()
    """The texts that it may be, or may hold if it is a list, tuple or set; a key of `meta.config` is `CONFIG_KEY` + key."""
    is_known: bool = False
    """There is no text but those."""

    @property
    def from_event(self) -> bool:
        return self.source > Source.NONE

    @property
    def is_certain(self) -> bool:
        """To ask whether it is there, or true, tells nothing of the event."""
        return self.source > Source.PART

    def derived(self) -> Value:
        """What is made of it."""
        return PART if self.from_event else NOTHING


CONFIG_KEY = "\0config:"
NOTHING = Value()
PART = Value(Source.PART)


def text(value: str) -> Value:
    return Value(texts=frozenset({value}), is_known=True)


def reference(to: Reference) -> Value:
    return Value(refers=frozenset({to}))


def join(*values: Value) -> Value:
    """A value that is one of these, on one path or another."""
    if len(values) == 1:
        return values[0]
    return Value(
        max((value.source for value in values), default=Source.NONE),
        frozenset().union(*(value.refers for value in values)),
        frozenset().union(*(value.texts for value in values)),
        is_known=bool(values) and all(value.is_known for value in values),
    )

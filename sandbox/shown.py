"""Containers as Python's str() gives them, where that runs no code of the app's: exact builtin types and times alone."""

from __future__ import annotations

from typing import Any, Final

from sandbox.modules.times import is_plain_time

_DEPTH: Final = 100
_SCALARS: Final = frozenset({int, float, complex, bool, type(None), type(...)})
_TEXTS: Final = frozenset({str, bytes})
_BRACKETS: Final[dict[type, tuple[str, str]]] = {
    list: ("[", "]"),
    tuple: ("(", ")"),
    set: ("{", "}"),
    frozenset: ("frozenset({", "})"),
}


class _Full(Exception):
    """There is no room for more."""


class _Other(Exception):
    """Something in it is of another type, or too deep."""


class _Text:
    def __init__(self, room: int) -> None:
        self.room = room
        self.pieces: list[str] = []

    def add(self, piece: str) -> None:
        self.pieces.append(piece)
        self.room -= len(piece)
        if self.room <= 0:
            raise _Full


def shown(value: Any, characters: int) -> str | None:
    """The first `characters` of str(value), in time that does not grow with what is left out.

    None for what has anything in it (as far as that is shown) that only code of the app's could show, or that is too deep.
    """
    text = _Text(characters)
    try:
        _show(value, text, 0)
    except _Full:
        pass
    except (_Other, ValueError):  # ValueError: a number of more digits than Python writes
        return None
    return "".join(text.pieces)[:characters]


def _show(value: Any, text: _Text, depth: int) -> None:
    kind = type(value)
    if kind in _TEXTS:
        text.add(repr(value[: text.room]))
    elif kind in _SCALARS or is_plain_time(value):
        text.add(repr(value))
    elif depth == _DEPTH:
        raise _Other
    elif kind is dict:
        text.add("{")
        for place, (key, item) in enumerate(value.items()):
            if place:
                text.add(", ")
            _show(key, text, depth + 1)
            text.add(": ")
            _show(item, text, depth + 1)
        text.add("}")
    elif kind in _BRACKETS:
        _show_items(kind, value, text, depth)
    else:
        raise _Other


def _show_items(kind: type, value: Any, text: _Text, depth: int) -> None:
    if not value and kind in (set, frozenset):
        text.add(f"{kind.__name__}()")
        return
    opening, closing = _BRACKETS[kind]
    text.add(opening)
    for place, item in enumerate(value):
        if place:
            text.add(", ")
        _show(item, text, depth + 1)
    text.add("," + closing if kind is tuple and len(value) == 1 else closing)

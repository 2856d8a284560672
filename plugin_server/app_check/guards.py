"""Conditions on the event, and what they say of an event that the app itself captures: does it come through again?"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from plugin_server.app_check.values import CONFIG_KEY, Source, Value


@dataclass(frozen=True, slots=True)
class NameIn:
    """The event's name is one of these."""

    texts: frozenset[str]
    is_known: bool = True


@dataclass(frozen=True, slots=True)
class NameNotIn:
    texts: frozenset[str]
    is_known: bool = True


@dataclass(frozen=True, slots=True)
class NameStarts:
    """The event's name starts with one of these, or with none of them."""

    texts: frozenset[str]
    positive: bool


@dataclass(frozen=True, slots=True)
class Other:
    """Any other condition that depends on the event."""


Fact = NameIn | NameNotIn | NameStarts | Other
Facts = frozenset[Fact]
NO_FACTS: Facts = frozenset()
OTHER: Facts = frozenset({Other()})


class Verdict(IntEnum):
    """On one capture; of two ways to it, the greater counts."""

    FINE = 0
    LOOP = 1
    """Made for the very event that it captures."""
    UNGUARDED = 2


def either(one: Facts, other: Facts) -> Facts:
    """What holds when one or the other does."""
    if one == other:
        return one
    match tuple(one), tuple(other):
        case (NameIn(a, True),), (NameIn(b, True),):
            return frozenset({NameIn(a | b)})
    return OTHER


def judge(facts: Facts, name: Value, properties: Value) -> Verdict:
    """A capture of the event `name` with `properties`, made where `facts` hold."""
    if not facts:
        return Verdict.UNGUARDED
    if Other() in facts and properties.source is not Source.EVENT:
        return Verdict.FINE  # the captured event has not what the condition asks for, as far as can be seen
    if name.source is Source.NAME:
        named = [fact for fact in facts if not isinstance(fact, Other)]
        return Verdict.LOOP if named else Verdict.FINE
    if not name.is_known or not name.texts:
        return Verdict.FINE
    comes_through = all(_passes(fact, text) for fact in facts for text in name.texts)
    return Verdict.LOOP if comes_through and facts != OTHER else Verdict.FINE


def _passes(fact: Fact, text: str) -> bool:
    """Is it certain that an event of this name meets the condition?"""
    match fact:
        case NameIn(texts=texts):
            return text in texts
        case NameNotIn(texts=texts, is_known=is_known):
            return is_known and not _may_be_among(text, texts)
        case NameStarts(texts=texts, positive=positive):
            return not text.startswith(CONFIG_KEY) and _starts(text, texts) is positive
        case Other():
            return True


def _may_be_among(text: str, texts: Iterable[str]) -> bool:
    return any(text == one or CONFIG_KEY in (text[: len(CONFIG_KEY)], one[: len(CONFIG_KEY)]) for one in texts)


def _starts(text: str, prefixes: Iterable[str]) -> bool:
    return text.startswith(tuple(prefixes))

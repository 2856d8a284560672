"""What a test says of the event when it holds, or when it does not."""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence

from plugin_server.app_check.guards import NO_FACTS, OTHER, Facts, NameIn, NameNotIn, NameStarts, either
from plugin_server.app_check.values import CONFIG_KEY, Source, Value

Evaluate = Callable[[ast.expr], Value]
ALWAYS_THERE = frozenset({"distinct_id", "event", "now", "properties", "team_id", "timestamp", "uuid"})


def facts_of(test: ast.expr, evaluate: Evaluate, *, holds: bool = True) -> Facts:
    """Nothing (no facts) for a test that does not depend on the event, or that holds for every event, such as `if event:`."""
    match test:
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return facts_of(operand, evaluate, holds=not holds)
        case ast.BoolOp(op=op, values=values):
            parts = [facts_of(value, evaluate, holds=holds) for value in values]
            if isinstance(op, ast.And) is holds:
                return frozenset().union(*parts)
            return _any_of([part for part in parts if part])
        case ast.Compare(left=left, ops=[op], comparators=[right]):
            return _comparison(left, op, right, evaluate, holds=holds)
        case ast.NamedExpr(value=value):
            return facts_of(value, evaluate, holds=holds)
        case ast.Call(func=ast.Name(id="bool"), args=[value]):
            return facts_of(value, evaluate, holds=holds)
        case ast.Call(func=ast.Name(id="isinstance"), args=[value, *_]):
            return _whether(evaluate(value))
        case ast.Call(func=ast.Attribute(value=whole, attr="startswith"), args=[prefix]):
            name, start = evaluate(whole), evaluate(prefix)
            if name.source is Source.NAME and start.is_known and not any(CONFIG_KEY in text for text in start.texts):
                return frozenset({NameStarts(start.texts, holds)})
            return OTHER if name.from_event or start.from_event else NO_FACTS
    return _whether(evaluate(test))


def _whether(value: Value) -> Facts:
    return OTHER if value.from_event and not value.is_certain else NO_FACTS


def _any_of(parts: Sequence[Facts]) -> Facts:
    if not parts:
        return NO_FACTS
    facts = parts[0]
    for part in parts[1:]:
        facts = either(facts, part)
    return facts


def _comparison(left: ast.expr, op: ast.cmpop, right: ast.expr, evaluate: Evaluate, *, holds: bool) -> Facts:
    one, other = evaluate(left), evaluate(right)
    if isinstance(op, ast.Is | ast.IsNot | ast.Eq | ast.NotEq) and _is_none(right):
        return _whether(one)
    if isinstance(op, ast.In | ast.NotIn) and other.is_certain and other.source is not Source.NAME:
        return NO_FACTS if other.source is Source.EVENT and one.texts and one.texts <= ALWAYS_THERE else OTHER
    if one.source is not Source.NAME:
        one, other = other, one
        if isinstance(op, ast.In | ast.NotIn):  # part of a name
            return OTHER if one.from_event or other.from_event else NO_FACTS
    if one.source is Source.NAME and (other.texts or other.refers):
        if isinstance(op, ast.Eq | ast.Is | ast.In):
            return _name_facts(other, is_in=holds)
        if isinstance(op, ast.NotEq | ast.IsNot | ast.NotIn):
            return _name_facts(other, is_in=not holds)
    return OTHER if one.from_event or other.from_event else NO_FACTS


def _name_facts(texts: Value, *, is_in: bool) -> Facts:
    if is_in:
        return frozenset({NameIn(texts.texts, texts.is_known)})
    return frozenset({NameNotIn(texts.texts, texts.is_known)})


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def pattern_facts(subject: Value, pattern: ast.pattern) -> Facts:
    """What holds of the event when `subject` matches; nothing for a pattern that always does."""
    if not subject.from_event or is_irrefutable(pattern):
        return NO_FACTS
    match pattern:
        case ast.MatchAs(pattern=ast.pattern() as inner):
            return pattern_facts(subject, inner)
        case ast.MatchOr(patterns=patterns):
            return _any_of([pattern_facts(subject, inner) for inner in patterns])
        case ast.MatchValue(value=ast.Constant(value=str(name))) if subject.source is Source.NAME:
            return frozenset({NameIn(frozenset({name}))})
        case ast.MatchMapping(keys=keys, patterns=patterns) if subject.source is Source.EVENT:
            facts: Facts = NO_FACTS
            for key, inner in zip(keys, patterns, strict=True):
                field = key.value if isinstance(key, ast.Constant) else None
                source = Source.NAME if field == "event" else Source.EVENT if field == "properties" else Source.PART
                certain = field in ALWAYS_THERE and (is_irrefutable(inner) or isinstance(inner, ast.MatchClass))
                facts |= NO_FACTS if certain else pattern_facts(Value(source), inner) or OTHER
            return facts
        case ast.MatchClass(kwd_attrs=[]) if subject.is_certain:
            return NO_FACTS
    return OTHER


def is_irrefutable(pattern: ast.pattern) -> bool:
    return isinstance(pattern, ast.MatchAs) and (pattern.pattern is None or is_irrefutable(pattern.pattern))

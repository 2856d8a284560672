"""Reads an app from top to bottom, then each hook as the host would call it, and notes what it meets (`Seen`).

This is an interpreter of possibilities: it runs nothing, takes every branch, enters each function that it can tell, and keeps
a note of what must hold of the event for control to be where it is (`facts_here`).
"""

from __future__ import annotations

import ast
from collections.abc import Sequence

from plugin_server.app_check.conditions import ALWAYS_THERE, is_irrefutable, pattern_facts
from plugin_server.app_check.expressions import Expressions, element, loop_facts
from plugin_server.app_check.guards import NO_FACTS, OTHER, Facts
from plugin_server.app_check.hooks import CAPTURE_HOOKS, EVENT_HOOKS, canonical
from plugin_server.app_check.seen import Frame
from plugin_server.app_check.values import (
    NOTHING,
    Bound,
    Class,
    Function,
    Instance,
    Scope,
    Thing,
    Value,
    join,
    reference,
)

_DEEPEST = 12
"""Calls inside each other that are followed."""
_STRICT = frozenset({"Decimal", "UUID", "float", "fromisoformat", "index", "int", "loads", "strptime"})
"""What raises for a text that it cannot read."""


class Reader(Expressions):
    """One use: `read(tree)`, then `seen`."""

    def __init__(self) -> None:
        super().__init__()
        self._running: list[Function] = []
        self._done: dict[object, Value] = {}

    def read(self, tree: ast.Module) -> None:
        scope = self.frame.scope
        scope.store("posthog", reference(Thing.POSTHOG))
        self._block(tree.body)
        meta = reference(Thing.META)
        for name, value in list(scope.names.items()):
            hook = canonical(name)
            given = [Value(EVENT_HOOKS[hook]), meta] if hook in EVENT_HOOKS else [meta]
            if hook is None and name != "jobs":
                continue
            self.in_hook = hook in CAPTURE_HOOKS
            for thing in value.refers:
                if isinstance(thing, Function):
                    self.facts_here = NO_FACTS
                    self.run(thing, given if hook else [NOTHING, meta], {})

    def run(self, function: Function, arguments: Sequence[Value], named: dict[str, Value]) -> Value:
        key = (
            function,
            tuple(arguments),
            tuple(sorted(named.items(), key=lambda item: item[0])),
            self.facts_here,
            self.in_hook,
        )
        if key in self._done:
            return self._done[key]
        if self._running.count(function) > 1 or len(self._running) >= _DEEPEST:
            return join(NOTHING, *(value.derived() for value in arguments))
        self._running.append(function)
        frame, facts = self.frame, self.facts_here
        self.frame = Frame(self._called(function, list(arguments), dict(named)))
        if isinstance(function.node, ast.Lambda):
            self.frame.returned.append(self.value(function.node.body))
        else:
            self._block(function.node.body)
        result = join(*self.frame.returned) if self.frame.returned else NOTHING
        self.frame, self.facts_here = frame, facts
        self._running.pop()
        self._done[key] = result
        return result

    def _called(self, function: Function, arguments: list[Value], named: dict[str, Value]) -> Scope:
        scope, declared = Scope(function.scope), function.node.args
        positional = [*declared.posonlyargs, *declared.args]
        defaults = dict(zip(reversed(positional), reversed(declared.defaults), strict=False))
        defaults |= {
            argument: default
            for argument, default in zip(declared.kwonlyargs, declared.kw_defaults, strict=True)
            if default is not None
        }
        for number, argument in enumerate((*positional, *declared.kwonlyargs)):
            if number < min(len(arguments), len(positional)):
                given = arguments[number]
            elif argument.arg in named:
                given = named.pop(argument.arg)
            else:
                given = self.value(defaults[argument]) if argument in defaults else named.get("**", NOTHING)
            scope.names[argument.arg] = given
        if declared.vararg:
            scope.names[declared.vararg.arg] = join(NOTHING, *arguments[len(positional) :])
        if declared.kwarg:
            scope.names[declared.kwarg.arg] = join(NOTHING, *named.values())
        if function.owner is not None and positional:
            parents = [reference(Instance(base)) for base in function.owner.bases]
            scope.names["super()"] = join(NOTHING, *parents)
        return scope

    # Statements. Each answers whether control can go on behind it.

    def _block(self, body: Sequence[ast.stmt]) -> bool:
        return all(self._statement(statement) for statement in body)

    def _statement(self, node: ast.stmt) -> bool:
        match node:
            case ast.Return(value=value):
                if value is not None:
                    self.frame.returned.append(self._under_facts(self.value(value)))
                return self._leaves()
            case ast.Raise():
                self._parts(node)
                return False
            case ast.Break() | ast.Continue():
                return self._leaves()
            case ast.If(test=test, body=body, orelse=orelse):
                self.value(test)
                return self._either([(self.facts(test), body), (self.facts(test, holds=False), orelse)])
            case ast.Match():
                return self._match(node)
            case ast.For() | ast.AsyncFor():
                items = self.value(node.iter)
                self.bind(node.target, element(items) if items.is_certain or items.from_event else items)
                return self._loop(loop_facts(items), node.body, node.orelse)
            case ast.While(test=test):
                self.value(test)
                return self._loop(self.facts(test), node.body, node.orelse)
            case ast.With() | ast.AsyncWith():
                for item in node.items:
                    entered = self.value(item.context_expr)
                    if item.optional_vars is not None:
                        self.bind(item.optional_vars, entered)
                return self._block(node.body)
            case ast.Try():
                return self._try(node)
            case ast.Assert(test=test):
                self.value(test)
                self.facts_here |= self.facts(test)
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                self.frame.scope.store(node.name, self._decorated(node, reference(Function(node, self.frame.scope))))
            case ast.ClassDef():
                self._class(node)
            case ast.Assign(targets=targets, value=value):
                read = self.value(value)
                for target in targets:
                    self.bind(target, read)
            case ast.AnnAssign(target=target, value=ast.expr() as value):
                self.bind(target, self.value(value))
            case ast.AugAssign(target=target, value=value):
                read = self.value(value)
                if isinstance(target, ast.Name):
                    before = self.frame.scope.load(target.id) or NOTHING
                    self.frame.scope.store(target.id, self._under_facts(join(before, read.derived())))
                elif isinstance(target, ast.Subscript):
                    self.put_into(target, read)
            case ast.Global(names=names) | ast.Nonlocal(names=names):
                for name in names:
                    self.frame.scope.declare(name, is_global=isinstance(node, ast.Global))
            case _:
                self._parts(node)
        return True

    def _parts(self, node: ast.stmt) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):
                self.value(child)

    def _leaves(self) -> bool:
        self.frame.leaving.append(self.facts_here)
        return False

    def _either(self, ways: Sequence[tuple[Facts, Sequence[ast.stmt]]]) -> bool:
        """Take each way; behind it holds what holds on all ways that lead on."""
        before, onward = self.facts_here, []
        for facts, body in ways:
            self.facts_here = before | facts
            if self._block(body):
                onward.append(self.facts_here)
        self.facts_here = frozenset.intersection(*onward) if onward else before
        return bool(onward)

    def _match(self, node: ast.Match) -> bool:
        subject = self.value(node.subject)
        ways: list[tuple[Facts, Sequence[ast.stmt]]] = []
        none_before: Facts = NO_FACTS
        is_complete = False
        for case in node.cases:
            self._bind_pattern(case.pattern, subject)
            facts = pattern_facts(subject, case.pattern)
            if case.guard is not None:
                self.value(case.guard)
                facts |= self.facts(case.guard)
            ways.append((none_before | facts, case.body))
            is_complete = is_complete or (case.guard is None and is_irrefutable(case.pattern))
            none_before |= OTHER if facts else NO_FACTS
        if not is_complete:
            ways.append((none_before, []))
        return self._either(ways)

    def _bind_pattern(self, pattern: ast.pattern, subject: Value) -> None:
        match pattern:
            case ast.MatchAs(pattern=inner, name=name):
                if name is not None:
                    self.frame.scope.store(name, subject)
                if inner is not None:
                    self._bind_pattern(inner, subject)
            case ast.MatchStar(name=str(name)):
                self.frame.scope.store(name, subject.derived())
            case ast.MatchMapping(keys=keys, patterns=patterns, rest=rest):
                for key, inner in zip(keys, patterns, strict=True):
                    self._bind_pattern(inner, self._entry(subject, self.value(key), key))
                if rest is not None:
                    self.frame.scope.store(rest, subject.derived())
            case _:
                for child in ast.iter_child_nodes(pattern):
                    if isinstance(child, ast.pattern):
                        self._bind_pattern(child, subject if isinstance(pattern, ast.MatchOr) else subject.derived())

    def _loop(self, facts: Facts, body: Sequence[ast.stmt], orelse: Sequence[ast.stmt]) -> bool:
        before, mark = self.facts_here, len(self.frame.leaving)
        self.facts_here |= facts
        self._block(body)
        left = self.frame.leaving[mark:]
        # `for …: if it is one: return` — whoever comes out at the end is none.
        self.facts_here = before | (OTHER if any(there - before for there in left) and _returns(body) else NO_FACTS)
        return self._block(orelse)

    def _try(self, node: ast.Try) -> bool:
        before, goes_on = self.facts_here, True
        for statement in node.body:
            goes_on = goes_on and self._statement(statement)
            if goes_on and self._may_raise(statement):
                self.facts_here |= OTHER
        goes_on = goes_on and self._block(node.orelse)
        behind = [self.facts_here] if goes_on else []
        for handler in node.handlers:
            self.facts_here = before
            if handler.name:
                self.frame.scope.store(handler.name, NOTHING)
            if self._block(handler.body):
                behind.append(self.facts_here)
        self.facts_here = frozenset.intersection(*behind) if behind else before
        return self._block(node.finalbody) and bool(behind)

    def _may_raise(self, statement: ast.stmt) -> bool:
        """Does it go through for some events only, for what they hold: a field that others lack, a text that is no number?"""
        for part in ast.walk(statement):
            match part:
                case ast.Subscript(slice=ast.Constant(value=key)) if key in ALWAYS_THERE:
                    continue
                case ast.Subscript(ctx=ast.Load()) if self.value(part).from_event:
                    return True
                case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name), args=[read, *_]) if name in _STRICT:
                    if self.value(read).from_event:
                        return True
        return False

    def _decorated(self, node: ast.FunctionDef | ast.AsyncFunctionDef, made: Value) -> Value:
        for decorator in reversed(node.decorator_list):
            for thing in self.value(decorator).refers:
                if isinstance(thing, Function | Bound):
                    function, first = (thing, []) if isinstance(thing, Function) else (thing.function, [thing.first])
                    wrapped = self.run(function, [*first, made], {})
                    made = wrapped if wrapped.refers else made
        return made

    def _class(self, node: ast.ClassDef) -> None:
        bases = [thing for base in node.bases for thing in self.value(base).refers if isinstance(thing, Class)]
        made = Class(node.name, {}, bases)
        self.frame.scope.store(node.name, reference(made))
        outer, self.frame.scope = self.frame.scope, Scope(self.frame.scope)
        for statement in node.body:
            if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
                made.methods[statement.name] = Function(statement, outer, made)
            else:
                self._statement(statement)
        made.attributes = dict(self.frame.scope.names)
        self.frame.scope = outer


def _returns(body: Sequence[ast.stmt]) -> bool:
    return any(isinstance(part, ast.Return | ast.Raise) for statement in body for part in ast.walk(statement))

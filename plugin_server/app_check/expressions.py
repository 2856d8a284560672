"""Reads expressions: what their values come from, and which captures and config keys they lead to."""

from __future__ import annotations

import ast
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence

from plugin_server.app_check.conditions import ALWAYS_THERE, facts_of
from plugin_server.app_check.guards import NO_FACTS, OTHER, Facts, Verdict, judge
from plugin_server.app_check.seen import Frame, Seen
from plugin_server.app_check.values import (
    CONFIG_KEY,
    NOTHING,
    PART,
    Bound,
    Class,
    Function,
    Instance,
    NamedCapture,
    Reference,
    Scope,
    Source,
    Thing,
    Value,
    join,
    reference,
    text,
)

_SAME_EVENTS = frozenset({"dict", "enumerate", "filter", "iter", "list", "reversed", "set", "sorted", "tuple", "zip"})
"""What they return holds what they were given."""
_SAME_METHODS = frozenset({"copy", "items", "keys", "values"})
_STEPS = 20_000
"""Expressions read, calls included. An app that needs more is read no further: better silent than slow."""


class Expressions(ABC):
    def __init__(self) -> None:
        self.seen = Seen()
        self.frame = Frame(Scope())
        self.facts_here: Facts = NO_FACTS
        """What holds of the event at this point."""
        self.in_hook = False
        self._steps = 0

    @abstractmethod
    def run(self, function: Function, arguments: Sequence[Value], named: dict[str, Value]) -> Value:
        """Read the body of a function of the app, called here."""

    def facts(self, test: ast.expr, *, holds: bool = True) -> Facts:
        """What a test says of the event."""
        return facts_of(test, self.value, holds=holds)

    def value(self, node: ast.expr) -> Value:
        self._steps += 1
        if self._steps > _STEPS:
            return PART
        match node:
            case ast.Constant(value=str(found)):
                return text(found)
            case ast.Constant():
                return NOTHING
            case ast.Name(id=name):
                return self.frame.scope.load(name) or NOTHING
            case ast.Await(value=inner) | ast.Starred(value=inner) | ast.YieldFrom(value=inner):
                return self.value(inner)
            case ast.NamedExpr(target=ast.Name(id=name), value=inner):
                found_value = self.value(inner)
                self.frame.scope.store(name, self._under_facts(found_value))
                return found_value
            case ast.Attribute():
                return self._attribute(self.value(node.value), node.attr)
            case ast.Subscript():
                return self._item(node)
            case ast.BoolOp():
                return self._in_turn(node)
            case ast.IfExp(test=test, body=body, orelse=orelse):
                self.value(test)
                chosen = PART if self.facts(test) else NOTHING
                one = self._where(self.facts(test), body)
                other = self._where(self.facts(test, holds=False), orelse)
                return join(one, other, Value(chosen.source, is_known=True))
            case ast.List(elts=parts) | ast.Tuple(elts=parts) | ast.Set(elts=parts):
                return join(*map(self.value, parts)) if parts else Value(is_known=True)
            case ast.Dict(keys=keys, values=values):
                return self._dict(keys, values)
            case ast.Lambda():
                return reference(Function(node, self.frame.scope))
            case ast.Call():
                return self._call(node)
            case ast.ListComp() | ast.SetComp() | ast.GeneratorExp() | ast.DictComp():
                return self._comprehension(node)
        parts = [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.expr)]
        return join(NOTHING, *(self.value(part).derived() for part in parts))

    def _where(self, more: Facts, node: ast.expr) -> Value:
        before, self.facts_here = self.facts_here, self.facts_here | more
        found = self.value(node)
        self.facts_here = before
        return found

    def _under_facts(self, value: Value) -> Value:
        """A value that is only stored for some events tells something of the event."""
        if not self.facts_here or value.from_event:
            return value
        return join(value, Value(Source.PART, is_known=True))

    def _in_turn(self, node: ast.BoolOp) -> Value:
        before, values = self.facts_here, []
        for part in node.values:
            values.append(self.value(part))
            self.facts_here |= self.facts(part, holds=isinstance(node.op, ast.And))
        self.facts_here = before
        return join(*values)

    def _dict(self, keys: Sequence[ast.expr | None], values: Sequence[ast.expr]) -> Value:
        read = [self.value(value) for value in values]
        for key in keys:
            if key is not None:
                self.value(key)
        if len(read) == 1 and keys[0] is None:
            return read[0]
        copied = any(key is None for key in keys)
        whole = join(NOTHING, *read)
        source = Source.PART if whole.from_event and copied else min(whole.source, Source.PART)
        return Value(source, whole.refers)

    def _attribute(self, owner: Value, name: str) -> Value:
        found: list[Value] = []
        for thing in owner.refers:
            if thing is Thing.POSTHOG and name == "capture":
                found.append(reference(Thing.CAPTURE))
            elif thing is Thing.META and name == "config":
                found.append(reference(Thing.CONFIG))
            elif isinstance(thing, Instance):
                found.append(self._member(thing.of, name, reference(thing)))
            elif isinstance(thing, Class):
                found.append(self._member(thing, name, None))
        return join(*found, owner.derived()) if found else owner.derived()

    def _member(self, owner: Class, name: str, instance: Value | None) -> Value:
        method = owner.find(name)
        if method is not None:
            names = {part.id for part in _decorators(method) if isinstance(part, ast.Name)}
            if "property" in names and instance is not None:
                return self.run(method, [instance], {})
            if "staticmethod" in names or (instance is None and "classmethod" not in names):
                return reference(method)
            return reference(Bound(method, instance or reference(owner)))
        for kind in (owner, *owner.bases):
            if name in kind.attributes:
                return kind.attributes[name]
        return NOTHING

    def _item(self, node: ast.Subscript) -> Value:
        owner, key = self.value(node.value), self.value(node.slice)
        if owner.source is Source.BATCH:
            return owner if isinstance(node.slice, ast.Slice) else Value(Source.EVENT)
        return self._entry(owner, key, node.slice)

    def _entry(self, owner: Value, key: Value, key_node: ast.expr) -> Value:
        field_name = next(iter(key.texts)) if key.is_known and len(key.texts) == 1 else None
        if Thing.CONFIG in owner.refers:
            return self._config(field_name, key_node.lineno)
        if Thing.META in owner.refers and field_name is not None:
            return self._attribute(owner, field_name)
        source = min(owner.source, Source.PART)
        if owner.source is Source.EVENT:
            if isinstance(key_node, ast.Constant) and isinstance(key_node.value, int):
                source = Source.EVENT  # *arguments
            elif field_name in ALWAYS_THERE:
                special = {"event": Source.NAME, "properties": Source.EVENT}
                source = special.get(field_name or "", Source.PRESENT)
        return Value(max(source, min(key.source, Source.PART)), owner.refers - set(Thing))

    def _config(self, key: str | None, line: int) -> Value:
        if key is None or key.startswith(CONFIG_KEY):
            self.seen.reads_any_key = True
            return NOTHING
        self.seen.config_keys.setdefault(key, line)
        return text(CONFIG_KEY + key)

    def _comprehension(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp) -> Value:
        before, scope = self.facts_here, self.frame.scope
        self.frame.scope = Scope(scope)
        for part in node.generators:
            items = self.value(part.iter)
            self.facts_here |= loop_facts(items)
            self.bind(part.target, element(items))
            for test in part.ifs:
                self.value(test)
                self.facts_here |= self.facts(test)
        parts = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
        made = join(*map(self.value, parts))
        asked = bool(self.facts_here - before)
        if asked and not made.from_event:
            made = join(made, Value(Source.PART, is_known=True))
        self.facts_here, self.frame.scope = before, scope
        # A list of some events is not a list of events: who is in it was asked already.
        whole = made.source is Source.EVENT and not asked and not isinstance(node, ast.DictComp)
        return Value(Source.BATCH if whole else min(made.source, Source.PART), made.refers, made.texts, made.is_known)

    def bind(self, target: ast.expr, value: Value) -> None:
        match target:
            case ast.Name(id=name):
                self.frame.scope.store(name, self._under_facts(value))
            case ast.Tuple(elts=parts) | ast.List(elts=parts):
                for part in parts:
                    self.bind(part, element(value) if value.source is Source.BATCH else value)
            case ast.Starred(value=inner):
                self.bind(inner, value)
            case ast.Attribute(value=owner, attr=name):
                for thing in self.value(owner).refers:
                    kind = thing.of if isinstance(thing, Instance) else thing
                    if isinstance(kind, Class):
                        known = kind.attributes.get(name)
                        value = self._under_facts(value)
                        kind.attributes[name] = value if known is None else join(known, value)
            case ast.Subscript(value=owner):
                self.value(target.slice)
                self.put_into(owner, value)

    def put_into(self, container: ast.expr, value: Value) -> None:
        """A value goes into a list, set or dict of the app's."""
        while isinstance(container, ast.Subscript | ast.Attribute):
            container = container.value
        if isinstance(container, ast.Name):
            before = self.frame.scope.load(container.id)
            if before is not None and not before.is_certain and Thing.META not in before.refers:
                more = self._under_facts(value)
                is_any = value.source is Source.EVENT and not self.facts_here
                source = Source.BATCH if is_any else min(more.source, Source.PART)
                self.frame.scope.store(container.id, Value(source, value.refers, value.texts, value.is_known))

    # Calls.

    def _call(self, node: ast.Call) -> Value:
        callee = self.value(node.func)
        arguments = [self.value(argument) for argument in node.args]
        named = {keyword.arg or "**": self.value(keyword.value) for keyword in node.keywords}
        given = [*arguments, *named.values()]
        if any(Thing.CONFIG in value.refers for value in given) and not self._is_ours(callee):
            self.seen.reads_any_key = True
        match node.func:
            case ast.Attribute(value=owner, attr=name):
                if (special := self._method(node, self.value(owner), owner, name, arguments)) is not None:
                    return special
            case ast.Name(id=name) if self.frame.scope.load(name) is None:
                if (special := self._builtin(name, arguments)) is not None:
                    return special
        if _is_partial(node.func) and arguments:
            return _partial(arguments)
        before = self.facts_here
        if callee.source is Source.PART:  # chosen by the event: a table of functions
            self.facts_here |= OTHER
        results = [
            result
            for thing in callee.refers
            if (result := self._apply(thing, node, arguments, named, spread=_is_spread(node))) is not None
        ]
        self.facts_here = before
        if not results:
            self._call_back(given)
        return join(
            NOTHING if not results else results[0], *results[1:], *(value.derived() for value in (callee, *given))
        )

    def _is_ours(self, callee: Value) -> bool:
        return any(isinstance(thing, Function | Class | Bound) for thing in callee.refers)

    def _method(
        self, node: ast.Call, owner: Value, container: ast.expr, name: str, arguments: list[Value]
    ) -> Value | None:
        if Thing.CONFIG in owner.refers and name != "get":
            self.seen.reads_any_key = True
        elif name in ("get", "pop", "setdefault") and node.args:
            if Thing.CONFIG in owner.refers or owner.source is Source.EVENT or Thing.META in owner.refers:
                return self._entry(owner, arguments[0], node.args[0])
            if owner.refers and not self._is_ours(self.value(node.func)):
                table = Value(arguments[0].derived().source, owner.refers)
                return join(table, *arguments[1:])
        elif name in _SAME_METHODS and owner.is_certain:
            return owner
        elif name in ("add", "append", "appendleft", "extend", "insert", "update") and arguments:
            self.put_into(container, join(*arguments))
        return None

    def _builtin(self, name: str, arguments: list[Value]) -> Value | None:
        if name in _SAME_EVENTS and arguments:
            self._call_back(arguments)
            if name == "filter" and arguments[0].refers:
                return Value(min(join(*arguments).source, Source.PART))
            return join(*arguments)
        if name == "getattr" and len(arguments) > 1 and arguments[1].is_known and len(arguments[1].texts) == 1:
            return self._attribute(arguments[0], next(iter(arguments[1].texts)))
        if name == "super":
            return self.frame.scope.load("super()") or NOTHING
        return None

    def _apply(
        self, thing: Reference, node: ast.Call, arguments: list[Value], named: dict[str, Value], *, spread: bool
    ) -> Value | None:
        match thing:
            case Thing.CAPTURE:
                given = dict(zip(("event", "properties"), arguments, strict=False)) | named
                self._capture(node, given.get("event", NOTHING), given.get("properties", NOTHING))
                return NOTHING
            case NamedCapture(name=name):
                self._capture(node, name, named.get("properties", arguments[0] if arguments else NOTHING))
                return NOTHING
            case Function():
                return self.run(thing, _spread(thing, arguments, 0) if spread else arguments, named)
            case Bound(function=function, first=first):
                rest = _spread(function, arguments, 1) if spread else arguments
                return self.run(function, [first, *rest], named)
            case Class():
                instance = reference(Instance(thing))
                maker = thing.find("__init__")
                if maker is not None:
                    self.run(maker, [instance, *arguments], named)
                return instance
            case Instance(of=kind):
                method = kind.find("__call__")
                return self.run(method, [reference(thing), *arguments], named) if method else None
        return None

    def _call_back(self, given: Iterable[Value]) -> None:
        """A function was handed to something that will call it, as `map` does with the other arguments."""
        given = list(given)
        others = join(NOTHING, *(element(value) for value in given))
        for value in given:
            for thing in value.refers:
                if isinstance(thing, Function):
                    self.run(thing, [Value(others.source)] * len(_positional(thing)), {})
                elif isinstance(thing, Bound):
                    rest = [Value(others.source)] * (len(_positional(thing.function)) - 1)
                    self.run(thing.function, [thing.first, *rest], {})

    def _capture(self, node: ast.Call, name: Value, properties: Value) -> None:
        if self.in_hook and self._steps <= _STEPS:
            place = (node.lineno, node.col_offset)
            verdict = judge(self.facts_here, name, properties)
            self.seen.captures[place] = max(verdict, self.seen.captures.get(place, Verdict.FINE))


def element(value: Value) -> Value:
    """One item of it."""
    if value.source is Source.BATCH:
        return Value(Source.EVENT, value.refers)
    return Value(min(value.source, Source.PART), value.refers, value.texts, value.is_known)


def loop_facts(items: Value) -> Facts:
    """A loop over what an event holds runs only for events that hold it; one over events, or all properties, for each."""
    return OTHER if items.from_event and not items.is_certain else NO_FACTS


def _is_partial(function: ast.expr) -> bool:
    return (isinstance(function, ast.Name) and function.id == "partial") or (
        isinstance(function, ast.Attribute) and function.attr == "partial"
    )


def _partial(arguments: list[Value]) -> Value:
    made: set[Reference] = set()
    for thing in arguments[0].refers:
        if len(arguments) == 1:
            made.add(thing)
        elif thing is Thing.CAPTURE:
            made.add(NamedCapture(arguments[1]))
        elif isinstance(thing, Function):
            made.add(Bound(thing, arguments[1]))
    return Value(refers=frozenset(made))


def _is_spread(node: ast.Call) -> bool:
    return any(isinstance(argument, ast.Starred) for argument in node.args)


def _positional(function: Function) -> list[ast.arg]:
    return [*function.node.args.posonlyargs, *function.node.args.args]


def _spread(function: Function, arguments: list[Value], taken: int) -> list[Value]:
    """`f(*args)`: any of them may be any parameter."""
    wanted = max(len(_positional(function)) - taken, len(arguments))
    return [join(*arguments)] * wanted if arguments else arguments


def _decorators(function: Function) -> list[ast.expr]:
    return [] if isinstance(function.node, ast.Lambda) else function.node.decorator_list

"""A note on state that hooks keep at the top of the file: each worker has its own, and a restart forgets it."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from plugin_server.app_check.finding import Finding, Severity
from plugin_server.app_check.hooks import Definition, canonical, own_nodes

_MAKERS = frozenset({"Counter", "OrderedDict", "defaultdict", "deque", "dict", "list", "set"})
_CHANGES = frozenset(
    {
        "add", "append", "appendleft", "clear", "discard", "extend", "insert", "pop", "popitem", "popleft", "remove", "setdefault",
        "update",
    }
)  # fmt: skip


def check_module_state(tree: ast.Module) -> Iterator[Finding]:
    top = set(_mutable_names(tree))
    reported: set[str] = set()
    for function in ast.walk(tree):
        if isinstance(function, Definition) and canonical(function.name) != "setupPlugin":
            for name, line in sorted(_changed(function, top), key=lambda found: found[1]):
                if name not in reported:
                    reported.add(name)
                    message = (
                        f"{name} is changed here, but each worker has its own and a restart forgets it; "
                        "keep only what may be lost in it (meta.storage is for the rest)"
                    )
                    yield Finding(line, Severity.NOTE, message)


def _mutable_names(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        match node:
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=value)
                | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value)
            ) if _is_mutable(value):
                yield name


def _is_mutable(value: ast.expr) -> bool:
    match value:
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)):
            return name in _MAKERS
    return isinstance(value, ast.Dict | ast.List | ast.Set | ast.DictComp | ast.ListComp | ast.SetComp)


def _changed(function: Definition, top: set[str]) -> Iterator[tuple[str, int]]:
    nodes = list(own_nodes(function))
    shared = {name for node in nodes if isinstance(node, ast.Global) for name in node.names}
    own = {node.arg for node in nodes if isinstance(node, ast.arg)}
    own |= {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)} - shared
    for node in nodes:
        match node:
            case ast.Name(id=name, ctx=ast.Store()) if name in shared:
                yield name, node.lineno
            case ast.Subscript(value=ast.Name(id=name), ctx=ast.Store() | ast.Del()) if name in top - own:
                yield name, node.lineno
            case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr=attr)) if (
                name in top - own and attr in _CHANGES
            ):
                yield name, node.lineno

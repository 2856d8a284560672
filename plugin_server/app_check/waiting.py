"""Rules on waiting: `await` where there is none to be had, coroutines that nobody awaits, sleeping that holds others up."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from plugin_server.app_check.finding import Finding, Severity
from plugin_server.app_check.hooks import own_nodes

_CLOCKS = frozenset({"monotonic", "now", "perf_counter", "time", "time_ns", "utcnow"})


def check_waiting(tree: ast.Module) -> Iterator[Finding]:
    helpers = _async_names(tree)
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef | ast.Lambda):
            yield from _awaits(function)
    for node in ast.walk(tree):
        match node:
            case ast.Expr(value=ast.Call(func=function)) if (name := _called(function)) in helpers:
                message = f"{name}(…) is async: without await nothing of it runs; write await {name}(…)"
                yield Finding(node.lineno, Severity.WARNING, message)
            case ast.While(test=test) if _reads_clock(test) and not any(
                isinstance(p, ast.Await) for p in ast.walk(node)
            ):
                message = (
                    "this loop waits by watching the clock and holds up all other events; write await sleep(seconds)"
                )
                yield Finding(node.lineno, Severity.WARNING, message)
    yield from _sleeps(tree)


def _awaits(function: ast.FunctionDef | ast.Lambda) -> Iterator[Finding]:
    name = "lambda" if isinstance(function, ast.Lambda) else f"def {function.name}"
    for node in own_nodes(function):
        if isinstance(node, ast.Await | ast.AsyncFor | ast.AsyncWith):
            yield Finding(
                node.lineno, Severity.ERROR, f"await works in async def only; write async def instead of {name}"
            )
            return


def _async_names(tree: ast.Module) -> set[str]:
    """Names that stand for coroutine functions and for nothing else: `helper` for functions, `self.helper` for methods."""
    methods = {id(node) for kind in ast.walk(tree) if isinstance(kind, ast.ClassDef) for node in kind.body}
    asynchronous: set[str] = set()
    others: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.AsyncFunctionDef() | ast.FunctionDef():
                name = f"self.{node.name}" if id(node) in methods else node.name
                is_generator = any(isinstance(part, ast.Yield) for part in own_nodes(node))
                plain = isinstance(node, ast.AsyncFunctionDef) and not is_generator and not node.decorator_list
                (asynchronous if plain else others).add(name)
            case ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name) | ast.ClassDef(name=name):
                others.add(name)
            case ast.alias():
                others.add(node.asname or node.name)
    return (asynchronous | {"sleep"}) - others


def _called(function: ast.expr) -> str | None:
    match function:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=ast.Name(id="self"), attr=name):
            return f"self.{name}"
    return None


def _reads_clock(test: ast.expr) -> bool:
    return any(
        isinstance(part, ast.Call)
        and (
            (isinstance(part.func, ast.Attribute) and part.func.attr in _CLOCKS)
            or (isinstance(part.func, ast.Name) and part.func.id in _CLOCKS)
        )
        for part in ast.walk(test)
    )


def _sleeps(tree: ast.Module) -> Iterator[Finding]:
    modules, names = set(), set()
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=aliases):
                modules |= {alias.asname or alias.name for alias in aliases if alias.name == "time"}
            case ast.ImportFrom(module="time", names=aliases):
                names |= {alias.asname or alias.name for alias in aliases if alias.name == "sleep"}
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id=module), attr="sleep")) if module in modules:
                pass
            case ast.Call(func=ast.Name(id=name)) if name in names:
                pass
            case _:
                continue
        message = "time.sleep raises here, since it would hold up all other events; write await sleep(seconds) in an async def"
        yield Finding(node.lineno, Severity.WARNING, message)

"""Rules on hooks: their names and what they take."""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Iterator, Mapping
from typing import Final

from plugin_server.app_check.finding import Finding, Severity
from plugin_server.app_check.values import Source

HOOKS: Final[Mapping[str, tuple[str, ...]]] = {
    "setupPlugin": ("meta",),
    "teardownPlugin": ("meta",),
    "processEvent": ("event", "meta"),
    "processEventBatch": ("events", "meta"),
    "onEvent": ("event", "meta"),
    "onSnapshot": ("event", "meta"),
    "exportEvents": ("events", "meta"),
    "composeWebhook": ("event", "meta"),
    "runEveryMinute": ("meta",),
    "runEveryHour": ("meta",),
    "runEveryDay": ("meta",),
}
"""What each is called with."""
EVENT_HOOKS: Final = {
    name: Source.BATCH if takes[0] == "events" else Source.EVENT for name, takes in HOOKS.items() if len(takes) == 2
}
CAPTURE_HOOKS: Final = EVENT_HOOKS.keys() - {"composeWebhook"}
"""A capture made here for each event makes another event, and so on."""
_CLOSE = 0.87

Definition = ast.FunctionDef | ast.AsyncFunctionDef


def snake_case(name: str) -> str:
    return re.sub(r"([A-Z])", r"_\1", name).lower()


_CANONICAL = {spelling: name for name in HOOKS for spelling in (name, snake_case(name))}


def canonical(name: str) -> str | None:
    """The hook of this name, in camelCase; None for any other name."""
    return _CANONICAL.get(name)


def check_hooks(tree: ast.Module) -> Iterator[Finding]:
    functions = [node for node in tree.body if isinstance(node, Definition)]
    defined = {node.name: node.lineno for node in functions} | _assigned(tree)
    mentioned = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    is_close = False
    for hook in HOOKS:
        if hook in defined and snake_case(hook) in defined:
            message = f"both {hook} and {snake_case(hook)} are defined; keep one of them"
            yield Finding(defined[snake_case(hook)], Severity.ERROR, message)
    for node in functions:
        found = canonical(node.name)
        if found is not None:
            yield from _check_parameters(node, HOOKS[found])
        elif node.name not in mentioned and (meant := _meant(node.name)):
            is_close = True
            message = f"nothing calls {node.name}; did you mean {meant}?"
            yield Finding(node.lineno, Severity.WARNING, message)
    if not is_close and not any(canonical(name) for name in defined) and "jobs" not in defined:
        yield Finding(
            None, Severity.WARNING, "the app has no hook, so nothing calls it; write def processEvent(event, meta)"
        )


def _assigned(tree: ast.Module) -> dict[str, int]:
    return {
        name.id: name.lineno
        for node in tree.body
        for name in ast.walk(node)
        if isinstance(name, ast.Name)
        and isinstance(name.ctx, ast.Store)
        and not isinstance(node, Definition | ast.ClassDef)
    }


def _check_parameters(node: Definition, given: tuple[str, ...]) -> Iterator[Finding]:
    positional = [*node.args.posonlyargs, *node.args.args]
    needed = len(positional) - len(node.args.defaults)
    fits = needed <= len(given) and (len(given) <= len(positional) or node.args.vararg is not None)
    named_only = [
        argument.arg
        for argument, default in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
        if not default
    ]
    if not node.decorator_list and (not fits or named_only):
        word = "async def" if isinstance(node, ast.AsyncFunctionDef) else "def"
        message = f"{node.name} is called with ({', '.join(given)}), so each call fails; write {word} {node.name}({', '.join(given)})"
        yield Finding(node.lineno, Severity.ERROR, message)
    if any(isinstance(part, ast.Yield | ast.YieldFrom) for part in own_nodes(node)):
        message = f"{node.name} has a yield, so calling it runs nothing; return the result instead"
        yield Finding(node.lineno, Severity.ERROR, message)


def own_nodes(function: ast.AST) -> Iterator[ast.AST]:
    """All nodes in a function, without those of functions and classes inside it."""
    for child in ast.iter_child_nodes(function):
        yield child
        if not isinstance(child, Definition | ast.ClassDef | ast.Lambda):
            yield from own_nodes(child)


def _meant(name: str) -> str | None:
    plain = name.replace("_", "").lower()
    by_plain = {hook.lower(): hook for hook in HOOKS}
    close = difflib.get_close_matches(plain, by_plain, n=1, cutoff=_CLOSE)
    if not close:
        return None
    hook = by_plain[close[0]]
    return snake_case(hook) if "_" in name else hook

"""Reads sandbox/stubs/ for docs/app-reference.md: what an app finds besides Python, with its signatures and docstrings."""

# ruff: noqa: INP001 - beside the script that uses it

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

STUBS: Final = Path(__file__).parents[1] / "sandbox" / "stubs"
_ANSWERS: Final = ("Response", "Headers", "Job", "Metric", "Attachment")
"""Classes that have a section of their own: no name leads to them"""
_HEAD: Final = """\
# What an app is given

<!-- Written by docs/generate.py from sandbox/stubs/: change that, not this. -->

These names are there without an import, besides Python's own ([The language of apps](dialect.md)). Everything that asks the server for something starts when it is
called, in a `def` hook too, and the hook ends when it has ended. In an `async def` hook its answer is what `await` gives; an error that nobody awaited is in the app's log.
Wrong arguments are an error at once that names the call and what to write instead. An error of the server is a `RuntimeError`, `ValueError`, `LimitExceeded` or `FetchError`.

For completion and type checks in an editor, copy `sandbox/stubs/` to `typings/` beside the app: Pyright and Pylance find it there. In annotations write the types in quotes.
"""


class Stub:
    """One file of stubs: its classes, functions and names, with what is said of them."""

    def __init__(self, path: Path) -> None:
        self.classes: dict[str, ast.ClassDef] = {}
        self.functions: dict[str, ast.FunctionDef] = {}
        self.names: dict[str, tuple[str, str]] = {}
        """Type and description of names with an annotation"""
        for node, text in _with_text(ast.parse(path.read_text("utf-8")).body):
            match node:
                case ast.ClassDef(name=name):
                    self.classes[name] = node
                case ast.FunctionDef(name=name):
                    self.functions[name] = node
                case ast.AnnAssign(target=ast.Name(id=name), annotation=kind):
                    self.names[name] = ast.unparse(kind), text

    def members(self, name: str) -> Iterator[tuple[str, ast.FunctionDef | None, str, str]]:
        """Name, function (of methods), type (of attributes) and text of what a class has."""
        for node, text in _with_text(self.classes[name].body):
            match node:
                case ast.FunctionDef(name=member) if not member.startswith("__"):
                    yield member, node, "", ast.get_docstring(node) or ""
                case ast.AnnAssign(target=ast.Name(id=member), annotation=kind):
                    yield member, None, ast.unparse(kind), text


def read_stubs() -> tuple[Stub, Stub]:
    """What apps are given, and the hooks that they may define."""
    return Stub(STUBS / "__builtins__.pyi"), Stub(STUBS / "hooks.pyi")


def parameters(function: ast.FunctionDef) -> list[str]:
    """The names of its parameters, without self."""
    arguments = function.args
    names = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    stars = [argument.arg for argument in (arguments.vararg, arguments.kwarg) if argument is not None]
    return [name for name in names + stars if name != "self"]


def app_reference_page() -> str:
    """The whole of docs/app-reference.md."""
    given, hooks = read_stubs()
    parts = [_HEAD, "## Hooks\n", "Each may be `def` or `async def`, with its name in camelCase or snake_case.\n"]
    parts.append(_table("hook", [(f"`{_signature(f.name, f)}`", _text(f)) for f in hooks.functions.values()]))
    names = [(f"`{name}`", text) for name, (kind, text) in hooks.names.items() if kind != "TypeAlias"]
    parts.append(_table("name", names))
    parts += [f"`{name}`: {text}\n" for name, (kind, text) in hooks.names.items() if kind == "TypeAlias"]
    parts.append("## Functions\n")
    parts.append(_table("call", [(f"`{_signature(f.name, f)}`", _text(f)) for f in given.functions.values()]))
    for name, (kind, text) in given.names.items():
        if kind == "TypeAlias":
            parts.append(f"`{name}`: {text}\n")
        else:
            parts += _object(given, name, kind)
    parts += _object(given, "meta", "Meta")
    for kind in _ANSWERS:
        parts += _object(given, kind.lower(), kind)
    parts.append("## Errors\n")
    errors = [(f"`{name}`", _text(node)) for name, node in given.classes.items() if _is_error(node)]
    parts.append(_table("error", errors))
    return "\n".join(parts).rstrip() + "\n"


def _object(stub: Stub, path: str, kind: str, depth: int = 2) -> list[str]:
    """The section of an object and those of the objects that it leads to."""
    parts = [f"{'#' * depth} `{path}`\n", f"{_text(stub.classes[kind])}\n"]
    rows, below = [], []
    for member, function, member_kind, text in stub.members(kind):
        full = f"{path}.{member}"
        if function is not None:
            rows.append((f"`{_signature(full, function)}`", text))
        elif member_kind in stub.classes and member_kind not in _ANSWERS:
            below += _object(stub, full, member_kind, depth + 1)
        else:
            rows.append((f"`{full}`: `{member_kind}`", text))
    return [*parts, *([_table("member", rows)] if rows else []), *below]


def _signature(name: str, function: ast.FunctionDef) -> str:
    arguments = ast.parse(ast.unparse(function)).body[0]
    assert isinstance(arguments, ast.FunctionDef)
    every = arguments.args
    for argument in (*every.args, *every.kwonlyargs, every.vararg, every.kwarg):
        if argument is not None:
            argument.annotation = None
    every.args = [argument for argument in every.args if argument.arg != "self"]
    answer = "" if function.returns is None else _answer(function.returns)
    return f"{name}({ast.unparse(every)}){answer}"


def _answer(returns: ast.expr) -> str:
    """What awaiting it gives, or what it returns."""
    text = ast.unparse(returns)
    if isinstance(returns, ast.Subscript) and ast.unparse(returns.value) in ("Awaitable", "Coroutine"):
        inner = returns.slice.elts[-1] if isinstance(returns.slice, ast.Tuple) else returns.slice
        text = ast.unparse(inner)
    return "" if text == "None" else f" → {text}"


def _is_error(node: ast.ClassDef) -> bool:
    return any(isinstance(base, ast.Name) and base.id == "Exception" for base in node.bases)


def _flat(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _text(node: ast.ClassDef | ast.FunctionDef) -> str:
    return ast.get_docstring(node) or ""


def _table(title: str, rows: list[tuple[str, str]]) -> str:
    lines = [f"| {title} | |", "|---|---|"]
    lines += [f"| {left.replace('|', chr(92) + '|')} | {_flat(text)} |" for left, text in rows]
    return "\n".join(lines) + "\n"


def _with_text(body: list[ast.stmt]) -> Iterator[tuple[ast.stmt, str]]:
    """Each statement with the docstring that stands below it."""
    for node, after in zip(body, [*body[1:], None], strict=True):
        match after:
            case ast.Expr(value=ast.Constant(value=str() as text)):
                yield node, text
            case _:
                yield node, ""

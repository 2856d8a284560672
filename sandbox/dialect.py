"""What an app's source may say, node by node. `AppPolicy` visits a module, rewrites it to keep the rules, and collects what it refuses.

It extends RestrictedPython's transformer, which refuses every node that it has no visitor for. Tried and rejected:
- RestrictedPython's own guards round every attribute, item, loop and call: seven times the cost of plain Python, and no policy in
  them once apps get only facades and JSON values. Attribute names are constants, so they are judged here, once.
- Guard names that begin with "_": each new way to bind a name was a new way to shadow one (CVE-2026-55830). Ours are no identifiers.
- `__import__` for import statements: C code looks it up too, and would find facades where it needs real modules.
"""

# ruff: noqa: N802, N815, SIM905 - ast names the visitors; word lists read better than columns of quoted names

from __future__ import annotations
import __future__

import ast
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from RestrictedPython.transformer import RestrictingNodeTransformer, copy_locations

from sandbox import builtins as app_names
from sandbox.guards import (
    ALIVE_GUARD,
    ATTRIBUTE_GUARD,
    CATCHABLE,
    CLASS_GUARD,
    DELEGATE_GUARD,
    IMPORT_GUARD,
    SPECIAL_ATTRIBUTES,
    TIMEOUT_GUARD,
    WRITE_GUARD,
    attribute_refusal,
)
from sandbox.modules.catalogue import module_members, module_names

OPERATOR_METHODS = frozenset(
    f"__{name}__"
    for name in """
    abs add and bool call contains delitem divmod eq float floordiv format ge getitem gt hash iadd iand ifloordiv ilshift imatmul
    imod imul index init int invert ior ipow irshift isub iter itruediv ixor le len lshift lt matmul mod mul ne neg next or pos pow
    radd rand rdivmod repr reversed rfloordiv rlshift rmatmul rmod rmul ror round rpow rrshift rshift rsub rtruediv rxor setitem
    str sub truediv xor enter exit aenter aexit aiter anext
    """.split()
)
"""The dunder methods that a class may define. Python calls them with values the app could have had anyway.

Not among them: what sees or changes classes and attributes (getattr, setattr, set_name, init_subclass, class_getitem, get, new),
what runs when nobody called it (del), what pickle and copy call (reduce, getstate), and await, whose iterator would answer to the
host's driver. `__hash__` and the comparisons are safe because no host table takes an app's object for a key.
"""

_SUPER_METHODS = OPERATOR_METHODS - {"__hash__"}  # object.__hash__ tells an address

_INSTEAD_OF_DUNDER = {
    "__new__": "write __init__",
    "__del__": "write a method and call it",
    "__getattr__": "write __getitem__ or a method",
    "__getattribute__": "write __getitem__ or a method",
    "__setattr__": "write __setitem__ or a property",
    "__await__": "write an async def method",
    "__get__": "use property",
    "__set__": "use property",
}

_Node = TypeVar("_Node", bound=ast.AST)


def bound_names(tree: ast.AST) -> frozenset[str]:
    """Every name that the source itself gives a meaning to, in any scope."""
    names: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name) | ast.FunctionDef(name=name):
                names.add(name)
            case ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                names.add(name)
            case ast.MatchMapping(rest=str(name)):
                names.add(name)
            case ast.alias():
                names.add(node.asname or node.name.partition(".")[0])
    return frozenset(names)


class AppPolicy(RestrictingNodeTransformer):
    """One use: visit a module, then read `problems`."""

    def __init__(self, names: frozenset[str]) -> None:
        super().__init__()
        self.problems: list[tuple[int | None, str]] = []
        self._names = names
        self._in_class_body = False

    def refuse(self, node: ast.AST, reason: str, instead: str) -> None:
        self.problems.append((getattr(node, "lineno", None), f"{reason}; {instead}"))

    def error(self, node: ast.AST, info: str) -> None:
        # What RestrictedPython itself found.
        self.problems.append((getattr(node, "lineno", None), info))

    def not_allowed(self, node: ast.AST) -> None:
        self.refuse(node, f"{type(node).__name__} is not part of the dialect", "write it with simpler statements")

    # Names: every form that binds one ends in check_name.

    def check_name(self, node: ast.AST, name: str | None, allow_magic_methods: bool = False) -> None:  # noqa: ARG002, FBT001, FBT002
        if name is None or name == "_":
            return
        if name.startswith("_"):
            self.refuse(node, f'the name "{name}" starts with "_"', "write it without")
        elif name in ("super", "print", "printed", "builtins", "breakpoint") or name.endswith("__roles__"):
            # super: `super().__init__` is let through because it is known what super is.
            self.refuse(node, f'the name "{name}" is reserved', "choose another")

    def visit_Name(self, node: ast.Name) -> ast.AST:
        if not isinstance(node.ctx, ast.Load):
            self.check_name(node, node.id)
        elif node.id.startswith("_") and node.id != "_":
            instead = app_names.REFUSED.get(node.id, "names of apps start with a letter")
            self.refuse(node, f'the name "{node.id}" is not available', instead)
        elif node.id in app_names.REFUSED and node.id not in self._names:
            self.refuse(node, f'"{node.id}" is not available', app_names.REFUSED[node.id])
        return node

    def visit_Global(self, node: ast.Global) -> ast.AST:
        for name in node.names:
            self.check_name(node, name)
        return node

    def visit_Nonlocal(self, node: ast.Nonlocal) -> ast.AST:
        for name in node.names:
            self.check_name(node, name)
        return node

    # Attributes: judged here, then read natively.

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        reading = isinstance(node.ctx, ast.Load)
        if not (reading and (node.attr == "__name__" or _is_super_method(node))):
            self._check_attribute(node, node.attr)
        node = self.node_contents_visit(node)
        if not reading:
            node.value = _guard_call(WRITE_GUARD, node.value)
        elif node.attr in SPECIAL_ATTRIBUTES:
            return _guard_call(ATTRIBUTE_GUARD, node.value, ast.Constant(node.attr))
        return node

    def _check_attribute(self, node: ast.AST, name: str) -> None:
        refusal = attribute_refusal(name)
        if refusal is None and name.startswith("_") and not isinstance(getattr(node, "ctx", None), ast.Load):
            refusal = f'the attribute "{name}" cannot be set'
        if refusal is None:
            return
        if name == "__init__":
            self.refuse(node, refusal, "call super().__init__(…)")
        elif name == "__class__":
            self.refuse(node, refusal, "use isinstance(…) or type(…)")
        elif name.startswith("_"):
            self.refuse(node, refusal, "write it without the underscore if it is yours")
        else:
            self.refuse(node, refusal, "choose another name if it is yours")

    def visit_AugAssign(self, node: ast.AugAssign) -> ast.AST:
        # `x.a += 1` becomes `guard(x).a += 1`, which reads the attribute natively too.
        if isinstance(node.target, ast.Attribute) and node.target.attr in SPECIAL_ATTRIBUTES:
            self.refuse(node, f'the attribute "{node.target.attr}" cannot be updated in place', "write x.a = x.a + …")
        return self.node_contents_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        # Checked like everything else, then dropped: nothing evaluates an annotation later.
        node = self.node_contents_visit(node)
        plain = ast.Pass() if node.value is None else ast.Assign([node.target], node.value)
        return ast.copy_location(plain, node)

    # Classes and functions.

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        self.check_name(node, node.name)
        if node.keywords:
            self.refuse(node, "class keywords such as metaclass are not available", "set attributes in the class body")
        self._refuse_type_parameters(node)
        node.decorator_list = [self.visit(decorator) for decorator in node.decorator_list]
        node.bases = [self.visit(base) for base in node.bases]
        with self._inside(class_body=True):
            node.body = self._visited(node.body)
        metaclass = ast.keyword("metaclass", ast.Name(CLASS_GUARD, ast.Load()))
        node.keywords = [ast.fix_missing_locations(ast.copy_location(metaclass, node))]
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        return self._function(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        return self._function(node)

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> ast.AST:
        if self._in_class_body and node.name.startswith("__") and node.name.endswith("__"):
            self._check_method(node)
        else:
            self.check_name(node, node.name)
        self.check_function_argument_names(node)
        self._refuse_type_parameters(node)
        node.decorator_list = [self.visit(decorator) for decorator in node.decorator_list]
        node.args = self.visit(node.args)
        if node.returns is not None:
            self.visit(node.returns)
            node.returns = None
        with self._inside(class_body=False):
            node.body = self._visited(node.body)
        return node

    def _check_method(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        if node.name not in OPERATOR_METHODS:
            instead = _INSTEAD_OF_DUNDER.get(node.name, "give the method a name without underscores")
            self.refuse(node, f"a class cannot define {node.name}", instead)
        elif node.name in ("__exit__", "__aexit__") and not _ignores_traceback(node):
            self.refuse(
                node,
                f"{node.name} cannot read the traceback",
                f"write def {node.name}(self, kind, error, trace) and leave trace unused",
            )

    def visit_Lambda(self, node: ast.Lambda) -> ast.AST:
        self.check_function_argument_names(node)
        return self.node_contents_visit(node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node = self.node_contents_visit(node)
        node.annotation = None
        return node

    def _refuse_type_parameters(self, node: ast.AST) -> None:
        if getattr(node, "type_params", None):
            self.refuse(node, "type parameters are not part of the dialect", "leave them out")

    def _visited(self, body: Sequence[ast.stmt]) -> list[ast.stmt]:
        made: list[ast.stmt] = []
        for statement in body:
            result = self.visit(statement)  # a list for imports, None for what was refused
            made += result if isinstance(result, list) else [result or ast.copy_location(ast.Pass(), statement)]
        return made

    @contextmanager
    def _inside(self, *, class_body: bool) -> Iterator[None]:
        before, self._in_class_body = self._in_class_body, class_body
        yield
        self._in_class_body = before

    # Imports: resolved when the app is compiled, so an unknown one is found before the app runs.

    def visit_Import(self, node: ast.Import) -> list[ast.stmt]:
        made: list[ast.stmt] = []
        for alias in node.names:
            top = alias.name.partition(".")[0]
            self.check_name(node, alias.asname or top)
            if alias.name not in module_names():
                self._unknown_module(node, alias.name)
                continue
            # `import a.b` binds a; `import a.b as c` binds the leaf.
            made.append(_import(node, alias.asname or top, alias.name if alias.asname else top))
        return made or [ast.copy_location(ast.Pass(), node)]

    def visit_ImportFrom(self, node: ast.ImportFrom) -> list[ast.stmt]:
        module = node.module or ""
        made: list[ast.stmt] = []
        for alias in node.names:
            self.check_name(node, alias.asname or alias.name)
        if node.level:
            self.refuse(node, "relative imports are not available", "an app is one file: put the code into it")
        elif module == "__future__":
            if any(alias.name not in __future__.all_feature_names for alias in node.names):
                self.refuse(node, "this __future__ feature does not exist", "remove the line")
        elif module not in module_names():
            self._unknown_module(node, module)
        else:
            for alias in node.names:
                if alias.name == "*":
                    self.refuse(node, "import * is not available", f"write from {module} import the names you use")
                elif alias.name not in module_members(module):
                    known = ", ".join(sorted(module_members(module)))
                    self.refuse(node, f'{module} has no "{alias.name}" for apps', f"it has {known}")
                else:
                    made.append(_import(node, alias.asname or alias.name, module, alias.name))
        return made or [ast.copy_location(ast.Pass(), node)]

    def _unknown_module(self, node: ast.AST, name: str) -> None:
        available = ", ".join(sorted(module_names()))
        self.refuse(node, f'the module "{name}" is not available', f"apps can import {available}")

    # Errors.

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> ast.AST:
        self.check_name(node, node.name)
        node = self.node_contents_visit(node)
        if node.type is None:
            node.type = ast.copy_location(ast.Name(CATCHABLE, ast.Load()), node)
        return node

    def visit_Try(self, node: ast.Try) -> ast.AST:
        for leaving in _leaving(node.finalbody):
            word = type(leaving).__name__.lower()
            # It swallows whatever is being raised, the host's time-out included (PEP 765).
            self.refuse(leaving, f"{word} in a finally block would hide errors", f"put the {word} after the block")
        self._refuse_yields(node.finalbody, "a finally block", "put the yield after the block")
        if not all(_is_plain(handler.type) for handler in node.handlers):
            self._refuse_yields(node.body, "a try whose errors are not plain names", "give the error a name of its own")
        node = self.node_contents_visit(node)
        if node.finalbody:
            node.finalbody = [_in_time(node.finalbody)]
        return node

    def _refuse_yields(self, body: Sequence[ast.AST], place: str, instead: str) -> None:
        # A generator that is forgotten there goes on when it is collected: in whichever app's time and name.
        for node in _yields(body):
            self.refuse(node, f"yield inside {place} is not available", instead)

    def visit_YieldFrom(self, node: ast.YieldFrom) -> ast.AST:
        node = self.node_contents_visit(node)
        node.value = _guard_call(DELEGATE_GUARD, node.value)
        return node

    def visit_TryStar(self, node: ast.AST) -> None:
        self.refuse(node, "except* is not part of the dialect", "write except")

    # Patterns: names are plain strings, and keyword patterns read attributes natively.

    def visit_MatchAs(self, node: ast.MatchAs) -> ast.AST:
        self.check_name(node, node.name)
        return self.node_contents_visit(node)

    def visit_MatchStar(self, node: ast.MatchStar) -> ast.AST:
        self.check_name(node, node.name)
        return node

    def visit_MatchMapping(self, node: ast.MatchMapping) -> ast.AST:
        self.check_name(node, node.rest)
        return self.node_contents_visit(node)

    def visit_MatchClass(self, node: ast.MatchClass) -> ast.AST:
        for name in node.kwd_attrs:
            if name in SPECIAL_ATTRIBUTES:
                self.refuse(node, f'the attribute "{name}" cannot be matched', "read it in the case's body")
            else:
                self._check_attribute(node, name)
        return self.node_contents_visit(node)

    def visit_MatchValue(self, node: ast.MatchValue) -> ast.AST:
        for part in ast.walk(node):
            if isinstance(part, ast.Attribute) and part.attr in SPECIAL_ATTRIBUTES:
                self.refuse(node, f'the attribute "{part.attr}" cannot be matched', "read it in the case's body")
        return self.node_contents_visit(node)

    # Nothing to check but the parts.

    def _parts(self, node: _Node) -> _Node:
        return self.node_contents_visit(node)

    visit_Module = visit_Assign = visit_Subscript = visit_Call = visit_comprehension = _parts
    visit_For = visit_With = visit_AsyncFor = visit_AsyncWith = visit_Await = _parts
    visit_Match = visit_match_case = visit_MatchSingleton = visit_MatchSequence = visit_MatchOr = _parts

    # Template strings came after this policy was reviewed.

    def visit_TemplateStr(self, node: ast.AST) -> None:
        self.not_allowed(node)

    visit_Interpolation = visit_TemplateStr


def _is_super_method(node: ast.Attribute) -> bool:
    """Is this `super().__init__` or one of its kind, in exactly this form?"""
    match node.value:
        case ast.Call(func=ast.Name(id="super"), args=[], keywords=[]):
            return node.attr in _SUPER_METHODS
    return False


def _ignores_traceback(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Does this `__exit__` take at most (self, kind, error, trace), by position, and never read the last?"""
    positional = [*node.args.posonlyargs, *node.args.args]
    if node.args.kwonlyargs or node.args.kwarg or len(positional) > 4 or node.decorator_list:
        return False
    if len(positional) < 4:
        return node.args.vararg is not None  # which then holds kind and error at the most
    unused = positional[3].arg
    return not node.args.vararg and not any(
        isinstance(part, ast.Name) and part.id == unused for statement in node.body for part in ast.walk(statement)
    )


def _leaving(body: Sequence[ast.AST], *, in_loop: bool = False) -> Iterator[ast.stmt]:
    """The statements in a finally block that jump out of it."""
    for node in body:
        if isinstance(node, ast.Return) or (isinstance(node, ast.Break | ast.Continue) and not in_loop):
            yield node
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.expr):
            if isinstance(node, ast.For | ast.AsyncFor | ast.While):
                yield from _leaving(node.body, in_loop=True)
                yield from _leaving(node.orelse, in_loop=in_loop)  # a break here leaves the loop round this one
            else:
                yield from _leaving(list(ast.iter_child_nodes(node)), in_loop=in_loop)


def _is_plain(error: ast.expr | None) -> bool:
    """Does nothing of the app's run to find out what this `except` catches?"""
    if isinstance(error, ast.Tuple):
        return all(map(_is_plain, error.elts))
    return error is None or isinstance(error, ast.Name)


def _yields(nodes: Sequence[ast.AST]) -> Iterator[ast.expr]:
    """The yields among these that belong to the function round them."""
    for node in nodes:
        if isinstance(node, ast.Yield | ast.YieldFrom):
            yield node
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _yields([*node.decorator_list, node.args])
        elif isinstance(node, ast.Lambda):
            yield from _yields([node.args])
        else:
            yield from _yields(list(ast.iter_child_nodes(node)))


def _in_time(body: list[ast.stmt]) -> ast.stmt:
    """The statements of a finally block, which run only in their app's own time, and whose errors hide no time-out."""
    again = ast.Expr(ast.Call(ast.Name(TIMEOUT_GUARD, ast.Load()), [], []))
    handler = ast.ExceptHandler(ast.Name(CATCHABLE, ast.Load()), None, [again, ast.Raise()])
    kept = ast.Try(body, [handler], [], [])
    wanted = ast.If(ast.Call(ast.Name(ALIVE_GUARD, ast.Load()), [], []), [kept], [])
    return ast.fix_missing_locations(ast.copy_location(wanted, body[0]))


def _guard_call(guard: str, value: ast.expr, *rest: ast.expr) -> ast.Call:
    call = ast.Call(ast.Name(guard, ast.Load()), [value, *rest], [])
    copy_locations(call, value)
    return call


def _import(node: ast.stmt, target: str, module: str, member: str | None = None) -> ast.stmt:
    names = [ast.Constant(module)] if member is None else [ast.Constant(module), ast.Constant(member)]
    call = ast.Call(ast.Name(IMPORT_GUARD, ast.Load()), list(names), [])
    assign = ast.Assign([ast.Name(target, ast.Store())], call)
    return ast.fix_missing_locations(ast.copy_location(assign, node))

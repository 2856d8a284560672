"""The builtins of an app: every name it may use without an import.

Absent, besides what reaches the interpreter (open, eval, globals, …): `id`, `vars`, `dir`, `memoryview` and `bytearray` (raw memory and
introspection), the BaseException family (it would catch the host's time-outs) and exception groups (CVE-2025-22153).
"""

# ruff: noqa: SIM905 - word lists read better than columns of quoted names

from __future__ import annotations

import builtins
import sys
import types
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from sandbox.guards import SPECIAL_ATTRIBUTES, AppType, attribute_refusal, guarded_attribute, is_app_object, write_guard
from sandbox.modules.catalogue import is_importable

_NATIVE = """
    abs aiter all any ascii bin bool bytes callable chr classmethod complex dict divmod enumerate filter float frozenset hex int
    isinstance issubclass iter len list map max min next object oct ord pow property range repr reversed round set slice sorted
    staticmethod str sum super tuple zip False None True Ellipsis NotImplemented
""".split()

_EXCEPTIONS = """
    ArithmeticError AssertionError AttributeError ConnectionError EOFError Exception FloatingPointError ImportError IndexError KeyError
    LookupError MemoryError ModuleNotFoundError NameError NotImplementedError OSError OverflowError PermissionError RecursionError
    RuntimeError StopAsyncIteration StopIteration TimeoutError TypeError UnboundLocalError UnicodeDecodeError UnicodeEncodeError
    UnicodeError ValueError ZeroDivisionError
""".split()

REFUSED: Mapping[str, str] = types.MappingProxyType(
    {
        "BaseException": "catch Exception",
        "BaseExceptionGroup": "catch Exception",
        "ExceptionGroup": "catch Exception",
        "GeneratorExit": "use finally",
        "KeyboardInterrupt": "catch Exception",
        "SystemExit": "return from the hook",
        "__build_class__": "write a class statement",
        "__import__": "write an import statement at the top",
        "breakpoint": "use console.log(…)",
        "bytearray": "use bytes, or a list of numbers",
        "compile": "write the code in the app",
        "delattr": "use del on items of a dict",
        "dir": "name the attributes",
        "eval": "use json.loads for data, or a dict of functions",
        "exec": "write the code in the app",
        "exit": "return from the hook",
        "globals": "keep a dict at the top of the file",
        "help": "read the documentation",
        "id": "compare with `is`",
        "input": "declare a config field in plugin.json",
        "locals": "keep a dict",
        "memoryview": "use bytes",
        "open": "use meta.attachments or meta.storage",
        "quit": "return from the hook",
        "vars": "name the attributes",
    }
)
"""Python's builtins that apps lack, and what to write instead."""

_TYPES_SHOWN = (
    bool, bytes, complex, dict, float, frozenset, int, list, object, range, set, slice, str, tuple, type(None), type(NotImplemented),
)  # fmt: skip
_HASHABLE_DATA = (bool, bytes, complex, float, frozenset, int, str, type(None))


def _named(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def rename(function: Callable[..., Any]) -> Callable[..., Any]:
        function.__name__ = function.__qualname__ = name
        return function

    return rename


def app_builtins(write_line: Callable[[str], object]) -> dict[str, Any]:
    """A new dict of builtins for one install. `write_line` gets each printed line, without its end."""

    @_named("print")
    def write(
        *values: object, sep: str | None = None, end: str | None = None, file: None = None, flush: bool = False
    ) -> None:
        del end, flush  # every call is one entry of the log
        if file is not None:
            raise TypeError("print() writes to the log; it takes no file")
        if sep is not None and type(sep) is not str:
            raise TypeError("sep must be None or a str")
        write_line((" " if sep is None else sep).join(str(value) for value in values))

    names = {name: getattr(builtins, name) for name in (*_NATIVE, *_EXCEPTIONS)}
    guarded = (_anext, _delattr, _format, _getattr, _hasattr, _hash, _setattr, _type)
    names |= {function.__name__: function for function in guarded}
    return names | {"print": write, "__build_class__": builtins.__build_class__, "__import__": _import_for_c}


_IMPORTED_BY_C = frozenset({"_pylong", "_strptime", "re", "time", "unicodedata", "warnings"})


def _import_for_c(name: str, *_: object, **__: object) -> types.ModuleType:
    """`__import__` for C code that runs in an app's frame: Match.expand and Pattern.sub call back into `re`, strftime into `time`.

    An app's own import statements are compiled to something else, and it cannot name this function: the result goes to C only.
    """
    if name not in _IMPORTED_BY_C:
        raise ImportError(f"module {name!r} is not available")
    return sys.modules.get(name) or builtins.__import__(name)


def _checked_name(name: object) -> str:
    # Exactly str: a subclass may answer startswith as it likes (RestrictedPython 7.2).
    if type(name) is not str:
        raise TypeError("attribute name must be a str")
    refusal = attribute_refusal(name)
    if refusal and name != "__name__":
        raise AttributeError(refusal)
    return name


@_named("getattr")
def _getattr(value: object, name: str, /, *default: object) -> Any:
    name = _checked_name(name)
    if len(default) > 1:
        raise TypeError(f"getattr expected at most 3 arguments, got {2 + len(default)}")
    if name in SPECIAL_ATTRIBUTES:
        try:
            return guarded_attribute(value, name)
        except AttributeError:
            if default and not hasattr(value, name):
                return default[0]
            raise
    return getattr(value, name, *default)


@_named("hasattr")
def _hasattr(value: object, name: str, /) -> bool:
    try:
        _getattr(value, name)
    except AttributeError:
        return False
    return True


@_named("setattr")
def _setattr(value: object, name: str, new: object, /) -> None:
    name = _checked_name(name)
    if name.startswith("_"):
        raise AttributeError(attribute_refusal(name) or f"{name!r} cannot be set")
    setattr(write_guard(value), name, new)


@_named("delattr")
def _delattr(value: object, name: str, /) -> None:
    name = _checked_name(name)
    if name.startswith("_"):
        raise AttributeError(attribute_refusal(name) or f"{name!r} cannot be deleted")
    delattr(write_guard(value), name)


@_named("format")
def _format(value: object, spec: str = "", /) -> str:
    if type(spec) is not str:
        raise TypeError("format() argument 2 must be str")
    return format(value, spec)


@_named("hash")
def _hash(value: Any, /) -> int:
    """hash() of data and of objects with a `__hash__` of their own. Any other would tell an address."""
    kind: type = type(value)
    if kind is tuple:
        return hash(tuple(_hash(item) for item in value))
    if kind in _HASHABLE_DATA or (is_app_object(value) and kind is not AppType and "__hash__" in _method_names(kind)):
        return hash(value)
    raise TypeError(f"unhashable type: {kind.__name__!r}")


def _method_names(kind: type) -> set[str]:
    return {name for parent in kind.__mro__ if type(parent) is AppType for name in vars(parent)}


@_named("anext")
async def _anext(iterator: AsyncIterator[Any], /, *default: object) -> Any:
    # The native awaitable is iterable, which hands out what the host yields to its driver; a coroutine is not.
    try:
        return await builtins.anext(iterator)
    except StopAsyncIteration:
        if not default:
            raise
        return default[0]


class _OpaqueType:
    """What type() answers for host objects: something that has a name and no more."""

    __slots__ = ("__name__",)
    if TYPE_CHECKING:
        __name__: str

    def __init__(self, name: str) -> None:
        object.__setattr__(self, "__name__", name)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError("types are read-only")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _OpaqueType) and self.__name__ == other.__name__

    def __hash__(self) -> int:
        return hash(self.__name__)

    def __repr__(self) -> str:
        return f"<class {self.__name__!r}>"


@_named("type")
def _type(value: object, /, *rest: object) -> Any:
    """The class of data, of app objects and of errors. The type of anything else is only a name."""
    if rest:
        raise TypeError("type() takes 1 argument; write a class statement")
    kind = type(value)
    if kind in _TYPES_SHOWN or type(kind) is AppType or issubclass(kind, Exception) or is_importable(kind):
        return kind
    return _OpaqueType(kind.__name__)

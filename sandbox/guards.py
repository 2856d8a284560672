"""What holds while an app runs: which attributes may be named, what may be written to, what an app class may be.

Nearly all of the policy is decided when an app is compiled (`dialect.py`): an attribute whose name passed there is read natively.
What is left for run time is here: attribute stores (`write_guard`), class statements (`AppType`) and the few attribute names whose
safety depends on the object (`SPECIAL_ATTRIBUTES`). Item access, iteration, calls and unpacking carry no guard: nothing with a
powerful `__getitem__` or `__iter__` can be reached, because apps are given only frozen facades and JSON values.

The guards' names are no identifiers, so no spelling in an app's source can rebind them.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Awaitable, Callable
from typing import Any

from RestrictedPython.transformer import INSPECT_ATTRIBUTES

from sandbox.modules.formatting import format_template

WRITE_GUARD = "<write>"
ATTRIBUTE_GUARD = "<attribute>"
IMPORT_GUARD = "<import>"
CLASS_GUARD = "<class>"
DELEGATE_GUARD = "<delegate>"
TIMEOUT_GUARD = "<timeout>"
ALIVE_GUARD = "<alive>"
CATCHABLE = "<Exception>"
"""What a bare `except:` catches: the host's time-outs derive from BaseException and pass."""

SPECIAL_ATTRIBUTES = frozenset(
    {"format", "format_map", "groupindex", "send", "throw", "_asdict", "_fields", "_replace"}
)
"""Names that `guarded_attribute` looks up: right on some objects, a way out on others."""

_INSPECTED: tuple[tuple[type, str], ...] = (
    (types.FrameType, "f_"),
    (types.CodeType, "co_"),
    (types.TracebackType, "tb_"),
    (types.GeneratorType, "gi_"),
    (types.CoroutineType, "cr_"),
    (types.AsyncGeneratorType, "ag_"),
)
_REFUSED_PREFIXES = ("ag_", "cr_", "gi_", "tb_")
_REFUSED_ATTRIBUTES = (
    INSPECT_ATTRIBUTES
    | {name for kind, prefix in _INSPECTED for name in dir(kind) if name.startswith(prefix)}
    | {
        "aclose", "asend", "athrow",  # their awaitables are iterable: what the host yields to its driver would come out
        "cell_contents", "func_closure", "func_code", "func_defaults", "func_globals", "im_class", "im_func", "im_self",
        "get_coro", "get_loop", "get_stack",  # futures and tasks; none is reachable, and none is to become so
        "mro",  # type.mro() leads to BaseException and object
        "name_from", "obj",  # AttributeError.obj hands out what host code was looking at (CVE-2024-47532)
        "print_file_and_line", "with_traceback",
    }
)  # fmt: skip

_APP_EXCEPTIONS_REFUSED = (BaseExceptionGroup,)
"""A `split` of the app's own is a type confusion in CPython (CVE-2025-22153)."""


def attribute_refusal(name: str) -> str | None:
    """Why an app may not name this attribute, or None when it may. The one rule for source, patterns, getattr and setattr."""
    if name in SPECIAL_ATTRIBUTES:
        return None
    if name.startswith("_"):
        return f'the attribute "{name}" is not available, because its name starts with "_"'
    if name in _REFUSED_ATTRIBUTES or name.startswith(_REFUSED_PREFIXES) or name.endswith("__roles__"):
        return f'the attribute "{name}" is not available'
    return None


def guarded_attribute(value: object, name: str) -> Any:
    """`value.name` for the names in SPECIAL_ATTRIBUTES. Raises AttributeError where the object makes it unsafe."""
    if name in ("format", "format_map") and type(value) is str:
        return _formatter_of(value, name)
    if (name in ("send", "throw") and type(value) is types.GeneratorType) or (
        name.startswith("_") and isinstance(value, tuple)
    ):
        return getattr(value, name)
    if not name.startswith("_"):
        found = getattr(value, name)
        if isinstance(found, types.MappingProxyType):
            # Pattern.groupindex: comparing the view with an object hands that object the dict below, and `re` shares its patterns.
            return dict(found)
        # A C method here is str.format (CVE-2023-41039) or a coroutine's send, which hands out what the host yields to its driver.
        if isinstance(found, (types.FunctionType, types.MethodType)) or is_app_object(found) or not callable(found):
            return found
    raise AttributeError(f"the attribute {name!r} is not available on {type(value).__name__!r} objects")


def _formatter_of(template: str, name: str) -> Callable[..., str]:
    if name == "format":

        def format(*args: object, **fields: object) -> str:  # noqa: A001 - the name that the app reads
            return format_template(template, args, fields)

        return format

    def format_map(mapping: Any) -> str:
        return format_template(template, None, mapping)

    return format_map


def write_guard(value: Any) -> Any:
    """Stands around every object whose attribute is stored or deleted. Only app classes and their instances pass."""
    if type(type(value)) is AppType or type(value) is AppType:
        return value
    raise TypeError(f"{type(value).__name__!r} objects are read-only for apps; keep the value in a variable or a dict")


def delegate_guard(value: Any) -> Any:
    """What `yield from value` iterates. A generator calls the `close` of the iterator that it delegates to, when it is collected too."""
    iterator = iter(value)
    return (item for item in iterator) if is_app_object(iterator) else iterator


def timeout_guard() -> None:
    """Called when a finally block or an `__exit__` fails: if it ran because of a time-out, that is raised again.

    The error would take its place otherwise, and an error can be caught.
    """
    error = sys.exception()
    try:
        while error is not None:
            if not isinstance(error, Exception):
                raise error from None
            error = error.__context__
    finally:
        del error  # this frame would be in a cycle with it


def alive_guard(is_running: Callable[[], bool]) -> Callable[[], bool]:
    """What a finally block asks before it runs: is this app's own code running?

    A generator that is forgotten inside a block is closed when it is collected, which may be in another app's time or
    after all of them. What it would do then is left out; the same in an `__exit__`. `is_running` says whose time it is.
    """

    def alive() -> bool:
        return not isinstance(sys.exception(), GeneratorExit) or is_running()

    return alive


def is_app_object(value: object) -> bool:
    """Is this a class that an app defined, or an instance of one?"""
    return type(value) is AppType or type(type(value)) is AppType


def is_app_callable(value: object) -> bool:
    """Is this a function written in an app's source (`def`, `async def` or lambda)?

    False for classes, bound methods, callable objects and the functions that apps are given.
    """
    return type(value) is types.FunctionType and WRITE_GUARD in value.__globals__


class AppType(type):
    """The metaclass of every class that an app defines. Not reachable by apps (`type` of a class is opaque to them)."""

    def __new__(cls, name: str, bases: tuple[Any, ...], namespace: dict[str, Any]) -> AppType:
        for base in bases:
            if not _extendable(base):
                label = getattr(base, "__name__", type(base).__name__)
                raise TypeError(f"class {name} cannot extend {label!r}; keep one in an attribute instead")
        for method, wrap in (("__exit__", _exit_without_traceback), ("__aexit__", _async_exit_without_traceback)):
            if method in namespace:
                namespace[method] = wrap(namespace[method])
        return super().__new__(cls, name, bases, namespace)

    def __setattr__(cls, name: str, value: object) -> None:
        if attribute_refusal(name) or name.startswith("_"):
            raise TypeError(f"{name!r} cannot be set on a class")
        super().__setattr__(name, value)

    def __delattr__(cls, name: str) -> None:
        if attribute_refusal(name) or name.startswith("_"):
            raise TypeError(f"{name!r} cannot be deleted from a class")
        super().__delattr__(name)


def _extendable(base: object) -> bool:
    # Subclasses of str, dict or a host type would bring C methods (str.format) or pass for what they are not.
    if base is object or type(base) is AppType:
        return True
    return isinstance(base, type) and issubclass(base, Exception) and not issubclass(base, _APP_EXCEPTIONS_REFUSED)


def _visible(kind: type[BaseException] | None, error: BaseException | None) -> tuple[Any, Any]:
    # A time-out of the host is neither shown nor swallowed: its class would let the app catch it from then on.
    return (kind, error) if isinstance(error, Exception) else (None, None)


def _exit_arguments(method: object, kind: Any, error: Any) -> tuple[Any, ...]:
    # The traceback leads to frames. The policy saw to it that the third parameter, if there is one, is never read.
    if not isinstance(method, types.FunctionType):
        raise TypeError("__exit__ must be a plain method")
    return (*_visible(kind, error), None) if method.__code__.co_argcount > 3 else _visible(kind, error)


def _exit_without_traceback(method: types.FunctionType) -> Callable[..., bool]:
    _exit_arguments(method, None, None)

    def __exit__(self: Any, kind: Any = None, error: Any = None, _traceback: object = None) -> bool:  # noqa: N807
        if not method.__globals__[ALIVE_GUARD]():
            return False
        try:
            suppress = bool(method(self, *_exit_arguments(method, kind, error)))
        except Exception:
            timeout_guard()
            raise
        return suppress and (error is None or isinstance(error, Exception))

    return __exit__


def _async_exit_without_traceback(method: types.FunctionType) -> Callable[..., Awaitable[bool]]:
    _exit_arguments(method, None, None)

    async def __aexit__(self: Any, kind: Any = None, error: Any = None, _traceback: object = None) -> bool:  # noqa: N807
        if not method.__globals__[ALIVE_GUARD]():
            return False
        try:
            suppress = bool(await method(self, *_exit_arguments(method, kind, error)))
        except Exception:
            timeout_guard()
            raise
        return suppress and (error is None or isinstance(error, Exception))

    return __aexit__

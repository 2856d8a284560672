"""collections, itertools, functools, typing, urllib.parse."""

# ruff: noqa: SIM905 - word lists read better than columns of quoted names

from __future__ import annotations

import collections
import functools
import itertools
import keyword
import operator
import types
import urllib.parse
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from sandbox.guards import SPECIAL_ATTRIBUTES, attribute_refusal, is_app_callable
from sandbox.modules.exact import data_only

# collections. Not UserString (its format is no str.format, so no check for str finds it), UserDict, UserList and abc.


def _namedtuple(typename: str, field_names: str | Iterable[str], *, defaults: Iterable[Any] = ()) -> type:
    """collections.namedtuple without its exec. Fields are checked as attributes are."""
    fields = tuple(field_names.replace(",", " ").split()) if isinstance(field_names, str) else tuple(field_names)
    for name in (typename, *fields):
        if type(name) is not str or not name.isidentifier() or keyword.iskeyword(name):
            raise ValueError(f"Type names and field names must be valid identifiers: {name!r}")
        if name.startswith("_") or name in SPECIAL_ATTRIBUTES or attribute_refusal(name):
            raise ValueError(f"the field name {name!r} is not available")
    if len(set(fields)) != len(fields):
        raise ValueError("Encountered duplicate field name")
    return _tuple_class(typename, fields, tuple(defaults))


def _tuple_class(typename: str, fields: tuple[str, ...], defaults: tuple[Any, ...]) -> type:
    optional = dict(zip(fields[len(fields) - len(defaults) :], defaults, strict=True))

    def __new__(cls: type, *args: Any, **named: Any) -> Any:  # noqa: N807
        given = dict(zip(fields, args, strict=False))
        values = optional | given | named
        if len(args) > len(fields) or given.keys() & named.keys() or values.keys() != set(fields):
            raise TypeError(f"{typename}() takes {', '.join(fields)}")
        return tuple.__new__(cls, [values[name] for name in fields])

    def __repr__(self: Any) -> str:  # noqa: N807
        return f"{typename}({', '.join(f'{name}={value!r}' for name, value in zip(fields, self, strict=True))})"

    def _asdict(self: Any) -> dict[str, Any]:
        return dict(zip(fields, self, strict=True))

    def _replace(self: Any, **changes: Any) -> Any:
        return type(self)(**(_asdict(self) | changes))

    namespace: dict[str, Any] = {
        "__slots__": (), "__new__": __new__, "__repr__": __repr__, "__match_args__": fields, "_fields": fields,
        "_asdict": _asdict, "_replace": _replace,
    }  # fmt: skip
    namespace |= {name: property(operator.itemgetter(index)) for index, name in enumerate(fields)}
    return type(typename, (tuple,), namespace)


COLLECTIONS: Mapping[str, object] = {
    "Counter": collections.Counter,
    "OrderedDict": collections.OrderedDict,
    "defaultdict": collections.defaultdict,
    "deque": collections.deque,
    "namedtuple": _namedtuple,
}

# itertools: C types without public attributes, chain.from_iterable aside.
ITERTOOLS: Mapping[str, object] = {
    name: getattr(itertools, name)
    for name in """
    accumulate chain combinations combinations_with_replacement compress count cycle dropwhile filterfalse groupby islice pairwise
    permutations product repeat starmap takewhile tee zip_longest
    """.split()
} | ({"batched": itertools.batched} if hasattr(itertools, "batched") else {})


# functools. A real partial shows its function and arguments without a dunder, and a real wraps writes to any function it is given.


def _partial(function: Callable[..., Any], /, *args: Any, **named: Any) -> Callable[..., Any]:
    if not callable(function):
        raise TypeError("the first argument must be callable")

    def call(*more: Any, **changes: Any) -> Any:
        return function(*args, *more, **(named | changes))

    return call


def _wraps(wrapped: Any) -> Callable[[Any], Any]:
    def decorate(wrapper: Any) -> Any:
        if not is_app_callable(wrapper):
            raise TypeError("functools.wraps decorates functions of the app")
        if isinstance(wrapped, types.FunctionType):
            wrapper.__name__, wrapper.__qualname__, wrapper.__doc__ = (
                wrapped.__name__,
                wrapped.__qualname__,
                wrapped.__doc__,
            )
        return wrapper

    return decorate


def _lru_cache(maxsize: Any = 128, typed: bool = False) -> Any:  # noqa: FBT001, FBT002 - as in functools
    if callable(maxsize):
        return _lru_cache()(maxsize)

    def decorate(function: Any) -> Any:
        # The cache belongs to the app's own function, so the real one will do. Round a class it would copy the class's methods
        # to where they can be read unbound.
        if not is_app_callable(function):
            raise TypeError("functools.lru_cache decorates functions of the app")
        return functools.lru_cache(maxsize, typed)(function)

    return decorate


def _cache(function: Callable[..., Any]) -> Any:
    return _lru_cache(None)(function)


FUNCTOOLS: Mapping[str, object] = {
    "reduce": functools.reduce,
    "partial": _partial,
    "wraps": _wraps,
    "lru_cache": _lru_cache,
    "cache": _cache,
    "cmp_to_key": functools.cmp_to_key,
}


# typing: names for annotations, which are checked and dropped. Nothing real: get_type_hints evaluates text without any rules.


class _Hint:
    """Stands for a type in an annotation: `Optional[int]`, `Any | None`."""

    __slots__ = ()

    def __getitem__(self, _: object) -> _Hint:
        return self

    def __or__(self, _: object) -> _Hint:
        return self

    __ror__ = __or__

    def __repr__(self) -> str:
        return "typing.Any"


_HINT = _Hint()


def _cast(_: object, value: Any) -> Any:
    return value


TYPING: Mapping[str, object] = dict.fromkeys(
    """
    Any AsyncIterator Awaitable Callable ClassVar Dict Final FrozenSet Generator Iterable Iterator List Literal Mapping Optional
    Sequence Set Tuple Type Union
    """.split(),
    _HINT,
) | {"TYPE_CHECKING": False, "cast": _cast}


# urllib.parse. Some of its functions keep their arguments in a cache (`exact`).


def _components(function: Callable[..., str]) -> Callable[..., str]:
    def checked(components: Iterable[str], /) -> str:
        parts = tuple(components)
        if any(type(part) not in (str, bytes) for part in parts):
            raise TypeError("the components of a URL are text")
        return function(parts)

    return checked


URLLIB_PARSE: Mapping[str, object] = {
    name: data_only(getattr(urllib.parse, name))
    for name in """
    parse_qs parse_qsl quote quote_from_bytes quote_plus unquote unquote_plus unquote_to_bytes urldefrag urljoin urlparse urlsplit
    """.split()
} | {
    "urlencode": urllib.parse.urlencode,
    "urlunparse": _components(urllib.parse.urlunparse),
    "urlunsplit": _components(urllib.parse.urlunsplit),
}

"""json, re, string, html, textwrap."""

# ruff: noqa: SIM905 - word lists read better than columns of quoted names

from __future__ import annotations

import html
import json
import re
import string
import textwrap
import types
from collections.abc import Callable, Mapping
from typing import Any

from sandbox.modules.exact import data_only

_PATTERN_LIMIT = 10_000
"""Characters of a regular expression: compiling takes time and memory that grow faster than its length."""


# json. `cls` and the encoder classes are left out: they are shared classes, and hooks do the same work.


def _loads(
    s: str | bytes,
    *,
    object_hook: Callable[..., Any] | None = None,
    parse_float: Callable[[str], Any] | None = None,
    parse_int: Callable[[str], Any] | None = None,
    parse_constant: Callable[[str], Any] | None = None,
    object_pairs_hook: Callable[..., Any] | None = None,
) -> Any:
    return json.loads(
        s, object_hook=object_hook, parse_float=parse_float, parse_int=parse_int, parse_constant=parse_constant,
        object_pairs_hook=object_pairs_hook,
    )  # fmt: skip


def _dumps(
    obj: object,
    *,
    skipkeys: bool = False,
    ensure_ascii: bool = True,
    check_circular: bool = True,  # noqa: ARG001 - without the check a cycle would exhaust the C stack
    allow_nan: bool = True,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    default: Callable[[Any], Any] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        obj, skipkeys=skipkeys, ensure_ascii=ensure_ascii, allow_nan=allow_nan, indent=indent, separators=separators,
        default=default, sort_keys=sort_keys,
    )  # fmt: skip


JSON: Mapping[str, object] = {"loads": _loads, "dumps": _dumps, "JSONDecodeError": json.JSONDecodeError}


# re. Time is bounded by the process's timer, which stops matching in the middle.


def _pattern(pattern: object) -> Any:
    # Exactly these types: `re` keeps patterns in a table, and the hash and equality of an app's object would run in there.
    if type(pattern) not in (str, bytes, re.Pattern):
        raise TypeError("a pattern is a str, bytes or compiled pattern")
    if type(pattern) is not re.Pattern and len(pattern) > _PATTERN_LIMIT:  # type: ignore[arg-type]
        raise ValueError(f"the pattern is longer than {_PATTERN_LIMIT} characters")
    return pattern


def _flags(flags: object) -> int:
    if type(flags) is not int:
        raise TypeError("flags are re.I, re.M, …")
    return flags


def _compile(pattern: Any, flags: int = 0) -> Any:
    return re.compile(_pattern(pattern), _flags(flags))


def _search(pattern: Any, string: Any, flags: int = 0) -> Any:
    return re.search(_pattern(pattern), string, _flags(flags))


def _match(pattern: Any, string: Any, flags: int = 0) -> Any:
    return re.match(_pattern(pattern), string, _flags(flags))


def _fullmatch(pattern: Any, string: Any, flags: int = 0) -> Any:
    return re.fullmatch(_pattern(pattern), string, _flags(flags))


def _split(pattern: Any, string: Any, maxsplit: int = 0, flags: int = 0) -> Any:
    return re.split(_pattern(pattern), string, maxsplit=maxsplit, flags=_flags(flags))


def _findall(pattern: Any, string: Any, flags: int = 0) -> Any:
    return re.findall(_pattern(pattern), string, _flags(flags))


def _finditer(pattern: Any, string: Any, flags: int = 0) -> Any:
    return re.finditer(_pattern(pattern), string, _flags(flags))


def _sub(pattern: Any, repl: Any, string: Any, count: int = 0, flags: int = 0) -> Any:
    return re.sub(_pattern(pattern), repl, string, count=count, flags=_flags(flags))


def _subn(pattern: Any, repl: Any, string: Any, count: int = 0, flags: int = 0) -> Any:
    return re.subn(_pattern(pattern), repl, string, count=count, flags=_flags(flags))


# Flags are plain ints: a RegexFlag would show its class.
_FLAGS = {
    name: int(getattr(re, name))
    for name in (
        "A",
        "ASCII",
        "I",
        "IGNORECASE",
        "M",
        "MULTILINE",
        "S",
        "DOTALL",
        "X",
        "VERBOSE",
        "U",
        "UNICODE",
        "NOFLAG",
    )
}
RE: Mapping[str, object] = {
    "compile": _compile,
    "search": _search,
    "match": _match,
    "fullmatch": _fullmatch,
    "split": _split,
    "findall": _findall,
    "finditer": _finditer,
    "sub": _sub,
    "subn": _subn,
    "escape": re.escape,
    "error": re.error,
    "Pattern": re.Pattern,
    "Match": re.Match,
    **_FLAGS,
}


# string. No Formatter: its methods walk attributes past every guard (CVE-2024-47532, CVE-2026-76825).


class _Template:
    """string.Template without what its class shows: the pattern, the flags and hooks for subclasses."""

    __slots__ = ("_made",)

    def __init__(self, template: str) -> None:
        if type(template) is not str:
            raise TypeError("a template is a str")
        self._made = string.Template(template)

    def substitute(self, mapping: Mapping[str, object] = types.MappingProxyType({}), /, **values: object) -> str:
        return self._made.substitute(mapping, **values)

    def safe_substitute(self, mapping: Mapping[str, object] = types.MappingProxyType({}), /, **values: object) -> str:
        return self._made.safe_substitute(mapping, **values)


STRING: Mapping[str, object] = {
    name: getattr(string, name)
    for name in """
    ascii_letters ascii_lowercase ascii_uppercase digits hexdigits octdigits printable punctuation whitespace
    """.split()
} | {"Template": _Template, "capwords": data_only(string.capwords)}

# html. Not html.entities: its tables are shared and can be written to.
HTML: Mapping[str, object] = {"escape": data_only(html.escape), "unescape": data_only(html.unescape)}

TEXTWRAP: Mapping[str, object] = {
    name: data_only(getattr(textwrap, name)) for name in ("dedent", "fill", "shorten", "wrap")
} | {"indent": textwrap.indent}  # whose third argument is a function; it asks for lines, and hands out nothing else

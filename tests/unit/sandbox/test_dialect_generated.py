"""The dialect by generation: whatever allowed program, the restricted and the plain compilation agree, errors included."""

from __future__ import annotations

import warnings
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from sandbox.environment import app_globals
from sandbox.policy import compile_app

NAMES = st.sampled_from(["a", "b", "c", "data"])
CONSTANTS = st.sampled_from(
    ["0", "1", "-2", "3.5", "''", "'x y'", "'{}'", "None", "True", "[]", "[1, 2]", "{'k': 1}", "(1, 'a')", "{1, 2}"]
)


def compound(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    pair = st.tuples(inner, inner)
    return st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "*", "//", "%", "==", "<", "in", "is", "and", "or", "|", "&"]), inner).map(
            lambda t: f"({t[0]} {t[1]} {t[2]})"
        ),
        pair.map(lambda t: f"({t[0]})[{t[1]}]"),
        pair.map(lambda t: f"({t[0]} if {t[1]} else a)"),
        pair.map(lambda t: f"[{t[0]}, *{t[1]}]"),
        pair.map(lambda t: f"{{'k': {t[0]}, 'l': {t[1]}}}"),
        pair.map(lambda t: f"[{t[0]} for b in {t[1]}]"),
        pair.map(lambda t: f"{{b: {t[0]} for b in {t[1]}}}"),
        pair.map(lambda t: f"(lambda c, *r, k={t[0]}: (c, k))({t[1]})"),
        inner.map(lambda t: f"(c := {t})"),
        inner.map(lambda t: f'f"""<{{({t})!r}}>"""' if '"""' not in t else t),
        inner.map(lambda t: f"'{{0!r:>4}}'.format({t})"),
        inner.map(lambda t: f"({t})[0:1]"),
        inner.map(lambda t: f"getattr({t}, 'real', 'none')"),
        st.tuples(st.sampled_from(["str", "len", "sorted", "list", "type", "bool", "repr", "sum", "tuple"]), inner).map(lambda t: f"{t[0]}({t[1]})"),
        st.tuples(inner, st.sampled_from(["upper()", "keys()", "copy()", "split()", "items()", "real", "format(1)", "get('k')"])).map(lambda t: f"({t[0]}).{t[1]}"),
    )  # fmt: skip


EXPRESSIONS = st.recursive(st.one_of(NAMES, CONSTANTS), compound, max_leaves=6)


def indented(block: list[str]) -> str:
    return "\n".join(f"    {line}" for statement in block for line in statement.splitlines())


def blocks(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    body = st.lists(inner, min_size=1, max_size=3).map(indented)
    return st.one_of(
        st.tuples(EXPRESSIONS, body, body).map(lambda t: f"if {t[0]}:\n{t[1]}\nelse:\n{t[2]}"),
        st.tuples(NAMES, EXPRESSIONS, body).map(lambda t: f"for {t[0]} in {t[1]}:\n{t[2]}\n    break"),
        st.tuples(body, body).map(lambda t: f"try:\n{t[0]}\nexcept:\n{t[1]}"),
        st.tuples(body, body).map(lambda t: f"try:\n{t[0]}\nexcept (TypeError, KeyError) as c:\n    a = type(c).__name__\nfinally:\n{t[1]}"),
        st.tuples(NAMES, EXPRESSIONS, body).map(lambda t: f"def f(b=({t[1]}), /, *c: int, data: str = '') -> int:\n{t[2]}\n    return b\n{t[0]} = f()"),
        st.tuples(EXPRESSIONS, body).map(lambda t: f"match {t[0]}:\n    case {{'k': b, **c}}:\n        a = (b, c)\n    case [b, *c] | (b, c):\n        a = [b, c]\n    case int() | str() as b:\n        a = b\n    case _:\n        pass\nif True:\n{t[1]}"),
        st.tuples(EXPRESSIONS, body).map(lambda t: f"class K:\n    n: int = 0\n    def __init__(self, v):\n        self.v = v\n        self.n += 1\n    def __eq__(self, o):\n        return isinstance(o, K) and self.v == o.v\n    def __len__(self):\n        return 2\nk = K({t[0]})\na = [k.v, k.n, k == K(1), len(k)]\nif k:\n{t[1]}"),
        st.tuples(EXPRESSIONS, EXPRESSIONS).map(lambda t: f"def g():\n    global b\n    n = 0\n    def h():\n        nonlocal n\n        n += 1\n        return {t[0]}\n    h()\n    b = n\n    got = yield {t[1]}\n    yield from (got, n)\na = list(g())"),
    )  # fmt: skip


SIMPLE = st.one_of(
    st.tuples(NAMES, EXPRESSIONS).map(lambda t: f"{t[0]} = {t[1]}"),
    st.tuples(NAMES, EXPRESSIONS).map(lambda t: f"{t[0]}: object = {t[1]}"),
    st.tuples(NAMES, EXPRESSIONS).map(lambda t: f"{t[0]} += {t[1]}"),
    st.tuples(EXPRESSIONS, EXPRESSIONS).map(lambda t: f"data[{t[0]}] = {t[1]}"),
    st.tuples(EXPRESSIONS, EXPRESSIONS).map(lambda t: f"data['k'] += {t[1]}"),
    EXPRESSIONS.map(lambda t: f"a, *b = {t}"),
    EXPRESSIONS.map(lambda t: f"[a, (b, c)] = {t}"),
    st.just("del data['k']"),
    EXPRESSIONS.map(lambda t: f"assert {t}"),
    EXPRESSIONS,
)
# Each statement on its own, so that an error of one does not end the program.
PROGRAMS = st.lists(
    st.recursive(SIMPLE, blocks, max_leaves=5).map(
        lambda t: f"try:\n{indented([t])}\nexcept Exception as error:\n    errors.append(type(error).__name__)"
    ),
    min_size=1,
    max_size=6,
).map("\n".join)

START = "errors, a, b, c, data = [], 1, 'two', [3], {'k': 4}\n"
SEEN = ("errors", "a", "b", "c", "data")


def outcome(code: Any, namespace: dict[str, Any]) -> list[Any]:
    """What the program left, as text without addresses, and the error that ended it."""
    ended = None
    try:
        exec(code, namespace)
    except Exception as error:  # noqa: BLE001 - any error of the program is an answer to compare
        ended = type(error).__name__
    return [ended, *(shown(namespace.get(name)) for name in SEEN)]


def shown(value: Any, depth: int = 0) -> str:
    if depth > 4:
        return "…"
    if isinstance(value, (list, tuple)):
        return f"{type(value).__name__}[{', '.join(shown(item, depth + 1) for item in value)}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{shown(key, depth + 1)}: {shown(item, depth + 1)}' for key, item in value.items())}}}"
    return repr(value) if isinstance(value, (str, int, float, bool, type(None), set)) else "object"


@given(program=PROGRAMS)
def test_restricted_equals_plain(program: str) -> None:
    source = START + program
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # such as `1 is 1`
        try:
            plain = compile(source, "app", "exec", dont_inherit=True)
        except SyntaxError:
            return
    restricted = outcome(compile_app(source, "app"), app_globals({}))
    expected = outcome(plain, {"__name__": "app"})
    if "0x" not in repr(expected) and "class '" not in repr(expected):  # addresses, and where a class says it lives
        assert restricted == expected

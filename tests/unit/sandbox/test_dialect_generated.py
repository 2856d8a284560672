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
        inner.map(lambda t: f"({t})[::-1]"),
        pair.map(lambda t: f"[*{t[0]}, *({t[1]},)][:5]"),
        pair.map(lambda t: f"{{**{t[0]}, 'm': {t[1]}}}"),
        pair.map(lambda t: f"{{(b, c) for b in {t[0]} for c in (1, 2) if {t[1]}}}"),
        pair.map(lambda t: f"sum((1 for b in {t[0]} if b != {t[1]}), 0)"),
        inner.map(lambda t: f"sorted({t}, key=lambda b: (str(b), 1), reverse=True)"),
        inner.map(lambda t: f"(lambda b: [b, *errors[:1]])(b={t})"),
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
        st.tuples(EXPRESSIONS, body).map(lambda t: f"n = 0\nwhile (n := n + 1) < 4 and {t[0]}:\n{t[1]}\n    if n == 2:\n        continue\nelse:\n    a = n"),
        st.tuples(body, body, body).map(lambda t: f"try:\n{t[0]}\nexcept (TypeError, ValueError):\n    raise\nelse:\n{t[1]}\nfinally:\n{t[2]}"),
        st.tuples(body, EXPRESSIONS).map(lambda t: f"class Own(LookupError):\n    def __init__(self, v, *rest):\n        super().__init__(v, *rest)\n        self.v = v\ntry:\n{t[0]}\n    raise Own({t[1]}, 1)\nexcept Own as error:\n    a = [error.v, error.args]"),
        st.tuples(EXPRESSIONS, EXPRESSIONS, body).map(lambda t: f"def make(start, step={t[0]}):\n    made = [start]\n    def add(*more, by=step, **named):\n        nonlocal start\n        start = [start, by]\n        made.append((more, named))\n        return made[-1], start\n    return add\nadd = make({t[1]})\na = [add(1), add(*[2], by=c, k=3)]\nif a:\n{t[2]}"),
        st.tuples(EXPRESSIONS, EXPRESSIONS, body).map(lambda t: f"class Base:\n    kind = 'base'\n    def __init__(self, v):\n        self.v, self.items = v, {{}}\n    @property\n    def twice(self):\n        return [self.v, self.v]\n    @classmethod\n    def make(cls, *args):\n        return cls(*args)\n    def put(self, key, value):\n        self.items[key] = value\n        return self\n    def __getitem__(self, key):\n        return self.items[key]\nclass Child(Base):\n    kind = 'child'\n    def put(self, key, value=None):\n        self.v += value\n        return super().put(key, value)\nk = Child.make({t[0]})\nk.put('k', {t[1]}).put('l', k.v)\nk.items['k'] += k['l']\na = [k.kind, k.twice, k['k'], isinstance(k, Base)]\nif k.v:\n{t[2]}"),
        st.tuples(body, EXPRESSIONS).map(lambda t: f"class Manager:\n    def __enter__(self):\n        return [{t[1]}]\n    def __exit__(self, kind, error, trace):\n        errors.append(kind.__name__ if kind else 'none')\n        return kind is TypeError\nwith Manager() as [b], Manager():\n{t[0]}"),
        st.tuples(EXPRESSIONS, EXPRESSIONS).map(lambda t: f"async def one(x, *, y={t[0]}):\n    return [x, y]\nasync def many(items):\n    for item in items:\n        yield await one(item)\nasync def main():\n    found = [x async for x in many({t[1]})]\n    async for x in many((1,)):\n        found.append(x)\n    return found\na = finish(main())"),
        st.tuples(EXPRESSIONS, EXPRESSIONS).map(lambda t: f"match ({t[0]}, {t[1]}):\n    case (int(b) | str(b), [c, *_]) if b:\n        a = 1, b, c\n    case ({{'k': int(c), **b}}, None | True as data):\n        a = 2, b, c\n    case ('' | 0, _) | (_, 'x y'):\n        a = 3\n    case (first, second):\n        a = 4, first, second"),
        st.tuples(NAMES, EXPRESSIONS, st.sampled_from(["-=", "*=", "//=", "%=", "|=", "&="])).map(lambda t: f"k = {{'n': {t[0]}, 'l': [{t[0]}]}}\nk['n'] {t[2]} {t[1]}\nk['l'][0] {t[2]} {t[1]}\na = k"),
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
        lambda t: (
            f"try:\n{indented([t])}\nexcept Exception as error:\n    errors.append((type(error).__name__, str(error)))"
        )
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


def finish(coroutine: Any) -> Any:
    """Drive a coroutine, as the host does: apps cannot."""
    try:
        coroutine.send(None)
    except StopIteration as finished:
        return finished.value
    raise AssertionError("nothing to wait for")


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
    restricted = outcome(compile_app(source, "app"), app_globals({"finish": finish}))
    expected = outcome(plain, {"__name__": "app", "finish": finish})
    if "0x" not in repr(expected) and "class '" not in repr(expected):  # addresses, and where a class says it lives
        assert restricted == expected

"""Nothing dangerous can be reached from what apps are given by reading attributes and items, as far as that leads."""

from __future__ import annotations

import asyncio
import decimal
import functools
import random
import types
from collections.abc import Iterator
from typing import Any

from sandbox.environment import app_globals
from sandbox.facade import facade
from sandbox.guards import SPECIAL_ATTRIBUTES, AppType, attribute_refusal, guarded_attribute
from sandbox.modules.catalogue import importer, module_names
from sandbox.policy import compile_app

DANGEROUS = (
    types.ModuleType,
    types.FrameType,
    types.CodeType,
    types.TracebackType,
    types.MappingProxyType,
    types.SimpleNamespace,
    functools.partial,
    random.Random,
    decimal.Context,
    asyncio.Future,
    asyncio.AbstractEventLoop,
    memoryview,
    bytearray,
)

SAMPLES = """
import base64, collections, datetime, decimal, functools, hashlib, hmac, html, itertools, json, math, random, re, statistics, string
import textwrap, time, typing, urllib.parse, uuid, zlib

class Thing:
    pass

class Mistake(ValueError):
    pass

def numbers():
    yield 1

async def later():
    return 1

async def stream():
    yield 1

def failing(action, *args):
    try:
        action(*args)
    except Exception as error:
        return error
    raise AssertionError

cached = functools.lru_cache(lambda x: x)
coroutine = later()
samples = [
    Thing, Thing(), Mistake, Mistake('x'), numbers, numbers(), later, coroutine, stream(), lambda: 1, len,
    1, 1.5, 'x', b'x', True, None, (1,), [1], {'a': 1}, {1}, frozenset({1}), range(3), slice(1), 3j, Ellipsis, NotImplemented,
    iter([1]), iter({}), {}.items(), {}.keys(), {}.values(), zip([1]), map(str, [1]), filter(None, [1]), enumerate([1]), reversed([1]),
    list[int], int | str, property(len), staticmethod(len), classmethod(len), type(posthog), type(len), super, 'x'.upper, [].append,
    'x'.format, 'x'.format_map, dict.fromkeys, str.maketrans,
    re.compile('(a)'), re.match('(a)', 'a'), re.finditer('a', 'a'), failing(re.compile, '('),
    failing(json.loads, '{'), failing(json.dumps, {1}), failing(uuid.UUID, 'x'), failing(getattr, posthog, 'nothing'),
    failing(datetime.datetime.strptime, 'x', '%Y'), failing(decimal.Decimal, 'x'), failing(zlib.decompress, b'x'),
    failing(base64.b64decode, 'x'), failing(statistics.mean, []), failing(int, 'x'), failing(b'\\xff'.decode), failing(urllib.parse.urlsplit, 1),
    failing(next, iter([])), failing(lambda: {}['x']), failing(lambda: missing), failing(hashlib.new, 'x'), failing(html.escape, 1),
    datetime.datetime.now(), datetime.datetime.now().date(), datetime.timedelta(1), datetime.timezone.utc, datetime.time(1),
    datetime.datetime.now().timetuple(), datetime.datetime.now().isocalendar(), time.gmtime(0),
    decimal.Decimal(1), decimal.Decimal(1).as_tuple(), decimal.getcontext(), decimal.localcontext(prec=3),
    hashlib.sha256(b'x'), hmac.new(b'k', b'm', 'sha1'), uuid.uuid4(), random.Random(1), string.Template('$a'),
    urllib.parse.urlparse('http://u:p@h:1/p?q#f'), urllib.parse.urlsplit(b'http://h/'), urllib.parse.urldefrag('http://h#f'),
    collections.Counter('a'), collections.deque([1]), collections.OrderedDict(a=1), collections.defaultdict(list),
    collections.namedtuple('P', 'x y'), collections.namedtuple('P', 'x y')(1, 2), statistics.linear_regression([1, 2], [1, 3]),
    itertools.chain([1]), itertools.count(), itertools.groupby([1]), itertools.tee([1])[0], next(itertools.groupby([1]))[1],
    cached, cached.cache_info(), functools.partial(len, 'x'), functools.wraps(numbers), functools.cmp_to_key(len)(1), typing.Optional[int],
]
"""


def step(value: Any) -> Iterator[tuple[str, Any]]:
    """What an app can get from a value in one move: attributes, as policy and guard allow them, and items."""
    for name in {*dir(value), *dir(type(value))}:
        if attribute_refusal(name) is not None:
            continue
        try:
            yield f".{name}", guarded_attribute(value, name) if name in SPECIAL_ATTRIBUTES else getattr(value, name)
        except (AttributeError, TypeError, ValueError, NotImplementedError, RuntimeError):
            continue
    if isinstance(value, dict):
        yield from (
            (f"[{key!r}]", item)
            for key, item in value.items()
            if isinstance(key, str) and not key.startswith(("_", "<"))
        )
    elif isinstance(value, (list, tuple, set, frozenset)):
        yield from ((f"[{index}]", item) for index, item in enumerate(value))


def reached(start: dict[str, Any], depth: int = 5) -> Iterator[tuple[str, Any]]:
    seen: dict[int, Any] = {}
    edge = list(start.items())
    for _ in range(depth):
        following = []
        for path, value in edge:
            if id(value) in seen or type(value) in (int, float, str, bytes, bool, type(None), complex):
                continue
            seen[id(value)] = value
            yield path, value
            following += [(path + move, found) for move, found in step(value)]
        edge = following


def everything() -> dict[str, Any]:
    injected = {
        "posthog": facade("posthog", {"capture": functools.partial(print, "x")}),
        "console": facade("console", {"log": [].append}),
    }
    namespace: dict[str, Any] = app_globals(injected)
    exec(compile_app(SAMPLES, "app"), namespace)
    namespace["coroutine"].close()
    start = {name: value for name, value in namespace.items() if name.isidentifier() and not name.startswith("_")}
    start |= {
        f"builtins.{name}": value for name, value in namespace["__builtins__"].items() if not name.startswith("_")
    }
    start |= {f"import {name}": importer(lambda: 0.0)(name) for name in module_names()}
    return start


def test_nothing_dangerous_is_reached() -> None:
    found = [
        path
        for path, value in reached(everything())
        if (isinstance(value, DANGEROUS) and not path.endswith(".mapping"))  # the view of an app's own dict
        or any(value is one for one in (type, AppType, BaseException, SystemExit, str.format, str.format_map))
        or (isinstance(value, type) and issubclass(value, (type, types.FunctionType, types.CodeType)))
    ]
    assert found == []


def test_no_bound_str_format_is_reached() -> None:
    found = [
        path
        for path, value in reached(everything())
        if isinstance(value, types.BuiltinMethodType | types.MethodDescriptorType)
        and value.__name__ in ("format", "format_map", "send", "throw")
        and not isinstance(getattr(value, "__self__", None), types.GeneratorType)
    ]
    assert found == []


def test_nothing_that_can_be_changed_is_shared_between_installs() -> None:
    first, second = dict(reached(everything())), dict(reached(everything()))
    shared = [
        path
        for path, value in first.items()
        if path in second
        and value is second[path]
        and isinstance(value, (list, dict, set))
        and not path.startswith("samples")
    ]
    assert shared == []


def test_the_crawl_goes_far() -> None:
    assert len(dict(reached(everything()))) > 1000

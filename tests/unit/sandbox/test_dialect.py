"""The dialect by example: what apps may write gives the same answer as plain Python; what they may not is refused with advice.

The two tables are also the source of the documentation's page on the dialect.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

from sandbox.environment import app_globals
from sandbox.facade import facade
from sandbox.policy import AppSyntaxError, compile_app


class Allowed(NamedTuple):
    title: str
    program: str
    """Leaves what it found in `answer`, or in what `async def run()` returns."""


class Refused(NamedTuple):
    title: str
    program: str
    line: int
    instead: str
    """Part of the message that says what to write instead."""


ALLOWED = [
    Allowed("Arithmetic", "answer = [7 // 2, 7 % 3, 2 ** 10, -7 // 2, 1 / 4, 5 & 6 | 1, ~5, 1 << 4, divmod(17, 5)]"),
    Allowed("Comparisons in a chain", "x = 5\nanswer = [1 < x <= 5, x != 5 or x is None, not x]"),
    Allowed("Unpacking", "a, (b, *c), [d, e] = 1, (2, 3, 4), [5, 6]\nanswer = [a, b, c, d, e]"),
    Allowed("Swapping", "a, b = 1, 2\na, b = b, a\nanswer = [a, b]"),
    Allowed("Unpacking in literals and calls", "def f(*args, **named):\n    return args, named\nx = [1, 2]\nanswer = [f(*x, 3, **{'k': 4}), [*x, *x], {**{'a': 1}, 'b': 2}]"),
    Allowed("Updates of items in place", "p = {'n': 1, 'l': [1]}\np['n'] += 2\np['l'] += [3]\np['l'][0] -= 5\nanswer = p"),
    Allowed("Deleting items", "p = {'a': 1, 'b': 2}\ndel p['a']\nl = [1, 2, 3]\ndel l[0]\nanswer = [p, l]"),
    Allowed("Slices", "l = list(range(10))\nl[2:4] = ['x']\nanswer = [l[::-2], l[:3], 'hello'[1:-1], l[-1]]"),
    Allowed("Sets", "a, b = {1, 2, 3}, {2, 3, 4}\nanswer = [sorted(a | b), sorted(a & b), sorted(a - b), 2 in a, {x % 2 for x in a} == {0, 1}]"),
    Allowed("Dictionaries", "d = {'a': 1}\nd.setdefault('b', []).append(2)\nd.update(c=3)\nanswer = [d, list(d.items()), d.get('x', 0), d.pop('a'), d | {'z': 1}]"),
    Allowed("List comprehension with conditions", "answer = [(x, y) for x in range(4) if x % 2 for y in 'ab']"),
    Allowed("Dict comprehension over pairs", "answer = {key.upper(): value for key, value in {'a': 1, 'b': 2}.items() if value}"),
    Allowed("Generator expression", "answer = sum(x * x for x in range(10) if x % 2)"),
    Allowed("Walrus", "data = [1, 5, 9]\nanswer = [y for x in data if (y := x * 2) > 4]\nif (n := len(data)) > 2:\n    answer.append(n)"),
    Allowed("Lambda", "answer = sorted(['bb', 'a', 'ccc'], key=lambda s: -len(s)) + [(lambda x, *r, k=2: x * k + len(r))(1, 2, 3)]"),
    Allowed("Conditional expression", "x = 3\nanswer = 'odd' if x % 2 else 'even'"),
    Allowed("For with else, break, continue", "answer = []\nfor i in range(10):\n    if i == 1:\n        continue\n    if i == 4:\n        break\n    answer.append(i)\nelse:\n    answer.append('never')\nfor i in []:\n    pass\nelse:\n    answer.append('else')"),
    Allowed("While", "n, answer = 27, 0\nwhile n != 1:\n    n = n // 2 if n % 2 == 0 else 3 * n + 1\n    answer += 1"),
    Allowed("Functions with every kind of parameter", "def f(a, /, b, c=3, *rest, d, e=5, **more):\n    return a, b, c, rest, d, e, more\nanswer = [f(1, 2, d=4), f(1, 2, 3, 4, d=5, x=6)]"),
    Allowed("Closures and nonlocal", "def counter():\n    n = 0\n    def inc(by=1):\n        nonlocal n\n        n += by\n        return n\n    return inc\nc = counter()\nanswer = [c(), c(5), c()]"),
    Allowed("Global state", "total = 0\ndef add(n):\n    global total\n    total += n\nadd(2)\nadd(3)\nanswer = total"),
    Allowed("Recursion", "def fib(n):\n    return n if n < 2 else fib(n - 1) + fib(n - 2)\nanswer = fib(15)"),
    Allowed("Decorators", "import functools\ndef twice(f):\n    @functools.wraps(f)\n    def inner(*args):\n        return f(f(*args))\n    return inner\n@twice\ndef inc(x):\n    '''Adds one.'''\n    return x + 1\nanswer = [inc(1), inc.__name__]"),
    Allowed("Decorators with arguments", "def tag(name):\n    def wrap(f):\n        return lambda: f'<{name}>{f()}</{name}>'\n    return wrap\n@tag('b')\n@tag('i')\ndef hello():\n    return 'hi'\nanswer = hello()"),
    Allowed("Generators", "def chunks(items, size):\n    for i in range(0, len(items), size):\n        yield items[i:i + size]\nanswer = list(chunks([1, 2, 3, 4, 5], 2))"),
    Allowed("yield from and send", "def inner():\n    got = yield 1\n    yield got * 2\ndef outer():\n    yield from inner()\ng = outer()\nanswer = [next(g), g.send(21), next(g, 'end')]"),
    Allowed("Generator throw and close", "def g():\n    try:\n        yield 1\n    except ValueError as e:\n        yield str(e)\nx = g()\nnext(x)\nanswer = [x.throw(ValueError('boom'))]\nx.close()\nanswer.append(list(x))"),
    Allowed("Classes", "class Point:\n    kind = 'point'\n    def __init__(self, x, y=0):\n        self.x, self.y = x, y\n    def moved(self, dx):\n        return Point(self.x + dx, self.y)\np = Point(1, 2).moved(3)\np.x += 1\np.extra = 'e'\nanswer = [p.x, p.y, p.kind, p.extra, isinstance(p, Point)]"),
    Allowed("Inheritance and super()", "class A:\n    def __init__(self, n):\n        self.n = n\n    def name(self):\n        return 'A%d' % self.n\nclass B(A):\n    def __init__(self, n):\n        super().__init__(n + 1)\n    def name(self):\n        return 'B' + super().name()\nanswer = [B(1).name(), issubclass(B, A)]"),
    Allowed("Properties", "class T:\n    def __init__(self):\n        self.c = 0\n    @property\n    def f(self):\n        return self.c * 9 / 5 + 32\n    @f.setter\n    def f(self, value):\n        self.c = (value - 32) * 5 / 9\nt = T()\nt.f = 212\nanswer = [t.c, t.f]"),
    Allowed("Static and class methods", "class A:\n    made = 0\n    @classmethod\n    def make(cls):\n        cls.made += 1\n        return cls()\n    @staticmethod\n    def double(x):\n        return x * 2\nA.make()\nA.make()\nanswer = [A.made, A.double(4), A.__name__]"),
    Allowed("A data class by hand", "class Money:\n    def __init__(self, amount, currency='EUR'):\n        self.amount = amount\n        self.currency = currency\n    def __repr__(self):\n        return f'Money({self.amount!r}, {self.currency!r})'\n    def __eq__(self, other):\n        return isinstance(other, Money) and (self.amount, self.currency) == (other.amount, other.currency)\n    def __hash__(self):\n        return hash((self.amount, self.currency))\n    def __lt__(self, other):\n        return self.amount < other.amount\n    def __add__(self, other):\n        return Money(self.amount + other.amount, self.currency)\nanswer = [repr(Money(1) + Money(2)), Money(1) == Money(1), len({Money(1), Money(1)}), str(sorted([Money(2), Money(1)]))]"),
    Allowed("Container methods", "class Bag:\n    def __init__(self):\n        self.d = {}\n    def __getitem__(self, k):\n        return self.d[k]\n    def __setitem__(self, k, v):\n        self.d[k] = v\n    def __contains__(self, k):\n        return k in self.d\n    def __len__(self):\n        return len(self.d)\n    def __iter__(self):\n        return iter(self.d)\n    def __call__(self, x):\n        return x + 1\n    def __bool__(self):\n        return True\nb = Bag()\nb['a'] = 1\nb['a'] += 1\nanswer = [b['a'], 'a' in b, len(b), list(b), b(1), bool(Bag())]"),
    Allowed("Iterator class", "class Down:\n    def __init__(self, n):\n        self.n = n\n    def __iter__(self):\n        return self\n    def __next__(self):\n        if self.n <= 0:\n            raise StopIteration\n        self.n -= 1\n        return self.n\nanswer = list(Down(3))"),
    Allowed("Context managers", "log = []\nclass Step:\n    def __init__(self, name):\n        self.name = name\n    def __enter__(self):\n        log.append('in ' + self.name)\n        return self\n    def __exit__(self, kind, error, trace):\n        log.append((self.name, kind.__name__ if kind else None, str(error)))\n        return kind is not None and issubclass(kind, KeyError)\nwith Step('a') as a, Step('b'):\n    raise KeyError('k')\nanswer = log + [a.name]"),
    Allowed("Own exceptions", "class AppError(Exception):\n    def __init__(self, code, message):\n        super().__init__(message)\n        self.code = code\nclass Missing(AppError, KeyError):\n    pass\ntry:\n    raise Missing(404, 'gone')\nexcept LookupError as e:\n    answer = [e.code, e.args, type(e).__name__, isinstance(e, AppError)]"),
    Allowed("try, else, finally", "answer = []\nfor x in ('1', 'a'):\n    try:\n        n = int(x)\n    except (ValueError, TypeError) as e:\n        answer.append(str(e))\n    else:\n        answer.append(n)\n    finally:\n        answer.append('done')"),
    Allowed("Bare except", "try:\n    {}['x']\nexcept:\n    answer = 'caught'"),
    Allowed("raise from and re-raise", "def f():\n    try:\n        1 / 0\n    except ZeroDivisionError as e:\n        raise ValueError('bad') from e\ntry:\n    try:\n        f()\n    except ValueError:\n        raise\nexcept Exception as e:\n    answer = [type(e).__name__, e.args]"),
    Allowed("assert", "try:\n    assert 1 == 2, 'no'\nexcept AssertionError as e:\n    answer = str(e)"),
    Allowed("match on events", "def kind(e):\n    match e:\n        case {'event': '$pageview', 'properties': {'$current_url': str(url), **rest}} if url:\n            return url, len(rest)\n        case {'event': 'a' | 'b' as name}:\n            return name\n        case [first, *others]:\n            return first, others\n        case None | True:\n            return 'const'\n        case int(n) if n > 5:\n            return n\n        case _:\n            return 'other'\nanswer = [kind(x) for x in ({'event': '$pageview', 'properties': {'$current_url': 'u', 'k': 1}}, {'event': 'b'}, [1, 2, 3], None, 9, 2)]"),
    Allowed("match on own classes", "class P:\n    def __init__(self, x, y):\n        self.x = x\n        self.y = y\nmatch P(0, 5):\n    case P(x=0, y=y):\n        answer = y"),
    Allowed("Annotations", "from __future__ import annotations\nfrom typing import Any, Optional\nlimit: int = 5\nlater: dict[str, Any]\ndef f(x: Optional[int] = None, *rest: str, **kw: Any) -> list[int]:\n    y: int = x or limit\n    return [y]\nanswer = f()"),
    Allowed("f-strings", "x, w = 3.14159, 8\nname = 'Ann'\nanswer = [f'{x:.2f}|{name:>{w}}|{name!r}|{x=:.1f}', f'{[i for i in range(3)]}', f'{{}}']"),
    Allowed("str.format", "answer = ['{} {}'.format(1, 'a'), '{1}{0}{1}'.format('x', 'y'), '{n:>5.1f}|{0[a]}|{0[l][1]}'.format({'a': 1, 'l': [1, 2]}, n=2.25), '{:{w}d}'.format(5, w=4), '{a}'.format_map({'a': 7}), '{!r:>5}'.format('s'), list(map('{:02d}'.format, [1, 2]))]"),
    Allowed("Percent formatting", "answer = ['%s has %d (%.1f%%)' % ('x', 3, 12.5), '%(a)s' % {'a': 1}, '%05d|%-4s|' % (42, 'a')]"),
    Allowed("String methods", "s = ' Hello, World '\nanswer = [s.strip().lower().split(', '), s.replace('l', 'L'), s.title(), 'a-b'.partition('-'), ','.join(['x', 'y']), 'abc'.startswith(('a', 'b')), 'x'.zfill(3), 'ß'.casefold()]"),
    Allowed("Bytes", "b = 'héllo'.encode()\nanswer = [len(b), b.decode('utf-8'), b[0], bytes([65, 66]), b.hex(), bytes.fromhex('4142')]"),
    Allowed("Sorting", "people = [{'n': 'b', 'a': 2}, {'n': 'a', 'a': 2}, {'n': 'c', 'a': 1}]\npeople.sort(key=lambda p: (-p['a'], p['n']))\nanswer = [[p['n'] for p in people], sorted([3, 1, 2], reverse=True), min([3, 1]), max('ab', key=ord)]"),
    Allowed("zip, enumerate, map, filter, any, all", "answer = [list(zip('ab', [1, 2])), list(enumerate('xy', 1)), list(map(str, [1])), list(filter(None, [0, 1])), any([0, 1]), all([]), list(reversed([1, 2])), sum([[1], [2]], []), round(2.567, 1), abs(-2), ord('a'), chr(98), hex(255), bin(5)]"),
    Allowed("getattr, hasattr, setattr", "class A:\n    x = 1\na = A()\nsetattr(a, 'y', 2)\nanswer = [getattr(a, 'x'), getattr(a, 'z', 'none'), hasattr(a, 'y'), hasattr(a, 'z'), [getattr(a, n) for n in ('x', 'y')]]"),
    Allowed("type and isinstance", "answer = [type(1) is int, type('').__name__, isinstance(True, (int, str)), type([]) == list, callable(len), type(ValueError('x')).__name__]"),
    Allowed("Regular expressions", "import re\nRX = re.compile(r'(?P<user>\\w+)@(\\w+)\\.com', re.I | re.M)\nm = RX.search('mail Bob@Example.com now')\nanswer = [m.group('user'), m.groups(), m.span(), re.sub(r'(\\d+)', lambda m: str(int(m.group(1)) * 2), 'a1b22'), RX.sub(r'\\g<user>', 'x bob@a.com'), re.findall('[a-z]+', 'ab cd'), re.split(r'[,;]', 'a,b;c'), m.expand(r'\\1!'), bool(re.fullmatch('a+', 'aaa')), re.escape('a.b'), [x.start() for x in re.finditer('a', 'aba')]]"),
    Allowed("A bad regular expression", "import re\ntry:\n    re.compile('(')\nexcept re.error as e:\n    answer = e.msg"),
    Allowed("JSON", "import json\nd = json.loads('{\"a\": [1, 2.5, null, true], \"b\": \"x\"}')\nanswer = [d, json.dumps(d, sort_keys=True), json.dumps({'k': (1, 2)}, indent=2), json.dumps('é', ensure_ascii=False), json.dumps({1, 2} - {2}, default=list), json.loads('[1.5]', parse_float=str)]\ntry:\n    json.loads('{')\nexcept json.JSONDecodeError as e:\n    answer.append(e.pos)"),
    Allowed("Dates", "from datetime import UTC, date, datetime, time, timedelta, timezone\nd = datetime(2024, 2, 28, 23, 30, tzinfo=timezone.utc)\ne = d + timedelta(days=1, hours=1)\nanswer = [e.isoformat(), (e - d).total_seconds(), e > d, e.strftime('%Y-%m-%d %H:%M'), datetime.strptime('2020-05-17', '%Y-%m-%d').isoformat(), datetime.fromisoformat('2021-01-01T00:00:00+02:00').astimezone(UTC).isoformat(), isinstance(e, datetime), isinstance(e, date), isinstance(e.date(), date), e.date().isoformat(), e.weekday(), datetime.combine(date(2020, 1, 1), time(3)).isoformat(), str(e), repr(e), datetime.fromtimestamp(0, tz=timezone.utc).isoformat(), d.timestamp(), e.replace(year=2030).year, date(2020, 1, 31) + timedelta(days=1) == date(2020, 2, 1), d.timetuple().tm_yday, isinstance(datetime.now(), datetime), datetime.min.year, str(timedelta(hours=25))]"),
    Allowed("Hashes and signatures", "import base64, hashlib, hmac\nanswer = [hashlib.sha256(b'x').hexdigest(), hashlib.new('md5', b'a').hexdigest(), hmac.new(b'k', b'm', hashlib.sha256).hexdigest(), hmac.new(b'k', b'm', 'sha1').digest(), hmac.compare_digest('a', 'a'), base64.b64encode(b'hi').decode(), base64.urlsafe_b64decode('aGk=')]\nh = hashlib.sha1()\nh.update(b'a')\nanswer.append(h.hexdigest())"),
    Allowed("UUIDs", "import uuid\nfrom uuid import UUID\nu = uuid.uuid5(uuid.NAMESPACE_DNS, 'example.com')\nanswer = [str(u), u.hex, u.version, UUID(str(u)) == u, isinstance(uuid.uuid4(), UUID), len(str(uuid.uuid4())), uuid.uuid3(uuid.NAMESPACE_URL, 'x').int, repr(u), {u: 1}[UUID(u.hex)]]"),
    Allowed("URLs", "from urllib.parse import urlparse, parse_qs, urlencode, urlunparse, quote\nimport urllib.parse\nu = urlparse('https://user@example.com:8080/a/b?x=1&x=2&y=%20z#top')\nanswer = [u.scheme, u.hostname, u.port, u.path, parse_qs(u.query), urlencode({'a': 'b c', 'd': 1}), urlunparse(u._replace(query='', fragment='')), quote('a b/c'), urllib.parse.urljoin('http://a/b/', 'c'), urllib.parse.unquote('%41'), u.geturl()]"),
    Allowed("Collections", "from collections import Counter, OrderedDict, defaultdict, deque, namedtuple\nc = Counter('abracadabra')\nd = defaultdict(list)\nd['x'].append(1)\nq = deque([1, 2, 3], maxlen=2)\nq.appendleft(0)\nP = namedtuple('P', 'x y', defaults=[5])\np = P(1)\nanswer = [c.most_common(2), dict(d), list(q), (p.x, p.y), p._replace(x=7), p._asdict(), p == (1, 5), OrderedDict(a=1).popitem(), c['zz'], repr(p)]"),
    Allowed("itertools", "import itertools\nfrom itertools import chain, groupby\nanswer = [list(itertools.islice(itertools.count(5), 3)), list(chain.from_iterable([[1], [2, 3]])), [(k, len(list(g))) for k, g in groupby('aabc')], list(itertools.product('ab', [1, 2])), list(itertools.accumulate([1, 2, 3])), list(itertools.zip_longest([1], [2, 3]))]"),
    Allowed("functools", "from functools import cache, cmp_to_key, lru_cache, partial, reduce\n@lru_cache(maxsize=10)\ndef sq(x):\n    return x * x\n@cache\ndef fib(n):\n    return n if n < 2 else fib(n - 1) + fib(n - 2)\nanswer = [reduce(lambda a, b: a + b, [1, 2, 3]), partial(int, base=2)('101'), sq(3), sq(3), sq.cache_info().hits, fib(40), sorted([1, 3, 2], key=cmp_to_key(lambda a, b: b - a))]"),
    Allowed("Mathematics", "import math, statistics\nanswer = [math.floor(2.7), math.sqrt(16), math.pi, math.isclose(0.1 + 0.2, 0.3), math.factorial(10), math.gcd(12, 18), math.comb(5, 2), math.prod([1, 2, 3]), math.inf > 1, statistics.mean([1, 2, 3, 4]), statistics.median([3, 1, 2]), round(statistics.stdev([1, 2, 3, 4]), 6)]"),
    Allowed("Decimals", "from decimal import ROUND_HALF_UP, Decimal, localcontext\nd = Decimal('10.005')\nwith localcontext(prec=5) as context:\n    third = Decimal(1) / 3\nanswer = [str(d.quantize(Decimal('0.01'), rounding=ROUND_HALF_UP)), str(third), str(Decimal(1) / 3), d > 10, str(sum([Decimal('0.1')] * 3)), context.prec]"),
    Allowed("Random numbers", "import random\nrandom.seed(42)\nr = random.Random(7)\nanswer = [random.randint(1, 100), random.random(), random.choice('abc'), random.sample(range(10), 3), r.uniform(0, 1)]\nl = [1, 2, 3]\nrandom.shuffle(l)\nanswer.append(l)"),
    Allowed("Text helpers", "import html, string, textwrap, zlib\nanswer = [html.escape('<a&b>'), html.unescape('&lt;&eacute;'), string.ascii_lowercase[:3], string.Template('$a is ${b}').substitute(a=1, b=2), string.capwords('a b'), textwrap.dedent('  x\\n  y'), textwrap.shorten('hello wide world', 12), zlib.decompress(zlib.compress(b'abc' * 10)), zlib.crc32(b'x')]"),
    Allowed("async helpers", "async def double(x: int) -> int:\n    return x * 2\nasync def run():\n    total = 0\n    for i in range(3):\n        total += await double(i)\n    return total"),
    Allowed("finally", "done = []\ndef f():\n    try:\n        try:\n            1 / 0\n        finally:\n            done.append('first')\n            int('x')\n    except ValueError as e:\n        done.append(str(e)[:7])\n    for x in [1, 2]:\n        try:\n            if x == 1:\n                continue\n            return x\n        finally:\n            for y in [1]:\n                break\n            done.append(x)\nanswer = [f(), done]"),
    Allowed("Generators with finally and with", "log = []\nclass Open:\n    def __enter__(self):\n        log.append('open')\n    def __exit__(self, *error):\n        log.append('close')\ndef lines(n):\n    try:\n        with Open():\n            for i in range(n):\n                yield i\n    finally:\n        log.append('end')\nanswer = [list(lines(2)), next(lines(3)), [x for x, _ in zip(lines(9), [1])], log]"),
    Allowed("async generators and comprehensions", "async def numbers(n):\n    for i in range(n):\n        yield i\nasync def run():\n    out = [x async for x in numbers(4) if x % 2]\n    async for x in numbers(2):\n        out.append(x)\n    it = aiter(numbers(1))\n    out.append(await anext(it))\n    out.append(await anext(it, 'end'))\n    return out"),
    Allowed("async with", "log = []\nclass Session:\n    async def __aenter__(self):\n        log.append('open')\n        return self\n    async def __aexit__(self, *error):\n        log.append('close')\nasync def run():\n    async with Session() as s:\n        log.append(isinstance(s, Session))\n    return log"),
    Allowed("async errors", "class Retry(Exception):\n    pass\nasync def call(n):\n    if n < 2:\n        raise Retry(n)\n    return n\nasync def run():\n    for n in range(5):\n        try:\n            return await call(n)\n        except Retry as e:\n            last = e.args\n        finally:\n            n += 0"),
    Allowed("Methods called format and send", "class Price:\n    def __init__(self, n):\n        self.n = n\n    def format(self, unit):\n        return f'{self.n} {unit}'\n    def send(self, to):\n        return to\nanswer = [Price(3).format('EUR'), Price(1).send('x'), getattr(Price(4), 'format')('USD')]"),
    Allowed("Operators of own classes", "class V:\n    def __init__(self, x):\n        self.x = x\n    def __mul__(self, k):\n        return V(self.x * k)\n    def __rmul__(self, k):\n        return V(self.x * k)\n    def __neg__(self):\n        return V(-self.x)\n    def __iadd__(self, o):\n        self.x += o.x\n        return self\n    def __str__(self):\n        return f'<{self.x}>'\n    def __float__(self):\n        return float(self.x)\nv = 2 * V(3) * 2\nv += -V(2)\nanswer = [str(v), f'{v}', float(v)]"),
    Allowed("Nested functions and default values", "def outer(x, y=[]):\n    def inner(z=x * 2):\n        return x + z\n    y.append(inner())\n    return y\nouter(1)\nanswer = outer(2)"),
    Allowed("Chained assignment and star targets", "a = b = [1]\na.append(2)\n*head, last = (1, 2, 3)\nfor i, (x, *ys) in enumerate([(1, 2, 3), (4,)]):\n    a.append((i, x, ys))\nanswer = [b, head, last]"),
    Allowed("Class attributes and class-level code", "class Settings:\n    base = 2\n    table = {i: i ** 2 for i in range(3)}\n    if base > 1:\n        mode = 'big'\n    class Inner:\n        z = 1\nSettings.base += 1\nanswer = [Settings.base, Settings.table, Settings.mode, Settings.Inner.z]"),
    Allowed("Imports inside functions", "def f():\n    import json\n    from math import sqrt as root\n    return json.dumps(root(9))\nanswer = f()"),
    Allowed("The underscore as a name", "_, x = 1, 2\nfor _ in range(2):\n    x += 1\nanswer = x"),
    Allowed("Updates of attributes in place", "class Counter:\n    def __init__(self):\n        self.n = 1\n        self.names = ['a']\nc = Counter()\nc.n += 4\nc.n *= 2\nc.names += ['b']\nanswer = [c.n, c.names]"),
    Allowed("Updates of names in place", "n, text, items = 7, 'a', [1]\nn += 1; n -= 2; n *= 3; n //= 2; n **= 2; n %= 50; n <<= 1; n |= 1; n ^= 3\ntext += 'b'\nitems += [2]\nanswer = [n, text, items]"),
    Allowed("Every kind of pattern", "def kind(x):\n    match x:\n        case 0 | 1.5 | 'a' | None:\n            return 'value'\n        case [] | ():\n            return 'empty'\n        case [[a, b], *_]:\n            return 'nested', a, b\n        case {'k': {'l': [*items]}, **rest}:\n            return items, rest\n        case str(text) | [str(text)]:\n            return 'text', text\n        case (int() | float()) as number if number < 0:\n            return 'negative', number\n        case other:\n            return 'other', other\nanswer = [kind(x) for x in (1, None, [], [[1, 2], 3], {'k': {'l': [1]}, 'm': 2}, 'b', ['c'], -2.5, 7)]"),
    Allowed("try in a loop, with continue and break", "answer = []\nfor x in ('1', 'a', '2', 'stop', '3'):\n    try:\n        if x == 'stop':\n            break\n        answer.append(int(x))\n    except ValueError:\n        continue\n    finally:\n        answer.append('.')"),
    Allowed("with and several names", "class Step:\n    def __init__(self, n):\n        self.n = n\n    def __enter__(self):\n        return self.n, -self.n\n    def __exit__(self, *error):\n        return None\nwith Step(1) as (a, b), Step(2) as pair:\n    answer = [a, b, pair]"),
    Allowed("Signatures", "def f(event, /, *, limit=5, **more):\n    return event, limit, more\nanswer = [f(1), f(1, limit=2, event=3)]"),
    Allowed("Big numbers", "answer = [2 ** 200, int('9' * 50) % 97, pow(3, 1000, 7), (1 << 100).bit_length(), 0x1F, 1_000_000, 1e3, 3 + 4j]"),
]  # fmt: skip

REFUSED = [
    Refused("Names that start with an underscore", "x = 1\n_hidden = 2", 2, "write it without"),
    Refused("Attributes that start with an underscore", "class A:\n    def __init__(self):\n        self._x = 1", 3, "write it without the underscore if it is yours"),
    Refused("Dunder attributes", "x = ().__class__", 1, "use isinstance(…) or type(…)"),
    Refused("Calling a parent's __init__ by its name", "class A:\n    pass\nclass B(A):\n    def __init__(self):\n        A.__init__(self)", 5, "call super().__init__(…)"),
    Refused("Inspection", "g = (x for x in [])\nf = g.gi_frame", 2, "choose another name if it is yours"),
    Refused("Unknown modules", "import os", 1, "apps can import base64, collections, datetime"),
    Refused("Data classes", "from dataclasses import dataclass", 1, "apps can import base64, collections, datetime"),
    Refused("Real packages", "import requests", 1, "apps can import base64, collections, datetime"),
    Refused("Names that a module does not have", "from json import codecs", 1, "it has JSONDecodeError, dumps, loads"),
    Refused("Star imports", "from math import *", 1, "write from math import the names you use"),
    Refused("Relative imports", "from . import x", 1, "put the code into it"),
    Refused("eval", "x = eval('1')", 1, "use json.loads for data"),
    Refused("open", "def f():\n    return open('x')", 2, "use meta.attachments or meta.storage"),
    Refused("globals", "x = globals()", 1, "keep a dict at the top of the file"),
    Refused("id", "x = id(1)", 1, "compare with `is`"),
    Refused("BaseException", "try:\n    pass\nexcept BaseException:\n    pass", 3, "catch Exception"),
    Refused("except*", "try:\n    pass\nexcept* ValueError:\n    pass", 1, "write except"),
    Refused("return in a finally block", "def f():\n    try:\n        pass\n    finally:\n        return 1", 5, "put the return after the block"),
    Refused("yield in a finally block", "def g():\n    try:\n        yield 1\n    finally:\n        yield 2", 5, "put the yield after the block"),
    Refused("yield in a try whose errors are not plain names", "import json\ndef g():\n    try:\n        yield 1\n    except json.JSONDecodeError:\n        pass", 4, "give the error a name of its own"),
    Refused("Metaclasses", "class A(metaclass=type):\n    pass", 1, "set attributes in the class body"),
    Refused("__new__", "class A:\n    def __new__(cls):\n        pass", 2, "write __init__"),
    Refused("__getattr__", "class A:\n    def __getattr__(self, n):\n        return n", 2, "write __getitem__ or a method"),
    Refused("__del__", "class A:\n    def __del__(self):\n        pass", 2, "write a method and call it"),
    Refused("__slots__ and other special class attributes", "class A:\n    __slots__ = ('x',)", 2, "write it without"),
    Refused("The traceback in __exit__", "class A:\n    def __exit__(self, kind, error, trace):\n        self.t = trace", 2, "leave trace unused"),
    Refused("await outside of async def", "def f(x):\n    await x", 2, "'await' outside async function"),
    Refused("Setting __name__", "def f():\n    pass\nf.__name__ = 'g'", 3, "write it without the underscore"),
    Refused("Rebinding print", "print = 1", 1, "choose another"),
    Refused("Syntax errors", "def f()\n    pass", 1, "expected ':'"),
]  # fmt: skip

TOPICS = {
    "Values and expressions": "Arithmetic|Big numbers|Comparisons in a chain|Conditional expression|Walrus|Lambda|Sets|Dictionaries|Slices|Bytes",
    "Text": "f-strings|str.format|Percent formatting|String methods",
    "Assignment": "Unpacking|Swapping|Chained assignment and star targets|Unpacking in literals and calls|Updates of names in place|Updates of items in place|Updates of attributes in place|Deleting items|The underscore as a name",
    "Conditions, loops, comprehensions": "For with else, break, continue|While|List comprehension with conditions|Dict comprehension over pairs|Generator expression|zip, enumerate, map, filter, any, all|Sorting",
    "match": "match on events|match on own classes|Every kind of pattern",
    "Functions": "Functions with every kind of parameter|Signatures|Nested functions and default values|Closures and nonlocal|Global state|Recursion|Decorators|Decorators with arguments|Annotations|Imports inside functions",
    "Generators": "Generators|yield from and send|Generator throw and close|Generators with finally and with",
    "async": "async helpers|async generators and comprehensions|async with|async errors",
    "Errors and clean-up": "try, else, finally|finally|try in a loop, with continue and break|Bare except|Own exceptions|raise from and re-raise|assert|Context managers|with and several names",
    "Classes": "Classes|Inheritance and super()|Properties|Static and class methods|A data class by hand|Class attributes and class-level code|Container methods|Iterator class|Operators of own classes|Methods called format and send|getattr, hasattr, setattr|type and isinstance",
    "The standard library": "JSON|Regular expressions|A bad regular expression|Dates|URLs|Hashes and signatures|UUIDs|Collections|itertools|functools|Mathematics|Decimals|Random numbers|Text helpers",
}  # fmt: skip
"""The order of the documentation's page: titles of ALLOWED."""


def answer_of(namespace: dict[str, Any]) -> Any:
    if "run" not in namespace:
        return namespace["answer"]
    try:
        namespace["run"]().send(None)
    except StopIteration as finished:
        return finished.value
    raise AssertionError("nothing to wait for")


def restricted(program: str) -> Any:
    namespace: dict[str, Any] = app_globals({"console": facade("console", {"log": print})})
    exec(compile_app(program, "app"), namespace)
    return answer_of(namespace)


def plain(program: str) -> Any:
    namespace: dict[str, Any] = {"__name__": "app"}
    exec(compile(program, "app", "exec", dont_inherit=True), namespace)
    return answer_of(namespace)


@pytest.mark.parametrize("case", ALLOWED, ids=lambda case: case.title)
def test_an_allowed_program_gives_the_same_answer_as_in_plain_python(case: Allowed) -> None:
    assert repr(restricted(case.program)) == repr(plain(case.program))


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.title)
def test_a_refused_program_is_answered_with_its_line_and_what_to_write_instead(case: Refused) -> None:
    with pytest.raises(AppSyntaxError) as caught:
        compile_app(case.program, "app")
    assert caught.value.line == case.line
    assert f"line {case.line}: " in caught.value.message
    assert case.instead in caught.value.message


def test_every_example_has_its_topic_in_the_documentation() -> None:
    placed = [title for titles in TOPICS.values() for title in titles.split("|")]
    assert sorted(placed) == sorted(case.title for case in ALLOWED)


def test_titles_are_unique_for_the_documentation() -> None:
    titles = [case.title for case in (*ALLOWED, *REFUSED)]
    assert len(titles) == len(set(titles))

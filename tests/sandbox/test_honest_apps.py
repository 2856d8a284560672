"""What honest apps may do works in a confined child: no library function, codec or error makes a call that seccomp kills for."""

# ruff: noqa: SIM905 - word lists read better than columns of quoted names

from __future__ import annotations

import encodings.aliases
import re
from typing import Any

import pytest

from plugin_server.model.project import Project
from sandbox.modules.catalogue import module_members, module_names
from tests.escape.language import hostile
from tests.sandbox.projects import Sink, project, running_pool
from tests.unit.sandbox.test_dialect import ALLOWED, REFUSED

CALLS = {
    "base64": [
        *(f"base64.{name}decode(base64.{name}encode(b'some bytes'))" for name in
          ("a85", "b16", "b32", "b64", "b85", "standard_b64", "urlsafe_b64")),
    ],
    "collections": [
        "collections.Counter('hello').most_common(2)", "collections.Counter('hello').most_common()", "collections.OrderedDict(a=1)",
        "collections.defaultdict(list)['x']", "collections.deque([1, 2], 1)", "collections.namedtuple('P', 'x y')(1, 2)",
    ],
    "datetime": [
        "[datetime.MAXYEAR, datetime.MINYEAR]", "datetime.datetime.now(datetime.UTC).isoformat()", "datetime.date.today().ctime()",
        "datetime.datetime.now().strftime('%Z %c %x %X %p %j %A %B %U %s %G')", "datetime.datetime.now().timestamp()",
        "datetime.datetime.now(datetime.timezone.utc).strftime('%Z %z')", "datetime.date.today().strftime('%A %d. %B %Y')",
        "datetime.datetime.strptime('Mon 3 Aug 2026 10:11:12 PM', '%a %d %b %Y %I:%M:%S %p')",
        "datetime.datetime.strptime('2026-01-02T03:04:05+0200', '%Y-%m-%dT%H:%M:%S%z')", "datetime.datetime.strptime('UTC', '%Z')",
        "datetime.datetime.now().astimezone().tzname()", "datetime.time(1, 2).strftime('%H:%M %Z')", "datetime.timedelta(days=2)",
        "datetime.datetime.fromisoformat('2026-01-01T00:00:00Z')", "datetime.datetime.fromtimestamp(0)", "datetime.datetime.utcnow()",
        "str(datetime.timezone(datetime.timedelta(hours=2)))", "datetime.datetime(2026, 1, 1).timetuple()",
    ],
    "decimal": [
        "decimal.Decimal(1) / 3", "decimal.getcontext().prec", "str(decimal.localcontext(prec=3))",
        "decimal.Decimal('1.5').quantize(decimal.Decimal(1), decimal.ROUND_UP)", "format(decimal.Decimal(10**6), ',.2f')",
        "format(decimal.Decimal(10**6), 'n')", "decimal.Decimal(2).sqrt().exp().ln()",
        *(f"decimal.{name}" for name in (
            "Clamped DecimalException DivisionByZero FloatOperation Inexact InvalidOperation Overflow ROUND_05UP ROUND_CEILING "
            "ROUND_DOWN ROUND_FLOOR ROUND_HALF_DOWN ROUND_HALF_EVEN ROUND_HALF_UP Rounded Subnormal Underflow").split()),
    ],
    "functools": [
        "functools.cache(fails)", "functools.lru_cache(fails)", "sorted([2, 1], key=functools.cmp_to_key(lambda a, b: a - b))",
        "functools.partial(max, 1)(2)", "functools.reduce(lambda a, b: a + b, [1, 2])", "functools.wraps(fails)(lambda x: x)(1)",
    ],
    "hashlib": [
        *(f"hashlib.{name}(b'x').hexdigest()" for name in
          "blake2b blake2s md5 sha1 sha224 sha256 sha384 sha512 sha3_224 sha3_256 sha3_384 sha3_512".split()),
        *(f"hashlib.pbkdf2_hmac('{name}', b'p', b's', 10)" for name in "md5 sha1 sha256 sha512 sha3_256 blake2b".split()),
        "hashlib.new('sha3-256', b'x' * 10_000).digest()", "hashlib.new('SHA-256').copy().digest()",
    ],
    "hmac": [
        *(f"hmac.new(b'k', b'm', '{name}').hexdigest()" for name in "md5 sha1 sha256 sha512 sha3_512 blake2s".split()),
        "hmac.digest(b'k', b'm', 'sha256')", "hmac.digest(b'k', b'm', 'blake2b')", "hmac.compare_digest('a', 'b')",
        "hmac.new(b'k' * 500, b'm', 'sha224').copy().digest()",
    ],
    "html": ["html.escape('<a&\"')", "html.unescape('&lt;&eacute;&#x41;&nosuch;')"],
    "itertools": [
        "list(itertools.accumulate([1, 2]))", "list(itertools.chain([1], [2]))", "list(itertools.combinations('abc', 2))",
        "list(itertools.combinations_with_replacement('ab', 2))", "list(itertools.compress('ab', [1, 0]))",
        "list(itertools.islice(itertools.count(), 3))", "list(itertools.islice(itertools.cycle('ab'), 3))",
        "list(itertools.dropwhile(bool, [1, 0]))", "list(itertools.filterfalse(bool, [1, 0]))", "list(itertools.groupby('aab'))",
        "list(itertools.pairwise('abc'))", "list(itertools.permutations('abc'))", "list(itertools.product('ab', 'cd'))",
        "list(itertools.repeat(1, 2))", "list(itertools.starmap(max, [(1, 2)]))", "list(itertools.takewhile(bool, [1, 0]))",
        "itertools.tee([1])", "list(itertools.zip_longest('ab', 'c'))",
        "getattr(itertools, 'batched', max)('ab', 'c') if False else None  # batched",
    ],
    "json": ["json.dumps({'a': [1, 2.5, None, 'é']}, indent=1, sort_keys=True)", "json.loads('{\"a\": [1e3]}')", "json.JSONDecodeError"],
    "math": [
        *(f"math.{name}(0.5)" for name in (
            "acos asin asinh atan atanh cbrt ceil cos cosh degrees erf erfc exp exp2 expm1 fabs floor frexp gamma isfinite isinf isnan "
            "lgamma log log10 log1p log2 modf radians sin sinh sqrt tan tanh trunc ulp").split()),
        *(f"math.{name}(1.5, 2.5)" for name in "atan2 copysign fmod hypot isclose ldexp nextafter pow remainder".split()
          if name != "ldexp"),
        "math.acosh(2)", "math.comb(5, 2)", "math.dist([1], [2])", "math.factorial(500)", "math.fsum([.1] * 9)", "math.gcd(4, 6)",
        "math.isqrt(9)", "math.lcm(4, 6)", "math.ldexp(1, 2)", "math.perm(5)", "math.prod([2, 3])",
        "[math.e, math.pi, math.tau, math.inf, math.nan]",
    ],
    "random": [
        "random.betavariate(1, 1)", "random.choice('ab')", "random.choices('ab', k=2)", "random.expovariate(1)", "random.gammavariate(1, 1)",
        "random.gauss(0, 1)", "random.getrandbits(100)", "random.lognormvariate(0, 1)", "random.normalvariate(0, 1)",
        "random.paretovariate(1)", "random.randbytes(10)", "random.randint(1, 6)", "random.random()", "random.randrange(9)",
        "random.sample([1, 2, 3], 2)", "random.seed('text')", "random.seed(None)", "random.shuffle([1, 2])", "random.triangular()",
        "random.uniform(0, 1)", "random.vonmisesvariate(0, 1)", "random.weibullvariate(1, 1)", "random.Random(5).random()",
        "random.Random().random()",
    ],
    "re": [
        "re.compile('(a+)b', re.I | re.M | re.S | re.X | re.A).search('AAB').groups()", "re.escape('a.b')", "re.findall('a', 'aa')",
        "list(re.finditer('a', 'aa'))", "re.fullmatch('a', 'a').expand('x')", "re.match('(?P<n>a)', 'a').expand(r'\\g<n>')",
        "re.search('[[a]', 'a')", "re.split(',', 'a,b')", "re.sub('a', r'<\\g<0>>', 'aa')", "re.subn('a', lambda m: m[0] * 2, 'aa')",
        "[re.ASCII, re.DOTALL, re.IGNORECASE, re.MULTILINE, re.NOFLAG, re.U, re.UNICODE, re.VERBOSE, re.Match, re.Pattern, re.error]",
        "re.search(r'\\N{BULLET}|ß', '•', re.IGNORECASE)",
    ],
    "statistics": [
        *(f"statistics.{name}([1, 2, 2, 3.5])" for name in (
            "fmean geometric_mean harmonic_mean mean median median_grouped median_high median_low mode multimode pstdev pvariance "
            "quantiles stdev variance").split()),
        *(f"statistics.{name}([1, 2, 3], [1, 2, 4])" for name in "correlation covariance linear_regression".split()),
        "statistics.StatisticsError",
    ],
    "string": [
        "string.Template('$a ${b}').safe_substitute(a=1)", "string.capwords('a b')",
        *(f"string.{name}" for name in
          "ascii_letters ascii_lowercase ascii_uppercase digits hexdigits octdigits printable punctuation whitespace".split()),
    ],
    "textwrap": [
        "textwrap.dedent(' a')", "textwrap.fill('a b ' * 50)", "textwrap.indent('a', ' ')", "textwrap.shorten('a b c ' * 20, 40)",
        "textwrap.wrap('a b ' * 50)",
    ],
    "time": [
        "time.gmtime()", "time.gmtime(0)", "time.monotonic()", "time.perf_counter()", "time.strftime('%Z %c %x %X %p')", "time.time()",
        "time.strftime('%Y', time.gmtime(5))", "time.time_ns()", "fails(time.sleep, 1)",
    ],
    "typing": [f"typing.{name}" for name in (
        "Any AsyncIterator Awaitable Callable ClassVar Dict Final FrozenSet Generator Iterable Iterator List Literal Mapping Optional "
        "Sequence Set TYPE_CHECKING Tuple Type Union").split()] + ["typing.cast(int, 1)", "typing.Dict[str, typing.Optional[int]]"],
    "urllib": ["urllib.parse.quote('é')"],
    "urllib.parse": [
        "urllib.parse.parse_qs('a=1')", "urllib.parse.parse_qsl('a=1')", "urllib.parse.quote('é /')", "urllib.parse.quote_from_bytes(b'a b')",
        "urllib.parse.quote_plus('a b')", "urllib.parse.unquote('%C3%A9')", "urllib.parse.unquote_plus('a+b')",
        "urllib.parse.unquote_to_bytes('%20')", "urllib.parse.urldefrag('http://h#f')", "urllib.parse.urlencode({'a': 'é'})",
        "urllib.parse.urljoin('http://h/a', 'b')", "urllib.parse.urlparse('http://u:p@[::1]:80/p?q')", "urllib.parse.urlsplit('http://bücher.de')",
        "fails(urllib.parse.urlsplit, 'http://[v1.x]]/')", "fails(urllib.parse.urlsplit, 'http://\\u2100.de')",
        "urllib.parse.urlunparse(('http', 'h', '/', '', '', ''))", "urllib.parse.urlunsplit(('http', 'h', '/', '', ''))",
    ],
    "uuid": [
        "uuid.UUID('018f0000-0000-7000-8000-000000000000')", "uuid.uuid3(uuid.NAMESPACE_DNS, 'x')", "uuid.uuid4()",
        "uuid.uuid5(uuid.NAMESPACE_URL, 'x')", "[uuid.NAMESPACE_OID, uuid.NAMESPACE_X500]", "fails(uuid.UUID, 'x')",
    ],
    "zlib": [
        "zlib.decompress(zlib.compress(b'x' * 100_000, 9))", "zlib.crc32(b'x')", "zlib.adler32(b'x')", "[zlib.error, zlib.MAX_WBITS]",
        "fails(zlib.decompress, b'x')",
    ],
}  # fmt: skip

BUILTINS = [
    "sorted([3, 1], key=lambda x: -x)", "'{:n} {:,} {:>10}'.format(1234567, 1234567, 'x')", "f'{1234567.5:n}'", "hash('x')",
    "int('9' * 4000)", "str(10 ** 4000)", "fails(int, '9' * 5000)", "pow(3, 10**4, 10**9)", "'x'.encode('idna')", "b'x-fka'.decode('punycode')",
    "'ß'.casefold().upper()", "'\\u0130'.lower()", "'abc'.translate({97: 'x'})", "ascii('é')", "complex('1+2j')",
    "fails(lambda: 'x'.encode('nosuch'))", "fails(lambda: 'x'.encode('hex'))", "fails(lambda: 'x'.encode('../../etc/passwd'))",
    "fails(lambda: 'é'.encode('ascii'))", "fails(lambda: [][1])", "fails(lambda: 1 / 0)", "fails(lambda: missing)",
    "fails(lambda: 'x' + 1)", "fails(lambda: ''.nosuch)", "[x for x in range(100_000)][-1]", "('x' * 10_000_000).replace('x', 'yy')[:3]",
    "fails(lambda: 'x' * 10**11)", "fails(recurse, 0)", "fails(lambda: print(end=1, sep=2))", "print('text')", "list(map(str, range(10)))",
    "leave_generator()", "leave_coroutine()", "fails(lambda: list(range(10**10)))",
]  # fmt: skip

PREAMBLE = """
def fails(action, *args):
    try:
        action(*args)
    except Exception as error:
        return repr(error)[:200]
    return 'it did not fail'

def recurse(n):
    return recurse(n + 1)

def broken():
    try:
        yield 1
    finally:
        raise ValueError('nobody hears this')

def stubborn():
    try:
        yield 1
    finally:
        [n for n in range(3)]

def leave_generator():
    for made in (broken(), stubborn()):
        next(made)

async def later():
    pass

def leave_coroutine():
    later()
"""


def app_of(expressions: list[str], module: str | None = None) -> str:
    lines = "".join(f"    answers.append(repr({expression}\n    )[:500])\n" for expression in expressions)
    imported = f"import {module}\n" if module else ""
    return f"{imported}{PREAMBLE}\ndef processEvent(event, meta):\n    answers = []\n{lines}    event['properties']['answers'] = len(answers)\n    return event\n"


def runs(program: str) -> str:
    """A program of the dialect's table, at load and once more for each event."""
    answer = "await run()" if "async def run" in program else "answer"
    return f"{program}\n\nasync def processEvent(event, meta):\n    repr({answer})\n    return event\n"


def attacks(program: str) -> str:
    return f"{program}\n\ndef processEvent(event, meta):\n    try:\n        attack()\n    except Exception as error:\n        event['properties']['error'] = str(error)[:100]\n    return event\n"


async def run_confined(tenant: Project, events: int = 2) -> tuple[Sink, dict[int, str | None]]:
    """Its results, and why each install did not load. No sandbox died."""
    sink = Sink()
    async with running_pool() as bench:
        confinement = bench.pool._fork_server.confinement
        assert confinement is not None
        assert "seccomp" not in confinement.problems
        bench.pool.submit(tenant, sink.works(events))
        await sink.all()
        assert bench.restarts == []
        return sink, {entry.install_id: entry.error and entry.error.message for entry in bench.loads[0].installs}


def failures(sink: Sink) -> list[Any]:
    return [
        (failure.install_id, failure.kind, failure.message)
        for number in sink.submitted
        if (notes := sink.results[number].notes) is not None
        for failure in notes.failures
    ]


async def test_every_function_that_apps_can_import_runs_confined():
    sink, errors = await run_confined(project(*(app_of(calls, module) for module, calls in CALLS.items())))
    assert set(errors.values()) == {None}
    assert failures(sink) == []


@pytest.mark.parametrize("module", sorted(module_names()))
def test_every_importable_name_is_among_them(module):
    text = "\n".join(CALLS[module])
    assert [name for name in module_members(module) if not re.search(rf"\b{name}\b", text) and "code" not in name] == []


async def test_builtins_and_their_errors_run_confined():
    sink, errors = await run_confined(project(app_of(BUILTINS), cpu_seconds=20, memory_bytes=150 * 2**20))
    assert errors == {1: None}
    assert failures(sink) == []


async def test_every_codec_of_the_library_is_there_and_an_unknown_one_is_an_error():
    names = sorted({*encodings.aliases.aliases, *encodings.aliases.aliases.values()})
    source = (
        f"NAMES = {names!r}\n"
        "def processEvent(event, meta):\n"
        "    known = []\n"
        "    for name in NAMES + ['nosuch', 'os', 'encodings.hex', '/etc/passwd']:\n"
        "        try:\n"
        "            if 'text'.encode(name).decode(name) == 'text':\n"
        "                known.append(name)\n"
        "        except LookupError:\n"
        "            pass\n"
        "    event['properties']['known'] = known\n"
        "    return event\n"
    )
    sink, _ = await run_confined(project(source))
    expected = []
    for name in names:
        try:
            if "text".encode(name).decode(name) == "text":
                expected.append(name)
        except LookupError:
            pass
    assert failures(sink) == []
    assert sink.properties(0)["known"] == expected
    assert len(expected) > 300


async def test_every_program_of_the_dialect_runs_confined():
    sink, errors = await run_confined(project(*(runs(case.program) for case in ALLOWED)))
    assert set(errors.values()) == {None}
    assert failures(sink) == []


async def test_every_refused_program_is_refused_with_its_line_and_not_by_death():
    programs = [case.program for case in REFUSED]
    lines = [case.line for case in REFUSED]
    later = [
        "return 1",
        "def f(x):\n    global x",
        "nonlocal x",
        "def f():\n    yield\n    await x",
        "x = '\\d'\n1 is 1\nbreak",
    ]
    sink, errors = await run_confined(project(*programs, *later))
    for line, message in zip(lines, errors.values(), strict=False):
        assert message is not None
        assert message.startswith(f"line {line}: ")
    assert None not in errors.values()
    assert failures(sink) == []


async def test_hostile_programs_of_the_language_ring_end_there_and_not_by_death():
    programs = [
        program
        for group in (hostile.DUNDER_WALKS, hostile.FRAMES, hostile.FORMATTING, hostile.NAMES, hostile.CLASSES,
                      hostile.CAPABILITIES, hostile.MUTATIONS, hostile.SYNTAX)
        for program in group.values()
        if "stop()" not in program and program.isascii()
    ]  # fmt: skip
    await run_confined(project(*map(attacks, programs), cpu_seconds=5, memory_bytes=400 * 2**20))

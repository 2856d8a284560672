"""Each module shows apps exactly the names on the list here: a new one is a decision, not an accident."""

from __future__ import annotations

import datetime as real  # noqa: ICN001 - beside the classes called datetime here
import json
import uuid
from typing import Any

import orjson
import pytest

from sandbox.environment import app_globals, warm_up
from sandbox.facade import Facade, facade
from sandbox.modules.catalogue import importer, module_members, module_names
from sandbox.policy import compile_app

LISTED = {
    "base64": "a85decode a85encode b16decode b16encode b32decode b32encode b64decode b64encode b85decode b85encode standard_b64decode standard_b64encode urlsafe_b64decode urlsafe_b64encode",
    "collections": "Counter OrderedDict defaultdict deque namedtuple",
    "datetime": "MAXYEAR MINYEAR UTC date datetime time timedelta timezone",
    "decimal": "Clamped Decimal DecimalException DivisionByZero FloatOperation Inexact InvalidOperation Overflow ROUND_05UP ROUND_CEILING ROUND_DOWN ROUND_FLOOR ROUND_HALF_DOWN ROUND_HALF_EVEN ROUND_HALF_UP ROUND_UP Rounded Subnormal Underflow getcontext localcontext",
    "functools": "cache cmp_to_key lru_cache partial reduce wraps",
    "hashlib": "blake2b blake2s md5 new pbkdf2_hmac sha1 sha224 sha256 sha384 sha3_224 sha3_256 sha3_384 sha3_512 sha512",
    "hmac": "compare_digest digest new",
    "html": "escape unescape",
    "itertools": "accumulate chain combinations combinations_with_replacement compress count cycle dropwhile filterfalse groupby islice pairwise permutations product repeat starmap takewhile tee zip_longest",
    "json": "JSONDecodeError dumps loads",
    "math": "acos acosh asin asinh atan atan2 atanh cbrt ceil comb copysign cos cosh degrees dist e erf erfc exp exp2 expm1 fabs factorial floor fmod frexp fsum gamma gcd hypot inf isclose isfinite isinf isnan isqrt lcm ldexp lgamma log log10 log1p log2 modf nan nextafter perm pi pow prod radians remainder sin sinh sqrt tan tanh tau trunc ulp",
    "random": "Random betavariate choice choices expovariate gammavariate gauss getrandbits lognormvariate normalvariate paretovariate randbytes randint random randrange sample seed shuffle triangular uniform vonmisesvariate weibullvariate",
    "re": "A ASCII DOTALL I IGNORECASE M MULTILINE Match NOFLAG Pattern S U UNICODE VERBOSE X compile error escape findall finditer fullmatch match search split sub subn",
    "statistics": "StatisticsError correlation covariance fmean geometric_mean harmonic_mean linear_regression mean median median_grouped median_high median_low mode multimode pstdev pvariance quantiles stdev variance",
    "string": "Template ascii_letters ascii_lowercase ascii_uppercase capwords digits hexdigits octdigits printable punctuation whitespace",
    "textwrap": "dedent fill indent shorten wrap",
    "time": "gmtime monotonic perf_counter sleep strftime time time_ns",
    "typing": "Any AsyncIterator Awaitable Callable ClassVar Dict Final FrozenSet Generator Iterable Iterator List Literal Mapping Optional Sequence Set TYPE_CHECKING Tuple Type Union cast",
    "urllib": "parse",
    "urllib.parse": "parse_qs parse_qsl quote quote_from_bytes quote_plus unquote unquote_plus unquote_to_bytes urldefrag urlencode urljoin urlparse urlsplit urlunparse urlunsplit",
    "uuid": "NAMESPACE_DNS NAMESPACE_OID NAMESPACE_URL NAMESPACE_X500 UUID uuid3 uuid4 uuid5",
    "zlib": "MAX_WBITS adler32 compress crc32 decompress error",
}  # fmt: skip
NEWER = {"itertools": {"batched"}}
"""Names that only some of the supported Pythons have."""

NOTES = {
    "base64": "Base64 and its relatives, on bytes.",
    "collections": "No `UserDict`, `UserList`, `UserString`, `abc`. `namedtuple` takes no names that begin with `_`.",
    "datetime": "Naive times are UTC, whatever the machine's zone. No `tzinfo` of one's own.",
    "decimal": "`localcontext(prec=…)` for other precisions; it ends with the block.",
    "functools": "`cache`, `lru_cache` and `wraps` decorate functions of the app. A `partial` does not show what it holds.",
    "hashlib": "No `file_digest`.",
    "hmac": "Sign with `new(key, message, hashlib.sha256)` or `digest`; compare with `compare_digest`.",
    "html": "`escape` and `unescape`.",
    "itertools": "All of it; `batched` from Python 3.12 on.",
    "json": "`loads` and `dumps`. No `load`, `dump`: there are no files. No encoder classes: use `default=`.",
    "math": "All that works on numbers.",
    "random": "Each app has its own generator. No `SystemRandom`.",
    "re": "Time-bounded by the app's CPU time; patterns are limited in length. Flags are plain numbers.",
    "statistics": "No `NormalDist`.",
    "string": "Constants, `capwords`, and `Template` with `substitute` and `safe_substitute`. No `Formatter`: use f-strings.",
    "textwrap": "No `TextWrapper`.",
    "time": "`sleep` raises and says what to write: `await sleep(seconds)`, the global.",
    "typing": "Names for annotations, which are checked and dropped. `cast` returns its second argument.",
    "urllib": "Holds `parse` only.",
    "urllib.parse": "Arguments are text, bytes or numbers.",
    "uuid": "No `uuid1`: it would tell of the machine.",
    "zlib": "`decompress` is bounded in size. No streams.",
}
"""How a module differs from Python's, for the documentation."""


def run(program: str, **options: Any) -> dict[str, Any]:
    namespace: dict[str, Any] = app_globals({}, **options)
    exec(compile_app(program, "app"), namespace)
    return namespace


def test_apps_can_import_the_listed_modules_and_no_other() -> None:
    assert module_names() == set(LISTED)


@pytest.mark.parametrize("module", LISTED)
def test_a_module_shows_the_listed_names_and_no_other(module: str) -> None:
    shown = {name for name in dir(importer(lambda: 0.0)(module)) if not name.startswith("_")}
    assert shown - NEWER.get(module, set()) == set(LISTED[module].split())
    assert shown == module_members(module)


def test_every_module_says_how_it_differs() -> None:
    assert list(NOTES) == list(LISTED)


@pytest.mark.parametrize("module", LISTED)
def test_a_module_is_a_facade(module: str) -> None:
    assert isinstance(importer(lambda: 0.0)(module), Facade)


def test_a_frozen_clock_stands_still_in_datetime_and_time() -> None:
    program = """
import time
from datetime import UTC, date, datetime, timedelta, timezone
answer = [datetime.now(), datetime.utcnow(), datetime.today(), date.today(), datetime.now(UTC), time.time(), time.time_ns(),
          datetime.now(timezone(timedelta(hours=2))).hour, time.monotonic(), time.strftime('%Y'), datetime.now().timestamp()]
"""
    naive = real.datetime(2026, 11, 23, 12, 0, 0)  # noqa: DTZ001
    moment = naive.replace(tzinfo=real.UTC)
    answer = run(program, clock=moment.timestamp)["answer"]
    stamp = moment.timestamp()
    assert answer == [naive, naive, naive, naive.date(), moment, stamp, int(stamp) * 10**9, 14, 0.0, "2026", stamp]


def test_datetimes_are_naive_utc_whatever_the_machines_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        program = "from datetime import datetime\nd = datetime(1970, 1, 2)\nanswer = [d.timestamp(), d.astimezone().isoformat(), datetime.fromtimestamp(0).hour]"
        assert run(program)["answer"] == [86400.0, "1970-01-02T00:00:00+00:00", 0]
    finally:
        monkeypatch.undo()
        time.tzset()


def test_every_install_has_its_own_random_numbers() -> None:
    program = "import random\nrandom.seed(1)\ndef draw():\n    return random.random()"
    first, second = run(program), run(program)
    assert first["draw"]() == second["draw"]()
    first["draw"]()
    second["draw"]()
    assert first["draw"]() == second["draw"]()


def test_a_uuid_is_no_json_for_any_encoder() -> None:
    made = run("import uuid\nanswer = uuid.uuid4()")["answer"]
    assert not isinstance(made, uuid.UUID)
    with pytest.raises(TypeError):
        json.dumps(made)
    with pytest.raises(TypeError):
        orjson.dumps(made)


def test_a_named_tuple_is_no_json_for_orjson_when_subclasses_are_passed_through() -> None:
    made = run("from collections import namedtuple\nanswer = namedtuple('P', 'x')(1)")["answer"]
    with pytest.raises(TypeError):
        orjson.dumps(made, option=orjson.OPT_PASSTHROUGH_SUBCLASS)


def test_c_code_finds_the_modules_it_needs_from_an_apps_frame() -> None:
    # Match.expand and Pattern.sub import `re`, strftime imports `time`, long division imports `_pylong` on newer Pythons.
    program = """
import re
from datetime import datetime
m = re.match('(a)', 'a')
answer = [m.expand(r'\\1'), re.compile('(a)').sub(r'<\\1>', 'a'), datetime(2020, 1, 1).strftime('%Y'), datetime(2020, 1, 1).timetuple().tm_yday,
          (10 ** 4000 * 10 ** 4000) // 10 ** 4000 == 10 ** 4000]
"""
    assert run(program)["answer"] == ["a", "<a>", "2020", 1, True]


def test_warming_up_can_be_repeated() -> None:
    warm_up()
    warm_up()


def test_a_facade_wraps_what_is_no_plain_function() -> None:
    import functools
    import types

    made: Any = facade(
        "x", {"c": len, "bound": [].append, "partial": functools.partial(int, base=2), "cached": functools.cache(abs)}
    )
    assert [type(getattr(made, name)) for name in ("c", "bound", "partial", "cached")] == [types.FunctionType] * 4
    assert made.c("abc") == 3
    assert made.partial("101") == 5


def test_a_facade_with_items_reads_by_name_only() -> None:
    made: Any = facade("meta", {"config": {"a": 1}, "global": {}}, items=True)
    assert made["config"] is made.config
    assert made["global"] == {}
    assert "config" in made
    assert list(made) == ["config", "global"]
    for key in ("missing", 0, None, "__class__"):
        assert key not in made
        with pytest.raises(KeyError):
            made[key]


def test_a_facade_is_read_only() -> None:
    made: Any = facade("posthog", {"capture": len})
    with pytest.raises(AttributeError, match="read-only"):
        made.capture = 1
    with pytest.raises(AttributeError, match="read-only"):
        del made.capture
    assert not hasattr(made, "__dict__")


def test_a_facade_refuses_members_that_apps_could_not_name() -> None:
    for name in ("_private", "__init__", "gi_frame"):
        with pytest.raises(ValueError, match="cannot name"):
            facade("x", {name: 1})


OBJECTS = {
    "uuid.uuid4()": "bytes hex int urn variant version",
    "string.Template('x')": "safe_substitute substitute",
    "hmac.new(b'k', b'm', 'md5')": "block_size copy digest digest_size hexdigest name update",
    "hashlib.md5()": "block_size copy digest digest_size hexdigest name update",
    "decimal.localcontext()": "",
    "decimal.getcontext()": "count index prec rounding",
    "functools.partial(len)": "",
    "functools.cmp_to_key(len)(1)": "obj",  # a name that the dialect refuses
    "typing.Any": "",
    "random.Random(1)": LISTED["random"].replace("Random ", ""),
}
"""What functions of modules make, beside data and standard containers"""


@pytest.mark.parametrize("expression", OBJECTS)
def test_what_a_module_makes_shows_the_listed_names_and_no_other(expression: str) -> None:
    module = expression.partition(".")[0]
    made = run(f"import {module}\nanswer = {expression}")["answer"]
    assert {name for name in dir(made) if not name.startswith("_")} == set(OBJECTS[expression].split())

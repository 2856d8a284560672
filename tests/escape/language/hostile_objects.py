"""Hostile programs that hand objects of the app to code of ours, or hold on to what our code hands out.

`attack()` returns something true when it got through, as in `hostile`.
"""

# ruff: noqa: SIM905 - word lists read better than columns of quoted names

from __future__ import annotations

# An object that writes down whatever it is given, whoever asks.
SPY = """
seen = []
class Spy:
    def __hash__(self):
        return 7
    def __bool__(self):
        return True
    def __str__(self):
        return 'spy'
    def __iter__(self):
        return iter([self])
    def __len__(self):
        return 1
    def __index__(self):
        return 1
""" + "".join(
    f"    def __{name}__(self, *given):\n        seen.append(given)\n        return self\n"
    for name in """
    call contains eq ne lt le gt ge getitem setitem delitem add radd iadd sub rsub mul rmul imul truediv rtruediv floordiv rfloordiv
    mod rmod imod pow rpow divmod rdivmod and rand iand or ror ior xor rxor ixor lshift rlshift rshift rrshift matmul rmatmul format
    """.split()
) + "".join(
    f"    def {name}(self, *given, **named):\n        seen.append(given)\n        return self\n"
    for name in """
    items keys values get pop update append extend encode decode splitlines split join strip replace translate expandtabs startswith
    find rfind count tzinfo utcoffset as_integer_ratio as_tuple read write update_wrapper isoformat send throw_ close lower upper
    """.split()
) + """
OWN = (re.Match, decimal.Decimal, uuid.UUID, datetime.date, datetime.timedelta)  # of the app's own, on the other side of an operator
PLAIN = (str, bytes, int, float, bool, tuple, list, dict)
def harmless(value, depth=0):
    if value is None or value is posthog or value is meta or isinstance(value, (Spy, Exception, set, *OWN, *PLAIN[:6])):
        return True
    if isinstance(value, (list, tuple)) and depth < 5:
        return all([harmless(x, depth + 1) for x in value])
    if isinstance(value, dict) and depth < 5:
        return value == {} or 'planted' not in value
    return False
"""  # fmt: skip

HOST_CALLS = {
    "json": "json.dumps(S) json.dumps([1],indent=S) json.dumps({'a':1},separators=(S,S)) json.dumps({S:1},skipkeys=True) json.dumps([1],sort_keys=S) json.loads(S) json.loads('[1]',object_hook=S) json.loads('{\"a\":1}',object_pairs_hook=S) json.loads('1.5',parse_float=S) json.loads('NaN',parse_constant=S) json.dumps([S],default=S) json.JSONDecodeError(S,S,S) json.JSONDecodeError('x',S,0)",
    "re": "re.compile(S) re.compile('a',S) re.search('a',S) re.sub('a',S,'a') re.sub('a','b',S) re.sub('a','b','a',S) re.split('a','bab',S) re.escape(S) re.error(S,S,S) re.error('x',S,1) re.compile('a').match(S) re.compile('a').sub(S,'a') re.compile('(a)').match('a').expand(S) re.compile('(a)').match('a').group(S) re.compile('a').scanner(S) re.compile('a').match('a')[S] re.fullmatch(S,S) re.findall('a',S,S) re.Pattern(S) re.Match(S)",
    "math": "math.sqrt(S) math.gcd(S,S) math.prod([S]) math.fsum([S]) math.dist([S],[S]) math.isclose(S,S) math.factorial(S) math.comb(S,S) math.hypot(S) math.ldexp(1.0,S) math.floor(S) math.trunc(S)",
    "statistics": "statistics.mean([S]) statistics.mean(S) statistics.fmean([S],[S]) statistics.median([S,S]) statistics.mode([S,S]) statistics.quantiles([1,2],n=S) statistics.quantiles([1,2,3],method=S) statistics.stdev([S,S]) statistics.variance([1,2],S) statistics.pvariance([1,2],S) statistics.correlation([S,S],[S,S]) statistics.linear_regression([1,S],[2,S]) statistics.harmonic_mean([1,2],weights=S) statistics.multimode(S) statistics.median_grouped([1,2],S) statistics.geometric_mean([S])",
    "random": "random.choice(S) random.choices(S,k=S) random.choices([1],weights=S) random.choices([1],cum_weights=[S]) random.sample(S,S) random.sample([1],k=1,counts=[S]) random.shuffle(S) random.seed(S) random.randint(S,S) random.randrange(S) random.uniform(S,S) random.gauss(S,S) random.getrandbits(S) random.randbytes(S) random.Random(S) random.triangular(S,S,S) random.expovariate(S)",
    "decimal": "decimal.Decimal(S) decimal.Decimal((S,S,S)) decimal.Decimal('1').quantize(S) decimal.Decimal('1').quantize(decimal.Decimal(1),rounding=S) decimal.Decimal('1').sqrt(S) decimal.Decimal('1').compare(1,S) decimal.Decimal('1').to_integral_value(S,S) decimal.localcontext(prec=S) decimal.localcontext(rounding=S) decimal.localcontext(S) decimal.Decimal(1)+S decimal.Decimal(1)==S decimal.Decimal.from_float(S) decimal.Decimal(1).__format__(S)",
    "datetime": "datetime.datetime(S,1,1) datetime.datetime.now(S) datetime.datetime.fromtimestamp(S) datetime.datetime.fromtimestamp(1,S) datetime.datetime(2020,1,1,tzinfo=S) datetime.datetime(2020,1,1).replace(tzinfo=S) datetime.datetime(2020,1,1)-S datetime.datetime(2020,1,1)==S datetime.datetime.strptime(S,S) datetime.datetime(2020,1,1).strftime(S) datetime.timedelta(S) datetime.timedelta(1)*S datetime.timezone(S) datetime.timezone(datetime.timedelta(1),S) datetime.datetime.combine(S,S) datetime.time(1,tzinfo=S) datetime.date.fromisoformat(S) datetime.datetime.timestamp(S) datetime.datetime.astimezone(S,S) datetime.datetime.date(S) datetime.datetime(2020,1,1).astimezone(S) datetime.datetime(b'1234567890',S)",
    "time": "time.gmtime(S) time.strftime(S) time.strftime('%Y',S) time.strftime('%Y',(S,)*9)",
    "hashlib": "hashlib.new(S) hashlib.new('md5',S) hashlib.md5(S) hashlib.sha256(b'',usedforsecurity=S) hashlib.pbkdf2_hmac(S,b'',b'',1) hashlib.pbkdf2_hmac('md5',S,S,1) hashlib.pbkdf2_hmac('md5',b'',b'',S) hashlib.pbkdf2_hmac('md5',b'',b'',1,S) hashlib.md5().update(S)",
    "hmac": "hmac.new(S,S,S) hmac.new(b'k',S,'md5') hmac.new(b'k',b'm',S) hmac.digest(S,S,S) hmac.compare_digest(S,S) hmac.compare_digest('a',S) hmac.new(b'k',b'm','md5').update(S)",
    "base64": "base64.b64encode(S) base64.b64encode(b'x',S) base64.b64decode(S) base64.b32decode('x',S,S) base64.a85decode(S) base64.b85encode(S,S) base64.urlsafe_b64decode(S)",
    "zlib": "zlib.compress(S) zlib.compress(b'x',S) zlib.decompress(S) zlib.decompress(b'x',S) zlib.crc32(S) zlib.adler32(b'x',S)",
    "uuid": "uuid.UUID(S) uuid.UUID(bytes=S) uuid.UUID(int=S) uuid.uuid3(S,S) uuid.uuid5(uuid.NAMESPACE_DNS,S) uuid.uuid4()==S uuid.uuid4()<S",
    "urllib": "urllib.parse.urlparse(S) urllib.parse.urlsplit('a',S) urllib.parse.urlencode(S) urllib.parse.urlencode({S:S}) urllib.parse.urlencode({'a':1},safe=S) urllib.parse.urlencode({'a':b'x'},safe=S) urllib.parse.urlencode({'a':1},quote_via=S) urllib.parse.urlencode({'a':'x'},encoding=S,errors=S) urllib.parse.urlencode({'a':S},doseq=True) urllib.parse.urlunparse(S) urllib.parse.urlunsplit((S,S,S,S,S)) urllib.parse.quote(S) urllib.parse.quote('a',S) urllib.parse.unquote(S) urllib.parse.parse_qs(S) urllib.parse.parse_qsl('a=1',S) urllib.parse.urljoin(S,S) urllib.parse.urlparse('http://h')._replace(netloc=S).geturl() urllib.parse.urldefrag(S)",
    "text": "textwrap.wrap(S) textwrap.fill('a',S) textwrap.indent(S,S) textwrap.indent('a',S) textwrap.indent('a','b',S) textwrap.dedent(S) textwrap.shorten('a',width=S) html.escape(S) html.unescape(S) string.capwords(S) string.capwords('a',S) string.Template(S) string.Template('$a').substitute(S) string.Template('$a').substitute(S,b=1) string.Template('$a').safe_substitute(a=S) string.Template.substitute(S,S)",
    "collections": "collections.Counter(S) collections.Counter.update(S,S) collections.Counter.most_common(S) collections.Counter.most_common(S,1) collections.Counter.elements(S) collections.Counter.copy(S) collections.Counter.subtract(S,S) collections.Counter({1:S})+collections.Counter({1:S}) collections.Counter({1:1})==S collections.defaultdict(S)['x'] collections.defaultdict(S,{}) collections.deque(S) collections.deque([1],S) collections.deque([S]).index(S) collections.OrderedDict(S) collections.OrderedDict({1:1})==S collections.namedtuple(S,S) collections.namedtuple('P',[S]) collections.namedtuple('P','x',defaults=S) collections.namedtuple('P','x')(1)==S collections.namedtuple('P','x')(1)._replace(x=S)",
    "itertools": "list(itertools.islice(itertools.count(S,S),2)) list(itertools.accumulate([1,2],S)) list(itertools.groupby([1],S)) list(itertools.starmap(S,[(1,)])) list(itertools.takewhile(S,[1])) list(itertools.compress([1],[S])) list(itertools.repeat(S,S)) list(itertools.product([S],repeat=S)) list(itertools.zip_longest([1],[],fillvalue=S)) itertools.tee([1],S) list(itertools.islice([1],S))",
    "functools": "functools.reduce(S,[1,2]) functools.partial(S,1)(2) functools.wraps(S)(S) functools.lru_cache(S) functools.lru_cache(1,S) functools.cache(S) functools.cmp_to_key(S)(1)<functools.cmp_to_key(S)(2)",
    "builtins": "sorted([2,1],key=S) min([1,2],key=S) max(S,S) sum([1,2],S) sum([S]) any([S]) all([S]) list(map(S,[1])) list(filter(S,[1])) dict(S) dict([(S,S)]) list(S) set([S]) enumerate([1],S) range(S) slice(S) str(S) repr(S) bytes(S) bytes([S]) int(S) int('1',S) float(S) complex(S) round(1.5,S) pow(S,S,S) divmod(S,S) abs(S) hash(S) isinstance(1,S) issubclass(int,S) iter(S,1) next(S) getattr(S,S) getattr(1,'real',S) hasattr(1,S) setattr(S,S,S) delattr(S,S) type(S) format(S,S) format(1,S) print(S,sep=S) print(1,file=S) chr(S) ord(S) bin(S) zip(S,strict=S) reversed(S) super(S,S) property(S).fget classmethod(S) staticmethod(S) object(S) 'a'%S '%s'%S '%(a)s'%S 'a'.join(S) 'a'.join([S]) 'a'.split(S) 'a'.replace(S,S) 'a'.translate(S) str.maketrans(S) 'a'.startswith(S) 'a'.encode(S,S) b'a'.decode(S,S) 'a'.ljust(S,S) '{}'.format(S) '{0[a]}'.format(S) '{a[b][c]}'.format_map(S) '{0:{1}}'.format(1,S) '{0!r:{1[a]}}'.format(S,S) f'{S!r:{S}}' {}|S S|{} {}.update(S) {}=={1:S} {}.keys()&S {}.keys()|S [].sort(key=S) [].extend(S) [1].index(S) [S].count(1) {1}|S {1}.union(S) {1}==S (1,)==S (1,)+S 1+S 1==S int.from_bytes(S,S) (1).to_bytes(S,S) bytes.fromhex(S) dict.fromkeys(S,S) slice(1).indices(S) S in{}.keys() ValueError(S).args KeyError(S) UnicodeDecodeError(S,S,S,S,S) UnicodeEncodeError('a','b',0,1,S) ImportError(S,name=S,path=S) OSError(S,S,S) StopIteration(S).value AttributeError(S,name=S,obj=1) NameError(S,name=S)",
    "facades": "posthog==S meta==S posthog.capture(S) posthog.capture('x',S) meta[S] S(meta) hash(posthog) posthog<S posthog|S posthog%S meta|S {posthog:S}[posthog] [*meta]==S S in meta meta['config']==S",
}  # fmt: skip

MODULES = "import json, re, math, statistics, random, decimal, datetime, time, hashlib, hmac, base64, zlib, uuid, urllib.parse, textwrap, html, string, collections, itertools, functools\n"


def _spied(call: str) -> str:
    return (
        f"{MODULES}{SPY}\nS = Spy()\ndef attack():\n    try:\n        got = {call}\n        if isinstance(got, type) or callable(got):\n            got = None\n"
        "    except Exception as e:\n        got = e.args\n    return [g for g in seen if not harmless(list(g))]"
    )


def _calls(text: str) -> list[str]:
    return text.split(" ")


SPIES = {
    f"an_object_learns_nothing_from_{module}_{number}": _spied(call)
    for module, calls in HOST_CALLS.items()
    for number, call in enumerate(_calls(calls))
}
"""What our code hands to an app's object is data, an error or the app's own: never a function, class, module or table of ours."""

# An error that host code raises: whatever can be read of it is text, numbers or the app's own.
FAILING = """
json.loads('{') json.loads(b'\\xff') json.dumps(attack) json.dumps({(1,):1}) re.compile('(') re.compile('a'*20000) re.sub('a','\\\\9','a') math.sqrt(-1)
math.factorial(-1) math.factorial(10**9) statistics.mean([]) statistics.mode([]) random.choice([]) random.sample([],5) random.nothing decimal.Decimal('x')
decimal.Decimal(1)/0 datetime.datetime(0,0,0) datetime.datetime.strptime('x','%Y') datetime.datetime.fromisoformat('x') datetime.datetime.fromtimestamp(10**30)
time.sleep(1) time.gmtime(10**30) hashlib.new('x') hashlib.md5('x') hmac.new('k') base64.b64decode('x') base64.b16decode('zz') zlib.decompress(b'x') uuid.UUID('x')
urllib.parse.urlsplit('http://[') urllib.parse.quote(1) urllib.parse.unquote(1) textwrap.wrap(1) html.escape(1) string.Template('$').substitute() string.Formatter
string.Template('$a').substitute() collections.namedtuple('1','x') collections.namedtuple('P','x')() collections.deque().pop() collections.Counter(1) functools.reduce(max,[])
functools.wraps(1)(len) itertools.islice([],-1) getattr(posthog,'x') getattr(meta,'x') meta['x'] meta[1] posthog.capture() posthog.x console.x int('x') int('1'*5000)
str(10**5000) 'x'.encode('ascii') 'ü'.encode('ascii') b'\\xff'.decode() 'x'.encode('nothing') [].pop() {}['x'] {}[(1,)] [][0] next(iter([])) (1)() 1/0 None.x missing
chr(-1) 'x'.index('y') bytes(-1) range(1,2,0) 'a'+1 len(1) iter(1) hash([]) hash(posthog) getattr(1,'__class__') setattr(posthog,'x',1) type(1,2) isinstance(1,1)
super() '{0.x}'.format(1) '{}'.format() '{a}'.format_map({}) '%d'%'x' '%(a)s'%{} print(1,file=1) float('x') ord('ab') sorted([1,'a']) sum(['a']) dict([1]) round('a')
""".split()  # fmt: skip

_LOOK = """
NAMES = 'obj name path name_from value code errno filename filename2 strerror winerror characters_written object encoding reason start end doc pos msg lineno colno pattern args text offset print_file_and_line exceptions message split derive subgroup'.split()
PLAIN = (str, bytes, int, float, tuple, list, dict)
def attack():
    try:
        CALL
    except Exception as e:
        for n in NAMES:
            try:
                v = getattr(e, n, None)
            except Exception:
                continue
            if v is not None and not isinstance(v, PLAIN):
                return n + str(v)
            if isinstance(v, tuple) and [x for x in v if not (x is None or isinstance(x, PLAIN))]:
                return n + str(v)
            if isinstance(v, str) and ('/' in v and 'CALL' not in v and n in ('path', 'filename')):
                return v
        text = str(e)
        if ' at 0x' in text or '/usr' in text or 'site-packages' in text or 'sandbox.' in text:
            return text
"""

ERRORS = {
    f"the_error_of_{number}_shows_only_data": MODULES
    + _LOOK.replace("        CALL", f"        {call}").replace("'CALL'", repr(call))
    for number, call in enumerate(FAILING)
}

BOUNDS = {
    "a_long_key_does_not_multiply_the_iterations": "import hashlib\ndef attack():\n    return hashlib.pbkdf2_hmac('md5', b'', b'', 100_000, 1024)",
    "a_keys_length_that_is_an_object_is_refused": "import hashlib\nclass N:\n    def __index__(self):\n        return 10 ** 8\n    def __gt__(self, o):\n        return False\n    def __bool__(self):\n        return True\ndef attack():\n    return hashlib.pbkdf2_hmac('md5', b'', b'', 1, N())",
    "iterations_that_are_an_object_are_refused": "import hashlib\nclass N:\n    def __index__(self):\n        return 10 ** 9\n    def __gt__(self, o):\n        return False\ndef attack():\n    return hashlib.pbkdf2_hmac('md5', b'', b'', N())",
    "a_bomb_in_a_bomb_is_refused": "import zlib\ndef attack():\n    return len(zlib.decompress(zlib.decompress(zlib.compress(zlib.compress(bytes(9_000_000)))))) > 8 * 2 ** 20",
    "a_raw_bomb_is_refused": "import zlib\ndef attack():\n    return zlib.decompress(zlib.compress(bytes(9_000_000)), zlib.MAX_WBITS)",
    "a_streaming_decompressor_is_not_had": "import zlib\ndef attack():\n    return zlib.decompressobj()",
    "a_negative_limit_does_not_lift_the_bound": "import zlib\ndef attack():\n    return zlib.decompress(zlib.compress(b'x'), 15, -1)",
    "deep_json_is_refused": "import json\ndef attack():\n    return json.loads('[' * 100_000 + ']' * 100_000)",
    "deep_json_of_objects_is_refused": "import json\ndef attack():\n    return json.loads('{\"a\":' * 100_000 + '1' + '}' * 100_000)",
    "deep_values_are_not_dumped": "import json\ndef attack():\n    d = []\n    for i in range(100_000):\n        d = [d]\n    return json.dumps(d)",
    "cyclic_values_are_not_dumped": "import json\ndef attack():\n    d = []\n    d.append(d)\n    return json.dumps(d, check_circular=False)",
    "cyclic_values_are_not_dumped_with_an_indent": "import json\ndef attack():\n    d = {}\n    d['d'] = d\n    return json.dumps(d, check_circular=False, indent=1)",
    "a_default_that_returns_itself_is_refused": "import json\nclass A:\n    pass\ndef attack():\n    return json.dumps(A(), default=lambda o: o)",
    "a_default_that_nests_for_ever_is_refused": "import json\nclass A:\n    pass\ndef attack():\n    return json.dumps(A(), default=lambda o: [A()])",
    "long_digits_are_not_parsed": "import json\ndef attack():\n    return json.loads('1' * 5000)",
    "a_pattern_longer_than_allowed_is_refused_everywhere": "import re\ndef attack():\n    return [f for f in (re.search, re.match, re.fullmatch, re.split, re.findall, re.finditer) if f('a?' * 10_000, 'a')]",
    "a_template_of_a_pattern_is_no_pattern": "import re\nclass P:\n    pattern = 'a'\n    flags = 0\ndef attack():\n    return re.compile(P())",
    "a_permutation_count_is_bounded": "import math\ndef attack():\n    return math.perm(10 ** 6, 10 ** 6)",
    "a_factorial_of_an_object_is_refused": "import math\nclass N:\n    def __index__(self):\n        return 10 ** 7\ndef attack():\n    return math.factorial(N())",
    "a_memory_hard_key_is_not_had": "import hashlib\ndef attack():\n    return hashlib.scrypt(b'', salt=b'', n=2 ** 20, r=8, p=1)",
    "an_endless_digest_is_not_had": "import hashlib\ndef attack():\n    return hashlib.new('shake_128').hexdigest(10 ** 9)",
    "a_digest_of_openssls_is_not_had": "import hashlib\ndef attack():\n    return hashlib.new('ripemd160') or hashlib.new('md5-sha1')",
    "an_hmac_of_a_shake_is_not_had": "import hmac\ndef attack():\n    return hmac.new(b'k', b'm', 'shake_256')",
    "a_precision_of_zero_is_refused": "import decimal\ndef attack():\n    with decimal.localcontext(prec=0):\n        return True",
    "a_precision_that_is_a_bool_is_refused": "import decimal\ndef attack():\n    with decimal.localcontext(prec=True):\n        return True",
    "an_exponent_limit_is_not_set": "import decimal\ndef attack():\n    with decimal.localcontext(Emax=decimal.MAX_EMAX):\n        return True",
    "random_bytes_are_bounded": "import random\ndef attack():\n    return random.randbytes(10 ** 9)",
    "random_bits_of_an_object_are_refused": "import random\nclass N:\n    def __index__(self):\n        return 10 ** 9\n    def __gt__(self, o):\n        return False\ndef attack():\n    return random.getrandbits(N())",
}

KEPT = {
    "a_config_of_one_app_is_not_the_nexts": "planted = meta.config.get('planted')\nmeta.config['planted'] = 1\ndef attack():\n    return planted",
    "a_global_of_one_app_is_not_the_nexts": "g = meta['global']\nplanted = g.get('planted')\ng['planted'] = 1\ndef attack():\n    return planted",
    "an_item_of_meta_is_not_set": "def attack():\n    meta['config'] = {}\n    return True",
    "an_item_of_meta_is_not_deleted": "def attack():\n    del meta['config']\n    return True",
    "meta_is_not_updated_in_place": "def attack():\n    meta['config'] |= {}\n    return True",
    "meta_is_not_unpacked_by_double_star": "def attack():\n    return dict(**meta)",
    "meta_shows_no_dunder_items": "def attack():\n    return meta['__class__']",
    "meta_has_no_key_that_is_no_text": "def attack():\n    return 1 in meta or None in meta or b'config' in meta",
    "a_counter_class_keeps_nothing": "import collections\ndef attack():\n    collections.Counter.planted = 1\n    return True",
    "a_counter_class_method_is_not_replaced": "import collections\ndef attack():\n    setattr(collections.Counter, 'update', 1)\n    return True",
    "an_error_class_keeps_nothing": "import re\ndef attack():\n    setattr(re.error, 'planted', 1)\n    return True",
    "an_error_class_is_not_emptied": "import json\ndef attack():\n    delattr(json.JSONDecodeError, '__init__')\n    return True",
    "a_limit_class_keeps_nothing": "def attack():\n    ValueError.planted = 1\n    return True",
    "a_uuid_namespace_is_not_changed": "import uuid\ndef attack():\n    object.x = uuid.NAMESPACE_DNS\n    setattr(uuid.NAMESPACE_DNS, 'hex', 'x')\n    return True",
    "a_uuid_class_keeps_nothing": "import uuid\ndef attack():\n    uuid.UUID.planted = 1\n    return True",
    "a_hint_keeps_nothing": "import typing\ndef attack():\n    typing.Any.planted = 1\n    return True",
    "a_template_class_keeps_nothing": "import string\ndef attack():\n    string.Template.delimiter = '%'\n    return True",
    "a_template_keeps_nothing": "import string\ndef attack():\n    string.Template('x').planted = 1\n    return True",
    "a_date_class_keeps_nothing": "import datetime\ndef attack():\n    datetime.date.planted = 1\n    return True",
    "a_pattern_keeps_nothing": "import re\ndef attack():\n    re.compile('a').planted = 1\n    return True",
    "a_patterns_groups_are_a_copy": "import re\ndef attack():\n    p = re.compile('(?P<kept>k)')\n    found = 'planted' in p.groupindex\n    p.groupindex['planted'] = 1\n    return found",
    "a_patterns_groups_by_getattr_are_a_copy": "import re\ndef attack():\n    p = re.compile('(?P<kept>k2)')\n    found = 'planted' in getattr(p, 'groupindex')\n    getattr(p, 'groupindex')['planted'] = 1\n    return found",
    "a_views_mapping_leads_nowhere_shared": "class K:\n    def __ror__(self, d):\n        d['planted'] = 1\ndef attack():\n    m = {}.keys().mapping\n    m | K()\n    return meta.config.keys().mapping.get('planted')",
    "an_exceptions_notes_stay_its_own": "def attack():\n    e = ValueError('x')\n    e.add_note('planted')\n    return getattr(ValueError('x'), 'notes', 0)",
    "an_error_of_ours_is_new_each_time": "def error():\n    try:\n        posthog.nothing\n    except AttributeError as e:\n        return e\ndef attack():\n    e = error()\n    e.add_note('x')\n    return e is error()",
    "a_memory_error_is_new_each_time": "def error():\n    try:\n        'x' * (1 << 62)\n    except (MemoryError, OverflowError) as e:\n        return e\ndef attack():\n    return error() is error()",
    "an_errors_args_are_not_set": "def attack():\n    try:\n        meta.nothing\n    except AttributeError as e:\n        e.args = (1,)\n        return True",
    "a_functions_name_is_not_set": "def attack():\n    posthog.capture.__name__ = 'x'\n    return True",
    "a_functions_default_is_not_kept": "import json\ndef attack():\n    return getattr(json.loads, '__defaults__', 0) or getattr(json.dumps, '__kwdefaults__', 0)",
    "wraps_does_not_mark_classes_of_ours": "import functools, collections\ndef f():\n    pass\ndef attack():\n    functools.wraps(f)(collections.Counter)\n    return True",
    "a_random_generator_is_not_shared": "import random\nrandom.seed(11)\ndef attack():\n    r = random.Random(11)\n    return r.random() != random.random()",
    "a_state_of_random_is_not_set": "import random\ndef attack():\n    random.setstate(random.getstate())\n    return True",
    "a_decimal_flag_is_not_read": "import decimal\ndef attack():\n    return getattr(decimal.getcontext(), 'flags', 0) or getattr(decimal.getcontext(), 'traps', 0)",
    "a_decimal_context_is_not_made": "import decimal\ndef attack():\n    return decimal.Context(prec=7)",
    "a_decimal_context_is_not_set": "import decimal\ndef attack():\n    decimal.setcontext(decimal.ExtendedContext)\n    return True",
    "a_shown_context_does_nothing": "import decimal\ndef attack():\n    c = decimal.getcontext()\n    return getattr(c, 'clear_flags', 0) or getattr(c, 'create_decimal', 0) or getattr(c, 'copy', 0)",
    "a_decimal_context_in_a_local_one_is_not_written": "import decimal\ndef attack():\n    with decimal.localcontext() as c:\n        c.prec = 7\n    return True",
    "a_clock_is_not_replaced": "import time, datetime\ndef attack():\n    time.time = lambda: 0\n    return True",
    "a_facade_is_not_called": "def attack():\n    return posthog()",
    "a_facade_is_not_copied": "def attack():\n    return type(posthog)()",
    "a_facades_slots_are_not_read": "def attack():\n    return getattr(meta, '__slots__', 0) or meta.__dict__",
    "a_module_is_not_an_item": "import json\ndef attack():\n    return json['loads']",
    "a_module_is_not_iterated": "import json\ndef attack():\n    return list(json)",
    "a_module_is_no_context": "import json\ndef attack():\n    with json as x:\n        return x",
    "a_module_is_not_awaited": "import json\nasync def attack():\n    return await json",
    "a_module_is_not_a_base": "import json\nclass A(json):\n    pass\ndef attack():\n    return A",
    "a_module_is_not_extended_in_place": "import json\ndef attack():\n    global json\n    json |= {'x': 1}\n    return True",
    "a_module_is_not_sliced_into": "import json\ndef attack():\n    json[:] = []\n    return True",
    "builtins_stay_each_apps_own": "planted = max([1, 2]) == 'mine'\ndef max(x):\n    return 'mine'\ndef attack():\n    return planted",
    "a_global_statement_stays_in_its_app": "try:\n    planted = marker\nexcept NameError:\n    planted = 0\ndef attack():\n    global marker\n    marker = 1\n    return planted",
    "a_lru_cache_stays_in_its_app": "import functools\n@functools.lru_cache\ndef f():\n    return []\ndef attack():\n    f().append(1)\n    return len(f()) > 1",
    "a_class_attribute_stays_in_its_app": "class A:\n    shared = []\ndef attack():\n    A.shared.append(1)\n    return len(A.shared) > 1",
    "an_app_class_does_not_reach_its_metaclass": "class A:\n    pass\ndef attack():\n    return type(A)('X', (), {})",
    "an_app_classs_mro_is_not_called": "class A:\n    def mro(self):\n        return []\ndef attack():\n    return A.mro()",
    "a_subclass_list_is_not_read": "class A:\n    pass\ndef attack():\n    return A.__subclasses__()",
    "a_subclass_list_is_not_read_by_getattr": "def attack():\n    return getattr(Exception, '__subclasses__')()",
}

CALLABLES = {
    **{
        f"{name}_shows_nothing_of_its_inside": f"{MODULES}def attack():\n    f = {name}\n    return [n for n in 'func args keywords cache_info cache_clear cache_parameters cell_contents func_globals im_self im_func fget fset fdel getter setter obj maps data default_factory im_class gi_frame' .split() if getattr(f, n, None) is not None]"
        for name in """
        posthog.capture console.log print getattr setattr hasattr type format hash anext json.loads json.dumps re.compile re.sub math.sqrt math.factorial statistics.mean
        random.random random.seed random.choice decimal.getcontext decimal.localcontext datetime.datetime.now datetime.datetime.strptime time.time time.strftime hashlib.sha256 hashlib.new
        hmac.new base64.b64encode zlib.compress zlib.decompress uuid.uuid4 uuid.UUID urllib.parse.urlparse urllib.parse.urlencode textwrap.wrap textwrap.indent html.escape
        string.capwords string.Template collections.Counter collections.namedtuple collections.deque itertools.chain functools.reduce functools.partial functools.wraps
        functools.cmp_to_key functools.lru_cache hashlib.md5().copy hmac.new(b'k',b'','md5').copy re.compile('a').scanner('a').match decimal.Decimal(1).sqrt
        """.split()
    },
    **{
        f"{kind}_is_not_made_from_its_type": f"{MODULES}async def co():\n    pass\ndef gen():\n    yield 1\ndef attack():\n    return type({value})({arguments})"
        for kind, value, arguments in (
            ("a_function", "attack", "1, {}"),
            ("a_generator", "gen()", ""),
            ("a_module", "json", "'x'"),
            ("a_pattern", "type", "1"),
            ("a_method", "'x'.join", ""),
            ("a_bound_method", "json.loads", "len, 1"),
            ("a_property", "property(len)", "len"),
            ("a_cell", "(lambda: attack)", "1"),
            ("a_proxy", "{}.keys().mapping", "{'x': 1}"),
            ("a_timezone", "datetime.datetime.now().astimezone().tzinfo.utcoffset", ""),
            ("a_hash", "hashlib.md5()", "b''"),
            ("an_hmac", "hmac.new(b'k', b'', 'md5')", "1"),
            ("a_local_context", "decimal.localcontext()", "1"),
            ("a_shown_context", "decimal.getcontext()", "1, 2"),
            ("a_type", "int", "'X', (), {}"),
            ("a_hint", "__import__", "1"),
            ("an_alias", "list[int]", "int, int"),
            ("a_union", "int | str", "1"),
            ("a_struct_time", "time.gmtime(0)", "(1,) * 9"),
            ("a_view", "{}.items()", "{}"),
            ("a_scanner", "re.compile('a').scanner('a')", ""),
            ("a_super", "super", "int, 1"),
        )
    },
    "classmethods_bind_no_host_function_to_a_class": "class A:\n    f = classmethod(posthog.capture)\ndef attack():\n    return getattr(A.f, '__self__', 0) or getattr(A.f, '__func__', 0)",
    "staticmethods_show_no_function": "def attack():\n    s = staticmethod(posthog.capture)\n    return getattr(s, '__func__', 0) or getattr(s, '__wrapped__', 0)",
    "classmethods_chain_to_no_property": "class A:\n    p = classmethod(property(lambda c: c))\ndef attack():\n    return getattr(A.p, '__class__', 0) or getattr(A.p, 'mro', 0)",
    "descriptors_of_host_types_read_only_their_own": "import re\nclass A:\n    g = re.Pattern.groupindex\ndef attack():\n    return A().g",
    "descriptors_of_uuids_read_only_their_own": "import uuid\nclass A:\n    h = uuid.UUID.hex\ndef attack():\n    return A().h",
    "methods_of_host_types_are_not_called_on_objects": "import string\nclass A:\n    pass\ndef attack():\n    return string.Template.substitute(A(), {})",
    "format_is_not_bound_by_classmethod": "class A:\n    f = classmethod(str.format)\ndef attack():\n    return A.f",
    "format_is_not_got_from_a_union": "def attack():\n    return (str | int).format",
    "format_is_not_got_from_an_alias": "def attack():\n    return list[str].format or dict[str, int].format_map",
    "format_is_not_got_from_super": "class A:\n    def f(self):\n        return super().format\ndef attack():\n    return A().f()",
    "format_is_not_got_by_map": "def attack():\n    return [f(1) for f in map(getattr, ['{0.__class__}'], ['format'])]",
    "format_is_not_got_by_a_sort_key": "def attack():\n    return sorted(['{0.__class__}'], key=str.format)",
    "format_is_not_got_from_bytes": "def attack():\n    return b'{0.__class__}'.format(1)",
    "format_specs_with_dots_read_nothing": "def attack():\n    return '{0:{1.__class__}}'.format(1, 2)",
    "format_fields_from_values_are_not_parsed_again": "def attack():\n    return '{0.__class__}' not in '{x}'.format(x='{0.__class__}')",
    "format_with_conversions_reads_nothing": "def attack():\n    return '{0.__class__!r:>10}'.format(1)",
    "format_in_nested_items_reads_nothing": "def attack():\n    return '{0[a][b].__class__}'.format({'a': {'b': 1}})",
    "format_with_a_mapping_object_reads_nothing": "class M:\n    def __getitem__(self, k):\n        return self\ndef attack():\n    return '{a[b].__class__}'.format_map(M())",
    "format_methods_of_apps_get_no_more_than_text": "got = []\nclass F:\n    def __format__(self, spec):\n        got.append(spec)\n        return ''\ndef attack():\n    f'{F():{F()}x}'\n    '{0:{1}}'.format(F(), 'y')\n    format(F(), 'z')\n    return [g for g in got if type(g) is not str]",
    "templates_take_no_subclass": "import string\nclass T(string.Template):\n    idpattern = '.*'\ndef attack():\n    return T",
    "cmp_to_key_shows_no_object": "import functools\ndef attack():\n    return functools.cmp_to_key(max)(1).obj",
    "iterators_show_no_reduction": "def attack():\n    return iter([1]).__reduce__()",
    "iterators_are_not_set_back": "def attack():\n    return iter([1]).__setstate__(0)",
    "a_coroutine_is_not_closed_into_the_host": "async def f():\n    await fetch('x')\ndef attack():\n    c = f()\n    return c.close()",
    "a_host_coroutine_is_not_iterated": "def attack():\n    c = fetch('x')\n    try:\n        return list(c)\n    finally:\n        c.close()",
    "a_host_coroutine_is_not_delegated_to": "c = fetch('x')\ndef g():\n    yield from c\ndef attack():\n    try:\n        return list(g())\n    finally:\n        c.close()",
    "a_host_coroutine_is_not_sent_to": "def attack():\n    c = fetch('x')\n    try:\n        return c.send(None)\n    finally:\n        c.close()",
    "a_host_coroutine_shows_no_frame": "def attack():\n    c = fetch('x')\n    try:\n        return getattr(c, 'cr_frame', 0) or getattr(c, 'cr_await', 0)\n    finally:\n        c.close()",
    "an_awaitable_of_our_own_kind_cannot_be_made": "class A:\n    def __iter__(self):\n        yield 'forged'\nasync def attack():\n    return await A()",
    "an_aiter_is_not_iterated": "class A:\n    def __aiter__(self):\n        return self\n    def __anext__(self):\n        return iter(['forged'])\nasync def attack():\n    async for x in A():\n        return True",
    "an_aenter_is_not_iterated": "class A:\n    def __aenter__(self):\n        return iter(['forged'])\n    async def __aexit__(self, *a):\n        pass\nasync def attack():\n    async with A() as x:\n        return True",
}

CVES = {
    "cve_2023_37271_generator_expressions_show_no_frame": "def attack():\n    g = (g.gi_frame.f_back.f_back for x in [1])\n    return [*g]",
    "cve_2023_37271_frames_are_not_read_in_a_pattern": "def attack():\n    g = (x for x in [1])\n    match g:\n        case object(gi_frame=object(f_back=f)):\n            return f",
    "cve_2023_37271_frames_are_not_read_from_a_list": "def attack():\n    return [getattr(g, n, 0) for g in [(x for x in [])] for n in ('gi_frame', 'gi_code', 'gi_yieldfrom')][0]",
    "cve_2023_41039_format_map_of_a_literal": "def attack():\n    return '{x.__class__.__base__}'.format_map({'x': 1})",
    "cve_2023_41039_format_of_a_joined_str": "def attack():\n    return ''.join(['{0', '.__class__}']).format(1)",
    "cve_2023_41039_format_unbound_from_a_list": "def attack():\n    return [str][0].format('{0.__class__}', 1)",
    "cve_2023_41039_format_map_unbound_by_type": "def attack():\n    return type('').format_map('{x.__class__}', {'x': 1})",
    "rp_7_2_a_str_subclass_is_no_attribute_name": "class S(str):\n    def startswith(self, *a):\n        return False\n    def endswith(self, *a):\n        return False\ndef attack():\n    return getattr([], S('__class__')) or hasattr([], S('__class__'))",
    "rp_7_2_a_name_made_by_format_is_checked": "def attack():\n    return getattr([], '{}'.format('__class__'))",
    "rp_7_2_a_name_of_bytes_is_no_name": "def attack():\n    return getattr([], b'__class__')",
    "cve_2024_47532_the_obj_of_an_error_is_not_read": "import string\ndef attack():\n    try:\n        string.nothing\n    except AttributeError as e:\n        return e.obj.Formatter",
    "cve_2024_47532_the_obj_of_an_error_is_not_matched": "import string\ndef attack():\n    try:\n        string.nothing\n    except AttributeError as e:\n        match e:\n            case object(obj=o):\n                return o",
    "cve_2024_47532_the_obj_of_a_name_error_is_not_read": "def attack():\n    try:\n        nothing\n    except NameError as e:\n        return getattr(e, 'obj', None) or getattr(e, 'name_from', None)",
    "cve_2025_22153_except_star_with_split": "class E(ValueError):\n    def split(self, *a):\n        return 1\ndef attack():\n    try:\n        raise E\n    except* ValueError:\n        pass\n    return True",
    "cve_2025_22153_groups_by_subclass_are_not_found": "class E(ExceptionGroup):\n    def derive(self, e):\n        return 1\ndef attack():\n    return E",
    "cve_2025_22153_groups_are_not_found_among_errors": "def attack():\n    return [e for e in (Exception, OSError) if getattr(e, 'split', 0) or getattr(e, 'derive', 0)]",
    "cve_2026_55830_positional_only_in_def": "def attack(o=1, _write_=lambda o: o, /):\n    return True",
    "cve_2026_55830_positional_only_in_async_def": "async def attack(o=1, _write_=lambda o: o, /):\n    return True",
    "cve_2026_55830_positional_only_in_lambda": "def attack():\n    return (lambda _getattr_=1, /: True)()",
    "cve_2026_55830_positional_only_in_a_method": "class A:\n    def f(self, _getattr_=1, /):\n        return True\ndef attack():\n    return A().f()",
    "cve_2026_76825_formatter_vformat": "import string\ndef attack():\n    return string.Formatter().vformat('{0.__class__}', (1,), {})",
    "cve_2026_76825_formatter_get_field": "import string\ndef attack():\n    return string.Formatter().get_field('0.__class__', (1,), {})",
    "cve_2026_76825_formatter_by_from_import": "from string import Formatter as F\ndef attack():\n    return F().get_field('0.__class__', (1,), {})",
    "rp_8_5_async_generator_frames": "async def f():\n    yield 1\ndef attack():\n    return f().ag_frame.f_globals",
    "rp_8_5_async_generators_by_pattern": "async def f():\n    yield 1\ndef attack():\n    match f():\n        case object(ag_await=x, ag_code=y):\n            return y",
    "rp_8_5_comprehensions_do_not_unpack_forbidden_names": "def attack():\n    return [*_x for _x in [[1]]]",
    "rp_9_0_userstrings_are_not_found": "import collections\ndef attack():\n    return collections.UserString('{0.__class__}').format(1)",
    "rp_9_0_json_shows_no_codecs": "import json\ndef attack():\n    return json.codecs",
    "rp_9_0_re_shows_no_enum": "import re\ndef attack():\n    return re.enum.sys",
    "rp_9_0_flags_show_no_enum": "import re\ndef attack():\n    return getattr(type(re.I), 'sys', 0) or getattr(re.I, 'name', 0)",
    "rp_9_0_uuid_shows_no_os": "import uuid\ndef attack():\n    return uuid.os",
    "rp_9_0_typing_evaluates_nothing": "import typing\ndef f(x: 'print(1)'):\n    pass\ndef attack():\n    return typing.get_type_hints(f)",
    "rp_9_0_partials_show_no_function": "import functools\ndef attack():\n    return functools.partial(len, 'x').func",
    "rp_9_0_types_are_not_made_of_three_arguments": "def attack():\n    return type('X', (object,), {'__call__': lambda s: 1})",
    "rp_9_0_import_errors_show_no_path": "def attack():\n    try:\n        import nothing\n    except ImportError as e:\n        return e.path",
}

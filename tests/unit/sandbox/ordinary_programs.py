"""Helper code as authors of apps write it. Each program defines `run(event)`, and is called with each of EVENTS.

Not all events suit all programs: the errors must be the same too.
"""

from __future__ import annotations

from typing import Any

EVENTS: tuple[dict[str, Any], ...] = (
    {
        "event": "$pageview",
        "distinct_id": "ada",
        "timestamp": "2026-03-04T05:06:07+00:00",
        "properties": {
            "$current_url": "https://shop.example.com/a/b?utm_source=mail&utm_campaign=x%20y&q=1#top",
            "$browser": "Firefox",
            "$screen": {"width": 1280, "height": 720},
            "tags": ["new", "eu", "new"],
        },
    },
    {
        "event": "order completed",
        "distinct_id": "bob@example.com",
        "timestamp": "2025-12-31T23:59:59.5+02:00",
        "properties": {
            "total": "1234.565",
            "items": [
                {"sku": "A-1", "price": 19.99, "quantity": 2, "category": "books"},
                {"sku": "B-2", "price": 5, "quantity": 1, "category": "toys"},
                {"sku": "C-3", "price": 7.5, "quantity": 4, "category": "books"},
            ],
            "$email": "Bob@Example.com",
            "tags": [],
        },
    },
    {"event": "", "distinct_id": "é", "timestamp": None, "properties": {"total": None, "items": None, "tags": "new"}},
    {"event": "odd", "distinct_id": "0", "timestamp": "yesterday", "properties": {"total": "x", "$current_url": "//["}},
    {"event": "bare", "distinct_id": "", "properties": {}},
)

_TEXT = r'''
=== Greets by a closure over its configuration
def make_greeter(greeting):
    count = 0
    def greet(event):
        nonlocal count
        count += 1
        return f"{greeting}, {event['distinct_id']} ({count})"
    return greet
GREET = make_greeter("hello")
def run(event):
    return [GREET(event), GREET(event)]
=== Strips tracking parameters from a URL
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit
def run(event):
    url = event["properties"]["$current_url"]
    parts = urlsplit(url)
    kept = [(key, value) for key, value in parse_qsl(parts.query) if not key.startswith("utm_")]
    return urlunsplit((parts.scheme, parts.netloc.lower(), parts.path, urlencode(kept), ""))
=== Collects UTM parameters into properties
from urllib.parse import parse_qs, urlparse
def run(event):
    properties = event["properties"]
    query = parse_qs(urlparse(properties.get("$current_url", "")).query)
    for key, values in query.items():
        if key.startswith("utm_"):
            properties[f"${key}"] = values[0]
    return event
=== Hashes an identity with a salt
import hashlib
def pseudonym(value, salt="pepper"):
    digest = hashlib.sha256()
    digest.update(salt.encode())
    digest.update(value.encode("utf-8"))
    return digest.hexdigest()[:16]
def run(event):
    event["distinct_id"] = pseudonym(event["distinct_id"])
    return event
=== Signs a payload for a webhook
import base64, hashlib, hmac, json
def run(event):
    body = json.dumps(event["properties"], sort_keys=True, separators=(",", ":"))
    signature = hmac.new(b"secret", body.encode(), hashlib.sha256).digest()
    return {"body": body, "X-Signature": base64.b64encode(signature).decode("ascii")}
=== Totals an order in decimals
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
CENT = Decimal("0.01")
def run(event):
    try:
        total = Decimal(event["properties"]["total"]).quantize(CENT, rounding=ROUND_HALF_UP)
    except (InvalidOperation, TypeError) as error:
        return ["bad", type(error).__name__]
    except KeyError as error:
        return ["missing", error.args[0]]
    return str(total), str(total * Decimal("1.19"))
=== Sums items by category
from collections import defaultdict
def run(event):
    sums = defaultdict(float)
    for item in event["properties"]["items"]:
        sums[item["category"]] += item["price"] * item["quantity"]
    return {category: round(total, 2) for category, total in sorted(sums.items())}
=== Groups items with itertools
from itertools import groupby
def run(event):
    items = sorted(event["properties"].get("items") or [], key=lambda item: (item["category"], -item["price"]))
    return {key: [item["sku"] for item in group] for key, group in groupby(items, key=lambda item: item["category"])}
=== Counts tags
from collections import Counter
def run(event):
    counts = Counter(event["properties"].get("tags", ()))
    counts.update({"seen": 2})
    return counts.most_common(2), sum(counts.values()), counts["none"]
=== Dispatches by name of event
def on_pageview(event):
    return event["properties"]["$browser"]
def on_order(event):
    return len(event["properties"]["items"])
HANDLERS = {"$pageview": on_pageview, "order completed": on_order}
def run(event):
    handler = HANDLERS.get(event["event"], lambda event: f"nothing for {event['event']!r}")
    return handler(event)
=== Matches events by shape
def run(event):
    match event:
        case {"event": "$pageview", "properties": {"$screen": {"width": int(width), "height": int(height)}}} if width > height:
            return "landscape", width / height
        case {"event": "order completed" | "order updated" as name, "properties": {"items": [first, *rest]}}:
            return name, first["sku"], len(rest)
        case {"properties": {"total": None, **others}}:
            return "no total", sorted(others)
        case {"properties": {}, "event": str() as name} if name:
            return "other", name
        case _:
            raise ValueError(f"cannot place {event!r}")
=== Matches values of all kinds
RED = "red"
def kind(value):
    match value:
        case None | True | False:
            return "constant"
        case int(n) | float(n):
            return "number", n
        case "":
            return "empty"
        case str() as text:
            return "text", len(text)
        case []:
            return "empty list"
        case [one]:
            return "one", kind(one)
        case [first, *_, last]:
            return "many", kind(first), kind(last)
        case dict(entries):
            return "object", len(entries)
def run(event):
    return {key: kind(value) for key, value in event["properties"].items()}
=== Matches own classes by attribute and by position
class Point:
    def __init__(self, x, y):
        self.x = x
        self.y = y
def where(value):
    match value:
        case Point(x=0, y=0):
            return "origin"
        case Point(x=x, y=0 | 1 as y):
            return "low", x, y
        case Point(y=y):
            return "high", y
def run(event):
    return [where(Point(0, 0)), where(Point(len(event), 1)), where(Point(1, event["event"])), where(1)]
=== Flattens nested properties
def flatten(value, prefix=""):
    for key, inner in value.items():
        name = f"{prefix}{key}"
        if isinstance(inner, dict):
            yield from flatten(inner, name + "__")
        elif isinstance(inner, (list, tuple)):
            for index, item in enumerate(inner):
                yield from flatten({str(index): item}, name + "__")
        else:
            yield name, inner
def run(event):
    return dict(flatten(event["properties"]))
=== Walks a tree of nodes
TREE = {"name": "root", "children": [{"name": "a", "children": [{"name": "b"}]}, {"name": "c"}]}
def walk(node, depth=0):
    yield depth, node["name"]
    for child in node.get("children", []):
        yield from walk(child, depth + 1)
def run(event):
    return ["  " * depth + name for depth, name in walk(TREE)], max(depth for depth, _ in walk(TREE if event["event"] else event))
=== Removes empty values recursively
def clean(value):
    if isinstance(value, dict):
        return {key: cleaned for key, inner in value.items() if (cleaned := clean(inner)) not in (None, "", [], {})}
    if isinstance(value, list):
        return [clean(inner) for inner in value if inner is not None]
    return value.strip() if isinstance(value, str) else value
def run(event):
    return clean(event)
=== Redacts e-mail addresses
import re
EMAIL = re.compile(r"(?P<user>[\w.+-]+)@(?P<host>[\w-]+\.[\w.]+)")
def hide(match):
    return match["user"][0] + "***@" + match.group("host").lower()
def redact(value):
    match value:
        case str():
            return EMAIL.sub(hide, value)
        case dict():
            return {key: redact(inner) for key, inner in value.items()}
        case list():
            return [redact(inner) for inner in value]
    return value
def run(event):
    return redact(event)
=== Parses a user agent
import re
PATTERNS = [(re.compile(pattern, re.I), name) for pattern, name in [("firefox", "Gecko"), ("chrom(e|ium)", "Blink"), (".*safari", "WebKit")]]
def run(event):
    browser = event["properties"]["$browser"]
    for pattern, name in PATTERNS:
        if pattern.search(browser):
            return name
    else:
        return None
=== Splits a path by groups of a pattern
import re
PATH = re.compile(r"^https?://([^/?#]+)(/[^?#]*)?(?:\?([^#]*))?(?:#(.*))?$")
def run(event):
    found = PATH.match(event["properties"].get("$current_url", ""))
    if not found:
        return None
    host, path, query, fragment = found.groups(default="")
    return {"host": host.split("."), "path": [p for p in path.split("/") if p], "n": found.span(2), "rest": (query, fragment), "last": found.lastindex}
=== Tokenises a filter expression
import re
TOKEN = re.compile(r"\s*(?:(\d+)|(\w+)|(.))")
def tokens(text):
    for number, word, sign in TOKEN.findall(text):
        if number:
            yield "number", int(number)
        elif word:
            yield "word", word
        else:
            yield "sign", sign
def run(event):
    return list(tokens(f"{event['event']} > 12 && x != (y + {len(event['distinct_id'])})"))
=== Evaluates a filter expression by recursive descent
class Parser:
    def __init__(self, words):
        self.words = words
        self.at = 0
    def take(self):
        if self.at >= len(self.words):
            raise ValueError("unexpected end")
        self.at += 1
        return self.words[self.at - 1]
    def expression(self):
        value = self.term()
        while self.at < len(self.words) and self.words[self.at] in ("+", "-"):
            value = value + self.term() if self.take() == "+" else value - self.term()
        return value
    def term(self):
        word = self.take()
        return self.expression() if word == "(" else int(word)
def run(event):
    return Parser(["3", "+", "4", "-", str(len(event["event"]))]).expression(), Parser(["1", "+", "2"][: len(event["distinct_id"])]).expression()
=== Reads a timestamp and buckets it by hour
from datetime import datetime, timedelta, timezone
def run(event):
    moment = datetime.fromisoformat(event["timestamp"])
    hour = moment.astimezone(timezone.utc).replace(minute=0, second=0, microsecond=0)
    return hour.isoformat(), (hour + timedelta(days=1)).strftime("%Y/%m/%d %H:%M %a"), hour.weekday()
=== Tells ages in words
from datetime import date, datetime, timedelta
def age(then, now):
    days = (now - then).days
    if days < 0:
        raise ValueError(f"{then:%d.%m.%Y} is in the future")
    for size, name in ((365, "year"), (30, "month"), (7, "week"), (1, "day")):
        if days >= size:
            n = days // size
            return f"{n} {name}{'s' * (n != 1)} ago"
    return "today"
def run(event):
    day = datetime.strptime(event["timestamp"][:10], "%Y-%m-%d").date()
    return [age(day, day + timedelta(days=n)) for n in (0, 1, 13, 40, 800)] + [age(day, date(2025, 12, 31))]
=== Counts business days
from datetime import date, timedelta
def business_days(start, end):
    day = start
    while day < end:
        if day.weekday() < 5:
            yield day
        day += timedelta(1)
def run(event):
    start = date(2026, 1, len(event["event"]) + 1)
    return len(list(business_days(start, start + timedelta(weeks=2)))), start.isocalendar()[1]
=== Serialises dates and sets with a default
import json
from datetime import date
def default(value):
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if isinstance(value, date):
        return value.isoformat()
    raise TypeError(f"cannot send {type(value).__name__}")
def run(event):
    data = {"tags": set(event["properties"].get("tags", [])), "day": date(2026, 1, 2), "name": event["event"]}
    return json.dumps(data, default=default, indent=1)
=== Reads JSON that may be broken
import json
def run(event):
    answers = []
    for text in ('{"a": [1, 2.0, null]}', "{", json.dumps(event), event["event"]):
        try:
            answers.append(json.loads(text))
        except json.JSONDecodeError as error:
            answers.append([error.msg, error.pos, error.lineno])
    return answers
=== Formats a report in columns
def run(event):
    rows = event["properties"].get("items") or []
    width = max((len(row["sku"]) for row in rows), default=3)
    lines = [f"{'sku':<{width}} | {'price':>8}"]
    lines += [f"{row['sku']:<{width}} | {row['price']:>8,.2f}" for row in rows]
    lines.append("-" * (width + 11))
    return "\n".join(lines)
=== Fills templates of all kinds
import string
TEMPLATE = string.Template("$name was $$1 ${what}")
def run(event):
    fields = {"name": event["distinct_id"], "what": event["event"]}
    return [
        TEMPLATE.substitute(fields), TEMPLATE.safe_substitute(name=1), "{name:>12}|{what!r}".format(**fields),
        "{0[event]}-{0[properties]}".format(event), "%(name)s %(what)-5s." % fields,
    ]
=== Builds a message with joins and conditionals
def plural(n, word):
    return f"{n} {word}" if n == 1 else f"{n} {word}s"
def run(event):
    properties = event["properties"]
    parts = [event["event"].strip("$").replace(" ", "_").upper() or "NOTHING"]
    if "items" in properties:
        parts.append(plural(len(properties["items"]), "item"))
    parts.extend(f"{key.removeprefix('$')}={value}" for key, value in properties.items() if isinstance(value, str))
    return ", ".join(parts)
=== Sorts by several keys
def run(event):
    people = [("bo", 3), ("Al", 3), ("cy", 1), (event["distinct_id"], 2)]
    people.sort(key=lambda person: (-person[1], person[0].lower()))
    by_name = sorted(people, key=lambda person: person[0], reverse=True)
    return people, by_name, min(people), max(people, key=lambda person: len(person[0]))
=== Sorts with a comparison
from functools import cmp_to_key
def compare(a, b):
    if a["quantity"] != b["quantity"]:
        return b["quantity"] - a["quantity"]
    return (a["sku"] > b["sku"]) - (a["sku"] < b["sku"])
def run(event):
    return [item["sku"] for item in sorted(event["properties"]["items"], key=cmp_to_key(compare))]
=== Keeps the best few in a bounded list
class Top:
    def __init__(self, size):
        self.size = size
        self.entries = []
    def add(self, score, name):
        self.entries.append((score, name))
        self.entries.sort(reverse=True)
        del self.entries[self.size:]
        return self
    def __len__(self):
        return len(self.entries)
    def __iter__(self):
        return iter(self.entries)
def run(event):
    top = Top(3)
    for index, letter in enumerate(event["event"]):
        top.add(ord(letter) % 7, f"{letter}{index}")
    return len(top), list(top), (5, "x") in top
=== A cache that forgets the oldest
from collections import OrderedDict
class Recent:
    def __init__(self, size=2):
        self.size, self.data, self.misses = size, OrderedDict(), 0
    def get(self, key, make):
        if key not in self.data:
            self.misses += 1
            self.data[key] = make(key)
            if len(self.data) > self.size:
                self.data.popitem(last=False)
        self.data.move_to_end(key)
        return self.data[key]
def run(event):
    recent = Recent()
    return [recent.get(key, str.upper) for key in ("a", "b", "a", "c", "b", event["event"])], recent.misses
=== Memoises a recursion
from functools import cache, lru_cache
@cache
def ways(steps):
    return 1 if steps < 2 else ways(steps - 1) + ways(steps - 2)
@lru_cache(maxsize=2)
def shout(text):
    return text.upper()
def run(event):
    return ways(len(event["event"]) + 40), shout("a"), shout("a"), shout.cache_info().hits > 0
=== Money as a class with operators
class Money:
    def __init__(self, cents, currency="EUR"):
        self.cents = cents
        self.currency = currency
    def __add__(self, other):
        if other.currency != self.currency:
            raise ValueError(f"{self.currency} and {other.currency}")
        return Money(self.cents + other.cents, self.currency)
    def __mul__(self, times):
        return Money(round(self.cents * times), self.currency)
    def __eq__(self, other):
        return isinstance(other, Money) and (self.cents, self.currency) == (other.cents, other.currency)
    def __repr__(self):
        return f"{self.cents / 100:.2f} {self.currency}"
def run(event):
    total = Money(0)
    for item in event["properties"].get("items", []):
        total += Money(round(item["price"] * 100)) * item["quantity"]
    return repr(total), total == Money(total.cents), repr(total + Money(1, "EUR" if event["event"] else "USD"))
=== Inheritance with an abstract step
class Rule:
    name = "rule"
    def __init__(self, *, weight=1):
        self.weight = weight
    def matches(self, event):
        raise NotImplementedError(f"{type(self).__name__} has no matches")
    def score(self, event):
        return self.weight if self.matches(event) else 0
class HasProperty(Rule):
    name = "has property"
    def __init__(self, key, **options):
        super().__init__(**options)
        self.key = key
    def matches(self, event):
        return self.key in event["properties"]
class Named(Rule):
    def matches(self, event):
        return bool(event["event"])
    def score(self, event):
        return super().score(event) * 10
def run(event):
    rules = [HasProperty("items", weight=3), Named(weight=2), HasProperty("tags")]
    return sum(rule.score(event) for rule in rules), [rule.name for rule in rules], (rules[0] if event["properties"] else Rule()).score(event)
=== Properties with validation
class Window:
    def __init__(self, seconds):
        self.seconds = seconds
    @property
    def seconds(self):
        return self.value
    @seconds.setter
    def seconds(self, value):
        if value <= 0:
            raise ValueError("a window has more than 0 seconds")
        self.value = value
    @property
    def minutes(self):
        return self.seconds / 60
    @classmethod
    def of_minutes(cls, minutes):
        return cls(minutes * 60)
def run(event):
    window = Window.of_minutes(2)
    window.seconds += 30
    return window.minutes, Window(len(event["event"])).seconds
=== A linked list
class Node:
    def __init__(self, value, following=None):
        self.value = value
        self.following = following
def build(values):
    head = None
    for value in reversed(values):
        head = Node(value, head)
    return head
def run(event):
    node, seen = build(list(event["event"])), []
    while node is not None:
        seen.append(node.value)
        node = node.following
    return seen, build(list(event["distinct_id"])).value
=== Named tuples
from collections import namedtuple
Item = namedtuple("Item", "sku price quantity category", defaults=["none"])
def run(event):
    items = [Item(**item) for item in event["properties"].get("items") or []]
    cheap = [item._replace(price=0) for item in items if item.price < 10]
    return [tuple(item) for item in cheap], [item.sku for item in items], Item("x", 1, 1).category, Item("x", 1, 2) < Item("y", 0, 0)
=== A queue of work
from collections import deque
GRAPH = {"a": ["b", "c"], "b": ["d"], "c": ["d", "e"], "d": ["a"]}
def reachable(start):
    seen, waiting = {start}, deque([(start, 0)])
    while waiting:
        node, distance = waiting.popleft()
        yield node, distance
        for following in GRAPH.get(node, ()):
            if following not in seen:
                seen.add(following)
                waiting.append((following, distance + 1))
def run(event):
    return dict(reachable("a")), list(reachable(event["event"]))
=== Topological order, or an error
def order(needs):
    done, result = set(), []
    def visit(name, path):
        if name in path:
            raise RuntimeError(" -> ".join([*path, name]))
        if name not in done:
            for need in sorted(needs.get(name, [])):
                visit(need, [*path, name])
            done.add(name)
            result.append(name)
    for name in needs:
        visit(name, [])
    return result
def run(event):
    return order({"c": ["b", "a"], "b": ["a"]}), order({"x": [event["event"]], event["event"]: ["x"] if event["event"] == "odd" else []})
=== Batches with a generator
def batches(items, size):
    batch = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
def run(event):
    return [len(batch) for batch in batches(event["event"], 4)], list(batches(event["properties"].get("tags", []), 2))
=== A running average by send
def averager():
    total, count, average = 0, 0, None
    while True:
        value = yield average
        total += value
        count += 1
        average = total / count
def run(event):
    average = averager()
    next(average)
    answers = [average.send(value) for value in (10, 20, len(event["properties"]))]
    average.close()
    return answers
=== Generators in a pipeline
def words(texts):
    for text in texts:
        yield from text.split()
def long(items, least):
    return (item for item in items if len(item) >= least)
def run(event):
    found = long(words([event["event"], "the quick brown fox", event["distinct_id"]]), 4)
    return next(found, None), list(found), list(found)
=== Retries and gives up
class Unavailable(Exception):
    def __init__(self, status):
        super().__init__(f"status {status}")
        self.status = status
def fetch(attempt, least):
    if attempt < least:
        raise Unavailable(500 + attempt)
    return "ok"
def run(event):
    log = []
    for attempt in range(3):
        try:
            log.append(fetch(attempt, len(event["properties"])))
            break
        except Unavailable as error:
            log.append(error.status)
        finally:
            log.append(f"attempt {attempt}")
    else:
        raise RuntimeError(f"gave up after {log}")
    return log
=== Cleans up in the right order
def run(event):
    log = []
    def step(name, value):
        log.append(f"+{name}")
        try:
            if not value:
                raise ValueError(name)
            return name
        except ValueError as error:
            log.append(f"!{error}")
            return None
        else:
            log.append("never")
        finally:
            log.append(f"-{name}")
    return [step("event", event["event"]), step("id", event["distinct_id"]), step("properties", event["properties"])], log
=== Translates errors
class AppError(Exception):
    pass
class NoTotal(AppError, KeyError):
    def __str__(self):
        return "no total"
def total(event):
    try:
        return float(event["properties"]["total"])
    except KeyError as error:
        raise NoTotal(error.args[0]) from error
    except (TypeError, ValueError) as error:
        raise AppError(f"bad total: {error}") from None
def run(event):
    return total(event)
=== Timers as context managers
class Section:
    stack = []
    def __init__(self, name):
        self.name = name
    def __enter__(self):
        self.stack.append(self.name)
        return "/".join(self.stack)
    def __exit__(self, kind, error, trace):
        self.stack.pop()
        return kind is LookupError
def run(event):
    paths = []
    with Section("outer") as outer, Section("inner") as inner:
        paths += [outer, inner]
        if not event["event"]:
            raise LookupError("swallowed")
        paths.append(event["properties"]["$browser"])
    return paths, Section.stack
=== Decorators that count and check
import functools
calls = {}
def counted(function):
    calls[function.__name__] = []
    @functools.wraps(function)
    def wrapper(*args, **named):
        calls[function.__name__].append(len(args) + len(named))
        return function(*args, **named)
    return wrapper
@counted
def add(a, b=1, *, c=0):
    """Adds."""
    return a + b + c
def run(event):
    return add(1), add(1, 2, c=len(event["event"])), add.__name__, dict(calls), add("x" if event["event"] == "odd" else 4)
=== Requires fields by a decorator with arguments
def requires(*names):
    def decorate(function):
        def checked(event):
            missing = [name for name in names if name not in event["properties"]]
            if missing:
                raise KeyError(", ".join(missing))
            return function(event)
        return checked
    return decorate
@requires("items", "total")
def summary(event):
    return [event["properties"]["total"], len(event["properties"]["items"])]
def run(event):
    return summary(event)
=== Composes functions
from functools import partial, reduce
def compose(*functions):
    return lambda value: reduce(lambda result, function: function(result), functions, value)
def tag(prefix, text, *, end="!"):
    return f"{prefix}:{text}{end}"
def run(event):
    clean = compose(str.strip, str.lower, partial(tag, "event", end="?"))
    return clean(event["event"]), compose()(7), reduce(lambda a, b: a * b, range(1, 6))
=== Keyword-only and positional-only arguments
def log(level, /, message, *details, sep=" ", **fields):
    extra = sep.join(f"{key}={value!r}" for key, value in sorted(fields.items()))
    return f"[{level}] {message}{sep}{list(details)}{sep}{extra}"
def run(event):
    options = {"sep": "; ", "event": event["event"]}
    return log("info", "seen", *event["properties"], **options), log(**{"message": "y"}) if event["event"] == "odd" else log("x", message="y") if event["event"] == "bare" else log("x", "y")
=== Async helpers called in turn
async def lookup(key, table):
    if key not in table:
        raise LookupError(f"no {key}")
    return table[key]
async def run(event):
    found = []
    for key in ("$browser", "total"):
        try:
            found.append(await lookup(key, event["properties"]))
        except LookupError as error:
            found.append(str(error))
    return found
=== Async generators and comprehensions
async def pages(total, size):
    for start in range(0, total, size):
        yield list(range(start, min(start + size, total)))
async def run(event):
    seen = [number async for page in pages(len(event["event"]), 4) for number in page if number % 2]
    async for page in pages(2, 1):
        seen.extend(page)
    return seen
=== Async context managers and methods
class Session:
    def __init__(self, log):
        self.log = log
    async def __aenter__(self):
        self.log.append("open")
        return self
    async def __aexit__(self, kind, error, trace):
        self.log.append(str(error))
        return isinstance(error, KeyError)
    async def get(self, table, key):
        return table[key]
async def run(event):
    log = []
    async with Session(log) as session:
        log.append(await session.get(event["properties"], "total"))
    return log
=== Async recursion and lambdas
async def visit(node, seen):
    seen.append(node.get("event") or node.get("sku"))
    for child in (node.get("properties") or {}).get("items") or []:
        await visit(child, seen)
    return seen
later = lambda event: visit(event, [])
async def run(event):
    return await later(event)
=== Global counters
total = 0
by_name = {}
def count(name, step=1):
    global total
    total += step
    by_name[name] = by_name.get(name, 0) + step
def run(event):
    for letter in event["event"]:
        count(letter)
    by_name.pop("e", None)
    return total, dict(sorted(by_name.items()))
=== Updates in place of all kinds
class Box:
    def __init__(self):
        self.n = 1
        self.l = [1]
def run(event):
    box, data, numbers = Box(), {"a": {"b": [1, 2]}}, [1, 2, 3]
    box.n += 2
    box.n **= 3
    box.l += [2]
    data["a"]["b"][0] -= 5
    data["a"]["b"] *= 2
    numbers[1:] = [9] * len(event["event"])
    data |= {"c": 1}
    n = 7
    n //= 2
    n <<= 3
    n ^= 5
    del data["a"]["b"][-1], numbers[0]
    return box.n, box.l, data, numbers, n
=== Unpacks in all ways
def run(event):
    first, *middle, last = event["event"] or "ab"
    (a, b), [c, *d] = (1, 2), [3]
    pairs = {**event["properties"], "x": 1}
    *keys, = pairs
    for index, (key, value) in enumerate(sorted(pairs.items(), key=str)):
        a += index
    head, tail = event["distinct_id"].split("@", 1)
    return first, middle, last, a, b, c, d, keys, head, tail
=== Slices and strides
def run(event):
    text, numbers = event["event"], list(range(10))
    numbers[::2] = [0] * 5
    numbers[3:3] = ["in"]
    del numbers[-2:]
    return text[::-1], text[1:-1], text[:3] + "…" if len(text) > 3 else text, numbers, numbers[slice(1, 4)], text[0]
=== Comprehensions inside each other
def run(event):
    grid = [[x * y for x in range(4)] for y in range(3)]
    turned = [list(row) for row in zip(*grid)]
    flat = {value for row in grid for value in row if value}
    index = {key: [n for n, letter in enumerate(event["event"]) if letter == key] for key in sorted(set(event["event"]))}
    return turned, sorted(flat), index, any(x > 5 for x in flat), all([])
=== Walrus in loops and conditions
def run(event):
    numbers, rest = [], len(event["event"]) * 37
    while (digit := rest % 10) or rest:
        numbers.append(digit)
        rest //= 10
    if (n := len(numbers)) > 1 and (total := sum(numbers)) % 2:
        return n, total
    return numbers, [half for x in numbers if (half := x / 2) > 1]
=== Encodes bytes in several ways
import base64, zlib
def run(event):
    raw = event["distinct_id"].encode("utf-8")
    packed = zlib.compress(raw * 20)
    return [
        base64.b64encode(raw).decode(), base64.urlsafe_b64encode(raw).rstrip(b"="), raw.hex(), len(raw), zlib.crc32(raw),
        zlib.decompress(packed) == raw * 20, bytes(reversed(raw)), raw.decode("latin-1"), int.from_bytes(raw[:4], "big"), raw.decode("ascii"),
    ]
=== Makes stable identifiers
import uuid
NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://example.com")
def run(event):
    made = uuid.uuid5(NAMESPACE, event["event"])
    again = uuid.UUID(str(made))
    return str(made), made == again, made.hex[:8], made.version, str(uuid.UUID(event["distinct_id"].ljust(32, "a")))
=== Samples by hash, always the same
import hashlib
def share(key, parts=100):
    return int(hashlib.md5(key.encode()).hexdigest(), 16) % parts
def run(event):
    kept = [n for n in range(30) if share(f"{event['distinct_id']}:{n}") < 20]
    return share(event["event"]), kept, share("x", len(event["distinct_id"]))
=== Statistics of an order
import math, statistics
def run(event):
    prices = [item["price"] for item in event["properties"]["items"]]
    return [
        statistics.mean(prices), statistics.median(prices), round(statistics.pstdev(prices), 4), math.fsum(prices),
        math.ceil(max(prices)), math.hypot(3, 4), f"{math.log10(1000):.1f}", math.sqrt(min(prices)),
    ]
=== Converts numbers carefully
def number(value, default=None):
    try:
        return int(value) if float(value) == int(float(value)) else float(value)
    except (TypeError, ValueError):
        return default
def run(event):
    inputs = ["7", "7.5", " 8 ", "1e3", None, [], "0x10", True, event["properties"].get("total")]
    return [number(value, "none") for value in inputs], int("ff", 16), bin(10), 0.1 + 0.2, 7 // -2, divmod(-7, 2), int(event["distinct_id"])
=== Compares versions
def parse(version):
    return tuple(int(part) if part.isdigit() else part for part in version.split("."))
def run(event):
    versions = ["1.10.0", "1.9.3", "1.9", "2.0"]
    newest = max(versions, key=parse)
    return newest, sorted(versions, key=parse), parse("1.x") < parse(f"1.{event['distinct_id']}")
=== Geometry with tuples
def inside(point, polygon):
    x, y = point
    result = False
    for (x1, y1), (x2, y2) in zip(polygon, polygon[1:] + polygon[:1]):
        if (y1 > y) != (y2 > y) and x < (x2 - x1) * (y - y1) / (y2 - y1) + x1:
            result = not result
    return result
def run(event):
    square = [(0, 0), (4, 0), (4, 4), (0, 4)]
    return [inside((n, 2), square) for n in range(-1, 6)], inside((len(event["event"]), 1), square)
=== Renames properties by a table
RENAMED = {"$browser": "browser", "total": "amount", "$email": "email"}
def run(event):
    properties = event["properties"]
    for old, new in RENAMED.items():
        if old in properties:
            properties[new] = properties.pop(old)
    event["properties"] = {key: properties[key] for key in sorted(properties)}
    event.setdefault("tags", []).append("renamed")
    return event
=== Merges deeply
def merge(base, changes):
    result = dict(base)
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = merge(result[key], value)
        elif isinstance(value, list):
            result[key] = [*result.get(key, []), *value]
        else:
            result[key] = value
    return result
def run(event):
    return merge(event, {"properties": {"$screen": {"width": 1}, "tags": ["merged"]}, "extra": {"a": 1}})
=== Looks up a dotted path
def lookup(data, path, default=None):
    for part in path.split("."):
        if isinstance(data, list) and part.isdigit() and int(part) < len(data):
            data = data[int(part)]
        elif isinstance(data, dict) and part in data:
            data = data[part]
        else:
            return default
    return data
def run(event):
    paths = ["event", "properties.$screen.width", "properties.items.1.sku", "properties.items.9.sku", "x.y"]
    return {path: lookup(event, path, "?") for path in paths}
=== Validates by a schema
SCHEMA = {"event": str, "distinct_id": str, "properties": dict, "timestamp": (str, type(None))}
def problems(event):
    for key, kind in SCHEMA.items():
        if key not in event:
            yield f"{key} is missing"
        elif not isinstance(event[key], kind):
            yield f"{key} is {type(event[key]).__name__}"
    yield from (f"{key!r} is empty" for key, value in event.items() if value == "")
def run(event):
    found = list(problems(event))
    if len(found) > 1:
        raise ValueError("; ".join(found))
    return found
=== A state machine
STATES = {"idle": {"$": "dollar", " ": "idle"}, "dollar": {"p": "page"}, "page": {"v": "view"}}
def run(event):
    state, trail = "idle", []
    for letter in event["event"]:
        state = STATES.get(state, {}).get(letter, state)
        if not trail or trail[-1] != state:
            trail.append(state)
    assert trail, "no letters at all"
    return trail
=== Iterates with an own iterator
class Countdown:
    def __init__(self, start):
        self.n = start
    def __iter__(self):
        return self
    def __next__(self):
        if self.n <= 0:
            raise StopIteration
        self.n -= 1
        return self.n
def run(event):
    numbers = Countdown(len(event["properties"]))
    first = next(numbers, "none")
    return first, list(numbers), sum(Countdown(4)), 2 in Countdown(3), list(zip(Countdown(3), "abc"))
=== Text in several languages
import html, textwrap
def run(event):
    name = event["distinct_id"]
    return [
        html.escape(f"<b>{name}</b> & 'co'"), html.unescape("&eacute;&#39;"), textwrap.shorten("one two three four", 12),
        textwrap.fill("a long line of words", 8), name.casefold(), "ÄÖ".lower(), "straße".upper(), name.encode("ascii", "replace"),
        "a,b;c".translate({44: " ", 59: None}), name.center(9, "*"), "x".join("abc"), "a\tb".expandtabs(4), name.isidentifier(),
    ]
=== Escapes CSV
def cell(value):
    text = "" if value is None else str(value)
    return '"' + text.replace('"', '""') + '"' if any(mark in text for mark in ',"\n') else text
def run(event):
    header = sorted({key for item in event["properties"].get("items", []) for key in item})
    rows = [[item.get(key) for key in header] for item in event["properties"]["items"]]
    return "\r\n".join(",".join(map(cell, row)) for row in [header, *rows, ['a"b', None, "x,y"]])
=== Looks at types and attributes
class Options:
    limit = 5
    def __init__(self, **given):
        for key, value in given.items():
            if not hasattr(Options, key):
                raise TypeError(f"unknown option {key!r}")
            setattr(self, key, value)
def run(event):
    options = Options(limit=len(event["event"]))
    return options.limit, Options.limit, getattr(options, "missing", None), [type(v).__name__ for v in event.values()], Options(**{"limit" if event["event"] else "colour": 1}).limit
=== Runs out of recursion and other luck
def depth(n):
    return 1 + depth(n - 1) if n else 0
def run(event):
    answers = [depth(50)]
    for attempt in (lambda: [][1], lambda: {}["k"], lambda: 1 / 0, lambda: int("x"), lambda: "a" + 1, lambda: None.x, lambda: undefined, lambda: next(iter([]))):
        try:
            attempt()
        except Exception as error:
            answers.append([type(error).__name__, str(error)])
    return answers
=== Annotated helpers
from __future__ import annotations
from typing import Any, Callable, Optional
Handler = Callable[[dict[str, Any]], Optional[str]]
limit: int = 3
class Rule:
    name: str
    weight: float = 1.5
    def __init__(self, name: str) -> None:
        self.name: str = name
    async def apply(self, event: dict[str, Any], *rest: int, **more: Any) -> tuple[str, float]:
        size: int = len(event["event"]) % limit
        return self.name, self.weight * size
async def run(event: dict[str, Any]) -> Any:
    return await Rule("r").apply(event)
'''


def _programs() -> dict[str, str]:
    parts = _TEXT.split("\n=== ")[1:]
    return {title: source + "\n" for title, source in (part.split("\n", 1) for part in parts)}


PROGRAMS = _programs()

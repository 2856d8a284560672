"""`meta.storage`, `meta.cache`, `meta.utils.cursor`, `meta.geoip`: what is asked of the host, and what is refused at once."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from tests.unit.sandbox.asking import Asking, call_of, refusal_of, result_of, spoiled

ODD_KEYS = ["5", "None", "b'x'", "['x']", "{}", "''", "'a\\0b'", "'\\ud800'", "'x' * 2_001", "meta"]
ODD_NUMBERS = ["'1'", "None", "True", "[]", "float('nan')", "float('inf')", "10 ** 30", "10 ** 400"]
ODD_VALUES = ["{1, 2}", "b'x'", "float('nan')", "2 ** 64", "{1: 2}", "meta", "'\\ud800'", "print", "object()"]
KEYED = [
    "storage.get({})", "storage.set({}, 1)", "storage.delete({})", "storage.del_({})", "storage.increment({})",
    "storage.set_if_absent({}, 1)", "cache.get({})", "cache.set({}, 1)", "cache.incr({})", "cache.expire({}, 1)",
    "cache.lpush({}, 'x')", "cache.lrange({}, 0, 1)", "cache.llen({})", "cache.lrem({}, 1, 'x')", "cache.lpop({}, 1)",
    "cache.delete({})", "cache.del_({})", "utils.cursor.init({})", "utils.cursor.increment({})",
]  # fmt: skip
CALLS = [
    ("storage.get('k')", "storage.get", ["k"]),
    ("storage.get('k', {'d': 1})", "storage.get", ["k"]),
    ("storage.set('k', {'a': (1, None)})", "storage.set", ["k", {"a": [1, None]}]),
    ("storage.set('k', None)", "storage.set", ["k", None]),
    ("storage.delete('k')", "storage.delete", ["k"]),
    ("storage.del_('k')", "storage.delete", ["k"]),
    ("storage.increment('k')", "storage.increment", ["k", 1]),
    ("storage.increment('k', -2.5)", "storage.increment", ["k", -2.5]),
    ("storage.increment('k', by=3)", "storage.increment", ["k", 3]),
    ("storage.set_if_absent('k', 0)", "storage.set_if_absent", ["k", 0]),
    ("cache.get('k', 5)", "cache.get", ["k"]),
    ("cache.set('k', [1])", "cache.set", ["k", [1], None]),
    ("cache.set('k', 'v', 60)", "cache.set", ["k", "v", 60]),
    ("cache.set('k', 'v', ttl=0.5)", "cache.set", ["k", "v", 0.5]),
    ("cache.incr('k')", "cache.incr", ["k"]),
    ("cache.expire('k', 1)", "cache.expire", ["k", 1]),
    ("cache.expire('k', 0)", "cache.expire", ["k", 0]),
    ("cache.lpush('k', 'a string')", "cache.lpush", ["k", ["a string"]]),
    ("cache.lpush('k', ['an', 'array', 5, 1.5])", "cache.lpush", ["k", ["an", "array", "5", "1.5"]]),
    ("cache.lpush('k', ('a',))", "cache.lpush", ["k", ["a"]]),
    ("cache.lpush('k', [])", "cache.lpush", ["k", []]),
    ("cache.lpush('k', ['x'] * 1000)", "cache.lpush", ["k", ["x"] * 1000]),
    ("cache.lrange('k', 0, -1)", "cache.lrange", ["k", 0, -1]),
    ("cache.llen('k')", "cache.llen", ["k"]),
    ("cache.lrem('k', 1, '2')", "cache.lrem", ["k", 1, "2"]),
    ("cache.lrem('k', 0, 2)", "cache.lrem", ["k", 0, "2"]),
    ("cache.lpop('k', 1)", "cache.lpop", ["k", 1]),
    ("cache.lpop('k')", "cache.lpop", ["k", 1]),
    ("cache.delete('k')", "cache.delete", ["k"]),
    ("utils.cursor.init('k')", "storage.set_if_absent", ["k", 0]),
    ("utils.cursor.init('k', 10)", "storage.set_if_absent", ["k", 10]),
    ("utils.cursor.increment('k')", "storage.increment", ["k", 1]),
    ("utils.cursor.increment('k', 5)", "storage.increment", ["k", 5]),
    ("geoip.locate('89.160.20.129')", "geoip.locate", ["89.160.20.129"]),
]


@pytest.mark.parametrize(("call", "name", "arguments"), CALLS, ids=[call for call, _, _ in CALLS])
def test_a_call_is_handed_to_the_host(call, name, arguments):
    assert call_of(f"await meta.{call}") == (name, arguments)


@pytest.mark.parametrize(("call", "name", "arguments"), CALLS, ids=[call for call, _, _ in CALLS])
def test_a_call_from_a_plain_hook_has_started_before_the_hook_ends(call, name, arguments):
    asking = Asking(f"meta.{call}", hook="def onEvent")
    assert asking.asked == [(name, arguments)]
    assert asking.child.done == []


@pytest.mark.parametrize(
    ("call", "answer", "expected"),
    [
        ("storage.get('k')", [True, {"a": 1}], {"a": 1}),
        ("storage.get('k', 5)", [True, None], None),
        ("storage.get('k', 5)", [False, None], 5),
        ("storage.get('k')", [False, None], None),
        ("cache.get('k', 'd')", [False, None], "d"),
        ("cache.get('k', 'd')", [True, ""], ""),
        ("storage.increment('k')", 7, 7),
        ("storage.set_if_absent('k', 1)", False, False),
        ("storage.set('k', 1)", None, None),
        ("cache.incr('k')", 3, 3),
        ("cache.expire('k', 1)", True, True),
        ("cache.lpush('k', 'x')", 4, 4),
        ("cache.lrange('k', 0, 1)", ["a", "b"], ["a", "b"]),
        ("cache.lpop('k', 1)", ["a"], ["a"]),
        ("utils.cursor.increment('k')", 2, 2),
        ("geoip.locate('1.2.3.4')", {"city": {"names": {"en": "Linköping"}}}, {"city": {"names": {"en": "Linköping"}}}),
        ("geoip.locate('10.0.0.1')", None, None),
    ],
)
def test_the_answer_is_what_the_app_gets(call, answer, expected):
    assert orjson.loads(result_of(f"return await meta.{call}", answer)) == [expected]


def test_a_value_is_kept_as_it_was_when_it_was_handed_over():
    asking = Asking("x = [1]\ncall = meta.storage.set('k', x)\nx.append(2)\nawait call")
    assert asking.asked == [("storage.set", ["k", [1]])]


@pytest.mark.parametrize("call", spoiled(KEYED, ODD_KEYS))
def test_a_key_that_cannot_be_one_is_refused_at_once(call):
    message = refusal_of(f"await meta.{call}")
    assert ": key must " in message
    assert message.startswith(("TypeError: ", "ValueError: "))


@pytest.mark.parametrize(
    "call",
    spoiled(
        ["storage.increment('k', {})", "utils.cursor.increment('k', {})", "utils.cursor.init('k', {})"], ODD_NUMBERS
    ),
)
def test_a_number_that_is_none_is_refused_at_once(call):
    assert " must be a" in refusal_of(f"await meta.{call}")


@pytest.mark.parametrize(
    "call", spoiled(["storage.set('k', {})", "storage.set_if_absent('k', {})", "cache.set('k', {})"], ODD_VALUES)
)
def test_a_value_that_is_no_json_is_refused_at_once(call):
    message = refusal_of(f"await meta.{call}")
    assert message.startswith(f"{call.partition('(')[0]}: ")


def test_nothing_is_what_an_absent_key_has():
    assert "value must not be None" in refusal_of("await meta.storage.set_if_absent('k', None)")


def test_values_that_contain_themselves_or_are_too_deep_are_refused():
    assert "contains itself" in refusal_of("x = {}\nx['x'] = x\nawait meta.storage.set('k', x)")
    deep = "x = 1\nfor _ in range(101):\n    x = [x]\nawait meta.cache.set('k', x)"
    assert "deeper than 100" in refusal_of(deep)


def test_a_value_of_ten_megabytes_is_handed_over_and_one_of_twenty_is_refused():
    assert call_of("await meta.storage.set('k', 'x' * 10_000_000)")[0] == "storage.set"
    asking = Asking("await meta.storage.set('k', 'x' * 20_000_000)")
    assert asking.failure[0] == "limit"
    assert "storage.set: more than" in asking.failure[1]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("lpush('k', 5)", "TypeError: cache.lpush expects a string value or an array of strings"),
        ("lpush('k', None)", "TypeError: cache.lpush expects a string value or an array of strings"),
        ("lpush('k', {'a': 1})", "TypeError: cache.lpush expects a string value or an array of strings"),
        ("lpush('k', ['a', None])", "TypeError: cache.lpush expects a string value or an array of strings"),
        ("lpush('k', ['a', ['b']])", "TypeError: cache.lpush expects a string value or an array of strings"),
        ("lpush('k', ['x'] * 1001)", "ValueError: Too many elements in array for cache.lpush. Maximum: 1000"),
        ("lrange('k', '0', 1)", "TypeError: cache.lrange expects a number for the start and end indexes"),
        ("lrange('k', 0, None)", "TypeError: cache.lrange expects a number for the start and end indexes"),
        ("lrange('k', 0, True)", "TypeError: cache.lrange expects a number for the start and end indexes"),
        ("lrem('k', '1', 'x')", "TypeError: cache.lrem expects a number for the count argument"),
        ("lrem('k', 1, None)", "TypeError: cache.lrem expects a string for the element"),
        ("lpop('k', '1')", "TypeError: cache.lpop expects a number for the count argument"),
        ("lpop('k', -1)", "ValueError: cache.lpop expects a count of 0 or more"),
        ("expire('k', '1')", "TypeError: cache.expire: seconds must be a number, not str"),
        ("expire('k', -1)", "ValueError: cache.expire: seconds must be a number of seconds from 0"),
        ("expire('k', None)", "TypeError: cache.expire: seconds must be a number"),
        ("expire('k', float('nan'))", "ValueError: cache.expire: seconds must be a finite number"),
        ("set('k', 1, '60')", "TypeError: cache.set: ttl must be a number, not str"),
        ("set('k', 1, 0)", "ValueError: cache.set: ttl must be more than 0 seconds"),
        ("set('k', 1, -5)", "ValueError: cache.set: ttl must be a number of seconds from 0"),
        ("set('k', 1, 10 ** 12)", "ValueError: cache.set: ttl must be a number of seconds from 0"),
        ("set('k')", "missing 1 required positional argument"),
    ],
)
def test_the_cache_says_what_is_wrong_in_upstreams_words(call, message):
    assert message in refusal_of(f"await meta.cache.{call}")


@pytest.mark.parametrize("ip", ["5", "None", "b'x'", "['1.2.3.4']"])
def test_an_address_is_text(ip):
    assert "geoip.locate: ip must be text" in refusal_of(f"await meta.geoip.locate({ip})")


def test_everything_in_meta_is_found_by_attribute_and_by_item():
    names = "['attachments', 'cache', 'config', 'geoip', 'global', 'global_', 'jobs', 'metrics', 'storage', 'utils']"
    body = f"return [sorted(meta) == {names}, all(meta[name] is getattr(meta, name) for name in meta)]"
    assert result_of(body) == "[[true,true]]"


@pytest.mark.parametrize(
    "name", ["storage", "cache", "utils", "utils.cursor", "geoip", "jobs", "metrics", "storage.get", "jobs.mail"]
)
def test_nothing_in_meta_can_be_written_to(name):
    for statement in (f"meta.{name} = 1", f"meta.{name}.x = 1", f"setattr(meta.{name}, 'x', 1)"):
        assert refusal_of(statement)


@pytest.mark.parametrize(
    "call",
    [
        "fetch('https://x')",
        "posthog.api.get('/x')",
        "posthog.capture('x')",
        "sleep(1)",
        "gather()",
    ],
)
def test_in_a_modules_body_there_is_nothing_to_ask(call):
    from tests.unit.sandbox.child import Child

    child = Child(f"{call}\n")
    message = child.loaded[0]["installs"][0]["error"][1]
    assert "works only while a hook runs" in message
    assert child.calls == []


# Increments that nobody looked at


def unheard_of(body: str, answers: list[Any]) -> Any:
    asking = Asking(body)
    for place, answer in enumerate(answers):
        asking.child.answer(asking.child.calls[place][0], answer)
    assert asking.failure is None
    return (asking.child.done[0][3] or {}).get("unheard")


def test_increments_that_nobody_awaited_are_told_to_the_host():
    body = (
        "meta.storage.get('k')\nmeta.storage.increment('k')\nmeta.utils.cursor.increment('c')\nmeta.storage.set('k', 1)"
    )
    assert unheard_of(body, [[False, None], 1, 1, None]) == [[1, 1], [1, 2]]


def test_increments_that_were_awaited_are_not():
    assert unheard_of("await meta.storage.increment('k')", [1]) is None
    assert unheard_of("await gather(meta.storage.increment('k'), meta.storage.increment('k'))", [1, 2]) is None


def test_increments_in_a_chain_are_told_by_install_unless_its_hook_failed():
    from tests.unit.sandbox.child import Child

    counts = "def processEvent(event, meta):\n    meta.storage.increment('k')\n    return event\n"
    child = Child(counts, counts.replace("return event", "return 1 / 0"), counts)
    child.run(("x", "ada", 1))
    for _ in range(3):
        child.answer(child.calls[-1][0], 1)
    notes = child.rows[0][7]
    assert notes["unheard"] == [[1, 0], [3, 0]]
    assert [failure[0] for failure in notes["failed"]] == [2]


def test_an_increment_that_failed_is_no_change():
    asking = Asking("meta.storage.increment('k')")
    asking.refuse("is no number", "value")
    assert "unheard" not in asking.child.done[0][3]

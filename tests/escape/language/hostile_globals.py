"""Hostile programs against what an app is given besides Python: posthog, fetch, meta and what they answer with.

`attack()` returns something true when it got through, as in `hostile`. `response` is what a fetch has answered with.
"""

# ruff: noqa: SIM905 - word lists read better than columns of quoted names

from __future__ import annotations

# An object that writes down each time it is asked for anything, and one that passes for a text among the keys of a dict.
LOUD = (
    "seen = []\nclass Loud:\n"
    + "".join(
        f"    def __{name}__(self, *given):\n        seen.append({name!r})\n        return {answer}\n"
        for name, answer in {
            "hash": "7", "bool": "True", "str": "'x'", "repr": "'x'", "iter": "iter([])", "len": "1", "index": "1", "int": "1",
            "float": "1.0", "eq": "True", "ne": "False", "lt": "True", "le": "True", "gt": "True", "ge": "True", "contains": "True",
            "call": "1", "getitem": "'x'", "format": "'x'", "add": "self", "radd": "self", "mul": "1", "rmul": "1", "neg": "1",
        }.items()
    )
    + "".join(
        f"    def {name}(self, *given, **named):\n        seen.append({name!r})\n        return self\n"
        for name in "items keys values get encode lower upper startswith endswith isoformat utcoffset astimezone replace read".split()
    )
    + "S = Loud()\nclass Passing(Loud):\n    def __init__(self, text):\n        self.text = text\n"
    "    def __hash__(self):\n        seen.append('hash')\n        return hash(self.text)\n"
    "def passing(name):\n    return {Passing(name): 'x'}\n"
    "OPTIONS = [passing(name) for name in 'method headers body json data host projectApiKey personalApiKey timestamp distinct_id'.split()]\n"
)  # fmt: skip

_CALLS = """
fetch(S) fetch('x',S) fetch('x',method=S) fetch('x',headers=S) fetch('x',headers={'A':S}) fetch('x',method='POST',body=S) fetch('x',method='POST',json=S)
fetch('x',method='POST',json={'a':S}) fetch('x',method='POST',body=[S]) fetch('x',headers=passed) fetch('x',other=S)
posthog.api.get(S) posthog.api.get('x',S) posthog.api.post('x',data=S) posthog.api.post('x',data={'a':S}) posthog.api.get('x',data=S) posthog.api.put('x',host=S)
posthog.api.patch('x',projectApiKey=S,personalApiKey=S) posthog.api.delete('x',headers=S) posthog.api.delete('x',headers={'A':S}) posthog.api.post('x',headers=passed)
posthog.capture(S) posthog.capture('x',S) posthog.capture('x',{'a':S}) posthog.capture('x',{'distinct_id':S}) posthog.capture('x',{'timestamp':S})
meta.storage.get(S) meta.storage.get('x',S) meta.storage.set(S,1) meta.storage.set('x',S) meta.storage.set('x',[S]) meta.storage.delete(S) meta.storage.del_(S)
meta.storage.increment(S) meta.storage.increment('x',S) meta.storage.set_if_absent(S,S) meta.storage.set_if_absent('x',S)
meta.cache.get(S) meta.cache.get('x',S) meta.cache.set(S,1) meta.cache.set('x',S) meta.cache.set('x',1,S) meta.cache.incr(S) meta.cache.expire(S,1) meta.cache.expire('x',S)
meta.cache.lpush(S,'x') meta.cache.lpush('x',S) meta.cache.lpush('x',[S]) meta.cache.lrange(S,0,1) meta.cache.lrange('x',S,1) meta.cache.lrange('x',0,S) meta.cache.llen(S)
meta.cache.lrem(S,1,'x') meta.cache.lrem('x',S,'x') meta.cache.lrem('x',1,S) meta.cache.lpop(S,1) meta.cache.lpop('x',S) meta.cache.delete(S)
meta.utils.cursor.init(S) meta.utils.cursor.init('x',S) meta.utils.cursor.increment(S) meta.utils.cursor.increment('x',S) meta.geoip.locate(S)
meta.jobs[S] meta.metrics[S] meta[S] S in(meta.jobs) S in(meta.metrics) S in(meta) meta.jobs.work(S) meta.jobs.work([S]).runNow() meta.jobs.work().runIn(S,'days')
meta.jobs.work().runIn(1,S) meta.jobs.work().runAt(S) meta.metrics.counted.increment(S) sleep(S) gather(S) gather([S]) gather(S,S)
response.headers[S] response.headers.get(S) response.headers.get('x',S) response.headers.has(S) S in(response.headers)
"""

NEVER_ASKED = {
    **{
        f"our_code_asks_an_object_of_an_app_nothing_in_{number}": f"{LOUD}def attack():\n    passed = OPTIONS[0]\n    seen.clear()\n    try:\n        {call.replace('(', ' (', 1) if ' in(' in call else call}\n    except Exception:\n        pass\n    return list(seen)"
        for number, call in enumerate(_CALLS.replace(" in(", "§in(").split())
        for call in [call.replace("§", " ")]
    },
    **{
        f"a_key_that_passes_for_text_is_not_asked_in_{number}": f"{LOUD}def attack():\n    seen.clear()\n    for passed in OPTIONS:\n        try:\n            {call}\n        except Exception:\n            pass\n    return list(seen)"
        for number, call in enumerate(
            "fetch('x',passed) fetch('x',headers=passed) fetch('x',method='POST',body=passed) posthog.api.post('x',passed) posthog.api.get('x',data=passed) "
            "posthog.api.put('x',headers=passed) posthog.capture('x',passed) meta.storage.set('x',passed) meta.cache.set('x',passed) meta.jobs.work(passed)".split()
        )
    },
}  # fmt: skip
"""No method of an app's runs inside of ours: it could see what is half done, or go on where our code trusts what it checked."""

_THINGS = """
fetch posthog.api posthog.api.get meta.storage meta.storage.get meta.cache meta.cache.lpush meta.utils meta.utils.cursor meta.utils.cursor.init meta.geoip meta.geoip.locate
meta.jobs meta.jobs.work meta.jobs.work() meta.jobs.work().runNow meta.metrics meta.metrics.counted meta.metrics.counted.increment gather sleep response response.headers
response.json response.headers.get response.json() response.text() response.bytes() fetch('x') sleep(1) meta.storage.get('x') posthog.capture('x')
FetchError RetryError LimitExceeded FetchError('x') RetryError('x')
""".split()  # fmt: skip

GIVEN = {
    **{
        f"{thing}_shows_nothing_of_its_inside": f"def attack():\n    f = {thing}\n    return [n for n in 'func args_ keywords cell_contents func_globals im_self im_func context install effects page start send_call declare names gi_frame cr_frame gi_code cr_await cr_code mro read kind'.split() if getattr(f, n, None) is not None]"
        for thing in _THINGS
    },
    **{
        f"{thing}_cannot_be_written_to": f"def attack():\n    f = {thing}\n    f.planted = 1\n    return True"
        for thing in _THINGS
    },
    **{
        f"{thing}_cannot_be_written_to_by_setattr": f"def attack():\n    f = {thing}\n    for name in ('planted', 'get', 'status', 'headers', 'name', 'done', 'place'):\n        try:\n            setattr(f, name, 1)\n        except Exception:\n            continue\n        return True"
        for thing in _THINGS
    },
    **{
        f"{thing}_cannot_be_made_or_extended": f"def attack():\n    f = {thing}\n    class A(type(f)):\n        pass\n    return not isinstance(A(), Exception)"
        for thing in _THINGS
        if "Error" not in thing and thing != "LimitExceeded"
    },
    **{
        f"what_{thing}_holds_cannot_be_named_as_{name}": f"def attack():\n    return {thing}.{name}"
        for thing in ("meta.storage", "meta.jobs", "meta.jobs.work()", "response", "response.headers", "posthog.api", "sleep(1)")
        for name in ("_context", "_install", "_names", "_body", "_values", "_effects", "_jobs", "_read", "__class__", "__self__")
    },
    **{
        f"what_{thing}_holds_cannot_be_got_as_{name}": f"def attack():\n    return getattr({thing}, {name!r}, None) or getattr({thing}, ' {name}'.strip(), None)"
        for thing in ("meta.storage", "meta.jobs", "meta.jobs.work()", "response", "response.headers", "posthog.api", "sleep(1)")
        for name in ("_context", "_install", "_names", "_body", "_values", "_effects", "_jobs", "_read", "__class__", "__self__")
    },
    **{
        f"what_{thing}_holds_cannot_be_matched": f"def attack():\n    match {thing}:\n        case object(_context=c):\n            return c"
        for thing in ("meta.storage", "meta.jobs", "response")
    },
    "the_unbound_method_of_a_facade_is_not_had": "def attack():\n    return type(meta.storage).get",
    "a_bound_method_of_ours_in_a_class_stays_bound_to_ours": "class A:\n    get = meta.storage.get\ndef attack():\n    A().get('k')\n    return getattr(A.get, '__self__', 0)",
    "a_method_of_ours_in_a_classmethod_gets_no_key": "class A:\n    get = classmethod(meta.storage.get)\ndef attack():\n    A.get()\n    return True",
    "the_jobs_of_another_app_are_not_found": "def attack():\n    return [name for name in meta.jobs if name != 'work']",
    "jobs_cannot_be_added_afterwards": "jobs = {'work': lambda p, m: 1}\ndef attack():\n    jobs['more'] = lambda p, m: 1\n    return meta.jobs.more",
    "a_metrics_kind_cannot_be_changed_afterwards": "def attack():\n    meta.metrics['counted'] = 'max'\n    return True",
    "an_error_class_of_ours_keeps_nothing": "def attack():\n    RetryError.planted = 1\n    return True",
    "an_error_class_of_ours_keeps_nothing_by_setattr": "def attack():\n    setattr(FetchError, 'planted', 1)\n    return True",
    "an_error_of_ours_does_not_keep_what_another_app_noted": "def attack():\n    e = FetchError('x')\n    e.add_note('planted')\n    return getattr(FetchError('x'), 'planted', 0)",
    "an_errors_verdict_is_not_set": "def attack():\n    e = FetchError('x')\n    setattr(e, '_refused', False)\n    return True",
    "headers_are_a_copy": "def attack():\n    response.headers.items().append('planted')\n    response.headers.keys().append('planted')\n    return 'planted' in response.headers or len(response.headers) != 1",
    "a_body_read_twice_is_not_shared": "async def attack():\n    first = await response.json()\n    first['planted'] = 1\n    return (await response.json()).get('planted')",
    "a_call_is_not_iterated": "def attack():\n    return list(sleep(1))",
    "a_call_is_not_delegated_to": "def g():\n    yield from sleep(1)\ndef attack():\n    return list(g())",
    "a_call_is_not_sent_to": "def attack():\n    return sleep(1).send(None)",
    "a_gather_is_not_sent_to": "def attack():\n    g = gather()\n    try:\n        return g.send(None)\n    finally:\n        g.close()",
    "a_gather_shows_no_frame": "def attack():\n    g = gather()\n    try:\n        return getattr(g, 'cr_frame', 0) or getattr(g, 'cr_await', 0)\n    finally:\n        g.close()",
    "a_gather_is_not_iterated": "def attack():\n    g = gather()\n    try:\n        return list(g)\n    finally:\n        g.close()",
    "gather_takes_no_generator": "def g():\n    yield 1\nasync def attack():\n    return await gather(g())",
    "gather_takes_no_object_that_passes_for_a_call": "class A:\n    done = True\n    def send(self, x):\n        return 1\n    def close(self):\n        pass\nasync def attack():\n    return await gather(A())",
    "gather_takes_no_async_generator": "async def g():\n    yield 1\nasync def attack():\n    return await gather(g())",
    "gather_lets_a_time_out_pass": "async def f():\n    try:\n        stop()\n    except Exception:\n        return True\n    except:\n        return True\nasync def attack():\n    try:\n        await gather(f(), f())\n    except Exception:\n        return True\n    return True",
    "what_gather_closes_cannot_hide_a_time_out": "async def f():\n    try:\n        await sleep(1)\n    finally:\n        await sleep(2)\nasync def g():\n    stop()\nasync def attack():\n    try:\n        await gather(f(), g())\n    except Exception:\n        pass\n    return True",
}  # fmt: skip

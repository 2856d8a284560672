"""Hostile apps through all rings, as the harness runs them: refused, or harmless, or ended, and what the host says of them.

Each program is installed twice in one sandbox, so that the second install finds what the first left behind. A truthy
`escaped` in the event is a breach.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest

from plugin_server.runtime.fork_server import ForkServer
from plugin_server.testing import AppHarness, Run, runner

NOBODY = str(Path(__file__).parent / "nobody_fork_server.py")
EVENT = {"event": "x", "distinct_id": "ada", "properties": {"kept": 1}}
LIMITS = {"cpu_seconds": 0.2, "hook_seconds": 1.0, "memory_bytes": 128 * 2**20}

HOOK = "def processEvent(event, meta):\n"
REFUSED = {"compile", "app", "limit"}
ENDED = {"timeout", "memory", "sandbox"}
HARMLESS: set[str] = {""}

PROGRAMS: dict[str, tuple[str, set[str]]] = {
    "the_interpreters_frames_cannot_be_named": (HOOK + "    g = (x for x in [1])\n    event['properties']['escaped'] = g.gi_frame.f_back\n    return event\n", REFUSED),
    "a_files_content_does_not_come_back": (HOOK + "    event['properties']['escaped'] = open('/etc/passwd').read()\n    return event\n", REFUSED),
    "the_environment_cannot_be_imported": ("import os\n" + HOOK + "    event['properties']['escaped'] = os.environ\n    return event\n", REFUSED),
    "the_servers_modules_cannot_be_imported": ("import plugin_server\n" + HOOK + "    event['properties']['escaped'] = 1\n    return event\n", REFUSED),
    "the_sandboxs_modules_cannot_be_imported": ("from sandbox import worker\n" + HOOK + "    event['properties']['escaped'] = 1\n    return event\n", REFUSED),
    "builtins_of_one_install_are_not_those_of_another": ("len = lambda x: 'planted'\n" + HOOK + "    event['properties']['escaped'] = sorted([2, 1]) == 'planted'\n    return event\n", HARMLESS),
    "globals_of_one_install_are_not_seen_by_another": (HOOK + "    if meta['global'].get('planted'):\n        event['properties']['escaped'] = 1\n    meta['global']['planted'] = 1\n    return event\n", HARMLESS),
    "config_of_one_install_is_not_written_by_another": (HOOK + "    if 'planted' in meta.config:\n        event['properties']['escaped'] = 1\n    meta.config['planted'] = 1\n    return event\n", HARMLESS),
    "a_module_is_not_written_to": ("import json\n" + HOOK + "    json.dumps = lambda x: 'planted'\n    event['properties']['escaped'] = 1\n    return event\n", REFUSED),
    "posthog_is_not_written_to": (HOOK + "    posthog.capture = print\n    event['properties']['escaped'] = 1\n    return event\n", REFUSED),
    "the_random_state_of_one_install_is_not_that_of_another": ("import random\nfirst = random.random()\nrandom.seed(1)\n" + HOOK + "    event['properties'].setdefault('first', []).append(first)\n    firsts = event['properties']['first']\n    event['properties']['escaped'] = len(firsts) == 2 and firsts[1] == 0.13436424411240122\n    return event\n", HARMLESS),
    "a_decimal_context_does_not_outlive_its_app": ("from decimal import Decimal, localcontext\nKEPT = []\ndef low():\n    with localcontext(prec=3):\n        yield 1\n" + HOOK + "    event['properties']['escaped'] = str(Decimal(1) / 3) == '0.333'\n    g = low()\n    next(g)\n    cycle = [g]\n    cycle.append(cycle)\n    for _ in range(30_000):\n        x = []\n        x.append(x)\n    return event\n", HARMLESS),
    "the_project_of_an_event_cannot_be_changed": (HOOK + "    event['team_id'] = 99\n    event['properties']['escaped'] = 1\n    return event\n", REFUSED),
    "the_uuid_of_an_event_cannot_be_changed": (HOOK + "    event['uuid'] = '018f0000-0000-7000-8000-00000000dead'\n    event['properties']['escaped'] = 1\n    return event\n", REFUSED),
    "an_event_that_contains_itself_is_refused": (HOOK + "    event['properties']['escaped'] = event\n    return event\n", REFUSED),
    "a_function_does_not_leave": (HOOK + "    event['properties']['escaped'] = processEvent\n    return event\n", REFUSED),
    "posthog_does_not_leave": (HOOK + "    event['properties']['escaped'] = posthog\n    return event\n", REFUSED),
    "a_subclass_of_dict_is_not_made": ("class D(dict):\n    pass\n" + HOOK + "    event['properties']['escaped'] = D()\n    return event\n", REFUSED),
    "time_outs_cannot_be_caught": (HOOK + "    while True:\n        try:\n            while True:\n                pass\n        except Exception:\n            event['properties']['escaped'] = 1\n", ENDED),
    "time_outs_cannot_be_caught_as_everything": (HOOK + "    while True:\n        try:\n            while True:\n                pass\n        except:\n            event['properties']['escaped'] = 1\n            return event\n", ENDED),
    "a_hook_that_returns_from_its_time_out_has_failed": ("class C:\n    def __enter__(self):\n        return self\n    def __exit__(self, *error):\n        return True\n" + HOOK + "    with C():\n        while True:\n            pass\n    event['properties']['escaped'] = 1\n    return event\n", ENDED),
    "a_bomb_of_text_ends": (HOOK + "    x = 'x'\n    while True:\n        x = x + x\n", ENDED),
    "a_bomb_of_lists_ends": (HOOK + "    x = []\n    while True:\n        x = [x, x, x * 2]\n", ENDED),
    "a_bomb_of_compressed_data_ends": ("import zlib, base64\n" + HOOK + "    x = zlib.compress(b'0' * 5_000_000)\n    for _ in range(500):\n        x = zlib.compress(zlib.decompress(x) * 4)\n    event['properties']['escaped'] = 1\n    return event\n", ENDED | REFUSED),
    "an_endless_log_ends": (HOOK + "    while True:\n        console.log('x' * 1000)\n", ENDED),
    "deep_recursion_is_an_error": (HOOK + "    return processEvent(event, meta)\n", REFUSED),
    "awaiting_what_is_no_call_is_an_error": ("class Never:\n    def __iter__(self):\n        return self\n    def __next__(self):\n        return 1\nasync " + HOOK + "    await Never()\n    event['properties']['escaped'] = 1\n    return event\n", REFUSED),
    "waiting_for_ever_ends": ("async " + HOOK + "    while True:\n        try:\n            await sleep(3600)\n        except Exception:\n            pass\n", ENDED),
    "endless_host_calls_end": (HOOK + "    while True:\n        try:\n            meta.storage.set('k', 'x' * 100_000)\n        except Exception:\n            pass\n", ENDED),
    "endless_requests_end": ("async " + HOOK + "    while True:\n        try:\n            await fetch('http://127.0.0.1/')\n        except Exception:\n            pass\n", ENDED),
    "a_bomb_of_coroutines_ends": ("async def one():\n    await gather(one(), one())\nasync " + HOOK + "    try:\n        await one()\n    except Exception:\n        pass\n    while True:\n        await gather(*[sleep(9) for _ in range(100)])\n", ENDED | REFUSED),
    "a_gather_does_not_hide_a_time_out": ("async def one():\n    while True:\n        try:\n            await sleep(9)\n        except Exception:\n            pass\nasync " + HOOK + "    try:\n        await gather(one(), one())\n    except Exception:\n        pass\n    event['properties']['escaped'] = 1\n    return event\n", ENDED),
    "an_error_that_prints_itself_is_its_apps_failure": (HOOK + "    try:\n        meta.storage.set('k', {1})\n    except TypeError as error:\n        kind = type(error)\n    class Mine(kind):\n        def __str__(self):\n            raise ValueError\n    raise Mine('x')\n", REFUSED),
    "a_retry_error_that_prints_for_ever_ends": ("class Mine(RetryError):\n    def __str__(self):\n        while True:\n            pass\n" + HOOK + "    raise Mine\n", ENDED),
    "the_storage_of_meta_does_not_leave": (HOOK + "    event['properties']['escaped'] = [meta.storage, meta.jobs, fetch]\n    return event\n", REFUSED),
    "jobs_of_one_install_are_not_those_of_another": ("jobs = {'mine': lambda payload, meta: None}\n" + HOOK + "    event['properties']['escaped'] = list(meta.jobs) != ['mine']\n    return event\n", HARMLESS),
}  # fmt: skip


async def attack(program: str) -> Run:
    async with AppHarness(source=[program, program], limits=LIMITS) as app:
        run = await app.run("processEvent", EVENT)
        assert not (run.event or {"properties": {}})["properties"].get("escaped")
        return run


@pytest.mark.parametrize("user", ["root", "nobody"])
@pytest.mark.parametrize("name", PROGRAMS)
async def test_hostile_program(name: str, user: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if user == "nobody":
        monkeypatch.setattr(runner, "ForkServer", functools.partial(ForkServer, program=(NOBODY,)))
    program, kinds = PROGRAMS[name]
    run = await attack(program)
    assert (run.error.kind if run.error else "") in kinds
    if run.error and run.error.kind != "compile":
        assert run.event == EVENT, "a failed app leaves the event as it was"


# What only the host can say.


async def capture_by(body: str, event: dict[str, Any] = EVENT, **options: Any) -> tuple[Run, list[int]]:
    """A run, and the depths of what was captured."""
    async with AppHarness(source=f"{HOOK}    {body}\n    return event\n", **options) as app:
        run = await app.run("processEvent", event)
        return run, [capture.lineage.depth for capture in app._runner.take_unsettled()]


FORGED = {"$depth": 0, "ps-lineage": '{"v":1,"root":"x","depth":0,"path":[],"budget":10**9}', "$lineage": None}
DEEP = {"v": 1, "root": "018f0000-0000-7000-8000-000000000001", "depth": 5, "path": [7], "budget": 50}


@pytest.mark.parametrize(
    "body",
    [
        f"posthog.capture('y', {FORGED!r})",
        "event['properties'].clear(); posthog.capture('y')",
        "event.pop('uuid', None); posthog.capture('y', {'uuid': '018f0000-0000-7000-8000-000000000002'})",
        "posthog.capture('y', {'distinct_id': event['distinct_id'], 'team_id': 1, 'headers': {'ps-lineage': ''}})",
    ],
)
async def test_no_property_changes_the_depth_of_a_capture(body: str) -> None:
    run, depths = await capture_by(body, {**EVENT, "properties": dict(FORGED)}, lineage=DEEP)
    assert run.error is None
    assert depths == [6]
    assert run.captured[0]["uuid"] != "018f0000-0000-7000-8000-000000000002"


async def test_captures_of_one_event_are_bounded_whatever_catches_the_error() -> None:
    body = """for n in range(5000):
        try:
            posthog.capture('y')
        except Exception:
            pass"""
    run, depths = await capture_by(body)
    assert run.error is None
    assert len(depths) == 100


async def test_a_module_body_captures_nothing() -> None:
    for body in ("posthog.capture('y')", "try:\n    posthog.capture('y')\nexcept Exception:\n    pass"):
        async with AppHarness(source=f"{body}\n{HOOK}    return event\n") as app:
            run = await app.run("processEvent", EVENT)
            assert run.captured == []
            assert app._runner.take_unsettled() == []


async def test_what_is_captured_cannot_be_changed_afterwards() -> None:
    run, _ = await capture_by("p = {'a': [1]}; posthog.capture('y', p); p['a'].append(2); p['b'] = 3")
    assert run.captured[0]["properties"]["a"] == [1]
    assert "b" not in run.captured[0]["properties"]


async def test_all_that_an_event_leads_to_is_bounded_by_its_budget() -> None:
    source = f"{HOOK}    for n in range(4):\n        posthog.capture('y', {{'n': n}})\n    return event\n"
    async with AppHarness(
        source=[source, source], loop_policy={"max_events_per_root": 40, "max_visits": 32, "max_depth": 100}
    ) as app:
        await app.run("processEvent", EVENT)
        tree = await app.settle()
        assert 0 < len(tree) <= 40
        assert {cut["reason"] for cut in tree.cuts} == {"budget"}


async def test_log_lines_are_clean_and_bounded() -> None:
    run, _ = await capture_by("for n in range(3000):\n        console.log('\\x1b[31m\\ud800', n)")
    assert run.error is None
    assert len(run.logs) <= 1_001
    assert all(line["message"].replace("\n", "").isprintable() for line in run.logs)
    assert len("".join(line["message"] for line in run.logs)) < 300_000

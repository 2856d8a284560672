"""What the sandbox costs: `make bench-sandbox`. Every figure is a ratio or a difference within this one run.

1. language: the same functions compiled as apps and as plain Python, in this process, in turns;
2. boundary: events through a real child in batches of 500 against the same chain called in this process, in CPU time
   of both sides together;
3. start: from the first event of a project to its result, fork, confinement, compilation and all;
4. memory: private pages of a child with one app;
5. recovery: how long the other events of a batch wait for one that misbehaves, beyond the limit that it ran into.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import orjson

sys.path[0] = str(Path(__file__).parents[1])  # run as a script, this file would pass for the package `sandbox`

from plugin_server.host_api.calls import HostApi  # noqa: E402
from plugin_server.host_api.effects import RunEffects  # noqa: E402
from plugin_server.model.project import App, Install, Limits, Project  # noqa: E402
from plugin_server.runtime.pool import SandboxPool  # noqa: E402
from plugin_server.runtime.work import Work  # noqa: E402
from sandbox.app import load_app  # noqa: E402
from sandbox.chain import Chain, ChainLimits, Mode  # noqa: E402
from sandbox.environment import app_globals  # noqa: E402
from sandbox.invocation import Context, Effects  # noqa: E402
from sandbox.page import Page  # noqa: E402
from sandbox.policy import compile_app  # noqa: E402

FUNCTIONS = {
    "transform": """
import re
PATTERN = re.compile(r'utm_[a-z]+')
def processEvent(event, meta):
    properties = event['properties']
    for key in list(properties):
        value = properties[key]
        if isinstance(value, str) and PATTERN.match(key):
            properties[key.upper()] = value.strip().lower()
    properties['count'] = len(properties)
    for n in range(15):
        properties['p' + str(n)] = n * 2
    return event
""",
    "classes and calls": """
class Point:
    def __init__(self, x, y):
        self.x = x
        self.y = y
    def moved(self, by):
        return Point(self.x + by, self.y + by)
def processEvent(event, meta):
    point = Point(1, 2)
    for n in range(20):
        point = point.moved(n)
    event['properties']['x'] = point.x
    return event
""",
    "comprehensions and text": """
def processEvent(event, meta):
    properties = event['properties']
    words = [word.capitalize() for word in properties['text'].split() if len(word) > 2]
    properties['title'] = ' '.join(sorted(words))
    properties['lengths'] = {word: len(word) for word in words}
    properties['line'] = f"{properties['title'][:20]!r:>30} {len(words):05d}"
    return event
""",
    "updates in place": """
def processEvent(event, meta):
    properties, total = event['properties'], 0
    for n in range(50):
        total += n
        properties['total'] = total
        properties['total'] += 1
    return event
""",
}
NOTHING = "def processEvent(event, meta):\n    return event\n"
SECONDS = 0.2
CULPRITS = {
    "infinite loop": "while True:\n            pass",
    "loop that catches": "while True:\n            try:\n                x = 1 / 0\n            except Exception:\n                pass",
    "regex bomb": "import re\n        re.match('(a+)+$', 'a' * 60 + 'b')",
    "long C call": "sum(range(10 ** 12))",
    "memory bomb": "x = ['x' * 10_000_000 + str(n) for n in range(1_000)]",
    "deep recursion": "def again():\n            return again()\n        again()",
    "nested iterators": "x = iter([])\n        for _ in range(300_000):\n            x = map(str, x)\n        list(x)",
}


def event_data() -> dict[str, Any]:
    names = [f"utm_{letter * 3}" for letter in "abcdefgh"]
    properties = dict.fromkeys(names, " Value ") | {f"$key_{n}": f"value {n}" for n in range(20)}
    return {"event": "$pageview", "properties": properties | {"text": "the quick brown fox jumps over the lazy dog"}}


def raw_event(number: int, name: str = "$pageview") -> bytes:
    envelope = {
        "uuid": f"018f0000-0000-7000-8000-{number:012}",
        "distinct_id": f"d{number}",
        "now": "2026-01-01T00:00:00Z",
    }
    return orjson.dumps({**envelope, "data": orjson.dumps({**event_data(), "event": name}).decode()})


def seconds_of(function: Callable[[Any, Any], Any], events: Sequence[Any]) -> float:
    start = time.process_time()
    for event in events:
        function(event, None)
    return time.process_time() - start


def language(rounds: int) -> None:
    print("language: restricted ÷ plain Python (median of rounds in turns; target ≤ 1.3)")
    ratios: list[float] = []
    for name, source in FUNCTIONS.items():
        plain: dict[str, Any] = {}
        exec(source, plain)
        restricted = app_globals({})
        exec(compile_app(source, "app"), restricted)
        pairs = []
        for _ in range(rounds):
            events = [[orjson.loads(orjson.dumps(event_data())) for _ in range(1_000)] for _ in range(2)]
            ours: Any = restricted["processEvent"]
            pairs.append((seconds_of(ours, events[0]), seconds_of(plain["processEvent"], events[1])))
        ratio = statistics.median(one / other for one, other in pairs)
        ratios.append(ratio)
        print(f"  {name:26} {ratio:5.2f}   ({statistics.median(other for _, other in pairs) * 1e3:6.2f} µs plain)")
    print(f"  {'all':26} {statistics.geometric_mean(ratios):5.2f}")


class Sink:
    """Counts results."""

    closed = False

    def __init__(self, wanted: int) -> None:
        self.wanted = wanted
        self.done = asyncio.get_running_loop().create_future()

    def effects_of(self, _item: Any) -> RunEffects:
        raise AssertionError("these apps call nobody")

    def deliver(self, results: Sequence[Any], *, has_delivery: bool) -> None:
        del has_delivery
        self.wanted -= len(results)
        if self.wanted == 0:
            self.done.set_result(None)


class Report:
    """Takes what a pool reports, and needs none of it."""

    def loaded(self, *_: Any) -> None: ...

    set_up = torn_down = restarted = moved = loaded


def project(source: str, project_id: int, **limits: Any) -> Project:
    app = App("App", "0", "main.py", source, {})
    return Project(project_id, "p", "t", (Install(project_id, app, 1, {}),), limits=Limits(**limits))


async def run_all(pool: SandboxPool, tenant: Project, raws: Sequence[bytes]) -> None:
    sink = Sink(len(raws))
    pool.submit(tenant, [Work(None, raw, sink) for raw in raws])
    await sink.done


def in_process(source: str) -> Callable[[Sequence[bytes]], None]:
    """The same chain, called here."""
    page = Page()
    install = {"id": 1, "name": "App", "file_name": "main.py", "source": source, "config": {}, "failed": None}
    app = load_app(install, {}, Context(lambda *_: None, page), 100, "1")  # type: ignore[arg-type, return-value]
    chain = Chain(1, [app], ChainLimits(1, 2**28, 2**20, 1_000_000), page)
    mode = Mode()

    def run(raws: Sequence[bytes]) -> None:
        for number, raw in enumerate(raws):
            with contextlib.suppress(StopIteration):
                next(chain.run(chain.open(raw, mode), raw, Effects(number), {}, mode))
        page.leave()

    return run


def child_cpu(pool: SandboxPool, tenant: Project) -> float:
    (sandbox,) = pool.sandboxes_of(tenant.id)
    return time.clock_gettime((~(sandbox.pid or 0) << 3) | 2)


async def boundary(pool: SandboxPool, rounds: int) -> None:
    tenant, direct = project(NOTHING, 1), in_process(NOTHING)
    raws = [raw_event(number) for number in range(10_000)]
    await run_all(pool, tenant, raws)
    direct(raws)
    costs = []
    for _ in range(rounds):
        host, child = time.process_time(), child_cpu(pool, tenant)
        await run_all(pool, tenant, raws)
        through = time.process_time() - host + child_cpu(pool, tenant) - child
        start = time.process_time()
        direct(raws)
        costs.append((through / len(raws) * 1e6, (time.process_time() - start) / len(raws) * 1e6))
    total, base = (statistics.median(column) for column in zip(*costs, strict=True))
    print(
        f"boundary: {total - base:.2f} µs an event (target ≤ 2): {total:.2f} through a child, {base:.2f} in one process"
    )


async def start_and_memory(pool: SandboxPool, count: int) -> None:
    seconds, kibibytes = [], []
    for number in range(count):
        tenant = project(FUNCTIONS["transform"], 100 + number)
        start = time.perf_counter()
        await run_all(pool, tenant, [raw_event(0)])
        seconds.append(time.perf_counter() - start)
        (sandbox,) = pool.sandboxes_of(tenant.id)
        kibibytes.append(private_kibibytes(sandbox.pid or 0))
    print(f"start: median {statistics.median(seconds) * 1e3:.1f} ms, worst {max(seconds) * 1e3:.1f} (target ≤ 20)")
    known = [size for size in kibibytes if size]
    if known:
        print(f"memory: {statistics.median(known) / 1024:.2f} MiB private with one app (target ≤ 4)")


def private_kibibytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text("ascii").splitlines()
    except OSError:
        return 0  # another user's process
    return sum(int(line.split()[1]) for line in lines if line.startswith(("Private_Clean", "Private_Dirty")))


async def recovery(pool: SandboxPool, rounds: int) -> None:
    print(f"recovery: time that the others wait beyond the limit of {SECONDS:g} s CPU, median (target < 50 ms)")
    raws = [raw_event(number, "bad" if number == 20 else "x") for number in range(40)]
    for place, (name, body) in enumerate(CULPRITS.items()):
        source = f"def processEvent(event, meta):\n    if event['event'] == 'bad':\n        {body}\n    return event\n"
        waited = []
        for turn in range(rounds):
            tenant = project(source, 1_000 + 100 * place + turn, cpu_seconds=SECONDS, memory_bytes=100 * 2**20)
            await run_all(pool, tenant, raws[:20])
            start = time.perf_counter()
            await run_all(pool, tenant, raws)
            waited.append(time.perf_counter() - start)
        timed = name in ("infinite loop", "loop that catches", "regex bomb", "long C call")
        median = statistics.median(waited) - (SECONDS if timed else 0)
        what = "beyond the limit" if timed else "in all"
        print(f"  {name:26} {median * 1e3:7.1f} ms {what}, worst {(max(waited) - (SECONDS if timed else 0)) * 1e3:.1f}")


async def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what the sandbox costs.")
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    language(rounds)
    pool = SandboxPool(HostApi({}), RunEffects, Report(), "1", 1_000_000, max_sandboxes=1_000)
    await pool.start()
    try:
        gc.collect()
        gc.freeze()
        await boundary(pool, rounds)
        await start_and_memory(pool, 20)
        await recovery(pool, max(3, rounds // 3))
    finally:
        await pool.stop()


if __name__ == "__main__":
    asyncio.run(main())

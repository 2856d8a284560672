"""Deliveries per second of one worker whose app calls an HTTP server that answers after 50 ms.

    .venv/bin/python benchmarks/delivery.py [--events 100000] [--delay-ms 50] [--hook onEvent|composeWebhook]

The output topic of an embedded log is filled first; then a worker with the delivery role alone starts, and the time is
measured at the destination, from the first request to the last. All of it shares the machine: destination, worker, its
one sandbox. Memory is that of the worker with its sandboxes, at two moments when its lanes' windows (LANE_WINDOW_EVENTS each)
are full: it must not grow with the events.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

import uvloop
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.throughput import cpu_seconds, descendants
from plugin_server.database.engine import Database, sqlite_url
from plugin_server.eventlog.embedded import EmbeddedEventLog
from plugin_server.eventlog.port import OutputRecord
from plugin_server.outputs.events import compose_event
from plugin_server.outputs.topics import make_topics
from tests.server import free_port

PARTITIONS = 4
TARGET_PER_SECOND = 2_000
APPS = {
    "onEvent": """
async def onEvent(event, meta):
    response = await fetch({url!r}, method='POST', json=event)
    if not response.ok:
        raise RetryError('answered ' + str(response.status))
""",
    "composeWebhook": """
def composeWebhook(event, meta):
    return {{'url': {url!r}, 'body': event}}
""",
}


class Answers(asyncio.Protocol):
    """The least that can be taken for an HTTP server: counts requests, and answers each after the delay."""

    ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: application/json\r\n\r\n{}"

    def __init__(self, delay_seconds: float, on_answer: Callable[[], None]) -> None:
        self._delay_seconds = delay_seconds
        self._on_answer = on_answer
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end].lower()
            start = head.find(b"content-length:")
            length = int(head[start + 15 :].split(b"\r\n", 1)[0]) if start >= 0 else 0
            if len(self._buffer) < end + 4 + length:
                return
            self._buffer = self._buffer[end + 4 + length :]
            asyncio.get_running_loop().call_later(self._delay_seconds, self._answer)

    def _answer(self) -> None:
        if not self._transport.is_closing():
            self._transport.write(self.ANSWER)
        self._on_answer()


def serve(delay_seconds: float, port: Synchronized[int], count: Synchronized[int]) -> None:
    """The destination's process."""

    async def run() -> None:
        def answered() -> None:
            count.value += 1

        server = await asyncio.get_running_loop().create_server(
            lambda: Answers(delay_seconds, answered), "127.0.0.1", 0, backlog=1_000
        )
        port.value = server.sockets[0].getsockname()[1]
        await server.serve_forever()

    uvloop.run(run())


async def fill(data_dir: Path, count: int) -> None:
    """Put events into the output topic."""
    data_dir.mkdir(parents=True)
    database = Database(sqlite_url(data_dir))
    log = EmbeddedEventLog(database, data_dir)
    await log.start()
    topics = make_topics("")
    await log.ensure_topics(topics.all, PARTITIONS)
    properties = json.dumps({f"property {number}": f"value {number}" for number in range(20)})
    records = []
    for number in range(count):
        uuid = f"018f0000-0000-7000-8000-{number:012d}"
        value = compose_event(
            "page view",
            f"user {number % 1000}",
            "2026-11-23 12:00:00.000",
            "",
            properties,
            uuid=uuid,
            project_id=2,
            created_at="2026-11-23 12:00:00.000",
            captured_at="2026-11-23T12:00:00.000Z",
            historical_migration=False,
        )
        lineage = json.dumps({"v": 1, "root": uuid, "depth": 0, "path": [], "budget": 500}).encode()
        headers = [("ps-lineage", lineage), ("ps-source", f"events_plugin_ingestion-0-{number}".encode())]
        records.append(OutputRecord(topics.events, number % PARTITIONS, b"k", value, headers))
        if len(records) == 2_000:
            await log.produce(records)
            records = []
    await log.produce(records)
    await log.stop()
    await database.close()


def write_project(folder: Path, source: str) -> Path:
    app = folder / "app"
    app.mkdir()
    (app / "main.py").write_text(source)
    (app / "plugin.json").write_text('{"name": "Sender"}')
    path = folder / "projects.yaml"
    project = {"id": 2, "name": "Bench", "token": "phc_2", "installs": [{"id": 1, "order": 1, "app": str(app)}]}
    path.write_text(yaml.safe_dump({"projects": [project]}))
    return path


def memory_mb(pids: list[int]) -> float:
    """Resident memory of these together."""
    total = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))
    return total / 1024


def measure(pid: int, count: Synchronized[int], events: int) -> None:
    """Follow the destination until all is there."""
    give_up = time.monotonic() + 600
    while not count.value:
        time.sleep(0.005)
        if time.monotonic() > give_up or not Path(f"/proc/{pid}/task").exists():
            raise SystemExit("nothing was delivered: the worker does not run")
    first, started = count.value, time.perf_counter()
    cpu = {one: cpu_seconds(one) for one in descendants(pid)}
    early = late = 0.0
    while count.value < events:
        time.sleep(0.02)
        if not early and count.value > events * 3 // 10:
            early = memory_mb(descendants(pid))
        if not late and count.value > events * 6 // 10:
            late = memory_mb(descendants(pid))
        if time.monotonic() > give_up:
            raise SystemExit(f"{count.value} of {events} were delivered within 600 s")
    seconds = time.perf_counter() - started
    pids = descendants(pid)
    done = events - first
    used = {one: cpu_seconds(one) - cpu.get(one, 0.0) for one in pids}
    rate = done / seconds
    verdict = "reached" if rate >= TARGET_PER_SECOND else "MISSED"
    print(f"deliveries/s            {rate:10,.0f}   target {TARGET_PER_SECOND:,}: {verdict}")
    print(f"requests beyond events  {count.value - events:10,}")
    print(f"host CPU s/100k         {used[pid] / done * 1e5:10.1f}")
    print(f"sandbox CPU s/100k      {(sum(used.values()) - used[pid]) / done * 1e5:10.1f}")
    print(f"memory at 30 %, MB      {early:10.1f}")
    print(f"memory at 60 %, MB      {late:10.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--delay-ms", type=float, default=50)
    parser.add_argument("--hook", choices=sorted(APPS), default="onEvent")
    parser.add_argument("--profile", type=Path, help="where py-spy writes what the host did")
    args = parser.parse_args()
    port, count = multiprocessing.Value("i", 0, lock=False), multiprocessing.Value("i", 0, lock=False)
    destination = multiprocessing.Process(target=serve, args=(args.delay_ms / 1000, port, count), daemon=True)
    destination.start()
    while not port.value:
        time.sleep(0.01)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        asyncio.run(fill(folder / "data", args.events))
        url = f"http://127.0.0.1:{port.value}/"
        environ = {
            **os.environ,
            "PLUGIN_SERVER_PROJECTS_FILE": str(write_project(folder, APPS[args.hook].format(url=url))),
            "PLUGIN_SERVER_DATA_DIR": str(folder / "data"),
            "PLUGIN_SERVER_HTTP_PORT": str(free_port()),
            "PLUGIN_SERVER_ROLES": "delivery",
            "PLUGIN_SERVER_ALLOWED_PRIVATE_HOSTS": "127.0.0.0/8",
            "PLUGIN_SERVER_LOG_LEVEL": "warning",
        }
        command = [str(Path(sys.executable).parent / "plugin-server"), "run"]
        if args.profile:
            spy = str(Path(sys.executable).parent / "py-spy")
            command = [spy, "record", "-r", "200", "-f", "raw", "-o", str(args.profile), "--", *command]
        worker = subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL)
        try:
            pid = worker.pid if not args.profile else 0
            while args.profile and not pid:
                time.sleep(0.2)
                pid = next(iter(descendants(worker.pid)[1:]), 0)
            measure(pid, count, args.events)
        finally:
            worker.send_signal(signal.SIGINT if args.profile else signal.SIGTERM)
            worker.wait()
    destination.terminate()


if __name__ == "__main__":
    main()

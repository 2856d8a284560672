"""Jobs per second: `.venv/bin/python benchmarks/jobs.py [--jobs 100000] [--workers 4] [--installs 20]`.

Scheduled jobs, all due, in a real Postgres that syncs to its disk; so many worker processes claim them, run each in their
sandboxes and store its end and what it captured. Checked at the end: each job ran once. The workers start beforehand, and
the clock runs from the moment at which the jobs are due to the last job's end. Postgres shares the cores with them.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import multiprocessing
import sys
import time
from pathlib import Path
from typing import Any

from sqlalchemy import func, insert, select

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.throughput import cpu_seconds, descendants
from plugin_server.background.job_store import JobStore
from plugin_server.background.job_worker import JobWorker
from plugin_server.background.report import BackgroundReport
from plugin_server.database.engine import Database
from plugin_server.database.migrate import migrate
from plugin_server.database.tables import jobs, outbox
from plugin_server.host_api.calls import HostApi
from plugin_server.host_api.captures import Captures
from plugin_server.host_api.commit import Committer, read_stored
from plugin_server.host_api.effects import RunEffects
from plugin_server.host_api.invoke import Invoker
from plugin_server.host_api.jobs import make_jobs_handlers
from plugin_server.host_api.ledger import Ledger
from plugin_server.host_api.logs import LogEntries
from plugin_server.metrics import Metrics
from plugin_server.model.project import App, Install, Project
from plugin_server.runtime.pool import SandboxPool
from tests.services.postgres import PostgresServer

APP = """
def run(payload, meta):
    posthog.capture("ran", {"distinct_id": str(payload["n"]), "number": payload["n"]})

jobs = {"run": run}
"""


class _Ignore:
    """Whoever has to be told, and is not interested."""

    def __getattr__(self, _name: str) -> Any:
        return lambda *_arguments: None


def make_project(installs: int) -> Project:
    app = App("Runner", "v", "main.py", APP, {})
    return Project(
        2, "benchmark", "phc_benchmark", tuple(Install(number, app, number, {}) for number in range(1, installs + 1))
    )


async def work(url: str, owner: str, installs: int, ready: Any, ended: Any) -> None:
    """One worker, until it is told that all has ended."""
    database = Database(url, connections=4)
    project = make_project(installs)

    async def read(keys: Any) -> Any:
        async with database.read() as connection:
            return await read_stored(connection, keys)

    pool = SandboxPool(HostApi(make_jobs_handlers(time.time)), RunEffects, _Ignore(), "1.0", 1_000_000)
    await pool.start()
    await pool.load(project)
    committer = Committer(database, Ledger(read))
    captures = Captures("ingestion", "letters", 1_000_000, time.time)
    invoker = Invoker(pool, committer, captures, LogEntries("logs", owner), _Ignore(), time.time)
    worker = JobWorker(JobStore(database, owner), invoker, {2: project}.get, BackgroundReport(Metrics()))
    tasks = [asyncio.create_task(committer.run()), asyncio.create_task(worker.run())]
    ready.release()
    while not ended.is_set():
        await asyncio.sleep(0.1)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await pool.stop()
    await database.close()


def run_worker(url: str, owner: str, installs: int, ready: Any, ended: Any) -> None:
    import uvloop  # noqa: PLC0415 - in the child only

    uvloop.run(work(url, owner, installs, ready, ended))


async def put_jobs(database: Database, count: int, installs: int, due_ms: int) -> None:
    rows = (
        {
            "id": f"018f0000-0000-7000-8000-{number:012}",
            "project_id": 2,
            "install_id": 1 + number % installs,
            "name": "run",
            "payload": b'{"n":%d}' % number,
            "state": "waiting",
            "run_at_ms": due_ms - number % 1_000,
            "share": 1_000,
            "created_at_ms": due_ms,
            "lineage": None,
        }
        for number in range(count)
    )
    for some in iter(lambda: list(itertools.islice(rows, 2_000)), []):
        async with database.write() as connection:
            await connection.execute(insert(jobs), some)


async def count_rows(database: Database, table: Any) -> int:
    async with database.read() as connection:
        return int((await connection.execute(select(func.count()).select_from(table))).scalar_one())


def cpu_of(pids: list[int]) -> float:
    """CPU seconds of these processes and of what came of them."""
    return sum(cpu_seconds(each) for pid in pids for each in descendants(pid))


async def measure(url: str, count: int, workers: int, installs: int, postgres_pid: int) -> None:
    database = Database(url, connections=2)
    await migrate(database)
    due_ms = int(time.time() * 1000) + 3_600_000
    await put_jobs(database, count, installs, due_ms)
    context = multiprocessing.get_context("spawn")
    ready, ended = context.Semaphore(0), context.Event()
    arguments = [(url, f"worker-{number}", installs, ready, ended) for number in range(workers)]
    processes = [context.Process(target=run_worker, args=each) for each in arguments]
    for process in processes:
        process.start()
    for _ in processes:
        await asyncio.to_thread(ready.acquire)
    pids = [process.pid for process in processes if process.pid is not None]
    cpu, server_cpu = cpu_of(pids), cpu_of([postgres_pid])
    async with database.write() as connection:
        await connection.execute(jobs.update().values(run_at_ms=jobs.c.run_at_ms - 3_600_000))
    started = time.perf_counter()
    while (left := await count_rows(database, jobs)) > 0:
        print(f"\r{left:>8} left", end="", file=sys.stderr, flush=True)
        await asyncio.sleep(0.25)
    seconds = time.perf_counter() - started
    cpu, server_cpu = cpu_of(pids) - cpu, cpu_of([postgres_pid]) - server_cpu
    ended.set()
    for process in processes:
        await asyncio.to_thread(process.join)
    async with database.read() as connection:
        values = (await connection.execute(select(outbox.c.value).where(outbox.c.topic == "ingestion"))).scalars().all()
    await database.close()
    once = len(values) == len(set(values)) == count
    print(
        f"\r{count} jobs of {installs} installs, {workers} workers: {seconds:.1f} s, {count / seconds:,.0f} jobs/s, "
        f"CPU {cpu:.0f} s in workers and sandboxes, {server_cpu:.0f} s in Postgres; "
        f"each ran once: {'yes' if once else f'NO, {len(values)} captures'}"
    )
    if not once:
        raise SystemExit(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--installs", type=int, default=20)
    chosen = parser.parse_args()
    with PostgresServer(fsync="on", full_page_writes="on") as server:
        url = server.create_database()
        assert server.pid is not None
        asyncio.run(measure(url, chosen.jobs, chosen.workers, chosen.installs, server.pid))


if __name__ == "__main__":
    main()

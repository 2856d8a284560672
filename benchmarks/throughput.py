"""Events per second and CPU seconds of a whole worker against a real Kafka beside it.

    make bench            (or: .venv/bin/python benchmarks/throughput.py [--events 200000] [--runs 3] [--guarantee …])

Each run starts a worker with a new consumer group on topics that hold the whole workload, and measures from the first
to the last transaction's time stamp on the output topic. CPU is that of the worker and of its sandboxes, read from the
kernel between these two moments; the broker's is shown beside it, as it shares the cores. Machines are noisy: compare
variants within one invocation only.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.workload import make_events, write_projects
from tests.kafka_broker.broker import KafkaBroker

PARTITIONS = 4
TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """CPU of a process, children that have ended not counted."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0.0
    fields = stat[stat.rindex(")") + 2 :].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def descendants(pid: int) -> list[int]:
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            found += descendants(int(child))
    return found


async def fill(brokers: str, topic: str, count: int) -> None:
    """Put the workload into the topic, spread over its partitions."""
    admin = AIOKafkaAdminClient(bootstrap_servers=brokers)
    await admin.start()
    await admin.create_topics([NewTopic(topic, PARTITIONS, 1)])
    await admin.close()
    producer = AIOKafkaProducer(bootstrap_servers=brokers, acks="all", max_batch_size=1 << 20)
    await producer.start()
    batches = [producer.create_batch() for _ in range(PARTITIONS)]
    for number, (key, value) in enumerate(make_events(count)):
        partition = number % PARTITIONS
        if batches[partition].append(key=key, value=value, timestamp=None) is None:
            await (await producer.send_batch(batches[partition], topic, partition=partition))
            batches[partition] = producer.create_batch()
            batches[partition].append(key=key, value=value, timestamp=None)
    for partition, batch in enumerate(batches):
        await (await producer.send_batch(batch, topic, partition=partition))
    await producer.stop()


async def wait_for_output(
    brokers: str, topic: str, expected: int, workers: list[int], broker_pid: int
) -> dict[str, float]:
    """Follow the output until all of it is there."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=brokers, isolation_level="read_committed", auto_offset_reset="earliest"
    )
    await consumer.start()
    while True:
        partitions = consumer.partitions_for_topic(topic)
        if partitions:
            break
        await consumer._client.force_metadata_update()
        await asyncio.sleep(0.05)
    places = [TopicPartition(topic, partition) for partition in sorted(partitions)]

    async def stable_ends() -> int:
        return sum((await consumer.end_offsets(places)).values())

    while await stable_ends() == 0:
        await asyncio.sleep(0.01)
    started = time.perf_counter()
    cpu = {pid: cpu_seconds(pid) for pid in descendants(workers[0])}
    broker_cpu = cpu_seconds(broker_pid)
    first = await stable_ends()
    while (ends := await stable_ends()) < expected:
        await asyncio.sleep(0.1)
    seconds = time.perf_counter() - started
    pids = descendants(workers[0])
    host = cpu_seconds(workers[0]) - cpu.get(workers[0], 0)
    sandboxes = sum(cpu_seconds(pid) - cpu.get(pid, 0) for pid in pids[1:])
    memory = sum(
        int(line.split()[1])
        for pid in pids
        for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        if line.startswith("VmRSS")
    )
    await consumer.stop()
    done = ends - first
    return {
        "events/s": done / seconds,
        "host CPU s/100k": host / done * 1e5,
        "sandbox CPU s/100k": sandboxes / done * 1e5,
        "broker CPU s/100k": (cpu_seconds(broker_pid) - broker_cpu) / done * 1e5,
        "RSS MB": memory / 1024,
    }


async def run_once(
    brokers: str, broker_pid: int, folder: Path, prefix: str, count: int, args: argparse.Namespace
) -> dict[str, float]:
    projects = write_projects(folder, args.apps)
    await fill(brokers, f"{prefix}events_plugin_ingestion", count)
    await asyncio.sleep(1)
    environ = {
        **os.environ,
        "PLUGIN_SERVER_KAFKA_BROKERS": brokers,
        "PLUGIN_SERVER_SINGLE_WORKER": "true",
        "PLUGIN_SERVER_PROJECTS_FILE": str(projects),
        "PLUGIN_SERVER_DATA_DIR": str(folder / "data"),
        "PLUGIN_SERVER_TOPIC_PREFIX": prefix,
        "PLUGIN_SERVER_CONSUMER_GROUP": f"{prefix}group",
        "PLUGIN_SERVER_HTTP_PORT": "0",
        "PLUGIN_SERVER_LOG_LEVEL": "warning",
        "PLUGIN_SERVER_DELIVERY_GUARANTEE": args.guarantee,
    }
    command = [str(Path(sys.executable).parent / "plugin-server"), "run"]
    if args.pin:
        command = ["taskset", "-c", args.pin, *command]
    if args.profile:
        command = [
            str(Path(sys.executable).parent / "py-spy"),
            "record",
            "-s",
            "-n",
            "-r",
            "200",
            "-f",
            "raw",
            "-o",
            args.profile,
            "--",
            *command,
        ]
    worker = subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL)
    expected = count if args.apps < 3 else count - sum(1 for n in range(count) if f"{n % 100_000:06d}".endswith("37"))
    try:
        async with asyncio.timeout(600):
            return await wait_for_output(brokers, f"{prefix}clickhouse_events_json", expected, [worker.pid], broker_pid)
    finally:
        worker.send_signal(signal.SIGTERM)
        worker.wait(30)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--apps", type=int, default=3, help="of the three, how many run")
    parser.add_argument("--guarantee", default="exactly_once", choices=["exactly_once", "at_least_once"])
    parser.add_argument("--pin", help="processors for the worker, as taskset takes them")
    parser.add_argument("--profile", help="file for py-spy's folded stacks")
    args = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as folder, KafkaBroker() as broker:
        for run in range(-1, args.runs):  # the first run warms the broker up, and does not count
            prefix = f"bench{int(time.time())}_{run + 1}_"
            result = asyncio.run(
                run_once(broker.bootstrap_servers, broker.pid, Path(folder), prefix, args.events, args)
            )
            if run >= 0:
                results.append(result)
            print(
                "warm-up " if run < 0 else "",
                "  ".join(f"{name} {value:,.2f}" for name, value in result.items()),
                sep="",
                flush=True,
            )
    print(f"\n{args.events:,} events, {args.apps} apps, {args.guarantee}, median of {args.runs} (min to max):")
    for name in results[0]:
        values = [result[name] for result in results]
        print(f"  {name:20} {statistics.median(values):12,.2f}   ({min(values):,.2f} to {max(values):,.2f})")


if __name__ == "__main__":
    main()

"""A real Apache Kafka for tests, chaos tests and benchmarks: one node, KRaft, ready in about three seconds.

    with KafkaBroker() as broker:
        ...  # broker.bootstrap_servers
        broker.kill(); broker.start()  # chaos: same port, same data

Where Java and Maven are there, the jars come by Maven into `.cache/kafka` once, and the broker is a process of ours.
Else, where a Docker daemon answers, it is a container. `why_unavailable` says what is missing.
"""

from __future__ import annotations

import base64
import contextlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from pathlib import Path
from types import TracebackType
from typing import Self

VERSION = "3.9.1"
_HERE = Path(__file__).parent
_CACHE = _HERE.parents[1] / ".cache" / "kafka" / VERSION
_START_SECONDS = 60
_DOWNLOAD_SECONDS = 600
_IMAGE = f"apache/kafka:{VERSION}"
_PROPERTIES = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "PLAINTEXT",
    "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,INSIDE:PLAINTEXT",
    "num.partitions": "1",
    "default.replication.factor": "1",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "4",
    "group.initial.rebalance.delay.ms": "0",
    "log.retention.check.interval.ms": "1000",
    "broker.heartbeat.interval.ms": "500",
    "broker.session.timeout.ms": "3000",  # a killed broker may come back only after it
    "auto.create.topics.enable": "false",
}


class KafkaUnavailableError(RuntimeError):
    """No broker can be started here; the message says what is missing."""


def why_unavailable() -> str | None:
    """What is missing for a broker, None if nothing is."""
    if _can_run_java() or _docker_answers():
        return None
    missing = [tool for tool in ("java", "mvn") if shutil.which(tool) is None]
    return (
        f"{' and '.join(missing)} not found and no Docker daemon answers; "
        "install a JRE (17) and Maven, start Docker, or set TEST_KAFKA_BROKERS"
    )


class KafkaBroker:
    """One broker with a data directory of its own, both gone after `close`. Raises KafkaUnavailableError."""

    def __init__(self, **properties: str) -> None:
        """`properties` override the broker's configuration, `_` standing for the dots in a name."""
        reason = why_unavailable()
        if reason is not None:
            raise KafkaUnavailableError(reason)
        self._overrides = {name.replace("_", "."): value for name, value in properties.items()}
        self._directory = Path(tempfile.mkdtemp(prefix="kafka-for-tests-"))
        self._port, self._controller_port = _free_ports(2)
        self._process: subprocess.Popen[bytes] | None = None
        self._container: str | None = None
        self._is_formatted = False

    @property
    def bootstrap_servers(self) -> str:
        return f"127.0.0.1:{self._port}"

    @property
    def pid(self) -> int | None:
        """Of the broker's process, None when it does not run or is a container."""
        return None if self._process is None else self._process.pid

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Start it, or start it again on the same port and data. Blocks until it answers."""
        if self._process is not None:
            message = "the broker runs already"
            raise RuntimeError(message)
        if _can_run_java():
            self._start_process()
        else:
            self._start_container()
        self._wait_until_ready()

    def stop(self) -> None:
        """Shut down in order; the data stays."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """As a crash does it; the data stays."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Freeze it: connections stay open and nothing answers."""
        self._signal(signal.SIGSTOP)

    def unpause(self) -> None:
        """Undo `pause`."""
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        """End it and delete its data."""
        self.kill()
        if self._container is not None:
            _docker("rm", "-f", self._container)
            self._container = None
        shutil.rmtree(self._directory, ignore_errors=True)

    def log_tail(self, lines: int = 30) -> str:
        """The end of what the broker printed."""
        path = self._directory / "broker.log"
        if not path.exists():
            return ""
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])

    def _start_process(self) -> None:
        classpath = f"{_jars()}/*"
        config = self._directory / "server.properties"
        config.write_text("".join(f"{name}={value}\n" for name, value in self._properties().items()))
        if not self._is_formatted:
            subprocess.run(
                [
                    *("java", "-Xmx256m", "-XX:TieredStopAtLevel=1", "-cp", classpath),
                    *("kafka.tools.StorageTool", "format", "-t", _cluster_id(), "-c", str(config)),
                ],
                check=True,
                capture_output=True,
                timeout=_START_SECONDS,
            )
            self._is_formatted = True
        with (self._directory / "broker.log").open("ab") as output:
            self._process = subprocess.Popen(
                [
                    *("java", "-Xmx512m", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", classpath),
                    *("kafka.Kafka", str(config)),
                ],
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for pytest, which then ends the broker by its pid
            )

    def _start_container(self) -> None:
        if self._container is not None:
            _docker("start", self._container)
            return
        settings = self._properties() | {
            "listeners": "CONTROLLER://:9093,PLAINTEXT://:9092",
            "controller.quorum.voters": "1@localhost:9093",
            "log.dirs": "/tmp/kafka-data",
        }
        variables = [f"KAFKA_{name.upper().replace('.', '_')}={value}" for name, value in settings.items()]
        options = [argument for variable in variables for argument in ("-e", variable)]
        self._container = _docker("run", "-d", "-p", f"{self._port}:9092", *options, _IMAGE)

    def _properties(self) -> dict[str, str]:
        return {
            **_PROPERTIES,
            "controller.quorum.voters": f"1@127.0.0.1:{self._controller_port}",
            "listeners": f"CONTROLLER://127.0.0.1:{self._controller_port},PLAINTEXT://127.0.0.1:{self._port}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{self._port}",
            "log.dirs": str(self._directory / "data"),
            **self._overrides,
        }

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            if self._process is not None and self._process.poll() is not None:
                break
            if _answers(self._port):
                return
            time.sleep(0.1)
        message = f"Kafka did not start within {_START_SECONDS} s:\n{self.log_tail()}"
        raise KafkaUnavailableError(message)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
        elif self._container is not None:
            _docker("kill", "-s", number.name, self._container)

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            if self._container is not None:
                with contextlib.suppress(subprocess.CalledProcessError):
                    _docker("kill", "-s", number.name, self._container)
                    _docker("wait", self._container)
            return
        process, self._process = self._process, None
        process.send_signal(signal.SIGCONT)
        process.send_signal(number)
        try:
            process.wait(timeout=_START_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _cluster_id() -> str:
    """A random UUID in the form that StorageTool takes; one that begins with a dash it would take for an option."""
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").replace("-", "_")


def _can_run_java() -> bool:
    return shutil.which("java") is not None and ((_CACHE / "complete").exists() or shutil.which("mvn") is not None)


def _docker_answers() -> bool:
    if shutil.which("docker") is None:
        return False
    try:
        return subprocess.run(["docker", "info"], capture_output=True, timeout=10, check=False).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def _docker(*arguments: str) -> str:
    finished = subprocess.run(["docker", *arguments], check=True, capture_output=True, text=True)
    return finished.stdout.strip()


def _jars() -> Path:
    """The folder of the broker's jars; fetched by Maven when they are not there yet."""
    if (_CACHE / "complete").exists():
        return _CACHE
    _CACHE.mkdir(parents=True, exist_ok=True)
    command = ["mvn", "-q", "-B", "-f", str(_HERE / "pom.xml"), "dependency:copy-dependencies"]
    try:
        subprocess.run(
            [*command, f"-DoutputDirectory={_CACHE}"],
            check=True,
            capture_output=True,
            text=True,
            timeout=_DOWNLOAD_SECONDS,
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        output = str(error.stdout or "")[-2_000:]
        message = f"Maven could not fetch Kafka's jars: {error}\n{output}"
        raise KafkaUnavailableError(message) from error
    (_CACHE / "complete").touch()
    return _CACHE


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _answers(port: int) -> bool:
    """Whether a broker answers ApiVersions there: it opens its port before it can."""
    request = bytes.fromhex("0012000000000001ffff")  # ApiVersions, version 0, correlation id 1, no client id
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            connection.sendall(len(request).to_bytes(4, "big") + request)
            return len(connection.recv(4)) == 4
    except OSError:
        return False


if __name__ == "__main__":
    for end in (signal.SIGINT, signal.SIGTERM):  # SIGINT too: a shell's background job ignores it by default
        signal.signal(end, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt), KafkaBroker() as running:
        print(f"KAFKA_BROKERS={running.bootstrap_servers} pid={running.pid}", flush=True)
        signal.pause()

"""A real Redis for tests and chaos tests: ready in a tenth of a second, never the machine's own.

with RedisServer() as server:
    ...  # server.url
    server.kill(); server.start()  # chaos: same port, same data
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
from collections.abc import Iterator

import redis

from tests.services.process import LocalServer, ServiceUnavailableError

_DATABASES = 16


class RedisServer(LocalServer):
    """See the module. `options` are directives of redis.conf, `_` standing for the dashes in a name."""

    name = "Redis"
    users = ("redis",)
    end_signal = signal.SIGTERM
    crash_signal = signal.SIGKILL

    def __init__(self, **options: str) -> None:
        super().__init__()
        self._options = {
            "port": str(self._port),
            "bind": "127.0.0.1",
            "databases": str(_DATABASES),
            "save": "",
            "appendonly": "yes",  # what was answered is in the kernel's hands, so a kill loses nothing
            "dir": str(self._data),
        } | {name.replace("_", "-"): value for name, value in options.items()}

    @classmethod
    def why_unavailable(cls) -> str | None:
        """See LocalServer.why_unavailable."""
        if shutil.which("redis-server"):
            return None
        return "redis-server not found; install it (Debian: redis-server), or set TEST_REDIS_URL"

    @property
    def url(self) -> str:
        """Of database 0."""
        return f"redis://127.0.0.1:{self._port}/0"

    def _prepare(self) -> None:
        self._run("mkdir", str(self._data))

    def _command(self) -> list[str]:
        directives = [argument for name, value in self._options.items() for argument in (f"--{name}", value)]
        return ["redis-server", *directives]

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self._port), timeout=2) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(7) == b"+PONG\r\n"
        except OSError:
            return False


@contextlib.contextmanager
def fresh_database(server_url: str) -> Iterator[str]:
    """The URL of an empty database of a server, emptied again at the end; nothing that was there before is touched."""
    base = server_url.rpartition("/")[0] if server_url.count("/") > 2 else server_url
    for number in reversed(range(_DATABASES)):
        url = f"{base}/{number}"
        with contextlib.closing(redis.Redis.from_url(url)) as client:
            if client.dbsize():
                continue
            try:
                yield url
            finally:
                # A server that a test has killed took its databases with it.
                with contextlib.suppress(redis.ConnectionError):
                    client.flushdb()
            return
    raise ServiceUnavailableError(f"none of the {_DATABASES} databases of {base} is empty")


if __name__ == "__main__":
    for end in (signal.SIGINT, signal.SIGTERM):  # SIGINT too: a shell's background job ignores it by default
        signal.signal(end, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt), RedisServer() as running:
        print(f"CACHE_URL={running.url} pid={running.pid}", flush=True)
        signal.pause()

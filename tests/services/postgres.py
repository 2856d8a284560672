"""A real Postgres for tests, chaos tests and benchmarks: ready in about a second, never the machine's own cluster.

    with PostgresServer() as server:
        url = server.create_database()
        server.kill(); server.start()  # chaos: same port, same data

Without fsync: what a killed server has lost is decided by its log, which the kernel has; only a machine that loses its
power would lose more. For benchmarks: PostgresServer(fsync="on", full_page_writes="on").
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import uuid
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

from tests.services.process import LocalServer

_DEBIAN = Path("/usr/lib/postgresql")
_OPTIONS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "fsync": "off",
    "full_page_writes": "off",
    "autovacuum_naptime": "10s",
    "dynamic_shared_memory_type": "mmap",  # /dev/shm is small in containers
}


class PostgresServer(LocalServer):
    """See the module. `options` override the server's configuration."""

    name = "Postgres"
    users = ("postgres",)
    end_signal = signal.SIGINT  # "fast": SIGTERM would wait for the clients to go
    crash_signal = signal.SIGQUIT  # "immediate": all processes at once, the next start recovers from the log

    def __init__(self, **options: str) -> None:
        super().__init__()
        self._options = _OPTIONS | {"port": str(self._port)} | options

    @classmethod
    def why_unavailable(cls) -> str | None:
        """See LocalServer.why_unavailable."""
        if _tool("postgres") and _tool("initdb"):
            return None
        return "no postgres and initdb found; install postgresql (Debian), or set TEST_POSTGRES_URL"

    @property
    def url(self) -> str:
        """Of the database `postgres`, as a user who may do everything."""
        return f"postgresql://plugin_server@127.0.0.1:{self._port}/postgres"

    def create_database(self) -> str:
        """The URL of a new, empty database, which goes with the server."""
        return create_database(self.url)

    def _prepare(self) -> None:
        self._run(
            *(str(_tool("initdb")), "--pgdata", str(self._data), "--username", "plugin_server", "--auth", "trust"),
            *("--encoding", "UTF8", "--locale", "C", "--no-sync", "--no-instructions"),
        )

    def _command(self) -> list[str]:
        settings = [argument for name, value in self._options.items() for argument in ("-c", f"{name}={value}")]
        return [str(_tool("postgres")), "-D", str(self._data), *settings]

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True


def empty_database(url: str) -> None:
    """Make a database as it was when it was new; whoever is still connected is thrown out. Faster than a new one."""
    others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    _execute(
        url,
        sql.SQL(f"SELECT pg_terminate_backend(pid) {others}"),
        sql.SQL("DROP SCHEMA public CASCADE"),
        sql.SQL("CREATE SCHEMA public"),
    )


def drop_database(url: str) -> None:
    """Whoever is still connected."""
    parts = urlsplit(url)
    statement = sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(parts.path[1:]))
    _execute(parts._replace(path="/postgres").geturl(), statement)


def create_database(server_url: str) -> str:
    """Create a database that is like no other; its URL. `server_url` names one in which we may."""
    name = f"t{uuid.uuid4().hex[:12]}"
    _execute(server_url, sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
    return urlsplit(server_url)._replace(path=f"/{name}").geturl()


def _execute(url: str, *statements: sql.SQL | sql.Composed) -> None:
    with contextlib.closing(psycopg.connect(url, autocommit=True, connect_timeout=10)) as connection:
        for statement in statements:
            connection.execute(statement)


def _tool(name: str) -> Path | None:
    """Debian keeps the server's programs out of PATH, one folder a version: the newest."""
    versions = sorted(
        (path for path in _DEBIAN.glob(f"*/bin/{name}") if os.access(path, os.X_OK)),
        key=lambda path: [int(part) for part in path.parts[-3].split(".") if part.isdecimal()],
    )
    if versions:
        return versions[-1]
    found = shutil.which(name)
    return None if found is None else Path(found)


if __name__ == "__main__":
    for end in (signal.SIGINT, signal.SIGTERM):  # SIGINT too: a shell's background job ignores it by default
        signal.signal(end, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt), PostgresServer() as running:
        print(f"DATABASE_URL={running.create_database()} pid={running.pid}", flush=True)
        signal.pause()

"""What all tests share: real servers for the session, names that no other test uses, how many examples Hypothesis tries."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Protocol, TypeVar

import pytest
from hypothesis import settings

from plugin_server.database.engine import sqlite_url
from tests.kafka_broker.broker import KafkaBroker, KafkaUnavailableError, why_unavailable
from tests.services import postgres as postgres_service
from tests.services import redis as redis_service
from tests.services.postgres import PostgresServer
from tests.services.process import ServiceUnavailableError
from tests.services.redis import RedisServer

# At one's desk a run ends in seconds, and each run tries others; where a change is judged (.ci/run), many more are tried.
settings.register_profile("desk", max_examples=25, deadline=None)
settings.register_profile("thorough", max_examples=300, deadline=None, print_blob=True)
settings.load_profile("thorough" if os.environ.get("CI") else "desk")


class _Server(Protocol):
    def start(self) -> None: ...
    def close(self) -> None: ...


_AnyServer = TypeVar("_AnyServer", bound=_Server)
_SERVERS: Final = pytest.StashKey[list[_Server]]()
_WHY_UNAVAILABLE: Final[dict[str, Callable[[], str | None]]] = {
    "Kafka": why_unavailable,
    "Postgres": PostgresServer.why_unavailable,
    "Redis": RedisServer.why_unavailable,
}
_FIXTURES: Final = {
    "kafka": {"kafka", "own_kafka"},
    "postgres": {"postgres", "own_postgres"},
    "redis": {"redis", "own_redis"},
}
"""By marker: whoever asks for one of these needs that server"""


def _is_required(name: str) -> bool:
    return bool(os.environ.get("CI")) or name.lower() in os.environ.get("PLUGIN_SERVER_TESTS_REQUIRE", "").split(",")


def _start(config: pytest.Config, name: str, make: Callable[[], _AnyServer]) -> _AnyServer:
    server = None
    try:
        server = make()
        config.stash.setdefault(_SERVERS, []).append(server)
        server.start()
    except (KafkaUnavailableError, ServiceUnavailableError) as error:
        if server is not None:
            server.close()
        if _is_required(name):
            pytest.fail(f"no {name} for tests: {error}", pytrace=False)
        pytest.skip(f"no {name} for tests: {error}")
    return server


@pytest.fixture(scope="session")
def kafka(request: pytest.FixtureRequest) -> Iterator[str]:
    """Addresses of brokers: those of TEST_KAFKA_BROKERS, else of one started for the session."""
    given = os.environ.get("TEST_KAFKA_BROKERS")
    if given:
        yield given
        return
    broker = _start(request.config, "Kafka", KafkaBroker)
    yield broker.bootstrap_servers
    broker.close()


@pytest.fixture
def own_kafka(request: pytest.FixtureRequest) -> Iterator[KafkaBroker]:
    """A broker for one test, which may kill, pause and restart it."""
    broker = _start(request.config, "Kafka", KafkaBroker)
    yield broker
    broker.close()


@pytest.fixture
def topic_prefix() -> str:
    """For names of topics and groups, so that no two tests meet on a broker."""
    return f"t{uuid.uuid4().hex[:10]}_"


@pytest.fixture(scope="session")
def postgres(request: pytest.FixtureRequest) -> Iterator[str]:
    """URL of a Postgres where databases may be made: TEST_POSTGRES_URL, else one started for the session."""
    given = os.environ.get("TEST_POSTGRES_URL")
    if given:
        yield given
        return
    server = _start(request.config, "Postgres", PostgresServer)
    yield server.url
    server.close()


@pytest.fixture(scope="session")
def _postgres_database(postgres: str) -> Iterator[str]:
    url = postgres_service.create_database(postgres)
    yield url
    postgres_service.drop_database(url)


@pytest.fixture
def postgres_url(_postgres_database: str) -> Iterator[str]:
    """An empty database for one test; more of them: tests.services.postgres.create_database(postgres)."""
    yield _postgres_database
    postgres_service.empty_database(_postgres_database)


@pytest.fixture
def own_postgres(request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    """A Postgres for one test, which may kill, pause and restart it."""
    server = _start(request.config, "Postgres", PostgresServer)
    yield server
    server.close()


@pytest.fixture(scope="session")
def redis(request: pytest.FixtureRequest) -> Iterator[str]:
    """URL of a Redis: TEST_REDIS_URL, else one started for the session."""
    given = os.environ.get("TEST_REDIS_URL")
    if given:
        yield given
        return
    server = _start(request.config, "Redis", RedisServer)
    yield server.url
    server.close()


@pytest.fixture
def redis_url(redis: str) -> Iterator[str]:
    """An empty database of a Redis for one test, which empties it at the end."""
    with redis_service.fresh_database(redis) as url:
        yield url


@pytest.fixture
def own_redis(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """A Redis for one test, which may kill, pause and restart it."""
    server = _start(request.config, "Redis", RedisServer)
    yield server
    server.close()


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A new, empty database for one test, which runs once on each kind."""
    if request.param == "sqlite":
        return sqlite_url(tmp_path)
    url: str = request.getfixturevalue("postgres_url")
    return url


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whoever asks for a server is marked with its name, hence `-m 'not kafka'` leaves out all that need one."""
    for item in items:
        for marker, fixtures in _FIXTURES.items():
            if fixtures & set(getattr(item, "fixturenames", ())):
                item.add_marker(marker)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One loud line for each kind of server for want of which tests were skipped."""
    for name, why in _WHY_UNAVAILABLE.items():
        skipped = sum(
            f"no {name} for tests" in str(report.longrepr) for report in terminalreporter.stats.get("skipped", [])
        )
        if skipped:
            reason = why() or "it could not be started"
            line = f"{skipped} TESTS ON A REAL {name.upper()} WERE SKIPPED: {reason}"
            terminalreporter.write_line(line, red=True, bold=True)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Also after an interrupt, which may leave fixtures unfinished."""
    for server in config.stash.get(_SERVERS, []):
        server.close()

"""What all tests share: a Kafka broker for the session, names that no other test uses, how many examples Hypothesis tries."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.kafka_broker.broker import KafkaBroker, KafkaUnavailableError, why_unavailable

# At one's desk a run ends in seconds, and each run tries others; where a change is judged (.ci/run), many more are tried.
settings.register_profile("desk", max_examples=25, deadline=None)
settings.register_profile("thorough", max_examples=300, deadline=None, print_blob=True)
settings.load_profile("thorough" if os.environ.get("CI") else "desk")

_BROKERS = pytest.StashKey[list[KafkaBroker]]()
_NO_KAFKA = "no Kafka for tests"


def _is_required() -> bool:
    return bool(os.environ.get("CI")) or "kafka" in os.environ.get("PLUGIN_SERVER_TESTS_REQUIRE", "").split(",")


def _start(config: pytest.Config) -> KafkaBroker:
    broker = None
    try:
        broker = KafkaBroker()
        config.stash.setdefault(_BROKERS, []).append(broker)
        broker.start()
    except KafkaUnavailableError as error:
        if broker is not None:
            broker.close()
        if _is_required():
            pytest.fail(f"{_NO_KAFKA}: {error}", pytrace=False)
        pytest.skip(f"{_NO_KAFKA}: {error}")
    return broker


@pytest.fixture(scope="session")
def kafka(request: pytest.FixtureRequest) -> Iterator[str]:
    """Addresses of brokers: those of TEST_KAFKA_BROKERS, else of one started for the session."""
    given = os.environ.get("TEST_KAFKA_BROKERS")
    if given:
        yield given
        return
    broker = _start(request.config)
    yield broker.bootstrap_servers
    broker.close()


@pytest.fixture
def own_kafka(request: pytest.FixtureRequest) -> Iterator[KafkaBroker]:
    """A broker for one test, which may kill, pause and restart it."""
    broker = _start(request.config)
    yield broker
    broker.close()


@pytest.fixture
def topic_prefix() -> str:
    """For names of topics and groups, so that no two tests meet on a broker."""
    return f"t{uuid.uuid4().hex[:10]}_"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whoever asks for a broker is marked `kafka`, hence `-m 'not kafka'` leaves out all that need one."""
    for item in items:
        if {"kafka", "own_kafka"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.kafka)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One loud line when tests were skipped for want of a broker."""
    skipped = sum(_NO_KAFKA in str(report.longrepr) for report in terminalreporter.stats.get("skipped", []))
    if skipped:
        reason = why_unavailable() or "the broker could not be started"
        terminalreporter.write_line(f"{skipped} TESTS ON A REAL KAFKA WERE SKIPPED: {reason}", red=True, bold=True)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Also after an interrupt, which may leave fixtures unfinished."""
    for broker in config.stash.get(_BROKERS, []):
        broker.close()

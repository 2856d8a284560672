"""The servers of the tests keep their promises: another user than root, a crash that keeps the data, databases of one's own."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import psycopg
import pytest
import redis as redis_client

from tests.services.postgres import PostgresServer
from tests.services.redis import RedisServer


def uid_of(pid: int | None) -> int:
    return Path(f"/proc/{pid}").stat().st_uid


def query(url: str, statement: str) -> list[tuple[object, ...]]:
    with contextlib.closing(psycopg.connect(url, autocommit=True)) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def test_postgres_keeps_its_data_and_port_over_a_crash(own_postgres: PostgresServer) -> None:
    url = own_postgres.create_database()
    query(url, "CREATE TABLE seen AS SELECT 1 AS number")
    own_postgres.restart()
    assert query(url, "SELECT number FROM seen") == [(1,)]


def test_a_killed_postgres_serves_nobody(own_postgres: PostgresServer) -> None:
    url = own_postgres.url
    with contextlib.closing(psycopg.connect(url)) as connection:
        own_postgres.kill()
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(url)


def test_a_paused_postgres_answers_nobody_and_comes_back(own_postgres: PostgresServer) -> None:
    with contextlib.closing(psycopg.connect(own_postgres.url)) as connection:
        own_postgres.pause()
        connection.pgconn.send_query(b"SELECT 1")
        connection.pgconn.flush()
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(own_postgres.url, connect_timeout=1)
        own_postgres.unpause()
        result = connection.pgconn.get_result()
        assert result is not None
        assert result.get_value(0, 0) == b"1"


def test_redis_keeps_its_data_and_port_over_a_crash(own_redis: RedisServer) -> None:
    with contextlib.closing(redis_client.Redis.from_url(own_redis.url)) as client:
        client.set("seen", "1")
        own_redis.restart()
        assert client.get("seen") == b"1"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has somebody else to be")
def test_neither_runs_as_root(own_postgres: PostgresServer, own_redis: RedisServer) -> None:
    assert uid_of(own_postgres.pid) != 0
    assert uid_of(own_redis.pid) != 0


def test_a_test_has_a_postgres_database_of_its_own(postgres: str, postgres_url: str) -> None:
    assert postgres_url != postgres
    assert query(postgres_url, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == [(0,)]


@pytest.mark.parametrize("time", [1, 2])
def test_a_postgres_database_is_emptied_after_each_test(postgres_url: str, time: int) -> None:
    query(postgres_url, "CREATE TABLE seen (number bigint)")
    forgotten = psycopg.connect(postgres_url)
    forgotten.execute("SELECT * FROM seen")
    forgotten.pgconn.finish()


def test_a_test_has_an_empty_redis_database(redis_url: str) -> None:
    with contextlib.closing(redis_client.Redis.from_url(redis_url)) as client:
        assert client.dbsize() == 0
        client.set("left", "behind")


@pytest.mark.parametrize("time", [1, 2])
def test_a_redis_database_is_emptied_after_each_test(redis_url: str, time: int) -> None:
    with contextlib.closing(redis_client.Redis.from_url(redis_url)) as client:
        assert client.dbsize() == 0
        client.set("left", time)

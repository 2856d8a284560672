"""Settings: where they come from, what is refused, and that each refusal says what to write."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from plugin_server.model.errors import ConfigurationError
from plugin_server.settings import DeliveryGuarantee, LogFormat, LogLevel, Role, Settings, load_settings

CONFIGS = Path(__file__).parents[2] / "configs"
POSTGRES = {"PLUGIN_SERVER_DATABASE_URL": "postgresql://user:hunter2@db/plugins"}


def toml(folder: Path, text: str) -> Path:
    path = folder / "settings.toml"
    path.write_text(text)
    return path


def refusal(environ: dict[str, str], config_path: Path | None = None) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(config_path, environ)
    return str(caught.value)


def test_without_anything_one_process_runs_all_roles_on_the_embedded_log():
    settings = load_settings(environ={})
    assert settings.kafka_brokers is None
    assert settings.uses_sqlite
    assert settings.roles == tuple(Role)
    assert (settings.http_host, settings.http_port) == ("127.0.0.1", 6738)
    assert settings.data_dir == Path("data")
    assert settings.delivery_guarantee is DeliveryGuarantee.EXACTLY_ONCE


@pytest.mark.parametrize(
    ("variable", "text", "name", "expected"),
    [
        ("KAFKA_BROKERS", " a:9092, [::1]:9093 ,", "kafka_brokers", "a:9092,[::1]:9093"),
        ("HTTP_PORT", "0", "http_port", 0),
        ("ROLES", "Delivery, ingestion,delivery", "roles", (Role.DELIVERY, Role.INGESTION)),
        ("POSTHOG_HOST", "HTTPS://App.Example.com:8443/", "posthog_host", "https://app.example.com:8443"),
        ("PUBLIC_URL", "http://[::1]:6738", "public_url", "http://[::1]:6738"),
        ("OWN_HOSTS", "https://a.com,http://b.com", "own_hosts", ("https://a.com", "http://b.com")),
        ("DELIVERY_GUARANTEE", "at_least_once", "delivery_guarantee", DeliveryGuarantee.AT_LEAST_ONCE),
        ("LOG_LEVEL", "DEBUG", "log_level", LogLevel.DEBUG),
        ("LOG_FORMAT", "json", "log_format", LogFormat.JSON),
        ("SHUTDOWN_SECONDS", "2.5", "shutdown_seconds", 2.5),
        ("TOPIC_PREFIX", "", "topic_prefix", ""),
        ("HTTP_PORT", " ", "http_port", 6738),
        ("MAX_SANDBOXES", "500", "max_sandboxes", 500),
        ("MAX_SANDBOXES", "", "max_sandboxes", 200),
    ],
)
def test_the_environment_sets_a_setting(variable, text, name, expected):
    environ = {f"PLUGIN_SERVER_{variable}": text, **POSTGRES}
    assert getattr(load_settings(environ=environ), name) == expected


@pytest.mark.parametrize(
    ("variable", "text", "expected"),
    [
        ("HTTP_PORT", "http", "number"),
        ("HTTP_PORT", "70000", "65535"),
        ("MAX_SANDBOXES", "0", "1"),
        ("ROLES", "ingestion,workers", "'delivery'"),
        ("ROLES", ",", "at least 1"),
        ("KAFKA_BROKERS", "kafka-1", "host:port"),
        ("KAFKA_BROKERS", ",", "no broker"),
        ("DATABASE_URL", "mysql://u:hunter2@h/d", "postgresql://"),
        ("CACHE_URL", "memcached://hunter2@h", "redis://"),
        ("SECRET_KEY", "hunter2", "openssl rand"),
        ("POSTHOG_HOST", "app.posthog.com", "https://"),
        ("POSTHOG_HOST", "https://app.posthog.com/api", "without a path"),
        ("PUBLIC_URL", "https://h:99999", "port"),
        ("OWN_HOSTS", "https://a.com,b", "https://"),
        ("TOPIC_PREFIX", "a/b", "letters"),
        ("WORKER_ID", "a b", "letters"),
        ("SINGLE_WORKER", "perhaps", "true"),
        ("DELIVERY_GUARANTEE", "twice", "'at_least_once'"),
        ("LOG_LEVEL", "loud", "'warning'"),
        ("SHUTDOWN_SECONDS", "0", "greater than 0"),
        ("RECORD_BYTES", "10", "1024"),
    ],
)
def test_a_bad_value_is_refused_by_its_variable_with_what_to_write_instead(variable, text, expected):
    message = refusal({f"PLUGIN_SERVER_{variable}": text})
    assert message.startswith(f"PLUGIN_SERVER_{variable}")
    assert expected in message
    assert "Write, for example, " in message
    assert "hunter2" not in message


def test_all_mistakes_are_named_at_once(tmp_path):
    path = toml(tmp_path, 'http_port = "x"\nlog_levl = "info"\n')
    message = refusal({"PLUGIN_SERVER_ROLES": "x"}, path)
    assert f"http_port in {path}" in message
    assert f"log_levl in {path} is not a setting; write `log_level`" in message
    assert "PLUGIN_SERVER_ROLES" in message
    assert len(message.splitlines()) == 3


def test_the_environment_beats_the_file_and_the_file_beats_the_default(tmp_path):
    path = toml(tmp_path, 'http_port = 1\nlog_level = "debug"\nroles = ["capture"]\n')
    settings = load_settings(path, {"PLUGIN_SERVER_HTTP_PORT": "2"})
    assert (settings.http_port, settings.log_level, settings.roles) == (2, LogLevel.DEBUG, (Role.CAPTURE,))


def test_the_environment_names_the_file_and_config_path_beats_it(tmp_path):
    path = toml(tmp_path, "http_port = 1")
    assert load_settings(environ={"PLUGIN_SERVER_CONFIG": str(path)}).http_port == 1
    other = tmp_path / "other.toml"
    other.write_text("http_port = 2")
    assert load_settings(other, {"PLUGIN_SERVER_CONFIG": str(path)}).http_port == 2


def test_paths_are_relative_to_the_file_that_has_them(tmp_path):
    path = toml(tmp_path, 'data_dir = "d"\nprojects_file = "/p.yaml"\n')
    assert load_settings(path, {}).data_dir == tmp_path / "d"
    assert load_settings(path, {}).projects_file == Path("/p.yaml")
    assert load_settings(path, {"PLUGIN_SERVER_DATA_DIR": "e"}).data_dir == Path("e")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"http_port = ", "not valid TOML"),
        (b"\xff", "not UTF-8"),
        (b"[kafka]\nbrokers = 'x'", "kafka in "),
        (b"nonsense = 1", "known are: kafka_brokers"),
        (b"HTTP_PORT = 1", "write `http_port`"),
        (b"http_port = 1.5", "http_port in "),
    ],
)
def test_a_bad_file_is_refused_by_its_name(tmp_path, text, expected):
    path = tmp_path / "settings.toml"
    path.write_bytes(text)
    message = refusal({}, path)
    assert expected in message
    assert str(path) in message


def test_a_missing_file_is_refused_by_its_name(tmp_path):
    message = refusal({"PLUGIN_SERVER_CONFIG": str(tmp_path / "none.toml")})
    assert "none.toml" in message
    assert "PLUGIN_SERVER_CONFIG" in message


def test_an_almost_right_variable_is_refused_lest_it_be_ignored():
    assert "Write PLUGIN_SERVER_KAFKA_BROKERS" in refusal({"PLUGIN_SERVER_KAFKA_BROKER": "a:1"})


def test_variables_that_kubernetes_makes_for_a_service_are_ignored():
    environ = {
        "PLUGIN_SERVER_SERVICE_HOST": "10.0.0.1",
        "PLUGIN_SERVER_SERVICE_PORT": "6738",
        "PLUGIN_SERVER_SERVICE_PORT_HTTP": "6738",
        "PLUGIN_SERVER_PORT": "tcp://10.0.0.1:6738",
        "PLUGIN_SERVER_PORT_6738_TCP": "tcp://10.0.0.1:6738",
        "PLUGIN_SERVER_PORT_6738_TCP_ADDR": "10.0.0.1",
        "PLUGIN_SERVER_PORT_6738_TCP_PORT": "6738",
        "PLUGIN_SERVER_PORT_6738_TCP_PROTO": "tcp",
        "http_port": "1",
    }
    assert load_settings(environ=environ) == load_settings(environ={})


@pytest.mark.parametrize("database", [{}, {"PLUGIN_SERVER_DATABASE_URL": "sqlite:///x.db"}])
def test_kafka_beside_sqlite_refuses_to_start_unless_it_is_the_single_worker(database):
    environ = {"PLUGIN_SERVER_KAFKA_BROKERS": "kafka:9092", **database}
    message = refusal(environ)
    assert message.startswith("PLUGIN_SERVER_KAFKA_BROKERS")
    assert "PLUGIN_SERVER_SINGLE_WORKER=true" in message
    assert "PLUGIN_SERVER_DATABASE_URL=postgresql://" in message
    assert load_settings(environ={**environ, "PLUGIN_SERVER_SINGLE_WORKER": "true"}).uses_sqlite
    assert not load_settings(environ={**environ, **POSTGRES}).uses_sqlite


def test_secrets_are_never_in_the_repr():
    environ = {
        **POSTGRES,
        "PLUGIN_SERVER_SECRET_KEY": "hunter2" * 4,
        "PLUGIN_SERVER_CACHE_URL": "redis://:hunter2@redis:6379/0",
    }
    settings = load_settings(environ=environ)
    assert "hunter2" not in repr(settings) + str(settings)
    assert settings.secret_key is not None
    assert settings.secret_key.get_secret_value() == "hunter2" * 4


def test_settings_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        load_settings(environ={}).http_port = 1  # type: ignore[misc]


def test_making_settings_does_not_look_at_the_process_environment(monkeypatch):
    monkeypatch.setenv("PLUGIN_SERVER_HTTP_PORT", "1")
    assert Settings().http_port == 6738
    assert load_settings().http_port == 1


def test_every_setting_has_a_description_an_example_and_a_unit_where_it_counts():
    for name, field in Settings.model_fields.items():
        assert field.description, f"{name} needs a docstring"
        assert field.examples, f"{name} needs an example for its error messages"


@given(st.dictionaries(st.sampled_from(sorted(Settings.model_fields)), st.text(max_size=30), max_size=5))
def test_any_text_in_the_environment_gives_settings_or_a_refusal(texts):
    environ = {f"PLUGIN_SERVER_{name.upper()}": text for name, text in texts.items()}
    with contextlib.suppress(ConfigurationError):
        load_settings(environ=environ)


@pytest.mark.parametrize("name", ["development", "production"])
def test_the_shipped_configuration_loads(name):
    settings = load_settings(CONFIGS / f"{name}.toml", POSTGRES if name == "production" else {})
    if settings.projects_file is not None:
        assert settings.projects_file.is_file()


def test_the_shipped_production_configuration_asks_for_a_database():
    assert "DATABASE_URL=postgresql://" in refusal({}, CONFIGS / "production.toml")


def test_the_working_directory_does_not_matter_to_the_shipped_configuration(tmp_path):
    before = Path.cwd()
    os.chdir(tmp_path)
    try:
        settings = load_settings(CONFIGS / "development.toml", {})
    finally:
        os.chdir(before)
    assert settings.projects_file == CONFIGS / "projects.yaml"

"""Every knob of the server, with its unit in its name. The settings page of the docs is generated from this file.

A setting comes from the environment (`PLUGIN_SERVER_HTTP_PORT`), else from a TOML file (`http_port`), else it has the
default below. An empty environment variable counts as not set. Paths in the file are relative to the file, paths in
the environment to the working directory.

Rejected: pydantic-settings' own sources. They read `os.environ` whenever a `Settings` is made, take lists as JSON, and
an error no longer knows whether its value came from the file or from the environment; `load_settings` does.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from plugin_server.model.errors import ConfigurationError

ENV_PREFIX = "PLUGIN_SERVER_"
CONFIG_VARIABLE = f"{ENV_PREFIX}CONFIG"
SECRET_KEY_CHARACTERS = 16


class Role(StrEnum):
    CAPTURE = "capture"
    INGESTION = "ingestion"
    DELIVERY = "delivery"
    JOBS = "jobs"
    ADMIN = "admin"


class DeliveryGuarantee(StrEnum):
    EXACTLY_ONCE = "exactly_once"
    AT_LEAST_ONCE = "at_least_once"


class LogLevel(StrEnum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(StrEnum):
    AUTO = "auto"
    JSON = "json"
    PRETTY = "pretty"


def _split_commas(value: object) -> object:
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


def _lower(value: object) -> object:
    return value.strip().lower() if isinstance(value, str) else value


def _lower_each(value: object) -> object:
    parts = _split_commas(value)
    return [_lower(part) for part in parts] if isinstance(parts, list) else parts


def _without_repeats(values: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(dict.fromkeys(values))


def _brokers(value: str) -> str:
    brokers = [part.strip() for part in value.split(",") if part.strip()]
    for broker in brokers:
        host, colon, port = broker.rpartition(":")
        if not (colon and re.fullmatch(r"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]", host) and port.isdecimal()):
            raise ValueError("must be host:port, several separated by commas")
    if not brokers:
        raise ValueError("names no broker")
    return ",".join(brokers)


def _origin(value: str) -> str:
    parts = urlsplit(value.strip())
    try:
        port = parts.port
    except ValueError:
        raise ValueError("has a port that is no number up to 65535") from None
    if parts.scheme.lower() not in ("http", "https") or not parts.hostname:
        raise ValueError("must be http:// or https:// and a host")
    if parts.path not in ("", "/") or parts.query or parts.fragment or parts.username is not None:
        raise ValueError("must be scheme, host and port alone, without a path, a query or a user")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme.lower()}://{host}" + (f":{port}" if port is not None else "")


def _long_enough(value: SecretStr) -> SecretStr:
    if len(value.get_secret_value()) < SECRET_KEY_CHARACTERS:
        raise ValueError(f"must have at least {SECRET_KEY_CHARACTERS} characters")
    return value


def _scheme(*schemes: str) -> AfterValidator:
    def check(value: str) -> str:
        if not value.startswith(tuple(f"{scheme}://" for scheme in schemes)):
            raise ValueError("must start with " + " or ".join(f"{scheme}://" for scheme in schemes))
        return value

    return AfterValidator(check)


_PATHS = ("data_dir", "projects_file", "geoip_database")
_DATABASE_SCHEMES = ("postgresql", "postgres", "postgresql+psycopg", "sqlite", "sqlite+aiosqlite")
_KAFKA_NAME = r"[A-Za-z0-9._-]"

_MESSAGES = {
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_parsing": "must be a number",
    "bool_parsing": "must be true or false",
    "string_pattern_mismatch": "may have letters, digits, `.`, `_` and `-` only, up to 200 of them",
}
"""In place of pydantic's, by type of error."""

Origin = Annotated[str, AfterValidator(_origin)]


class Settings(BaseSettings):
    """The settings of one process. Immutable; secrets and URLs that may hold one are not in its repr."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix=ENV_PREFIX, use_attribute_docstrings=True, validate_default=False
    )

    kafka_brokers: Annotated[str, AfterValidator(_brokers)] | None = Field(None, examples=["kafka-1:9092,kafka-2:9092"])
    """Kafka to read from and write to. Not set: the embedded log, a file in `data_dir`."""
    database_url: Annotated[str, _scheme(*_DATABASE_SCHEMES)] | None = Field(
        None, repr=False, examples=["postgresql://user:password@db:5432/plugins"]
    )
    """Database of projects, storage, jobs and lanes. Not set: SQLite in `data_dir`."""
    cache_url: Annotated[str, _scheme("redis", "rediss")] | None = Field(
        None, repr=False, examples=["redis://redis:6379/0"]
    )
    """Redis for the apps' cache. Not set: the database."""
    data_dir: Path = Field(Path("./data"), examples=["/var/lib/plugin-server"])
    """Folder of the embedded log and of SQLite. Created at start."""
    http_host: str = Field("127.0.0.1", min_length=1, examples=["0.0.0.0"])  # noqa: S104
    """Address to listen on."""
    http_port: int = Field(6738, ge=0, le=65_535, examples=[6738])
    """Port to listen on; 0 takes a free one."""
    roles: Annotated[tuple[Role, ...], BeforeValidator(_lower_each), AfterValidator(_without_repeats)] = Field(
        tuple(Role), min_length=1, examples=["ingestion,delivery"]
    )
    """What this process does, separated by commas."""
    projects_file: Path | None = Field(None, examples=["/etc/plugin-server/projects.yaml"])
    """YAML file of projects and installs, read at start. Not set: no projects."""
    secret_key: Annotated[SecretStr, AfterValidator(_long_enough)] | None = Field(
        None, examples=["the output of `openssl rand -hex 32`"]
    )
    """Encrypts the secrets of installs in the database and signs tokens: 16 characters or more, the same everywhere."""
    topic_prefix: str = Field("", max_length=100, pattern=rf"^{_KAFKA_NAME}*$", examples=["staging_"])
    """Goes before each topic's name."""
    topic_partitions: int = Field(4, ge=1, le=10_000, examples=[16])
    """Partitions of topics that this server creates. Existing topics keep theirs."""
    consumer_group: str = Field(
        "plugin-server", pattern=rf"^{_KAFKA_NAME}{{1,200}}$", examples=["plugin-server-staging"]
    )
    """Consumer group of the workers that share the work."""
    commit_interval_ms: int = Field(100, ge=1, le=60_000, examples=[100])
    """Finished results wait at most this long for the next flush."""
    flush_max_results: int = Field(5_000, ge=1, le=1_000_000, examples=[5_000])
    """As many finished results start a flush before `commit_interval_ms` has passed."""
    record_bytes: int = Field(1_000_000, ge=1_024, le=1_000_000_000, examples=[1_000_000])
    """Largest record that is written, key and headers included. At most what the broker takes."""
    lane_window_events: int = Field(10_000, ge=1, le=10_000_000, examples=[10_000])
    """Events of one partition that may be under way; at this bound it is paused."""
    lane_window_bytes: int = Field(64 * 2**20, ge=2**20, examples=[67_108_864])
    """Bytes of one partition that may be under way; at this bound it is paused."""
    posthog_host: Origin | None = Field(None, examples=["https://posthog.example.com"])
    """External PostHog that `posthog.api` talks to. Not set: this server answers as `https://app.posthog.com`."""
    own_hosts: Annotated[tuple[Origin, ...], BeforeValidator(_split_commas), AfterValidator(_without_repeats)] = Field(
        (), examples=["https://events.example.com"]
    )
    """Further origins under which this server is reached, separated by commas: what apps send there never leaves it."""
    public_url: Origin | None = Field(None, examples=["https://plugins.example.com"])
    """Origin under which SDKs and people reach this server. Not set: address and port of its listener."""
    allowed_private_hosts: Annotated[
        tuple[str, ...], BeforeValidator(_split_commas), AfterValidator(_without_repeats)
    ] = Field((), examples=["warehouse.internal:8123,10.1.0.0/16"])
    """Private hosts, addresses and networks that apps may talk to, separated by commas; `*` for all but reserved ones."""
    fetch_seconds: float = Field(10, gt=0, le=600, examples=[10])
    """A request of an app to the network may take this long, redirects included."""
    fetch_response_bytes: int = Field(10 * 2**20, ge=1_024, le=10 * 2**20, examples=[10_485_760])
    """Largest response that an app is given."""
    fetch_per_second: float = Field(5_000, gt=0, examples=[5_000])
    """Requests that one install may make per second in one worker, with bursts of twice as many."""
    geoip_database: Path | None = Field(None, examples=["/var/lib/GeoIP/GeoLite2-City.mmdb"])
    """MaxMind file for `meta.geoip`. Not set: every look-up finds nothing."""
    parked_events: int = Field(1_000_000, ge=1, examples=[1_000_000])
    """Events that may be parked for one install; beyond it they become dead letters."""
    parked_bytes: int = Field(1 * 2**30, ge=2**20, examples=[1_073_741_824])
    """Bytes that may be parked for one install; beyond it they become dead letters."""
    parked_hours: float = Field(168, gt=0, examples=[168])
    """Parked events are tried again for so long; then they become dead letters."""
    worker_id: str | None = Field(None, pattern=rf"^{_KAFKA_NAME}{{1,200}}$", examples=["worker-0"])
    """Name of this worker, unlike any other's and the same after a restart: spares a rebalance. Not set: none."""
    delivery_guarantee: Annotated[DeliveryGuarantee, BeforeValidator(_lower)] = Field(
        DeliveryGuarantee.EXACTLY_ONCE, examples=["at_least_once"]
    )
    """`at_least_once` writes without transactions: less delay, and duplicates (with equal ids) after a crash."""
    single_worker: bool = Field(default=False, examples=["true"])
    """Says that no other worker reads the same Kafka, which is what SQLite beside Kafka needs."""
    max_sandboxes: int = Field(default=200, ge=1, examples=["500"])
    """Sandbox processes that are kept, at about 4 MB each. Beyond it those idle longest are ended; busy ones and the shared one never are."""
    allow_unconfined_sandbox: bool = Field(default=False, examples=["true"])
    """Runs apps where seccomp does not work; else the server does not start there. Only for apps trusted like the server."""
    log_level: Annotated[LogLevel, BeforeValidator(_lower)] = Field(LogLevel.INFO, examples=["info"])
    """Lowest level that is logged."""
    log_format: Annotated[LogFormat, BeforeValidator(_lower)] = Field(LogFormat.AUTO, examples=["json"])
    """`auto`: pretty on a terminal, JSON elsewhere."""
    shutdown_seconds: float = Field(10, gt=0, le=3_600, examples=[10])
    """What is under way at SIGTERM may take this long to finish."""
    embedded_retention_hours: int = Field(168, ge=1, examples=[168])
    """The embedded log keeps records this long."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what it is given: reading the environment and the file is the work of `load_settings`."""
        return (init_settings,)

    @property
    def uses_sqlite(self) -> bool:
        return self.database_url is None or self.database_url.startswith("sqlite")


def load_settings(config_path: Path | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """Settings from `environ` (default: the process's) over the TOML file (`config_path`, else `PLUGIN_SERVER_CONFIG`).

    Raises ConfigurationError with every mistake at once, each by the name under which the user wrote it. Variables that
    merely begin with `PLUGIN_SERVER_` are ignored (Kubernetes makes such for a Service of that name), but one that is
    almost a setting's name is refused. Blocks for reading the file.
    """
    environ = os.environ if environ is None else environ
    if config_path is None and environ.get(CONFIG_VARIABLE):
        config_path = Path(environ[CONFIG_VARIABLE])
    values: dict[str, Any] = {}
    written_as: dict[str, str] = {}
    problems: list[str] = []
    if config_path is not None:
        for key, value in _read_toml(config_path).items():
            if key not in Settings.model_fields:
                problems.append(f"{key} in {config_path} is not a setting; {_meant(key)}.")
                continue
            written_as[key] = f"{key} in {config_path}"
            is_path = key in _PATHS and isinstance(value, str)
            values[key] = Path(os.path.normpath(config_path.parent / value)) if is_path else value
    for variable, text in environ.items():
        name = variable.removeprefix(ENV_PREFIX).lower()
        if not variable.startswith(ENV_PREFIX) or variable == CONFIG_VARIABLE or not text.strip():
            continue
        if name in Settings.model_fields:
            values[name], written_as[name] = text, variable
        elif nearest := _nearest(name, cutoff=0.8):
            problems.append(f"{variable} is not a setting. Write {ENV_PREFIX}{nearest.upper()} instead, or remove it.")
    try:
        settings = Settings(**values)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False)
        first_of_each = {details["loc"][0]: details for details in reversed(found)}
        problems += [_explain(details, written_as) for details in reversed(first_of_each.values())]
        settings = None
    if problems or settings is None:
        raise ConfigurationError("\n".join(problems))
    _refuse_kafka_beside_sqlite(settings, written_as)
    return settings


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigurationError(
            f"The settings file {path} cannot be read ({error.strerror}). Write the path of a TOML file after --config "
            f"or in {CONFIG_VARIABLE}."
        ) from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"The settings file {path} is not UTF-8 text. Save it as UTF-8.") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(
            f'The settings file {path} is not valid TOML: {error}. Write one setting a line, as in `log_level = "info"`.'
        ) from None


def _nearest(name: str, cutoff: float = 0.6) -> str | None:
    matches = difflib.get_close_matches(name.lower(), list(Settings.model_fields), n=1, cutoff=cutoff)
    return matches[0] if matches else None


def _meant(key: str) -> str:
    meant = _nearest(key)
    return f"write `{meant}`" if meant else f"known are: {', '.join(Settings.model_fields)}"


def _explain(details: ErrorDetails, written_as: Mapping[str, str]) -> str:
    name = str(details["loc"][0])
    field = Settings.model_fields[name]
    own_words = details["msg"].removeprefix("Value error, ").removeprefix("Input ").replace("should", "must", 1)
    message = _MESSAGES.get(details["type"], own_words)
    shown = "" if name == "secret_key" or not field.repr else f" ({_shorten(details['input'])})"
    example = (field.examples or [field.default])[0]
    return f"{written_as.get(name, name)}{shown}: {message}. Write, for example, {example}."


def _shorten(value: object) -> str:
    text = repr(value) if not isinstance(value, Path) else repr(str(value))
    return text if len(text) <= 60 else text[:57] + "..."


def _refuse_kafka_beside_sqlite(settings: Settings, written_as: Mapping[str, str]) -> None:
    if settings.kafka_brokers is None or not settings.uses_sqlite or settings.single_worker:
        return
    kafka = written_as.get("kafka_brokers", "kafka_brokers")
    database = written_as.get("database_url")
    raise ConfigurationError(
        f"{kafka} is set, but the database is SQLite ({database or 'the default'}), which workers cannot share. "
        f"Set {ENV_PREFIX}DATABASE_URL=postgresql://user:password@host/name, or, if no other worker reads this Kafka, "
        f"{ENV_PREFIX}SINGLE_WORKER=true (in a file: single_worker = true)."
    )

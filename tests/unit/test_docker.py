"""The container files hold what docker/README.md promises. Building the image is the work of `make image-check`."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"


def instructions(text: str) -> list[tuple[str, str]]:
    """The Dockerfile as (instruction, arguments), continued lines joined, comments left out."""
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    joined = re.sub(r"\\\n\s*", " ", lines)
    return [
        (name, rest.strip()) for name, _, rest in (line.partition(" ") for line in joined.splitlines() if line.strip())
    ]


@pytest.fixture(scope="module")
def dockerfile() -> list[tuple[str, str]]:
    return instructions((DOCKER / "Dockerfile").read_text("utf-8"))


@pytest.fixture(scope="module")
def runtime_stage(dockerfile: list[tuple[str, str]]) -> dict[str, str]:
    """The last stage; of a repeated instruction, the last one."""
    start = max(index for index, (name, _) in enumerate(dockerfile) if name == "FROM")
    return dict(dockerfile[start:])


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded = yaml.safe_load((DOCKER / "compose.yaml").read_text("utf-8"))
    assert isinstance(loaded, dict)
    return loaded


@pytest.fixture(scope="module")
def workers(compose: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: service for name, service in compose["services"].items() if name.startswith("worker")}


def known_variables() -> set[str]:
    from plugin_server.settings import Settings

    return {f"PLUGIN_SERVER_{name.upper()}" for name in Settings.model_fields} | {"PLUGIN_SERVER_CONFIG"}


def locked(path: Path) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9-]+)==([^ ;]+)", path.read_text("utf-8"), re.MULTILINE))


# --- the image ------------------------------------------------------------------------------------------------------


def test_the_base_image_is_an_argument_of_every_stage(dockerfile: list[tuple[str, str]]) -> None:
    assert dockerfile[0] == ("ARG", "BASE_IMAGE=python:3.11-slim-bookworm")
    stages = [rest for name, rest in dockerfile if name == "FROM"]
    assert len(stages) == 2
    assert all(rest.startswith("${BASE_IMAGE}") for rest in stages)


def test_every_package_is_installed_by_hash(dockerfile: list[tuple[str, str]]) -> None:
    commands = [
        part
        for name, rest in dockerfile
        if name == "RUN"
        for part in rest.split("&&")
        if " install " in part and "pip" in part
    ]
    assert len(commands) == 3
    assert all("--require-hashes" in part or ("--no-index" in part and "--no-deps" in part) for part in commands)


def test_the_image_does_not_run_as_root(runtime_stage: dict[str, str]) -> None:
    assert runtime_stage["USER"] == "10001:10001"


def test_the_image_starts_stops_and_is_asked_as_promised(runtime_stage: dict[str, str]) -> None:
    assert runtime_stage["ENTRYPOINT"] == '["plugin-server"]'
    assert runtime_stage["CMD"] == '["run"]'
    assert runtime_stage["STOPSIGNAL"] == "SIGTERM"
    assert runtime_stage["EXPOSE"] == "6738"
    assert runtime_stage["VOLUME"] == '["/data"]'
    assert "/_health" in runtime_stage["HEALTHCHECK"]
    assert "curl" not in runtime_stage["HEALTHCHECK"]
    assert "org.opencontainers.image.version" in runtime_stage["LABEL"]


def test_the_image_listens_everywhere_and_writes_only_its_volume(runtime_stage: dict[str, str]) -> None:
    environment = dict(re.findall(r"(\w+)=(\S+)", runtime_stage["ENV"]))
    assert environment["PLUGIN_SERVER_HTTP_HOST"] == "0.0.0.0"
    assert environment["PLUGIN_SERVER_DATA_DIR"] == "/data"
    assert environment["PYTHONDONTWRITEBYTECODE"] == "1"
    unknown = {name for name in environment if name.startswith("PLUGIN_SERVER_")} - known_variables()
    assert not unknown


def test_the_image_has_the_version_of_the_project(dockerfile: list[tuple[str, str]]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert ("ARG", f"VERSION={project['version']}") in dockerfile


def test_everything_that_is_copied_reaches_the_build(dockerfile: list[tuple[str, str]]) -> None:
    admitted = {line[1:] for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line.startswith("!")}
    copied = {
        source for name, rest in dockerfile if name == "COPY" and "--from" not in rest for source in rest.split()[:-1]
    }
    assert copied == admitted


# --- the lock files -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["runtime.lock", "build.lock"])
def test_the_image_is_built_from_what_was_tested(name: str) -> None:
    tested = locked(ROOT / "requirements.lock")
    shipped = locked(DOCKER / name)
    assert shipped
    different = {package: version for package, version in shipped.items() if tested.get(package) != version}
    assert not different, f"Run `make lock`: requirements.lock has other versions of {different}"


def test_every_dependency_is_locked() -> None:
    loaded = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    groups = loaded["dependency-groups"]

    def missing(requirements: list[Any], lock: Path) -> list[str]:
        names = [re.split(r"[^A-Za-z0-9._-]", text, maxsplit=1)[0] for text in requirements if isinstance(text, str)]
        return [name for name in names if re.sub(r"[-_.]+", "-", name).lower() not in locked(lock)]

    runtime = loaded["project"]["dependencies"]
    absent = (
        missing([*runtime, *groups["dev"], *groups["build"]], ROOT / "requirements.lock")
        + missing(runtime, DOCKER / "runtime.lock")
        + missing(groups["build"], DOCKER / "build.lock")
    )
    assert not absent, f"Run `make lock`: not locked are {absent}"


# --- compose --------------------------------------------------------------------------------------------------------


def test_there_are_a_log_a_database_and_two_workers(
    compose: dict[str, Any], workers: dict[str, dict[str, Any]]
) -> None:
    assert set(compose["services"]) == {"kafka", "postgres", "worker-1", "worker-2"}
    assert len({worker["environment"]["PLUGIN_SERVER_WORKER_ID"] for worker in workers.values()}) == len(workers) == 2
    assert set(compose["volumes"]) == {"kafka", "postgres"}


def test_every_variable_of_compose_is_a_setting(workers: dict[str, dict[str, Any]]) -> None:
    used = {name for worker in workers.values() for name in worker["environment"] if name.startswith("PLUGIN_SERVER_")}
    assert not used - known_variables()


def test_the_workers_settings_are_valid(workers: dict[str, dict[str, Any]]) -> None:
    from plugin_server.settings import load_settings

    for worker in workers.values():
        environment = {
            name: re.sub(r"\$\{\w+:\?[^}]*\}", "0123456789abcdef", text) for name, text in worker["environment"].items()
        }
        settings = load_settings(environ=environment)
        assert settings.kafka_brokers == "kafka:9092"
        assert not settings.uses_sqlite


def test_workers_are_confined(workers: dict[str, dict[str, Any]]) -> None:
    for worker in workers.values():
        assert worker["read_only"] is True
        assert worker["cap_drop"] == ["ALL"]
        assert worker["security_opt"] == ["no-new-privileges:true"]
        assert [mount.partition(":")[0] for mount in worker["tmpfs"]] == ["/tmp", "/data"]
        assert all(mount.endswith(":ro") for mount in worker["volumes"])


def test_workers_wait_for_what_they_need(compose: dict[str, Any], workers: dict[str, dict[str, Any]]) -> None:
    for worker in workers.values():
        assert worker["depends_on"] == {name: {"condition": "service_healthy"} for name in ("kafka", "postgres")}
    assert all("healthcheck" in service for service in compose["services"].values())


def test_no_secret_has_a_default(compose: dict[str, Any]) -> None:
    secrets = [
        text
        for service in compose["services"].values()
        for name, text in service["environment"].items()
        if re.search(r"PASSWORD|SECRET|DATABASE_URL", name)
    ]
    assert len(secrets) == 5
    assert all(re.search(r"\$\{\w+:\?", text) for text in secrets)


def test_what_compose_mounts_is_there(workers: dict[str, dict[str, Any]]) -> None:
    for worker in workers.values():
        for mount in worker["volumes"]:
            assert (DOCKER / mount.partition(":")[0]).is_dir()

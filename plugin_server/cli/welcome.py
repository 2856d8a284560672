"""What `plugin-server run` says first: how to send an event, and where to see what became of it."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Final

from plugin_server.registry.registry import Registry
from plugin_server.settings import Settings

_CONFIG_OF_MAKE: Final = Path("configs/development.toml")


def welcome(settings: Settings, registry: Registry, config: Path | None = None) -> str:
    """The text, for the projects of this server; `config` is the file that it was started with."""
    url = settings.public_url or f"http://{settings.http_host}:{settings.http_port}"
    where = (
        f"Kafka at {settings.kafka_brokers}" if settings.kafka_brokers else f"the embedded log in {settings.data_dir}"
    )
    lines = [f"plugin-server on {url}, events in {where}.", ""]
    for project in registry.projects:
        apps = " → ".join(install.app.name for install in project.installs) or "no apps"
        lines.append(f"  project {project.id} {project.name} (token {project.token}): {apps}")
    if not registry.projects:
        lines.append(
            "  no projects yet: name a projects file in PLUGIN_SERVER_PROJECTS_FILE (see configs/projects.yaml)"
        )
        return "\n".join([*lines, ""])
    follow = "plugin-server tail"
    if config is not None:
        follow += f" --config {shlex.quote(str(config))}"
    if config == _CONFIG_OF_MAKE:
        follow = f"make tail        (or: .venv/bin/{follow})"
    token = registry.projects[0].token
    event = (
        f'{{"api_key": "{token}", "event": "signed_up", "distinct_id": "ada", '
        '"properties": {"$current_url": "HTTPS://Example.com/Welcome?utm_source=mail&plan=pro"}}'
    )
    return "\n".join(
        [
            *lines,
            "",
            "See what becomes of events, in a second terminal:",
            "",
            f"  {follow}",
            "",
            "Send one, in a third:",
            "",
            f"  curl {url}/capture/ -H 'Content-Type: application/json' -d '{event}'",
            "",
        ],
    )

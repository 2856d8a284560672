"""`plugin-server run` as a real process: started, asked over HTTP, terminated, stopped, killed; always by its pid."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import yaml

PLUGIN_SERVER = Path(sys.executable).with_name("plugin-server")
PATIENCE_SECONDS = 180.0
"""A bound on failures, far beyond what anything here takes"""
_POLL_SECONDS = 0.02


async def until(condition: Callable[[], bool | Awaitable[bool]], what: str, seconds: float = PATIENCE_SECONDS) -> None:
    """Wait for a condition. Raises TimeoutError that names it."""
    deadline = time.monotonic() + seconds
    while True:
        met = condition()
        if await met if inspect.isawaitable(met) else met:
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:g} s: {what}")
        await asyncio.sleep(_POLL_SECONDS)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def project(
    project_id: int,
    *apps: str,
    installs: tuple[int, ...] | None = None,
    loop_policy: dict[str, Any] | None = None,
    limits: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """An entry of a projects file with the sources of its apps. The token is `phc_<id>`, installs are `<id>01`, `<id>02`…"""
    return {
        "id": project_id,
        "token": f"phc_{project_id}",
        "loop_policy": loop_policy or {},
        "limits": limits or {},
        "installs": [
            {"id": project_id * 100 + number, "order": number, "source": source}
            for number, source in enumerate(apps, 1)
        ],
    }


def write_projects(directory: Path, projects: list[dict[str, Any]]) -> Path:
    """A projects file, and a folder for each app that `project` was given. App names are `App<install id>`."""
    entries = []
    for entry in projects:
        installs = []
        for install in entry["installs"]:
            folder = directory / "apps" / str(install["id"])
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "main.py").write_text(install["source"])
            (folder / "plugin.json").write_text(json.dumps({"name": f"App{install['id']}"}))
            installs.append({"id": install["id"], "order": install["order"], "app": str(folder)})
        entries.append({**entry, "installs": installs})
    path = directory / "projects.yaml"
    path.write_text(yaml.safe_dump({"projects": entries}))
    return path


class Server:
    """One worker. Several lives, one after the other, share its data directory, its port and its log file."""

    def __init__(self, directory: Path, **settings: str) -> None:
        """`settings` are those of the server, by their names in lower case; the data directory and the port are ours."""
        directory.mkdir(parents=True, exist_ok=True)
        self.data_dir = directory / "data"
        self.url = f"http://127.0.0.1:{(port := free_port())}"
        self.log_path = directory / "server.log"
        self._environ = {
            "PATH": os.environ["PATH"],
            "PLUGIN_SERVER_DATA_DIR": str(self.data_dir),
            "PLUGIN_SERVER_HTTP_PORT": str(port),
            "PLUGIN_SERVER_LOG_FORMAT": "json",
            **{f"PLUGIN_SERVER_{name.upper()}": value for name, value in settings.items()},
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def fork_server_pid(self) -> int | None:
        """None until it is started."""
        return next(iter(children_of(self.pid)), None)

    @property
    def sandbox_pids(self) -> list[int]:
        fork_server = self.fork_server_pid
        return [] if fork_server is None else children_of(fork_server)

    def start(self) -> None:
        """Start the process; it is not ready yet."""
        assert self._process is None
        with self.log_path.open("ab") as output:
            self._process = subprocess.Popen(
                [PLUGIN_SERVER, "run"], env=self._environ, stdout=output, stderr=output, stdin=subprocess.DEVNULL
            )

    async def start_ready(self) -> None:
        self.start()
        await self.until_ready()

    async def until_ready(self) -> None:
        async def ready() -> bool:
            return self._ended() or (await self.get("/_ready"))[0] == 200

        await until(ready, f"/_ready of {self.url}\n{self.log_tail()}")
        assert not self._ended(), self.log_tail()

    async def get(self, path: str) -> tuple[int, str]:
        """Status and body; status 0 when nobody answers."""
        try:
            timeout = aiohttp.ClientTimeout(total=5)
            async with aiohttp.ClientSession(timeout=timeout) as session, session.get(self.url + path) as response:
                return response.status, await response.text()
        except (aiohttp.ClientError, TimeoutError):
            return 0, ""

    async def post(self, path: str, body: Any, headers: dict[str, str] | None = None) -> int:
        """Send JSON; the status."""
        async with (
            aiohttp.ClientSession() as session,
            session.post(self.url + path, json=body, headers=headers) as response,
        ):
            return response.status

    async def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's values over all series that have these labels."""
        _, text = await self.get("/_metrics")
        total = 0.0
        for line in text.splitlines():
            found = re.fullmatch(rf"{name}(?:\{{(.*)\}})? (\S+)", line)
            if found and all(f'{label}="{value}"' in (found[1] or "") for label, value in labels.items()):
                total += float(found[2])
        return total

    def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    async def terminate(self) -> int:
        """SIGTERM; the exit code."""
        self.signal(signal.SIGTERM)
        return await self.exit_code()

    async def exit_code(self) -> int:
        """Once it has ended by itself."""
        process = self._process
        assert process is not None
        await until(self._ended, f"the end of the server\n{self.log_tail()}")
        self._process = None
        return process.returncode

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Another command with the same settings, to its end."""
        return subprocess.run(
            [PLUGIN_SERVER, *arguments], env=self._environ, capture_output=True, text=True, timeout=60, check=False
        )

    @contextlib.contextmanager
    def tail(self, output: Path) -> Iterator[None]:
        """`plugin-server tail` beside the server, its output in a file; it follows when the file is not empty."""
        with output.open("wb") as file:
            process = subprocess.Popen(
                [PLUGIN_SERVER, "tail"], env=self._environ, stdout=file, stderr=file, stdin=subprocess.DEVNULL
            )
        try:
            yield
        finally:
            process.kill()
            process.wait()

    def log_entries(self, event: str | None = None) -> list[dict[str, Any]]:
        """What it logged in all of its lives, or only the entries of one kind."""
        entries = []
        for line in self.log_path.read_text(errors="replace").splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                entry = json.loads(line)
                if isinstance(entry, dict) and event in (None, entry.get("event")):
                    entries.append(entry)
        return entries

    def log_tail(self, lines: int = 30) -> str:
        if not self.log_path.exists():
            return ""
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-lines:])

    def _ended(self) -> bool:
        return self._process is None or self._process.poll() is not None


def children_of(pid: int) -> list[int]:
    """Child processes, oldest first; none for a process that is gone."""
    found: list[int] = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    return sorted(found)


def is_running(pid: int) -> bool:
    """Whether the process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False

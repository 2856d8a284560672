"""README's walk, for real: the server, `tail` and the events that it says to send. What it shows must appear."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from tests.server import PLUGIN_SERVER, free_port

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
PATIENCE_SECONDS = 60.0
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def curl_bodies() -> list[str]:
    """What the README's curl commands send, in its order."""
    bodies = []
    for block in blocks("sh"):
        bodies += re.findall(r"^curl \S+/capture/ .* -d '(.*)'$", block, re.MULTILINE)
    return bodies


def shown_lines() -> list[list[str]]:
    """Lines of the blocks that show `tail`, one list for each block."""
    return [_comparable(block) for block in blocks("text") if block.startswith("●")]


def _comparable(text: str) -> list[str]:
    """Without what differs each time: uuids and times."""
    lines = (_TIME.sub("TIME", _UUID.sub("UUID", line)).rstrip() for line in text.splitlines())
    return [line for line in lines if line]


class Walk:
    """A server and somebody who follows it."""

    def __init__(self, url: str, run_log: Path, tail_log: Path) -> None:
        self.url = url
        self._run_log = run_log
        self._tail_log = tail_log

    @property
    def said(self) -> str:
        return self._run_log.read_text("utf-8", errors="replace")

    @property
    def tail(self) -> str:
        return self._tail_log.read_text("utf-8", errors="replace")

    def wait(self, is_met: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not is_met():
            assert time.monotonic() < deadline, f"{what}\n--- run\n{self.said}\n--- tail\n{self.tail}"
            time.sleep(0.05)

    def ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/_ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False

    def send(self, body: str) -> object:
        request = urllib.request.Request(
            f"{self.url}/capture/", body.encode(), headers={"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    def wait_for_lines(self, lines: list[str]) -> None:
        """Until all of them were shown, in this order, with others between them perhaps."""

        def shown() -> bool:
            found = iter(_comparable(self.tail))
            return all(line in found for line in lines)

        self.wait(shown, "\n".join(["not shown in this order:", *lines]))


@contextmanager
def _running(arguments: list[str], environ: dict[str, str], output: IO[bytes]) -> Iterator[None]:
    process = subprocess.Popen(
        [str(PLUGIN_SERVER), *arguments],
        cwd=ROOT,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
    )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def walking(directory: Path, **settings: str) -> Iterator[Walk]:
    """`plugin-server run` and `plugin-server tail` as `make` starts them, on a data directory and a port of their own."""
    port = free_port()
    environ = {
        "PATH": os.environ["PATH"],
        "LANG": "C.UTF-8",
        "PYTHONUTF8": "1",
        "PLUGIN_SERVER_DATA_DIR": str(directory / "data"),
        "PLUGIN_SERVER_HTTP_PORT": str(port),
        **settings,
    }
    config = ["--config", "configs/development.toml"]
    walk = Walk(f"http://127.0.0.1:{port}", directory / "run.log", directory / "tail.log")
    with (
        (directory / "run.log").open("wb") as run_log,
        (directory / "tail.log").open("wb") as tail_log,
        _running(["run", *config], environ, run_log),
    ):
        walk.wait(walk.ready, "the server is not ready")
        with _running(["tail", *config], environ, tail_log):
            walk.wait(lambda: "Following." in walk.tail, "tail does not follow")
            yield walk


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Walk]:
    with walking(tmp_path_factory.mktemp("walk")) as started:
        yield started


def test_the_readme_begins_with_the_two_commands():
    commands = [line.split("#")[0].strip() for line in blocks("sh")[0].splitlines()]
    assert commands == ["make run", "make test"]
    assert README.index("```sh") < 50


def test_the_server_says_what_the_readme_shows(walk: Walk):
    shown = next(block for block in blocks("text") if block.startswith("plugin-server on"))
    assert [line for line in shown.splitlines()[1:] if line not in walk.said.splitlines()] == []


def test_the_curl_command_of_the_readme_is_the_one_that_the_server_prints(walk: Walk):
    printed = re.search(r"curl .* -d '(.*)'", walk.said)
    assert printed is not None
    assert printed[1] == curl_bodies()[0]


def test_the_example_event_shows_what_the_readme_shows(walk: Walk):
    assert walk.send(curl_bodies()[0]) == {"status": 1}
    walk.wait_for_lines(shown_lines()[0])


def test_the_loop_is_cut_as_the_readme_shows(walk: Walk):
    assert walk.send(curl_bodies()[1]) == {"status": 1}
    walk.wait_for_lines(shown_lines()[1])
    walk.wait(lambda: walk.tail.count("  in loop-demo  ") == 7, "not the root and six captured events")


def test_the_app_of_the_readme_works_as_installed_there(tmp_path: Path):
    app = tmp_path / "apps" / "greeter"
    app.mkdir(parents=True)
    (app / "plugin.json").write_text(blocks("json")[0])
    (app / "main.py").write_text(blocks("python")[0])
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    (tmp_path / "configs").mkdir()
    lines = (ROOT / "configs" / "projects.yaml").read_text("utf-8").splitlines(keepends=True)
    lines.insert(lines.index("\n"), blocks("yaml")[0])
    projects = tmp_path / "configs" / "projects.yaml"
    projects.write_text("".join(lines))
    with walking(tmp_path, PLUGIN_SERVER_PROJECTS_FILE=str(projects)) as walk:
        walk.send('{"api_key": "phc_example", "event": "visited", "distinct_id": "ada"}')
        walk.wait_for_lines(["    Greeter (6):", "      + properties.greeting: hi"])
        walk.send('{"api_key": "phc_example", "event": "internal", "distinct_id": "ada"}')
        walk.wait_for_lines(["    ✗ dropped by Greeter (6): its processEvent returned None"])

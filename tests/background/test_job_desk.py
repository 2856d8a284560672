"""Jobs in the hands of a person: started, listed, tried again, dropped; by the command line too."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import orjson
import pytest
from typer.testing import CliRunner

from plugin_server.background.job_desk import JobFilters, drop_jobs, list_jobs, retry_jobs
from plugin_server.background.public_jobs import start_public_job
from plugin_server.cli.jobs import app
from plugin_server.database.engine import sqlite_url
from plugin_server.model.project import App, Install, Project
from tests.background.stage import Call, Hooks, worker

MANIFEST = {"publicJobs": {"import": {"payload": {"table": {"type": "string", "required": True}}}}}
TENANT = Project(2, "p", "phc_2", (Install(1, App("Importer", "v", "main.py", "", MANIFEST), 1, {}),))


async def test_a_public_job_runs_as_a_root_of_its_own(database_url):
    async def run(call: Call) -> None:
        call.capture()
        await call.start("import")

    hooks = Hooks({1: {"jobs.import": run}})
    async with worker(database_url, hooks, TENANT) as stage:
        job_id = await start_public_job(
            stage.database, TENANT, TENANT.installs[0], "import", {"table": "users"}, person="ada", clock=stage.clock
        )
        assert await stage.jobs.claim_some() == 1
        await stage.jobs.drain()
        assert hooks.calls[0].payload == {"table": "users", "$operation": "start"}
        assert hooks.calls[0].effects.origin.source == f"job-{job_id}"
        [follower] = await stage.rows()
        assert (follower.lineage, follower.share, follower.link) == (None, 1_000, 1)


async def test_dead_jobs_are_tried_again_or_dropped_and_what_runs_is_left_alone(database_url):
    async with worker(database_url, Hooks({}), TENANT) as stage:
        now_ms = stage.clock.ms
        [first, _] = await stage.put_jobs(2, state="dead", attempts=5, error="no good")
        [running] = await stage.put_jobs(1, name="other")
        await stage.store.claim({1: 1}, now_ms)
        total, rows = await list_jobs(stage.database, JobFilters(state="dead"), 1)
        assert (total, [row["id"] for row in rows], rows[0]["error"]) == (2, [first], "no good")
        assert await retry_jobs(stage.database, JobFilters(state="dead", ids=[first]), now_ms + 5) == 1
        [again] = [row for row in await stage.rows() if row.id == first]
        assert (again.state, again.attempts, again.run_at_ms) == ("waiting", 0, now_ms + 5)
        assert await drop_jobs(stage.database, JobFilters(install=1), now_ms + 5) == 2
        assert [row.id for row in await stage.rows()] == [running]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    folder = tmp_path / "importer"
    folder.mkdir()
    (folder / "plugin.json").write_text(json.dumps({"name": "Importer", **MANIFEST}))
    (folder / "main.py").write_text("jobs = {}\n")
    installs = [{"id": 1, "app": "./importer", "order": 1}]
    document = {"projects": [{"id": 2, "name": "p", "token": "phc_2", "installs": installs}]}
    (tmp_path / "projects.yaml").write_text(json.dumps(document))
    monkeypatch.setenv("PLUGIN_SERVER_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("PLUGIN_SERVER_PROJECTS_FILE", str(tmp_path / "projects.yaml"))
    return CliRunner()


async def make_database(folder: Path, **columns: object) -> None:
    async with worker(sqlite_url(folder), Hooks({}), TENANT) as stage:
        if columns:
            await stage.put_jobs(1, **columns)


def test_the_command_starts_lists_retries_and_drops(command: CliRunner, tmp_path: Path) -> None:
    asyncio.run(make_database(tmp_path, state="dead", error="\x1b[2Jno good", name="old"))
    started = command.invoke(app, ["start", "1", "import", "--payload", '{"table": "users"}'])
    assert started.exit_code == 0, started.output
    [entry] = [orjson.loads(line) for line in command.invoke(app, ["list", "--waiting", "--json"]).output.splitlines()]
    assert (entry["id"], entry["job"], entry["state"]) == (started.output.split()[-1], "import", "waiting")
    shown = command.invoke(app, ["list", "--dead"]).output
    assert "no good" in shown
    assert "\x1b[2J" not in shown
    assert "1 jobs are due now" in command.invoke(app, ["retry"]).output
    assert command.invoke(app, ["drop", "--waiting", "--name", "old"], input="n\n").exit_code == 1
    assert "1 jobs are deleted" in command.invoke(app, ["drop", "--waiting", "--name", "old", "--yes"]).output
    assert "no such jobs" in command.invoke(app, ["list", "--dead"]).output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["start", "1", "import"], "'table' is required"),
        (["start", "1", "x"], "no public job 'x'"),
        (["start", "9", "import"], "there is no install 9"),
        (["start", "1", "import", "--payload", "{"], "not JSON"),
        (["start", "1", "import", "--payload", "[]"], "must be a JSON object"),
    ],
)
def test_a_bad_start_says_why(command: CliRunner, tmp_path: Path, arguments: list[str], words: str) -> None:
    asyncio.run(make_database(tmp_path))
    result = command.invoke(app, arguments)
    assert result.exit_code == 2
    assert words in result.output


def test_without_a_database_the_command_says_where_it_looked(command: CliRunner, tmp_path: Path) -> None:
    result = command.invoke(app, ["list"])
    assert result.exit_code == 2
    assert str(tmp_path) in result.output.replace("\n", "")

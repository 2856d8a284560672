"""The self-test finds what is missing; the host starts only with seccomp, or where that is allowed, and says so."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest
import structlog

from plugin_server.model.errors import ConfigurationError
from plugin_server.runtime.fork_server import Confinement, ForkServer
from tests.sandbox.projects import Sink, project, running_pool

WITHOUT = Path(__file__).with_name("fork_server_without.py")
SECONDS = 2.0
"""Far more than the tens of milliseconds that it takes, for a busy machine"""


def fork_server_without(*mechanisms: str, allow_unconfined: bool = True) -> ForkServer:
    return ForkServer(allow_unconfined=allow_unconfined, program=(str(WITHOUT), *mechanisms))


async def confinement_without(*mechanisms: str) -> Confinement:
    fork_server = fork_server_without(*mechanisms)
    await fork_server.start()
    await fork_server.stop()
    assert fork_server.confinement is not None
    return fork_server.confinement


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def open_descriptors(pid: int) -> list[int]:
    return sorted(int(entry.name) for entry in Path(f"/proc/{pid}/fd").iterdir())


async def test_all_is_well_on_a_kernel_that_has_it_all():
    started = time.perf_counter()
    confinement = await confinement_without()
    assert time.perf_counter() - started < SECONDS
    assert confinement.problems == {}
    assert len([name for name, _ in confinement.results if name.startswith("seccomp: ")]) == 6
    assert confinement.describe() == (
        f"seccomp, Landlock (ABI {confinement.landlock_abi}), no_new_privs, rlimits, uid {confinement.user_id}"
    )


@pytest.mark.parametrize("mechanism", ["seccomp", "Landlock", "rlimits", "death with parent"])
async def test_a_mechanism_that_is_left_out_is_reported(mechanism):
    assert set((await confinement_without(mechanism)).problems) == {mechanism}


async def test_what_builds_on_no_new_privs_may_fail_with_it_and_is_reported_too():
    problems = set((await confinement_without("no_new_privs")).problems)
    assert {"no_new_privs"} <= problems <= {"no_new_privs", "Landlock", "seccomp"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has another user to become and capabilities to lose")
async def test_root_and_its_capabilities_are_reported():
    assert set((await confinement_without("user")).problems) == {"user"}
    assert set((await confinement_without("user", "capabilities")).problems) == {"user", "capabilities"}


async def test_every_probe_of_seccomp_notices_that_it_is_left_out():
    results = dict((await confinement_without("seccomp")).results)
    probes = {name: problem for name, problem in results.items() if name.startswith("seccomp: ")}
    assert len(probes) == 6
    assert all(problem == "allowed" or "not fatal" in str(problem) for problem in probes.values()), probes


async def test_descriptors_and_environment_that_are_left_are_reported():
    assert set((await confinement_without("descriptors")).problems) == {"descriptors"}
    assert set((await confinement_without("environment")).problems) == {"environment"}


async def test_without_seccomp_the_fork_server_does_not_start_and_says_what_to_do():
    fork_server = fork_server_without("seccomp", allow_unconfined=False)
    with pytest.raises(ConfigurationError, match="ALLOW_UNCONFINED_SANDBOX"):
        await fork_server.start()
    assert fork_server.pid is None


async def test_without_seccomp_apps_run_where_that_is_allowed_and_the_log_warns():
    with structlog.testing.capture_logs() as logs:
        async with running_pool(fork_server_without("seccomp")) as bench:
            sink = Sink()
            bench.pool.submit(project("def processEvent(event, meta):\n    return event\n"), sink.works(3))
            await sink.all()
            status = status_of(bench.sandbox().pid)
    assert status["Seccomp"] == "0"
    assert status["NoNewPrivs"] == "1"
    warning = next(entry for entry in logs if entry["event"] == "sandbox_unconfined")
    assert warning["log_level"] == "warning"
    assert "ALLOW_UNCONFINED_SANDBOX" in warning["remedy"]


async def test_a_real_sandbox_is_confined_as_the_kernel_sees_it():
    async with running_pool() as bench:
        sink = Sink()
        bench.pool.submit(project("def processEvent(event, meta):\n    return event\n"), sink.works(1))
        await sink.all()
        pid = bench.sandbox().pid
        status = status_of(pid)
        assert status["Seccomp"] == "2"
        assert status["NoNewPrivs"] == "1"
        assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {"0" * 16}
        assert "0" not in status["Uid"].split() + status["Gid"].split()
        assert open_descriptors(pid) == [0, 1, 2, 3]


async def test_the_self_test_is_not_repeated_when_the_fork_server_has_died():
    fork_server = fork_server_without()
    await fork_server.start()
    first = fork_server.confinement
    await fork_server.stop()
    handle = await fork_server.spawn(2**27, lambda _status: None)
    assert fork_server.confinement is first
    handle.kill()
    handle.release()
    await fork_server.stop()
    await asyncio.sleep(0)

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from plugin_server.eventlog.process_lock import ProcessLock
from plugin_server.model.errors import ConfigurationError


@pytest.mark.parametrize("group", ["ingestion", "../escape/me", "with space", "x" * 300])
def test_one_holder_at_a_time(tmp_path: Path, group: str) -> None:
    held = ProcessLock.acquire(tmp_path, group)
    with pytest.raises(ConfigurationError, match=f"process {os.getpid()} already runs"):
        ProcessLock.acquire(tmp_path, group)
    held.release()
    held.release()
    ProcessLock.acquire(tmp_path, group).release()
    assert [path.parent for path in tmp_path.iterdir()] == [tmp_path]


def test_groups_do_not_stand_in_each_others_way(tmp_path: Path) -> None:
    locks = [ProcessLock.acquire(tmp_path, group) for group in ("ingestion", "delivery")]
    for lock in locks:
        lock.release()


def test_a_folder_that_takes_no_files_is_named_with_the_remedy(tmp_path):
    with pytest.raises(ConfigurationError, match=r"ingestion\.lock cannot be written.*PLUGIN_SERVER_DATA_DIR"):
        ProcessLock.acquire(tmp_path / "away", "ingestion")


def test_a_full_disk_does_not_keep_the_lock_from_holding(tmp_path, monkeypatch):
    def full(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        held = ProcessLock.acquire(tmp_path, "ingestion")
    with pytest.raises(ConfigurationError, match="already runs"):
        ProcessLock.acquire(tmp_path, "ingestion")
    held.release()

"""One member per group of the embedded log, across processes: a lock file that the kernel releases when we die."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
from pathlib import Path

from plugin_server.model.errors import ConfigurationError


class ProcessLock:
    """Held from `acquire` to `release`, or to the end of the process, however it ends."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    @classmethod
    def acquire(cls, data_dir: Path, group: str) -> ProcessLock:
        """Raises ConfigurationError at once, naming the holder, when somebody has it, and when the folder takes no files."""
        path = data_dir / f"{_file_name(group)}.lock"
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigurationError(
                f"{path} cannot be written ({error.strerror}): PLUGIN_SERVER_DATA_DIR must be on a disk with "
                "room, and writable for this user"
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(descriptor, 64).decode(errors="replace").strip()
            os.close(descriptor)
            raise ConfigurationError(
                f"process {holder or '?'} already runs {group!r} on the embedded log in {data_dir}. Stop it, give this "
                "one another PLUGIN_SERVER_DATA_DIR, or set PLUGIN_SERVER_KAFKA_BROKERS: the embedded log serves one process only"
            ) from error
        with contextlib.suppress(OSError):  # on a full disk the lock holds, and nobody reads who has it
            os.truncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        return cls(descriptor)

    def release(self) -> None:
        """Let others have it. The file stays: deleting it would let two processes lock two files of that name."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _file_name(group: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,80}", group):
        return group
    return f"group-{hashlib.sha256(group.encode()).hexdigest()[:16]}"

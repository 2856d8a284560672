"""The effects of one run, buffered until it has returned: storage, jobs, events sent to our own capture paths, metrics.

What `posthog.capture` made travels with the run's answer; all else an app asks the host for, and it is kept here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from plugin_server.host_api.storage_transaction import StorageTransaction
from plugin_server.model.errors import Transient
from plugin_server.model.origin import Origin
from plugin_server.model.posted import PostedCapture
from plugin_server.model.project import Project
from plugin_server.runtime.replies import HookFailure
from plugin_server.runtime.work import Journal


class JobRequest(NamedTuple):
    """A job that a hook started. `payload` is JSON; `run_at_ms` None means at once."""

    name: str
    payload: bytes
    run_at_ms: int | None


@dataclass(slots=True)
class InstallEffects:
    """Of one install."""

    jobs: list[JobRequest] = field(default_factory=list)
    posted: dict[int, list[PostedCapture]] = field(default_factory=dict)
    """By the number of the call that sent them: calls end in any order"""
    metrics: list[tuple[str, str, float]] = field(default_factory=list)
    """Name, verb and amount"""
    answer_bytes: int = 0
    """Of the answers to its requests: they are kept until the run has ended"""

    @property
    def posted_in_order(self) -> list[PostedCapture]:
        """In program order."""
        return [posted for _, events in sorted(self.posted.items()) for posted in events]


class RunEffects:
    """Of one event's chain, or of one call of another hook."""

    __slots__ = ("_troubles", "by_install", "journal", "left_out", "origin", "project", "storage")

    def __init__(self, project: Project, origin: Origin, journal: Journal | None = None) -> None:
        """`journal` is that of the run that this one repeats."""
        self.project = project
        self.origin = origin
        self.journal: Journal = journal if journal is not None else {}
        self.left_out: dict[int, HookFailure] = {}
        """As runtime.work.RunEffects says"""
        self.by_install: dict[int, InstallEffects] = {}
        self.storage = StorageTransaction()
        self._troubles: dict[int, Transient] = {}

    def again(self) -> RunEffects:
        """Of the run that takes the place of this one, whose reads are stale: what came from outside is answered again."""
        following = RunEffects(self.project, self.origin, self.journal)
        following.left_out = self.left_out
        following.storage = self.storage.again()
        return following

    def of(self, install_id: int) -> InstallEffects:
        """Those of an install, to be added to."""
        found = self.by_install.get(install_id)
        if found is None:
            found = self.by_install[install_id] = InstallEffects()
        return found

    def forget(self, install_ids: Iterable[int]) -> None:
        """The hooks of these installs begin again, or failed: nothing that they asked for counts."""
        for install_id in install_ids:
            self.by_install.pop(install_id, None)
            self.storage.drop(install_id)
            self._troubles.pop(install_id, None)

    def note_trouble(self, install_id: int, error: Transient) -> None:
        """As `trouble` says."""
        self._troubles[install_id] = error

    @property
    def trouble(self) -> Transient | None:
        """What was away when the run asked for it, if anything was: its outcome does not count."""
        return next(iter(self._troubles.values()), None)

    @property
    def jobs(self) -> int:
        """Jobs started, of all installs."""
        return sum(len(effects.jobs) for effects in self.by_install.values())

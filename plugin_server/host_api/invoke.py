"""Calls of hooks outside of an ingestion chain: deliveries, jobs, schedules. What they did is committed by who called.

call → judge what was captured and started → one commitment: storage, jobs, captures and logs by the outbox, completion
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple, Protocol

import orjson

from plugin_server.eventlog.port import OutputRecord
from plugin_server.host_api.captures import Captures, CutNotice, Parent
from plugin_server.host_api.commit import Commitment, Committer, Completion, Outcome
from plugin_server.host_api.effects import RunEffects
from plugin_server.host_api.logs import LogEntries
from plugin_server.model.origin import Origin
from plugin_server.model.project import Project
from plugin_server.runtime.replies import Capture, HookFailure, LogLine
from plugin_server.runtime.work import InvocationResult


class Hooks(Protocol):
    """Who runs hooks: a role's SandboxPool."""

    async def invoke(
        self,
        project: Project,
        install_id: int,
        hook: str,
        arguments: bytes,
        effects: RunEffects,
        *,
        max_captures: int | None = None,
    ) -> InvocationResult: ...

    async def hooks(self, project: Project) -> Mapping[int, frozenset[str]]: ...

    async def exports(self, project: Project) -> Mapping[int, frozenset[str]]: ...


class MetricsSink(Protocol):
    """Who adds up what apps count by `meta.metrics`."""

    def add(self, project: Project, install_id: int, metrics: Sequence[tuple[str, str, float]]) -> None: ...


class Called(NamedTuple):
    """What a hook did. Nothing of it counts yet; of a failed one only the logs ever will."""

    install_id: int
    failure: HookFailure | None
    value: Any
    captures: tuple[Capture, ...]
    logs: tuple[LogLine, ...]
    effects: RunEffects

    @property
    def leaves_effects(self) -> bool:
        """Did it leave anything beside log lines and what it did outside?"""
        storage = self.effects.storage
        buffered = any(own.jobs or own.posted or own.metrics for own in self.effects.by_install.values())
        return bool(self.captures or buffered or storage.writes or storage.reads)


class Invoker:
    """One a role: its sandboxes run the hooks."""

    def __init__(
        self,
        hooks: Hooks,
        committer: Committer,
        captures: Captures,
        logs: LogEntries,
        metrics: MetricsSink,
        clock: Callable[[], float],
        on_cuts: Callable[[Project, Sequence[CutNotice]], None] = lambda _project, _cuts: None,
    ) -> None:
        self._hooks = hooks
        self._committer = committer
        self._captures = captures
        self._logs = logs
        self._metrics = metrics
        self._clock = clock
        self._on_cuts = on_cuts

    async def hooks(self, project: Project) -> Mapping[int, frozenset[str]]:
        """The hooks of each install that works. Loads the apps if need be."""
        return await self._hooks.hooks(project)

    async def exports(self, project: Project) -> Mapping[int, frozenset[str]]:
        """The hooks that each install's app has, also of one whose setupPlugin fails: its calls raise HookMissing until it works."""
        return await self._hooks.exports(project)

    async def call(
        self,
        project: Project,
        install_id: int,
        hook: str,
        arguments: Sequence[Any] | bytes,
        origin: Origin,
        *,
        max_captures: int | None = None,
        previous: Called | None = None,
    ) -> Called:
        """Call a hook with these JSON values (or their JSON list) and `meta`. `previous` is the stale call that this one repeats.

        Raises HookMissing, and Transient when something that the hook needed is away: it has to be called again then.
        """
        effects = previous.effects.again() if previous is not None else RunEffects(project, origin)
        encoded = arguments if isinstance(arguments, bytes) else orjson.dumps(list(arguments))
        try:
            result = await self._hooks.invoke(project, install_id, hook, encoded, effects, max_captures=max_captures)
        except BaseException:
            effects.storage.abandon()
            raise
        if effects.trouble is not None:
            effects.storage.abandon()
            raise effects.trouble
        if result.failure is not None:
            effects.forget([install_id])
        effects.storage.look_at_increments(result.unheard)
        return Called(install_id, result.failure, result.value, result.captures, result.logs, effects)

    def is_stale(self, called: Called) -> bool:
        """Has something changed that the hook read? Its call does not count, and has to be made again."""
        stale = self._committer.ledger.is_stale(called.effects.storage)
        if stale:
            called.effects.storage.abandon()
        return stale

    def log_records(self, project: Project, called: Called) -> list[OutputRecord]:
        """The hook's log lines, for one that leaves nothing else."""
        called.effects.storage.abandon()
        return self._logs.records(project, called.logs, datetime.fromtimestamp(self._clock(), UTC))

    def settle(
        self, called: Called, parent: Parent, completion: Completion | None = None, token: Any = None
    ) -> Commitment:
        """Take what a call did; it counts when the commitment is stored. That of a stale one is decided already."""
        storage = called.effects.storage
        if self._committer.ledger.is_stale(storage):
            return self._committer.stale(storage)
        project = called.effects.project
        applied = self._captures.apply(project, parent, called.captures, called.effects)
        now = datetime.fromtimestamp(self._clock(), UTC)
        records = [*applied.records, *self._logs.records(project, [*called.logs, *applied.logs], now)]
        commitment = self._committer.add(
            storage,
            jobs=applied.jobs,
            outbox=records,
            completion=completion,
            token=token,
            always=True,
        )
        assert commitment is not None
        commitment.when_stored(partial(self._count, project, called.effects, applied.cuts))
        return commitment

    def _count(self, project: Project, effects: RunEffects, cuts: Sequence[CutNotice]) -> None:
        if cuts:
            self._on_cuts(project, cuts)
        for install_id, own in effects.by_install.items():
            if own.metrics:
                self._metrics.add(project, install_id, own.metrics)

    async def store(self, commitments: Sequence[Commitment]) -> list[Outcome]:
        """Returns when these are decided, in the database or not. Raises DatabaseUnavailable."""
        await self._committer.store(commitments)
        return [commitment.decided.result() for commitment in commitments]

"""What the lanes, the harness and the sandboxes hand each other."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from plugin_server.model.errors import Transient
from plugin_server.model.project import Project
from plugin_server.runtime.replies import Capture, ChainResult, HookFailure, HostCallRequest, Loaded, LogLine

ItemT = TypeVar("ItemT")
ItemT_contra = TypeVar("ItemT_contra", contravariant=True)


class Answered(NamedTuple):
    """A host call that reached beyond the buffered effects, and what it was answered."""

    digest: bytes
    """Of its name and arguments: an answer is given again only to the same question"""
    answer: list[Any]


Journal = dict[tuple[int, int], Answered]
"""By install and number of the call"""


class RunEffects(Protocol):
    """What a run asked of the host and that counts only if it returns. Made by whoever submits the run; opaque here."""

    @property
    def journal(self) -> Journal:
        """What its host calls were answered, as far as they reached outside: it is given again when the run begins again."""
        ...

    @property
    def left_out(self) -> dict[int, HookFailure]:
        """Installs that are not called again, in this run or in one that takes its place, since a sandbox was killed over them."""
        ...

    def forget(self, install_ids: Iterable[int]) -> None:
        """The hooks of these installs begin again: nothing that they asked for counts."""
        ...

    def note_trouble(self, install_id: int, error: Transient) -> None:
        """What a hook needed is away: whatever it makes of that does not count, the run has to be made again."""
        ...


class ResultSink(Protocol[ItemT_contra]):
    """Who handed the events over, usually a lane."""

    @property
    def closed(self) -> bool:
        """Nobody waits for its events any more: they need not be run."""
        ...

    def deliver(self, results: Sequence[tuple[ItemT_contra, ChainResult]], *, has_delivery: bool) -> None:
        """Take what became of some of its events. `has_delivery`: their project has delivery hooks. Must not raise."""
        ...

    def effects_of(self, item: ItemT_contra) -> RunEffects:
        """Where the host calls of this event's apps leave their effects; the same object for as long as it is unfinished."""
        ...


class Work(Generic[ItemT]):
    """One event on its way through a chain. `key` says which events keep their order among several sandboxes."""

    __slots__ = ("called", "chain", "crashes", "failed", "is_snapshot", "item", "key", "raw", "sink")

    def __init__(
        self,
        item: ItemT,
        raw: bytes,
        sink: ResultSink[ItemT],
        key: bytes | str | None = None,
        failed: dict[int, HookFailure] | None = None,
    ) -> None:
        self.item = item
        self.raw = raw
        self.sink = sink
        self.key = key
        self.chain: Any = None
        """The chain whose sandbox it is in"""
        self.failed = failed
        """Installs that must not be called again for this event, since a sandbox was killed over them"""
        self.is_snapshot: bool | None = None
        """Of an event that is opened: did it come in as a snapshot, whatever apps made of it since? None: as its name says"""
        self.crashes = 0
        """Deaths with nobody to blame in which it was a suspect (InFlight.suspects)"""
        self.called = False
        """It has called the host, so it has effects"""

    @property
    def effects(self) -> RunEffects:
        """Where its host calls leave their effects."""
        return self.sink.effects_of(self.item)


class InvocationResult(NamedTuple):
    """What became of one call of a hook. `value` is what it returned, for hooks whose answer means something."""

    failure: HookFailure | None
    value: Any
    captures: tuple[Capture, ...]
    logs: tuple[LogLine, ...]
    unheard: tuple[tuple[int, int], ...] = ()
    """Increments whose answer nobody looked at, by install and number of the call"""


class Invocation:
    """One call of a hook that is not part of a chain, until `done`."""

    __slots__ = (
        "arguments",
        "called",
        "chain",
        "crashes",
        "done",
        "effects",
        "failed",
        "hook",
        "install_id",
        "max_captures",
    )

    def __init__(
        self,
        chain: Any,
        install_id: int,
        hook: str,
        arguments: bytes,
        effects: RunEffects,
        max_captures: int | None = None,
    ) -> None:
        self.chain = chain
        self.install_id = install_id
        self.hook = hook
        self.arguments = arguments
        """A JSON list"""
        self.done: asyncio.Future[InvocationResult] = asyncio.get_running_loop().create_future()
        self.failed: dict[int, HookFailure] | None = None
        self.crashes = 0
        self.called = False
        self.effects = effects
        self.max_captures = max_captures
        """Captures that it may make; None for what the limits allow for an event"""

    def fail(self, failure: HookFailure) -> None:
        """It will not be tried again."""
        line = "" if failure.line is None else f" (line {failure.line})"
        log = LogLine(self.install_id, "ERROR", f"{self.hook} failed: {failure.message}{line}", "PLUGIN")
        self.finish(InvocationResult(failure, None, (), (log,)))

    def finish(self, result: InvocationResult) -> None:
        if not self.done.done():
            self.done.set_result(result)


class HostCalls(Protocol):
    """What the host does for apps."""

    async def answer(self, project: Project, effects: Any, request: HostCallRequest) -> Any:
        """A JSON value. Raises AppError with a message for the app. Cancelled when nobody waits any more."""
        ...

    def is_outside(self, name: str) -> bool:
        """Does a call of that name reach beyond the effects that are buffered?"""
        ...


class SandboxReport(Protocol):
    """Who is told what becomes of sandboxes. Must not raise."""

    def loaded(self, project: Project, loaded: Loaded) -> None:
        """Apps were loaded and set up, or failed to."""

    def set_up(self, project: Project, install_id: int, result: InvocationResult, effects: Any) -> None:
        """A setupPlugin or teardownPlugin has ended, and these are its effects."""

    def torn_down(self, project: Project, logs: Sequence[LogLine]) -> None:
        """Apps were told to clean up, and logged this."""

    def restarted(self, project: Project) -> None:
        """A sandbox that held the project's apps ended, and another takes its place."""

    def moved(self, project: Project, install_id: int) -> None:
        """An install cost three sandboxes in ten minutes, and has one of its own from now on."""

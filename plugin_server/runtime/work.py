"""What the lanes, the harness and the sandboxes hand each other."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from plugin_server.model.project import Project
from plugin_server.runtime.replies import Capture, ChainResult, HookFailure, HostCallRequest, Loaded, LogLine

ItemT = TypeVar("ItemT")
ItemT_contra = TypeVar("ItemT_contra", contravariant=True)


class ResultSink(Protocol[ItemT_contra]):
    """Who handed the events over, usually a lane."""

    @property
    def closed(self) -> bool:
        """Nobody waits for its events any more: they need not be run."""
        ...

    def deliver(self, results: Sequence[tuple[ItemT_contra, ChainResult]], *, has_delivery: bool) -> None:
        """Take what became of some of its events. `has_delivery`: their project has delivery hooks. Must not raise."""
        ...


class Work(Generic[ItemT]):
    """One event on its way through a chain. `key` says which events keep their order among several sandboxes."""

    __slots__ = ("chain", "crashes", "failed", "item", "journal", "key", "raw", "sink")

    def __init__(self, item: ItemT, raw: bytes, sink: ResultSink[ItemT], key: bytes | str | None = None) -> None:
        self.item = item
        self.raw = raw
        self.sink = sink
        self.key = key
        self.chain: Any = None
        """The chain whose sandbox it is in"""
        self.failed: dict[int, HookFailure] | None = None
        """Installs that must not be called again for this event, since a sandbox was killed over them"""
        self.crashes = 0
        """Deaths with nobody to blame in which it was a suspect (InFlight.suspects)"""
        self.journal: dict[tuple[int, int], Any] | None = None
        """Answers of the host that it was given already, by install and number"""


class InvocationResult(NamedTuple):
    """What became of one call of a hook. `value` is what it returned, for hooks whose answer means something."""

    failure: HookFailure | None
    value: Any
    captures: tuple[Capture, ...]
    logs: tuple[LogLine, ...]


class Invocation:
    """One call of a hook that is not part of a chain, until `done`."""

    __slots__ = ("arguments", "chain", "crashes", "done", "failed", "hook", "install_id", "journal")

    def __init__(self, chain: Any, install_id: int, hook: str, arguments: bytes) -> None:
        self.chain = chain
        self.install_id = install_id
        self.hook = hook
        self.arguments = arguments
        """A JSON list"""
        self.done: asyncio.Future[InvocationResult] = asyncio.get_running_loop().create_future()
        self.failed: dict[int, HookFailure] | None = None
        self.crashes = 0
        self.journal: dict[tuple[int, int], Any] | None = None

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

    async def answer(self, project_id: int, request: HostCallRequest) -> Any:
        """A JSON value. Raises AppError with a message for the app. Cancelled when nobody waits any more."""
        ...


class SandboxReport(Protocol):
    """Who is told what becomes of sandboxes. Must not raise."""

    def loaded(self, project: Project, loaded: Loaded) -> None:
        """Apps were loaded and set up, or failed to."""

    def torn_down(self, project: Project, logs: Sequence[LogLine]) -> None:
        """Apps were told to clean up, and logged this."""

    def restarted(self, project: Project) -> None:
        """A sandbox that held the project's apps ended, and another takes its place."""

    def moved(self, project: Project, install_id: int) -> None:
        """An install cost three sandboxes in ten minutes, and has one of its own from now on."""

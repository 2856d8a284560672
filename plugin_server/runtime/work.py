"""What the lanes and the sandboxes hand each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, Protocol, TypeVar

from plugin_server.runtime.replies import ChainResult, HookFailure, HostCallRequest

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
    """One event on its way through a sandbox."""

    __slots__ = ("crashes", "failed", "item", "journal", "raw", "sink")

    def __init__(self, item: ItemT, raw: bytes, sink: ResultSink[ItemT]) -> None:
        self.item = item
        self.raw = raw
        self.sink = sink
        self.failed: dict[int, HookFailure] | None = None
        """Installs that must not be called again for this event, since a sandbox was killed over them"""
        self.crashes = 0
        """Sandboxes that died with nobody to blame while this event ran alone in them, or waited"""
        self.journal: dict[tuple[int, int], Any] | None = None
        """Answers of the host that it was given already, by install and number"""


class HostCalls(Protocol):
    """What the host does for apps."""

    async def answer(self, project_id: int, request: HostCallRequest) -> Any:
        """A JSON value. Raises AppError with a message for the app. Cancelled when nobody waits any more."""
        ...

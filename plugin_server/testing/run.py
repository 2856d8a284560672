"""What a test sees of one call of a hook, and of all that followed from it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class RunError:
    """Why a hook failed. `line` is the innermost line of app code, or None."""

    kind: str
    """compile | app | retry | timeout | memory | sandbox | protocol | limit | host"""
    message: str
    line: int | None = None

    def __str__(self) -> str:
        return self.message if self.line is None else f"{self.message} (line {self.line})"


@dataclass(slots=True)
class Run:
    """One call of a hook."""

    hook: str
    event: Any = None
    """The event as the apps left it, None when it was dropped; a list for processEventBatch; None for other hooks"""
    error: RunError | None = None
    captured: list[dict[str, Any]] = field(default_factory=list)
    """`{"uuid", "event", "distinct_id", "timestamp", "properties"}` of each capture that the loop guard let pass"""
    requests: list[dict[str, Any]] = field(default_factory=list)
    """`{"method", "url", "headers", "body", "json", "idempotency_key"}` of each request, in order, whoever made it"""
    api_calls: list[dict[str, Any]] = field(default_factory=list)
    """`{"method", "path", "options"}` of each call of `posthog.api`, as the app wrote it"""
    api_requests: list[dict[str, Any]] = field(default_factory=list)
    """Those of the requests that `posthog.api` made"""
    jobs: list[dict[str, Any]] = field(default_factory=list)
    """`{"job", "payload", "run_at"}` of each job that was started; `run_at` is ISO text, None for now"""
    logs: list[dict[str, Any]] = field(default_factory=list)
    """`{"level", "message", "source"}`"""
    cuts: list[dict[str, Any]] = field(default_factory=list)
    """`{"reason", "install", "count", "chain", "what"}` of what the loop guard cut; `what` is captures or jobs"""
    metrics: dict[str, float] = field(default_factory=dict)
    """What each metric came to in this run: a sum, or the greatest or least"""
    value: Any = None
    """What another hook than processEvent and processEventBatch returned"""
    duration_seconds: float = 0.0


@dataclass(slots=True)
class Node:
    """A captured event, and what it led to."""

    event: dict[str, Any]
    """As it entered the chain"""
    depth: int
    run: Run
    """processEvent, in all apps"""
    deliveries: list[Run] = field(default_factory=list)
    """onEvent and the other hooks that events are delivered to, of the apps that have them"""
    children: list[Node] = field(default_factory=list)

    def __iter__(self) -> Iterator[Node]:
        yield self
        for child in self.children:
            yield from child


@dataclass(slots=True)
class Tree:
    """All that followed from the captures so far. Iterating gives every event, parents first; `len` counts them."""

    roots: list[Node] = field(default_factory=list)

    def __iter__(self) -> Iterator[Node]:
        for root in self.roots:
            yield from root

    def __len__(self) -> int:
        return sum(1 for _ in self)

    @property
    def cuts(self) -> list[dict[str, Any]]:
        """What the loop guard cut on the way, in the order of the events."""
        return [cut for node in self for run in (node.run, *node.deliveries) for cut in run.cuts]

    @property
    def depth(self) -> int:
        """Of the deepest event; 0 when there is none."""
        return max((node.depth for node in self), default=0)

"""What belongs to one event on its way through the chain, or to one call of another hook: effects and host calls."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, Final

from sandbox.page import Page

LOG_LINES: Final = 1_000
LOG_BYTES: Final = 256 * 1024
"""Of one event's chain together; the host's limit per minute comes on top."""
_LOG_LINE_BYTES: Final = 64
"""What a line takes besides its message, as a bound"""
CAPTURE_BYTES: Final = 8 * 2**20
"""Of one event's chain together, so that they fit a frame"""
HOST_CALLS: Final = 1_000
"""Of one event's chain together, awaited or not: each is work for the host before it is judged"""


class LimitExceeded(Exception):
    """An app asked for more than its limits allow."""


class Effects:
    """What an event's apps asked for so far. Buffered: the host applies what belongs to hooks that returned."""

    __slots__ = (
        "call_ids",
        "calls",
        "capture_blobs",
        "capture_bytes",
        "captures",
        "log_bytes",
        "logs",
        "may_capture",
        "numbers",
        "ran_out",
        "running",
        "sequence",
    )

    def __init__(self, sequence: int) -> None:
        self.sequence = sequence
        self.call_ids: list[int] = []
        self.may_capture = True
        """False for setupPlugin and teardownPlugin, which have no event to descend from"""
        self.ran_out = False
        """A hook failed for want of memory"""
        self.running = 0
        """The install whose hook runs or waits"""
        self.captures: list[list[Any]] = []
        """[install, number within its hook, event, distinct_id, timestamp or None, bytes of its properties]"""
        self.capture_blobs: list[bytes] = []
        """The captures' properties, as JSON"""
        self.capture_bytes = 0
        """Of these; what is said of captures beside them is less, as the distinct_id is in both"""
        self.logs: list[list[Any]] = []
        """[install, level, message, source]"""
        self.log_bytes = 0
        self.calls: list[HostCall] = []
        self.numbers: dict[int, int] = {}
        """Host calls made by each install"""

    def capture(self, entry: list[Any], properties: bytes) -> None:
        """Keep a capture (without its length) and its properties, JSON. Raises LimitExceeded."""
        size = len(properties)
        if self.capture_bytes + size > CAPTURE_BYTES:
            raise LimitExceeded(f"posthog.capture: the captures of one event take more than {CAPTURE_BYTES} bytes")
        self.capture_bytes += size
        self.captures.append([*entry, size])
        self.capture_blobs.append(properties)

    def undo_captures(self, kept: int) -> None:
        """Forget all captures but the first `kept`: the hook that made them has failed."""
        del self.captures[kept:], self.capture_blobs[kept:]

    def notes(self) -> dict[str, Any]:
        """What is to be told of them, as in a RESULTS row."""
        notes: dict[str, Any] = {}
        if self.captures:
            notes["captures"] = self.captures
        if self.logs:
            notes["logs"] = self.logs
        return notes

    def log(self, install: int, level: str, message: str, source: str = "CONSOLE") -> None:
        """Keep a line; past the bounds of one event, silently none but the notice that there were more."""
        if len(self.logs) > LOG_LINES or self.log_bytes > LOG_BYTES:
            return
        if len(self.logs) == LOG_LINES or self.log_bytes + len(message) > LOG_BYTES:
            level, message, source = "WARN", "more log lines of this event were left out", "SYSTEM"
            self.log_bytes = LOG_BYTES
        self.log_bytes += (1 if message.isascii() else 4) * len(message) + _LOG_LINE_BYTES
        self.logs.append([install, level, message, source])


class HostCall:
    """Something that the host does for an app. It has started; awaiting it gives its answer or raises its error."""

    __slots__ = ("_answer", "_effects", "_error", "_heard", "done", "name")

    def __init__(self, effects: Effects | None = None, name: str = "") -> None:
        self.name = name
        self._heard = False
        self._effects = effects
        """Of the event that made it, and that alone may wait for it: the host counts its time"""
        self.done = False
        self._answer: Any = None
        self._error: str | None = None

    def _finish(self, answer: Any) -> None:
        self.done = True
        self._answer = answer

    def _fail(self, message: str) -> None:
        self.done = True
        self._error = message

    @property
    def unheard(self) -> str | None:
        """The error that nobody waited for."""
        return None if self._heard else self._error

    def __await__(self) -> Generator[HostCall, None, Any]:
        if not self.done:
            yield self
        self._heard = True
        if self._error is not None:
            raise RuntimeError(self._error)
        return self._answer


class Context:
    """The invocation whose code runs right now, for the globals that apps call. One a child, set by the worker."""

    __slots__ = ("effects", "page", "send_call")

    def __init__(self, send_call: Callable[[Effects, int, str, list[Any]], HostCall], page: Page) -> None:
        self.effects: Effects | None = None
        self.send_call = send_call
        self.page = page

    def current(self, what: str) -> Effects:
        """The running event's effects. Raises RuntimeError where there is none, as in a module's body."""
        if self.effects is None:
            raise RuntimeError(f"{what} works only while a hook runs: call it inside processEvent or another hook")
        return self.effects

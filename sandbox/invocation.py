"""What belongs to one event on its way through the chain, or to one call of another hook: effects and host calls."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from types import MappingProxyType
from typing import Any, Final

import orjson

from sandbox import codec
from sandbox.globals.errors import FetchError, LimitExceeded, refused
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
CALL_BYTES: Final = 15 * 2**20
"""Of one host call's arguments as JSON: a frame's head holds little more"""
WAITING_BYTES: Final = 32 * 2**20
"""Of the host calls of one event's chain that have no answer yet"""
DELTA: Final = "storage.increment"
"""The call that commits as a change, not as a value, where nobody looked at its answer"""
_NOTHING: Final[Mapping[int, int]] = MappingProxyType({})
_ERRORS: Final[dict[str, Callable[[str], Exception]]] = {
    "value": ValueError,
    "limit": LimitExceeded,
    "fetch": FetchError,
    "refused": refused,
}
"""What a failed call raises, by the kind that REPLY gives; RuntimeError for all else"""


class Effects:
    """What an event's apps asked for so far. Buffered: the host applies what belongs to hooks that returned."""

    __slots__ = (
        "call_ids",
        "calls",
        "capture_blobs",
        "capture_bytes",
        "captured",
        "captures",
        "log_bytes",
        "logs",
        "max_captures",
        "numbers",
        "posted",
        "ran_out",
        "running",
        "sequence",
        "unheard",
        "waiting_bytes",
    )

    def __init__(self, sequence: int) -> None:
        self.sequence = sequence
        self.call_ids: list[int] = []
        self.max_captures: int | None = None
        """Of each install; None for its captures_per_event"""
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
        self.captured = _NOTHING
        """How many of them each install made"""
        self.posted = _NOTHING
        """Events that each install sent to our own capture paths, which count as captures of it"""
        self.logs: list[list[Any]] = []
        """[install, level, message, source]"""
        self.log_bytes = 0
        self.calls: list[HostCall] = []
        self.numbers: dict[int, int] = {}
        """Host calls made by each install"""
        self.waiting_bytes = 0
        """Of the arguments of those that have no answer yet"""
        self.unheard: list[list[int]] | None = None
        """[install, number] of the increments whose answers nobody awaited"""

    def capture(self, entry: list[Any], properties: bytes) -> None:
        """Keep a capture (without its length) and its properties, JSON. Raises LimitExceeded."""
        size = len(properties)
        if self.capture_bytes + size > CAPTURE_BYTES:
            raise LimitExceeded(f"posthog.capture: the captures of one event take more than {CAPTURE_BYTES} bytes")
        self.capture_bytes += size
        self.captures.append([*entry, size])
        self.capture_blobs.append(properties)
        self.captured = _one_more(self.captured, entry[0])

    def undo_captures(self, kept: int) -> None:
        """Forget all captures but the first `kept`: the hook that made them has failed."""
        if len(self.captures) == kept:
            return
        del self.captures[kept:], self.capture_blobs[kept:]
        self.captured = _NOTHING
        for entry in self.captures:
            self.captured = _one_more(self.captured, entry[0])

    def post(self, install: int, events: int) -> None:
        """That many events of an install went to our own capture paths."""
        self.posted = {**self.posted, install: self.posted.get(install, 0) + events}

    def notes(self) -> dict[str, Any]:
        """What is to be told of them, as in a RESULTS row."""
        notes: dict[str, Any] = {}
        if self.captures:
            notes["captures"] = self.captures
        if self.logs:
            notes["logs"] = self.logs
        if self.unheard:
            notes["unheard"] = self.unheard
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


def _one_more(counts: Mapping[int, int], install: int) -> dict[int, int]:
    counted = counts if type(counts) is dict else {}
    counted[install] = counted.get(install, 0) + 1
    return counted


class HostCall:
    """Something that the host does for an app. It has started; awaiting it gives its answer or raises its error."""

    __slots__ = (
        "_answer",
        "_effects",
        "_error",
        "_heard",
        "_kind",
        "_members",
        "_read",
        "_size",
        "done",
        "name",
        "place",
        "what",
    )

    def __init__(self, effects: Effects | None = None, name: str = "", place: tuple[int, int] = (0, 0)) -> None:
        self.name = name
        self.what = name
        """As the app calls it"""
        self.place = place
        """Install, and number among its calls"""
        self._heard = False
        self._effects = effects
        """Of the event that made it, and that alone may wait for it: the host counts its time"""
        self.done = False
        self._answer: Any = None
        self._error: str | None = None
        self._kind = ""
        """Of the error, as REPLY gives it"""
        self._read: Callable[[Any], Any] | None = None
        """What makes of the host's answer what the app gets"""
        self._size = 0
        """Bytes of its arguments"""
        self._members: tuple[HostCall, ...] = ()
        """Calls of which any one ends the wait for this one, which is none itself (`any_of`)"""

    def _finish(self, answer: Any) -> None:
        self.done = True
        self._answer = answer if self._read is None else self._read(answer)

    def _fail(self, message: str, kind: str = "error") -> None:
        self.done = True
        self._error = message
        self._kind = kind

    @property
    def unheard(self) -> str | None:
        """The error that nobody waited for."""
        return None if self._heard else self._error

    @property
    def is_delta(self) -> bool:
        """It added to a number, and nobody looked at the sum."""
        return self.name == DELTA and not self._heard and self._error is None

    def _is_over(self) -> bool:
        return self.done or any(member.done for member in self._members)

    def _outcome(self) -> Any:
        """The answer. Raises the error that it ended with."""
        self._heard = True
        if self._error is not None:
            raise _ERRORS.get(self._kind, RuntimeError)(self._error)
        return self._answer

    def __await__(self) -> Generator[HostCall, None, Any]:
        while not self._is_over():
            yield self
        return self._outcome()


def any_of(effects: Effects, calls: list[HostCall]) -> HostCall:
    """What to wait for until one of these calls of this run is done."""
    waiting = HostCall(effects, "gather")
    waiting._members = tuple(leaf for call in calls for leaf in (call._members or (call,)))  # noqa: SLF001
    return waiting


class Context:
    """The invocation whose code runs right now, for the globals that apps call. One a child, set by the worker."""

    __slots__ = ("effects", "page", "send_call")

    def __init__(self, send_call: Callable[[Effects, int, str, Any], HostCall], page: Page) -> None:
        self.effects: Effects | None = None
        self.send_call = send_call
        self.page = page

    def current(self, what: str) -> Effects:
        """The running event's effects. Raises RuntimeError where there is none, as in a module's body."""
        if self.effects is None:
            raise RuntimeError(f"{what} works only while a hook runs: call it inside processEvent or another hook")
        return self.effects

    def start(
        self, install: int, name: str, arguments: list[Any], read: Callable[[Any], Any] | None = None, *, what: str = ""
    ) -> HostCall:
        """Ask the host for something; `read` makes of its answer what the app gets.

        The arguments are encoded at once. Raises RuntimeError outside a hook, codec.NotJson or codec.TooDeep for
        arguments that are no JSON, LimitExceeded for too many calls or too much in them.
        """
        what = what or name
        effects = self.current(what)
        try:
            encoded = codec.dumps(arguments)
        except codec.NotJson as error:
            raise codec.NotJson(f"{what}: {error}") from None
        size = len(encoded)
        if size > CALL_BYTES:
            raise LimitExceeded(f"{what}: more than {CALL_BYTES} bytes")
        if effects.waiting_bytes + size > WAITING_BYTES:
            raise LimitExceeded(
                f"{what}: the calls that are under way have more than {WAITING_BYTES} bytes: await some"
            )
        call = self.send_call(effects, install, name, orjson.Fragment(encoded))
        call._read, call._size = read, size  # noqa: SLF001 - out of reach of apps by its underscore
        call.what = what
        effects.waiting_bytes += size
        return call

"""What a sandbox answered, checked field by field. Nothing that a child says is trusted (docs/security.md, ring 3)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import orjson

from plugin_server.model.errors import ProtocolViolation
from plugin_server.model.project import Install, Limits
from sandbox import codec
from sandbox.wire import APP_HOOKS, HOOKS, JOB_PREFIX, METRIC_KINDS, WIRE_VERSION, EventOutcome

LOG_LEVELS: Final = frozenset({"DEBUG", "LOG", "INFO", "WARN", "ERROR"})
LOG_SOURCES: Final = frozenset({"SYSTEM", "PLUGIN", "CONSOLE"})
FAILURE_KINDS: Final = frozenset({"compile", "app", "retry", "timeout", "memory", "limit", "sandbox", "host"})
_TRACE_CONTAINERS: Final = 1_000_000
"""A client's event of a megabyte may have so many"""
_ENDS: Final = frozenset({EventOutcome.DROP, EventOutcome.INVALID, EventOutcome.WHOLE})
_KNOWN_HOOKS: Final = frozenset(APP_HOOKS)
_HOOKS: Final = 128
_NAME_LENGTH: Final = 200
_MESSAGE_LENGTH: Final = 20_000
_LOG_LINES: Final = 2_000
_CALLS: Final = 2_000
_METRICS: Final = 100
_STAMP_BYTES: Final = 64 * 1024
"""What the host's own additions may add to an event's properties"""
_GROWTH: Final = 4
"""`1E15` becomes 1000000000000000.0: an event may grow although no app changed it"""
_TIMESTAMP: Final = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}", re.ASCII)


class Capture(NamedTuple):
    """A `posthog.capture` as the child reported it. `timestamp` is text as the app gave it, None for now."""

    install_id: int
    number: int
    event: str
    distinct_id: str
    timestamp: str | None
    properties: dict[str, Any]


class LogLine(NamedTuple):
    install_id: int
    level: str
    message: str
    source: str


class HookFailure(NamedTuple):
    install_id: int
    kind: str
    message: str
    line: int | None
    retryable: bool = False
    """The same call may well succeed later"""


class Notes(NamedTuple):
    """What most events do not have."""

    captures: tuple[Capture, ...] = ()
    logs: tuple[LogLine, ...] = ()
    failures: tuple[HookFailure, ...] = ()
    dropped_by: int | None = None
    error: tuple[str, str] | None = None
    trace: tuple[tuple[int, Any], ...] = ()
    """(install id, the event after it); install 0 is the event as it came"""
    unheard: tuple[tuple[int, int], ...] = ()
    """Increments whose answer nobody looked at, by install and number of the call"""


class ChainResult(NamedTuple):
    """What became of one event. `properties` is JSON text, not looked into: it concerns its project alone."""

    outcome: EventOutcome
    event: str
    distinct_id: str
    timestamp: str
    elements_chain: str
    properties: str
    notes: Notes | None


class LoadedInstall(NamedTuple):
    install_id: int
    hooks: frozenset[str]
    error: HookFailure | None
    metrics: Mapping[str, str] = MappingProxyType({})
    """What it counts: sum, max or min by name"""


class Loaded(NamedTuple):
    """How a chain's apps loaded and set up, and what they logged meanwhile."""

    installs: tuple[LoadedInstall, ...]
    logs: tuple[LogLine, ...]


class HostCallRequest(NamedTuple):
    call_id: int
    sequence: int
    install_id: int
    number: int
    name: str
    arguments: list[Any]
    size: int = 0
    """Of its frame, in bytes"""


class InvocationReply(NamedTuple):
    sequence: int
    failure: tuple[str, str, int | None, bool] | None
    """Kind, message, line, and whether another try may help"""
    value: Any
    notes: Notes


class Bounds(NamedTuple):
    """What one chain of apps may answer."""

    installs: frozenset[int]
    property_bytes: int
    captures: int

    @classmethod
    def of(cls, installs: Sequence[Install], limits: Limits, record_bytes: int) -> Bounds:
        """Of these installs of one project, under its limits."""
        return cls(
            frozenset(install.id for install in installs),
            max(limits.event_bytes, _GROWTH * record_bytes) + _STAMP_BYTES,
            limits.captures_per_event * max(1, len(installs)),
        )


BoundsOf = Callable[[int], Bounds]
"""The bounds of the chain that a sequence number was given to. Raises ProtocolViolation for one that nobody was given."""


def read_results(
    head: bytes, blob: bytes, bounds_of: BoundsOf, rows_limit: int
) -> tuple[int, list[tuple[int, ChainResult]]]:
    """Batches ended, and by sequence number the results in a RESULTS frame, of which there are at most `rows_limit`."""
    frame = _json(head)
    if type(frame) is not list or len(frame) != 2 or type(frame[0]) is not int or type(frame[1]) is not list:
        raise ProtocolViolation("RESULTS is not [batches, rows]")
    if len(frame[1]) > rows_limit:
        raise ProtocolViolation("more rows of RESULTS than events that it was given")
    cut = _Cut(blob)
    results: list[tuple[int, ChainResult]] = []
    matches, emit = _TIMESTAMP.fullmatch, EventOutcome.EMIT
    for row in frame[1]:
        try:
            sequence, outcome, event, distinct_id, timestamp, elements_chain, length, notes = row
        except (TypeError, ValueError):
            raise ProtocolViolation("a row of RESULTS does not have its 8 fields") from None
        if type(sequence) is not int or type(length) is not int:
            raise ProtocolViolation("a row of RESULTS has no valid sequence number or length")
        bounds = bounds_of(sequence)
        if length > bounds.property_bytes:
            raise ProtocolViolation("a row of RESULTS is longer than its limits allow")
        if outcome == emit:
            if (
                type(event) is not str
                or len(event) > _NAME_LENGTH
                or type(distinct_id) is not str
                or not distinct_id
                or type(timestamp) is not str
                or not matches(timestamp)
                or type(elements_chain) is not str
                or length < 2
            ):
                raise ProtocolViolation("a row of RESULTS has fields of wrong types")
            properties = cut.text(length)
            checked = None if notes is None else _notes(notes, bounds, cut)
            results.append(
                (sequence, ChainResult(emit, event, distinct_id, timestamp, elements_chain, properties, checked)),
            )
        else:
            results.append((sequence, _ended(outcome, length, notes, bounds, cut)))
    cut.end()
    return frame[0], results


class LoadedFrame(NamedTuple):
    chain: int
    installs: tuple[LoadedInstall, ...]


def read_loaded(head: bytes, bounds_of_chain: Callable[[int], Bounds]) -> LoadedFrame:
    """What a LOADED frame says of each install; `bounds_of_chain` raises for a chain that was not asked for."""
    frame = _json(head)
    try:
        if frame["version"] != WIRE_VERSION:
            raise ProtocolViolation(f"the sandbox speaks version {frame['version']!r} of the protocol")
        chain = frame["chain"]
        if type(chain) is not int:
            raise ProtocolViolation("LOADED has fields of wrong types")
        bounds = bounds_of_chain(chain)
        installs = tuple(_loaded_install(entry, bounds) for entry in frame["installs"])
    except (KeyError, TypeError, ValueError):
        raise ProtocolViolation("LOADED has fields of wrong types") from None
    if len(installs) != len(bounds.installs) or {entry.install_id for entry in installs} != bounds.installs:
        raise ProtocolViolation("LOADED names other installs than it was given")
    return LoadedFrame(chain, installs)


def read_done(head: bytes, blob: bytes, bounds_of: BoundsOf) -> InvocationReply:
    """What a DONE frame says of an invocation."""
    frame = _json(head)
    if type(frame) is not list or len(frame) != 4 or type(frame[0]) is not int or type(frame[2]) is not int:
        raise ProtocolViolation("DONE does not have its 4 fields")
    sequence, raw_failure, length, raw_notes = frame
    bounds = bounds_of(sequence)
    failure = None
    if raw_failure is not None:
        try:
            kind, message, line, retryable = raw_failure
        except (TypeError, ValueError):
            raise ProtocolViolation("a failure has fields of wrong types") from None
        failure = _checked_failure(kind, message, line, retryable)
    cut = _Cut(blob)
    value = cut.json(length, bounds.property_bytes)
    notes = Notes() if raw_notes is None else _notes(raw_notes, bounds, cut)
    cut.end()
    if notes.failures or notes.dropped_by is not None or notes.error is not None or notes.trace:
        raise ProtocolViolation("an invocation has notes that only events have")
    return InvocationReply(sequence, failure, value, notes)


def read_call(head: bytes, bounds_of: BoundsOf) -> HostCallRequest:
    """A request to the host."""
    frame = _json(head)
    if type(frame) is not list or len(frame) != 6:
        raise ProtocolViolation("CALL does not have its 6 fields")
    call_id, sequence, install, number, name, arguments = frame
    if any(type(value) is not int for value in (call_id, sequence, install, number)):
        raise ProtocolViolation("CALL has fields of wrong types")
    if install not in bounds_of(sequence).installs or type(name) is not str or type(arguments) is not list:
        raise ProtocolViolation("CALL has fields of wrong types")
    return HostCallRequest(call_id, sequence, install, number, name, arguments, len(head))


def _loaded_install(entry: dict[str, Any], bounds: Bounds) -> LoadedInstall:
    hooks, error = entry["hooks"], entry["error"]
    if type(hooks) is not list or len(hooks) > _HOOKS or any(type(hook) is not str for hook in hooks):
        raise ProtocolViolation("LOADED has fields of wrong types")
    for hook in hooks:
        if hook not in _KNOWN_HOOKS and not (hook.startswith(JOB_PREFIX) and len(hook) <= _NAME_LENGTH):
            raise ProtocolViolation("LOADED names a hook that there is not")
    failure = None if error is None else _failure([entry["id"], *error], bounds)
    return LoadedInstall(_install(entry["id"], bounds), frozenset(hooks), failure, _metrics(entry["metrics"]))


def _metrics(raw: Any) -> dict[str, str]:
    if type(raw) is not dict or len(raw) > _METRICS:
        raise ProtocolViolation("LOADED has fields of wrong types")
    for name, kind in raw.items():
        if len(name) > _NAME_LENGTH or type(kind) is not str or kind not in METRIC_KINDS:
            raise ProtocolViolation("LOADED names a metric that there is not")
    return raw


def _ended(outcome: Any, length: int, notes: Any, bounds: Bounds, cut: _Cut) -> ChainResult:
    if type(outcome) is not int or outcome not in _ENDS:
        raise ProtocolViolation("a row of RESULTS has no valid outcome")
    if outcome == EventOutcome.WHOLE:
        event = cut.text(length)
        return ChainResult(
            EventOutcome.WHOLE, "", "", "", "", event, None if notes is None else _notes(notes, bounds, cut)
        )
    if length:
        raise ProtocolViolation("a row of RESULTS has no valid outcome")
    checked = _notes(notes, bounds, cut)
    wanted = checked.dropped_by if outcome == EventOutcome.DROP else checked.error
    if wanted is None:
        raise ProtocolViolation("a row of RESULTS ends an event without saying why")
    return ChainResult(EventOutcome(outcome), "", "", "", "", "", checked)


def _notes(notes: Any, bounds: Bounds, cut: _Cut) -> Notes:
    try:
        captures, trace = notes.get("captures", ()), notes.get("trace", ())
        if len(captures) > bounds.captures:
            raise ProtocolViolation("more captures than the limits allow")
        if len(trace) > len(bounds.installs) + 1:
            raise ProtocolViolation("a trace of more apps than there are")
        dropped_by, error = notes.get("dropped_by"), notes.get("error")
        return Notes(
            tuple(_capture(capture, bounds, cut) for capture in captures),
            _logs(notes.get("logs", ()), bounds),
            tuple(_failure(failure, bounds) for failure in notes.get("failed", ())),
            None if dropped_by is None else _install(dropped_by, bounds),
            None if error is None else (_text(error[0], 40), _text(error[1], 400)),
            tuple(_step(step, bounds, cut) for step in trace),
            _unheard(notes.get("unheard", ()), bounds),
        )
    except (AttributeError, KeyError, IndexError, TypeError, ValueError):
        raise ProtocolViolation("notes of RESULTS have fields of wrong types") from None


def _unheard(raw: Any, bounds: Bounds) -> tuple[tuple[int, int], ...]:
    if len(raw) > _CALLS:
        raise ProtocolViolation("more host calls than the limits allow")
    calls = []
    for install, number in raw:
        if type(number) is not int:
            raise ProtocolViolation("a host call without a number")
        calls.append((_install(install, bounds), number))
    return tuple(calls)


def _capture(raw: Any, bounds: Bounds, cut: _Cut) -> Capture:
    install, number, event, distinct_id, timestamp, length = raw
    properties = cut.json(length, bounds.property_bytes)
    if type(number) is not int or type(properties) is not dict or not event or not distinct_id:
        raise ProtocolViolation("a capture has fields of wrong types")
    return Capture(
        _install(install, bounds),
        number,
        _text(event, _NAME_LENGTH),
        _text(distinct_id, bounds.property_bytes),
        None if timestamp is None else _text(timestamp, 64),
        properties,
    )


def _step(raw: Any, bounds: Bounds, cut: _Cut) -> tuple[int, Any]:
    install, length = raw
    event = cut.json(length, 2 * bounds.property_bytes, _TRACE_CONTAINERS)
    if install != 0:
        _install(install, bounds)
    if type(install) is not int or type(event) is not dict or type(event.get("properties")) is not dict:
        raise ProtocolViolation("a step of the trace has fields of wrong types")
    return install, event


def _logs(raw: Any, bounds: Bounds) -> tuple[LogLine, ...]:
    if len(raw) > _LOG_LINES:
        raise ProtocolViolation("more log lines than the limits allow")
    lines = []
    for install, level, message, source in raw:
        if level not in LOG_LEVELS or source not in LOG_SOURCES:
            raise ProtocolViolation("a log line has no valid level or source")
        lines.append(LogLine(_install(install, bounds), level, _text(message, _MESSAGE_LENGTH), source))
    return tuple(lines)


def _failure(raw: Any, bounds: Bounds) -> HookFailure:
    install, kind, message, line, retryable = raw
    return HookFailure(_install(install, bounds), *_checked_failure(kind, message, line, retryable))


def _checked_failure(kind: Any, message: Any, line: Any, retryable: Any) -> tuple[str, str, int | None, bool]:
    if type(kind) is not str or kind not in FAILURE_KINDS or (line is not None and type(line) is not int):
        raise ProtocolViolation("a failure has fields of wrong types")
    if type(retryable) is not bool:
        raise ProtocolViolation("a failure has fields of wrong types")
    return kind, _text(message, _MESSAGE_LENGTH), line, retryable


def _install(install: Any, bounds: Bounds) -> int:
    if type(install) is not int or install not in bounds.installs:
        raise ProtocolViolation("an install that was not given")
    return install


class _Cut:
    """Takes a frame's blob apart, front to back."""

    __slots__ = ("_blob", "_start")

    def __init__(self, blob: bytes) -> None:
        self._blob = memoryview(blob)
        self._start = 0

    def text(self, length: int) -> str:
        """The next `length` bytes. Raises ProtocolViolation if there are fewer, or they are not UTF-8."""
        start, stop = self._start, self._start + length
        if length < 0 or stop > len(self._blob):
            raise ProtocolViolation("the blob is not the sum of its lengths")
        self._start = stop
        try:
            return str(self._blob[start:stop], "utf-8")
        except UnicodeDecodeError:
            raise ProtocolViolation("a part of the blob is not UTF-8") from None

    def json(self, length: Any, limit: int, containers: int = codec.MAX_CONTAINERS) -> Any:
        """The next `length` bytes, decoded, not too deep."""
        if type(length) is not int or not 0 <= length <= limit:
            raise ProtocolViolation("a part of the blob has no valid length")
        raw = self.text(length).encode()
        opened = codec.brackets(raw)
        if opened > containers:
            raise ProtocolViolation("a part of the blob with more lists and objects than an honest child sends")
        value = _json(raw)
        if opened > codec.MAX_DEPTH:
            try:
                codec.check_depth(value)
            except codec.TooDeep as error:
                raise ProtocolViolation(str(error)) from None
        return value

    def end(self) -> None:
        if self._start != len(self._blob):
            raise ProtocolViolation("the blob is not the sum of its lengths")


def hook_name(index: int) -> str:
    """The hook that the page names."""
    return HOOKS[index] if index < len(HOOKS) else "an unknown hook"


def _text(value: Any, limit: int) -> str:
    if type(value) is not str or len(value) > limit:
        raise ProtocolViolation("text that is too long or no text")
    return value


def _json(raw: bytes) -> Any:
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise ProtocolViolation(f"a head that is not JSON: {error}") from None

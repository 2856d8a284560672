"""What a sandbox answered, checked field by field. Nothing that a child says is trusted (DESIGN 5, ring 3)."""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple

import orjson

from plugin_server.model.errors import ProtocolViolation
from plugin_server.model.project import Project
from sandbox import codec
from sandbox.wire import HOOKS, WIRE_VERSION, EventOutcome

LOG_LEVELS: Final = frozenset({"DEBUG", "LOG", "INFO", "WARN", "ERROR"})
LOG_SOURCES: Final = frozenset({"SYSTEM", "PLUGIN", "CONSOLE"})
FAILURE_KINDS: Final = frozenset({"compile", "app", "timeout", "memory", "limit", "sandbox"})
_NAME_LENGTH: Final = 200
_MESSAGE_LENGTH: Final = 20_000
_LOG_LINES: Final = 2_000
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


class Notes(NamedTuple):
    """What most events do not have."""

    captures: tuple[Capture, ...] = ()
    logs: tuple[LogLine, ...] = ()
    failures: tuple[HookFailure, ...] = ()
    dropped_by: int | None = None
    error: tuple[str, str] | None = None
    trace: tuple[tuple[int, Any], ...] = ()
    """(install id, the event after it); install 0 is the event as it came"""


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


class Loaded(NamedTuple):
    installs: tuple[LoadedInstall, ...]
    logs: tuple[LogLine, ...]


class HostCallRequest(NamedTuple):
    call_id: int
    sequence: int
    install_id: int
    number: int
    name: str
    arguments: list[Any]


class ReplyReader:
    """Reads the frames of one project's sandboxes. Every method raises ProtocolViolation for what it must not be."""

    def __init__(self, project: Project, record_bytes: int) -> None:
        self._installs = frozenset(install.id for install in project.installs)
        self._property_bytes = max(project.limits.event_bytes, _GROWTH * record_bytes) + _STAMP_BYTES
        self._captures = project.limits.captures_per_event * max(1, len(project.installs))

    def results(self, head: bytes, blob: bytes) -> tuple[int, list[tuple[int, ChainResult]]]:
        """Batches ended, and by sequence number the results in the frame."""
        frame = _json(head)
        if type(frame) is not list or len(frame) != 2 or type(frame[0]) is not int or type(frame[1]) is not list:
            raise ProtocolViolation("RESULTS is not [batches, rows]")
        view, start, limit = memoryview(blob), 0, self._property_bytes
        results: list[tuple[int, ChainResult]] = []
        matches, emit = _TIMESTAMP.fullmatch, EventOutcome.EMIT
        for row in frame[1]:
            try:
                sequence, outcome, event, distinct_id, timestamp, elements_chain, length, notes = row
            except (TypeError, ValueError):
                raise ProtocolViolation("a row of RESULTS does not have its 8 fields") from None
            if type(sequence) is not int or type(length) is not int or not 0 <= length <= limit:
                raise ProtocolViolation("a row of RESULTS has no valid sequence number or length")
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
                stop = start + length
                try:
                    properties = str(view[start:stop], "utf-8")
                except UnicodeDecodeError:
                    raise ProtocolViolation("properties are not UTF-8") from None
                start = stop
                checked = None if notes is None else self._notes(notes)
                results.append(
                    (sequence, ChainResult(emit, event, distinct_id, timestamp, elements_chain, properties, checked)),
                )
            else:
                results.append((sequence, self._ended(outcome, length, notes)))
        if start != len(blob):
            raise ProtocolViolation("the blob of RESULTS is not the sum of its lengths")
        return frame[0], results

    def loaded(self, head: bytes) -> Loaded:
        """What LOADED says of each install."""
        frame = _json(head)
        try:
            if frame["version"] != WIRE_VERSION:
                raise ProtocolViolation(f"the sandbox speaks version {frame['version']!r} of the protocol")
            installs = tuple(self._loaded_install(entry) for entry in frame["installs"])
            if {entry.install_id for entry in installs} != self._installs:
                raise ProtocolViolation("LOADED names other installs than it was given")
            return Loaded(installs, self._logs(frame["logs"]))
        except (KeyError, TypeError, ValueError):
            raise ProtocolViolation("LOADED has fields of wrong types") from None

    def call(self, head: bytes) -> HostCallRequest:
        """A request to the host."""
        frame = _json(head)
        if type(frame) is not list or len(frame) != 6:
            raise ProtocolViolation("CALL does not have its 6 fields")
        call_id, sequence, install, number, name, arguments = frame
        if any(type(value) is not int for value in (call_id, sequence, install, number)):
            raise ProtocolViolation("CALL has fields of wrong types")
        if install not in self._installs or type(name) is not str or type(arguments) is not list:
            raise ProtocolViolation("CALL has fields of wrong types")
        return HostCallRequest(*frame)

    def _loaded_install(self, entry: dict[str, Any]) -> LoadedInstall:
        hooks, error = entry["hooks"], entry["error"]
        if type(hooks) is not list or len(hooks) > 32 or any(type(hook) is not str for hook in hooks):
            raise ProtocolViolation("LOADED has fields of wrong types")
        failure = None if error is None else self._failure([entry["id"], *error])
        return LoadedInstall(self._install(entry["id"]), frozenset(hooks), failure)

    def _ended(self, outcome: Any, length: int, notes: Any) -> ChainResult:
        if outcome not in (EventOutcome.DROP, EventOutcome.INVALID) or type(outcome) is not int or length:
            raise ProtocolViolation("a row of RESULTS has no valid outcome")
        checked = self._notes(notes)
        wanted = checked.dropped_by if outcome == EventOutcome.DROP else checked.error
        if wanted is None:
            raise ProtocolViolation("a row of RESULTS ends an event without saying why")
        return ChainResult(EventOutcome(outcome), "", "", "", "", "", checked)

    def _notes(self, notes: Any) -> Notes:
        try:
            captures, logs = notes.get("captures", ()), notes.get("logs", ())
            if len(captures) > self._captures:
                raise ProtocolViolation("more captures than the limits allow")
            dropped_by, error = notes.get("dropped_by"), notes.get("error")
            return Notes(
                tuple(map(self._capture, captures)),
                self._logs(logs),
                tuple(map(self._failure, notes.get("failed", ()))),
                None if dropped_by is None else self._install(dropped_by),
                None if error is None else (_text(error[0], 40), _text(error[1], 400)),
                tuple(map(_step, notes.get("trace", ()))),
            )
        except (AttributeError, KeyError, IndexError, TypeError, ValueError):
            raise ProtocolViolation("notes of RESULTS have fields of wrong types") from None

    def _capture(self, raw: Any) -> Capture:
        install, number, event, distinct_id, timestamp, properties = raw
        if type(number) is not int or type(properties) is not dict or not event or not distinct_id:
            raise ProtocolViolation("a capture has fields of wrong types")
        codec.check_depth(properties)
        return Capture(
            self._install(install),
            number,
            _text(event, _NAME_LENGTH),
            _text(distinct_id, self._property_bytes),
            None if timestamp is None else _text(timestamp, 64),
            properties,
        )

    def _logs(self, raw: Any) -> tuple[LogLine, ...]:
        if len(raw) > _LOG_LINES:
            raise ProtocolViolation("more log lines than the limits allow")
        lines = []
        for install, level, message, source in raw:
            if level not in LOG_LEVELS or source not in LOG_SOURCES:
                raise ProtocolViolation("a log line has no valid level or source")
            lines.append(LogLine(self._install(install), level, _text(message, _MESSAGE_LENGTH), source))
        return tuple(lines)

    def _failure(self, raw: Any) -> HookFailure:
        install, kind, message, line = raw
        if kind not in FAILURE_KINDS or (line is not None and type(line) is not int):
            raise ProtocolViolation("a failure has fields of wrong types")
        return HookFailure(self._install(install), kind, _text(message, _MESSAGE_LENGTH), line)

    def _install(self, install: Any) -> int:
        if type(install) is not int or install not in self._installs:
            raise ProtocolViolation("an install that was not given")
        return install


def hook_name(index: int) -> str:
    """The hook that the page names."""
    return HOOKS[index] if index < len(HOOKS) else "an unknown hook"


def _step(raw: Any) -> tuple[int, Any]:
    install, event = raw
    if type(install) is not int or type(event) is not dict or type(event.get("properties")) is not dict:
        raise ProtocolViolation("a step of the trace has fields of wrong types")
    codec.check_depth(event)
    return install, event


def _text(value: Any, limit: int) -> str:
    if type(value) is not str or len(value) > limit:
        raise ProtocolViolation("text that is too long or no text")
    return value


def _json(raw: bytes) -> Any:
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise ProtocolViolation(f"a head that is not JSON: {error}") from None

"""A project's processEvent chain over one event.

Each app gets what the previous one returned. After each app the event is encoded, which proves that it is JSON and is
what a failing later app is undone from; the last encoding is the output.

Rejected: a deep copy before each app (16 µs an event; two encodings cost about 1.5), and running the chain again
without the app that failed (what it logged, and what it read of the clock, would differ).
"""

from __future__ import annotations

import types
from collections.abc import Callable, Generator, Sequence
from typing import Any, Final, NamedTuple

import orjson

from sandbox import codec
from sandbox.app import App, Failure
from sandbox.event import SNAPSHOT, STAMPS, InvalidEvent, finish, open_envelope, open_event, stamps
from sandbox.hook import RefusedReturn, call_directly, describe_under_watch, drive, outstanding, own_context
from sandbox.invocation import Effects, HostCall
from sandbox.memory import end_if_used_up
from sandbox.page import HookTimeout, Page
from sandbox.wire import HOOKS, EventOutcome

_RECORD_OVERHEAD_BYTES: Final = 16 * 1024
"""What the output message adds to an event: its other fields, key and headers, and the stamps of the apps, as a bound"""
PROCESS_EVENT: Final = HOOKS.index("processEvent")
PROCESS_BATCH: Final = HOOKS.index("processEventBatch")

Row = list[Any]
"""One entry of a RESULTS frame"""
Blobs = list[bytes]
"""What belongs to a row in the frame's blob, in order"""
Result = tuple[Row, Blobs]


class Mode(NamedTuple):
    """How the events of one RUN frame are to be run."""

    trace: bool = False
    """Report the event after each app."""
    whole: bool = False
    """Answer with the event itself; what becomes of its fields is decided elsewhere."""
    opened: bool = False
    """They are events already, not envelopes."""


class ChainLimits(NamedTuple):
    """What one project's apps may use; named as in its settings."""

    cpu_seconds: float
    memory_bytes: int
    event_bytes: int
    record_bytes: int


_Step = tuple[App, Callable[..., Any], object, int]
"""An app of a chain, the hook of it that is called, its meta, and the hook's number for the page"""


class Chain:
    """The apps of one project that have a processEvent, in their order.

    One that has only processEventBatch is given each event in a list of its own.
    """

    def __init__(self, project_id: int, apps: Sequence[App], limits: ChainLimits, page: Page) -> None:
        self._project_id = project_id
        self._steps = [step for app in apps if (step := _step_of(app)) is not None]
        self._event_bytes = limits.event_bytes
        self._memory_bytes = limits.memory_bytes
        self._record_bytes = limits.record_bytes - _RECORD_OVERHEAD_BYTES
        self._page = page
        self._all_succeeded = stamps([app.label for app, *_ in self._steps], [])

    def run(
        self,
        event: dict[str, Any],
        raw: bytes,
        effects: Effects,
        failed_before: dict[int, Failure],
        mode: Mode,
        *,
        is_snapshot: bool | None = None,
    ) -> Generator[HostCall, None, Result]:
        """Run the chain; yields the host calls that a hook waits for, and returns the event's row and blobs.

        `event` is `raw` opened; a snapshot is run through no app, and is not stamped (`is_snapshot` None: as its name
        says). Installs in `failed_before` are not called: they failed this event in a sandbox that had to be killed. From
        the first app on, the page names the app that ran last until the caller calls `page.leave()`: encoding an app's
        values and freeing them can kill the process as well as its code can.
        """
        page, sequence = self._page, effects.sequence
        uuid, team_id, now = event["uuid"], event["team_id"], event.get("now", "")
        encoded: bytes | None = None
        failures: list[tuple[App, Failure]] = []
        steps: list[tuple[int, bytes]] = [(0, orjson.dumps(event))] if mode.trace else []
        if is_snapshot is None:
            is_snapshot = event["event"] == SNAPSHOT
        for app, hook, meta, number in () if is_snapshot else self._steps:
            if failed_before and app.id in failed_before:
                self._fail(app, number, failed_before[app.id], failures, effects)
                if mode.trace:
                    steps.append((app.id, orjson.dumps(event)))
                continue
            captured = len(effects.captures)
            if app.waits and encoded is not None:
                event = orjson.loads(
                    encoded
                )  # an earlier app may have kept the other one, and run while this one waits
            call = own_context(app) if app.shares_state else call_directly
            try:
                effects.running = app.id
                page.enter(sequence, app.id, number)
                value = hook(event, meta) if not app.shares_state else call(hook, event, meta)
                if type(value) is types.CoroutineType:
                    value = yield from drive(value, call, page, sequence, app.id, number)
                if page.overran:
                    raise HookTimeout(page.overran)
                result = None if value is None else self._encode(value, uuid, team_id)
                if effects.calls:
                    value = None if result is None else orjson.loads(result)
                    page.leave()
                    yield from outstanding(effects)
                    page.enter(sequence, app.id, number)
                if result is None:
                    return self._dropped(sequence, app, effects, failures, steps)
                encoded, event = result, value
            except (Exception, HookTimeout) as error:  # noqa: BLE001 - an app's failure is a result
                failure = describe_under_watch(error, app, page, effects, number)
                effects.undo_captures(captured)
                effects.calls.clear()
                self._fail(app, number, failure, failures, effects)
                value = None
                event = orjson.loads(encoded) if encoded is not None else self.open(raw, mode)
            if effects.ran_out:
                end_if_used_up(self._memory_bytes)
            if mode.trace:
                steps.append((app.id, orjson.dumps(event)))
        if mode.whole:
            whole = encoded if encoded is not None else codec.dumps(event)
            row: Row = [sequence, EventOutcome.WHOLE, "", "", "", "", len(whole), _notes(effects, failures, steps)]
            return row, _blobs(whole, effects, steps)
        # As it came, the event is bounded by the record that brought it, whatever an app may return.
        properties = orjson.dumps(event["properties"]) if encoded is not None else codec.dumps(event["properties"])
        if is_snapshot:
            stamped = b""
        else:
            stamped = self._all_succeeded if not failures else self._stamps_without({app.id for app, _ in failures})
        finished = finish(event, properties, now, stamped)
        notes = _notes(effects, failures, steps)
        row = [
            sequence,
            EventOutcome.EMIT,
            finished.event,
            finished.distinct_id,
            finished.timestamp,
            finished.elements_chain,
            len(finished.properties),
            notes,
        ]
        return row, [finished.properties] if notes is None else _blobs(finished.properties, effects, steps)

    def open(self, raw: bytes, mode: Mode) -> dict[str, Any]:
        """An event as it came. Raises as `event.open_envelope`."""
        return open_event(raw) if mode.opened else open_envelope(raw, self._project_id)

    def _encode(self, event: Any, uuid: str, project_id: int) -> bytes:
        """Check what a hook returned, and encode it. Raises RefusedReturn or codec.NotJson."""
        if type(event) is not dict:
            raise RefusedReturn(f"processEvent returned {type(event).__name__}: return the event, or None to drop it")
        # Encoded before it is looked into: then all keys are exactly text, and no `__eq__` of the app's runs in here.
        encoded = codec.dumps(event)
        complete = "team_id" in event and "uuid" in event
        team, event_uuid = event.setdefault("team_id", project_id), event.setdefault("uuid", uuid)
        if type(team) is not int or team != project_id:
            raise RefusedReturn("processEvent tried to change event.team_id, which it cannot")
        if type(event_uuid) is not str or event_uuid != uuid:
            raise RefusedReturn("processEvent tried to change event.uuid, which it cannot")
        properties = event.get("properties")
        if type(properties) is not dict:
            raise RefusedReturn("processEvent returned an event whose properties are not a dict")
        distinct_id, name = event.get("distinct_id"), event.get("event")
        if type(distinct_id) is not str or not distinct_id:
            raise RefusedReturn("processEvent returned an event whose distinct_id is not a non-empty string")
        if name is None or name == "":
            raise RefusedReturn("processEvent returned an event without a name (event)")
        for stamp in STAMPS:
            if stamp in properties:
                del properties[stamp]  # only this server sets them
                complete = False
        if not complete:
            encoded = codec.dumps(event)
        size = len(encoded)
        if size > self._event_bytes:
            raise RefusedReturn(f"processEvent returned an event of more than {self._event_bytes} bytes (event_bytes)")
        if 2 * size > self._record_bytes and _quoted_length(encoded) > self._record_bytes:
            raise RefusedReturn("processEvent returned an event too large for the event log (RECORD_BYTES)")
        return encoded

    def _fail(
        self, app: App, hook: int, failure: Failure, failures: list[tuple[App, Failure]], effects: Effects
    ) -> None:
        failures.append((app, failure))
        effects.log(app.id, "ERROR", f"{HOOKS[hook]} failed: {failure.located()}", "PLUGIN")

    def _dropped(
        self,
        sequence: int,
        app: App,
        effects: Effects,
        failures: list[tuple[App, Failure]],
        steps: list[tuple[int, bytes]],
    ) -> Result:
        notes = _notes(effects, failures, steps) or {}
        notes["dropped_by"] = app.id
        return [sequence, EventOutcome.DROP, "", "", "", "", 0, notes], _blobs(b"", effects, steps)

    def _stamps_without(self, failed: set[int]) -> bytes:
        return stamps(
            [app.label for app, *_ in self._steps if app.id not in failed],
            [app.label for app, *_ in self._steps if app.id in failed],
        )


def _step_of(app: App) -> _Step | None:
    hooks = app.hooks
    if "processEvent" in hooks:
        return app, hooks["processEvent"], app.meta, PROCESS_EVENT
    if "processEventBatch" in hooks:
        return app, _one_by_one(hooks["processEventBatch"]), app.meta, PROCESS_BATCH
    return None


def _one_by_one(hook: Callable[..., Any]) -> Callable[..., Any]:
    """A processEventBatch as a processEvent: the first of the events that it returns, None if there is none."""

    async def awaited(answer: types.CoroutineType[Any, Any, Any]) -> Any:
        return _first(await answer)

    def process(event: dict[str, Any], meta: object) -> Any:
        answer = hook([event], meta)
        return awaited(answer) if type(answer) is types.CoroutineType else _first(answer)

    return process


def _first(events: Any) -> Any:
    if events is None:
        return None
    if (type(events) is not list and type(events) is not tuple) or (events and type(events[0]) is not dict):
        raise RefusedReturn("processEventBatch must return a list of events, or None to drop them")
    return events[0] if events else None


def invalid_row(sequence: int, error: InvalidEvent | codec.InvalidJson | codec.TooDeep) -> Row:
    """The row of an event that could not be opened."""
    notes = {"error": [type(error).__name__, str(error)[:300]]}
    return [sequence, EventOutcome.INVALID, "", "", "", "", 0, notes]


def _notes(
    effects: Effects, failures: list[tuple[App, Failure]], steps: list[tuple[int, bytes]]
) -> dict[str, Any] | None:
    if not (effects.captures or effects.logs or failures or steps or effects.unheard):
        return None
    notes = effects.notes()
    if failures:
        notes["failed"] = [[app.id, *failure.as_list()] for app, failure in failures]
    if steps:
        notes["trace"] = [[install, len(event)] for install, event in steps]
    return notes


def _blobs(first: bytes, effects: Effects, steps: list[tuple[int, bytes]]) -> Blobs:
    return [first, *effects.capture_blobs, *(event for _, event in steps)]


def _quoted_length(raw: bytes) -> int:
    """The length of JSON text once it is a string inside other JSON."""
    return len(raw) + raw.count(b'"') + raw.count(b"\\")

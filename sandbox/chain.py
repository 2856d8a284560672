"""A project's processEvent chain over one event (DESIGN 5, Chain semantics).

Each app gets what the previous one returned. After each app the event is encoded, which proves that it is JSON and is
what a failing later app is undone from; the last encoding is the output.

Rejected: a deep copy before each app (16 µs an event; two encodings cost about 1.5), and running the chain again
without the app that failed (what it logged, and what it read of the clock, would differ).
"""

from __future__ import annotations

import types
from collections.abc import Generator, Sequence
from typing import Any, Final

import orjson

from sandbox import codec
from sandbox.app import App, Failure, describe_failure
from sandbox.environment import reset_shared_state
from sandbox.event import STAMPS, FinishedEvent, InvalidEvent, finish, open_envelope
from sandbox.invocation import Effects, HostCall, fragment
from sandbox.page import HookTimeout, Page
from sandbox.wire import HOOKS, EventOutcome

_RECORD_OVERHEAD_BYTES: Final = 16 * 1024
"""What the output message adds to an event: its other fields, key and headers, and the stamps of the apps, as a bound"""
PROCESS_EVENT: Final = HOOKS.index("processEvent")

Row = list[Any]
"""One entry of a RESULTS frame."""


class RefusedReturn(Exception):
    """What a hook returned cannot be an event; the message says why."""


class Chain:
    """The apps of one project that have a processEvent, in their order."""

    def __init__(self, project_id: int, apps: Sequence[App], event_bytes: int, record_bytes: int, page: Page) -> None:
        self._project_id = project_id
        self._steps = [(app, app.hooks["processEvent"], app.meta) for app in apps if "processEvent" in app.hooks]
        self._event_bytes = event_bytes
        self._record_bytes = record_bytes - _RECORD_OVERHEAD_BYTES
        self._page = page
        self._shares_state = any(app.shares_state for app in apps)
        self._all_succeeded = _stamps([app.label for app, _, _ in self._steps], [])

    def run(
        self,
        event: dict[str, Any],
        raw: bytes,
        effects: Effects,
        failed_before: dict[int, Failure],
        *,
        trace: bool,
    ) -> Generator[HostCall, None, tuple[Row, bytes]]:
        """Run the chain; yields the host calls that a hook waits for, and returns the event's row and properties.

        `event` is `raw` opened. Installs in `failed_before` are not called: they failed this event in a sandbox that
        had to be killed.
        """
        project_id, page, sequence = self._project_id, self._page, effects.sequence
        uuid, now = event["uuid"], event["now"]
        encoded: bytes | None = None
        failures: list[tuple[App, Failure]] = []
        steps: list[Any] = [[0, _whole(event)]] if trace else []
        for app, hook, meta in self._steps:
            if failed_before and app.id in failed_before:
                failure = failed_before[app.id]
                failures.append((app, failure))
                effects.log(app.id, "ERROR", f"processEvent failed: {failure.message}{_at(failure.line)}", "PLUGIN")
                if trace:
                    steps.append([app.id, _whole(event)])
                continue
            captured = len(effects.captures)
            if self._shares_state:
                reset_shared_state()
            try:
                effects.running = app.id
                page.enter(sequence, app.id, PROCESS_EVENT)
                value = hook(event, meta)
                if type(value) is types.CoroutineType:
                    value = yield from _drive(value, page, sequence, app.id)
                page.leave()
                if effects.calls:
                    yield from _outstanding(effects)
                if value is None:
                    return self._dropped(sequence, app, effects, failures, steps), b""
                encoded = self._encode(value, uuid, project_id)
                event = value
            except (Exception, HookTimeout) as error:  # noqa: BLE001 - an app's failure is a result
                failure = self._failure(sequence, error, app)
                failures.append((app, failure))
                del effects.captures[captured:]
                effects.calls.clear()
                effects.log(app.id, "ERROR", f"processEvent failed: {failure.message}{_at(failure.line)}", "PLUGIN")
                event = orjson.loads(encoded) if encoded is not None else open_envelope(raw, project_id)
            if trace:
                steps.append([app.id, _whole(event)])
        # As it came, the event is bounded by the record that brought it, whatever an app may return.
        properties = orjson.dumps(event["properties"]) if encoded is not None else codec.dumps(event["properties"])
        stamps = self._all_succeeded if not failures else self._stamps_without({app.id for app, _ in failures})
        return _emitted(sequence, finish(event, properties, now, stamps), effects, failures, steps)

    def _encode(self, event: Any, uuid: str, project_id: int) -> bytes:
        """Check what a hook returned, and encode it. Raises RefusedReturn or codec.NotJson."""
        if type(event) is not dict:
            raise RefusedReturn(f"processEvent returned {type(event).__name__}: return the event, or None to drop it")
        team_id, event_uuid = event.setdefault("team_id", project_id), event.setdefault("uuid", uuid)
        if type(team_id) is not int or team_id != project_id:
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
        encoded = codec.dumps(event)
        size = len(encoded)
        if size > self._event_bytes:
            raise RefusedReturn(f"processEvent returned an event of more than {self._event_bytes} bytes (event_bytes)")
        if 2 * size > self._record_bytes and _quoted_length(encoded) > self._record_bytes:
            raise RefusedReturn("processEvent returned an event too large for the event log (RECORD_BYTES)")
        return encoded

    def _failure(self, sequence: int, error: BaseException, app: App) -> Failure:
        """Describe what went wrong. The app's own code may run for it (an exception's __str__), so the page names the app."""
        self._page.leave()
        if isinstance(error, RefusedReturn | codec.NotJson | codec.TooDeep):
            return Failure("app", str(error))
        try:
            self._page.enter(sequence, app.id, PROCESS_EVENT)
            return describe_failure(error, app.file_name)
        except HookTimeout as timeout:
            return Failure("timeout", str(timeout))
        finally:
            self._page.leave()

    def _dropped(
        self, sequence: int, app: App, effects: Effects, failures: list[tuple[App, Failure]], steps: list[Any]
    ) -> Row:
        notes = _notes(effects, failures, steps) or {}
        notes["dropped_by"] = app.id
        return [sequence, EventOutcome.DROP, "", "", "", "", 0, notes]

    def _stamps_without(self, failed: set[int]) -> bytes:
        return _stamps(
            [app.label for app, _, _ in self._steps if app.id not in failed],
            [app.label for app, _, _ in self._steps if app.id in failed],
        )


def _drive(
    coroutine: types.CoroutineType[Any, Any, Any], page: Page, sequence: int, install: int
) -> Generator[HostCall, None, Any]:
    """As `yield from`, but the page says whose code runs whenever it goes on: its limits hold after an await too."""
    error: BaseException | None = None
    while True:
        try:
            waited = coroutine.send(None) if error is None else coroutine.throw(error)
        except StopIteration as stop:
            return stop.value
        try:
            error = yield waited
        except GeneratorExit:
            _close(coroutine, page, sequence, install)
            raise
        except (Exception, HookTimeout) as thrown:  # noqa: BLE001 - for the hook to see
            error = thrown
        page.enter(sequence, install, PROCESS_EVENT)


def _close(coroutine: types.CoroutineType[Any, Any, Any], page: Page, sequence: int, install: int) -> None:
    """End a hook that is given up. What it does about that no longer counts."""
    page.enter(sequence, install, PROCESS_EVENT)
    try:
        coroutine.close()
    except (Exception, HookTimeout):  # noqa: BLE001, S110 - it has failed already
        pass
    finally:
        page.leave()


def _outstanding(effects: Effects) -> Generator[HostCall, None, None]:
    """A hook is finished when its host calls are, awaited or not."""
    for call in effects.calls:
        if not call.done:
            yield call
    effects.calls.clear()


def _emitted(
    sequence: int,
    finished: FinishedEvent,
    effects: Effects,
    failures: list[tuple[App, Failure]],
    steps: list[Any],
) -> tuple[Row, bytes]:
    row: Row = [
        sequence,
        EventOutcome.EMIT,
        finished.event,
        finished.distinct_id,
        finished.timestamp,
        finished.elements_chain,
        len(finished.properties),
        _notes(effects, failures, steps),
    ]
    return row, finished.properties


def invalid_row(sequence: int, error: InvalidEvent | codec.InvalidJson | codec.TooDeep) -> Row:
    """The row of an event that could not be opened."""
    notes = {"error": [type(error).__name__, str(error)[:300]]}
    return [sequence, EventOutcome.INVALID, "", "", "", "", 0, notes]


def _notes(effects: Effects, failures: list[tuple[App, Failure]], steps: list[Any]) -> dict[str, Any] | None:
    if not (effects.captures or effects.logs or failures or steps):
        return None
    notes: dict[str, Any] = {}
    if effects.captures:
        notes["captures"] = effects.captures
    if effects.logs:
        notes["logs"] = effects.logs
    if failures:
        notes["failed"] = [[app.id, *failure.as_list()] for app, failure in failures]
    if steps:
        notes["trace"] = steps
    return notes or None


def _stamps(succeeded: list[str], failed: list[str]) -> bytes:
    """`"$plugins_succeeded":[…],"$plugins_failed":[…]`, or nothing when no app ran."""
    if not succeeded and not failed:
        return b""
    return b'"$plugins_succeeded":%b,"$plugins_failed":%b' % (orjson.dumps(succeeded), orjson.dumps(failed))


def _quoted_length(raw: bytes) -> int:
    """The length of JSON text once it is a string inside other JSON."""
    return len(raw) + raw.count(b'"') + raw.count(b"\\")


def _whole(event: dict[str, Any]) -> Any:
    return fragment(orjson.dumps(event))


def _at(line: int | None) -> str:
    return f" (line {line})" if line is not None else ""

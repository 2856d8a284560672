"""The child's loop: frames in, chains run, frames out. One thread, blocking reads, no event loop for apps to reach."""

from __future__ import annotations

import os
import socket
import types
from collections import deque
from collections.abc import Generator
from typing import Any, Final, NamedTuple

import orjson

from sandbox import codec
from sandbox.app import App, Failure, describe_failure, load_app
from sandbox.chain import Chain, Row, invalid_row
from sandbox.event import InvalidEvent, open_envelope
from sandbox.invocation import HOST_CALLS, Context, Effects, HostCall, LimitExceeded
from sandbox.page import HookTimeout, Page, SoftTimer
from sandbox.wire import BLOB_LIMIT_BYTES, HEAD_LIMIT_BYTES, HEADER, HOOKS, WIRE_VERSION, FrameKind, encode_frame

SETUP: Final = HOOKS.index("setupPlugin")
_FLUSH_BYTES: Final = 4 * 2**20
_MAX_THROWS: Final = 10

Running = Generator[HostCall, None, tuple[Row, bytes]]


class Event(NamedTuple):
    """One event of a batch, opened."""

    sequence: int
    raw: bytes
    opened: dict[str, Any]
    failed_before: dict[int, Failure]
    trace: bool


class Suspended(NamedTuple):
    """An event whose chain waits for the host."""

    event: Event
    running: Running
    effects: Effects
    distinct_id: str


class Worker:
    """Serves one project over one socket until it closes."""

    def __init__(self, connection: socket.socket, page: Page, timer: SoftTimer) -> None:
        self._connection = connection
        self._page = page
        self._timer = timer
        self._context = Context(self._send_call)
        self._chain: Chain | None = None
        self._apps: list[App] = []
        self._project_id = 0
        self._rows: list[Row] = []
        self._blobs: list[bytes] = []
        self._pending_bytes = 0
        """Of the rows and blobs that were not sent, as a bound"""
        self._calls: dict[int, HostCall] = {}
        self._waiting: dict[int, list[int]] = {}
        """Sequences of the events that wait for a call, by the call's identity"""
        self._suspended: dict[int, Suspended] = {}
        self._behind: dict[str, deque[Event]] = {}
        """Events that wait for an earlier one of their distinct_id"""
        self._next_call = 1

    def serve(self) -> None:
        """Answer frames until the host closes the socket."""
        while True:
            kind, head, blob = self._read_frame()
            match kind:
                case FrameKind.LOAD:
                    self._load(orjson.loads(head), blob)
                case FrameKind.RUN:
                    self._run_batch(orjson.loads(head), blob)
                    self._flush(batches_ended=1)
                case FrameKind.REPLY:
                    self._reply(*orjson.loads(head))
                case FrameKind.CANCEL:
                    self._cancel(*orjson.loads(head))
                case _:
                    raise ValueError(f"unexpected frame {kind}")
            self._flush()

    def _load(self, load: dict[str, Any], blob: bytes) -> None:
        self._project_id = load["project_id"]
        limits = load["limits"]
        self._timer.cpu_seconds = limits["cpu_seconds"]
        self._timer.app_files = {f"<{install['id']}>/{install['file_name']}" for install in load["installs"]}
        effects = Effects(0)
        for install in load["installs"]:
            attachments: dict[str, dict[str, Any]] = {}
            for name, (content_type, file_name, start, stop) in install["attachments"].items():
                attachments[name] = {"content_type": content_type, "file_name": file_name, "contents": blob[start:stop]}
            self._page.enter(0, install["id"], 0)
            app = load_app(install, attachments, self._context, limits["captures_per_event"], load["library_version"])
            self._page.leave()
            self._set_up(app, effects)
            self._apps.append(app)
        self._chain = Chain(
            self._project_id,
            [app for app in self._apps if app.error is None],
            limits["event_bytes"],
            limits["record_bytes"],
            self._page,
        )
        installs = [
            {"id": app.id, "hooks": list(app.hooks), "error": app.error.as_list() if app.error else None}
            for app in self._apps
        ]
        self._send(FrameKind.LOADED, {"version": WIRE_VERSION, "installs": installs, "logs": effects.logs})

    def _set_up(self, app: App, effects: Effects) -> None:
        """Call an app's setupPlugin. An app that fails it does not run."""
        hook = app.hooks.get("setupPlugin")
        if hook is None:
            return
        self._context.effects = effects
        effects.may_act = False
        self._page.enter(0, app.id, SETUP)
        try:
            value = hook(app.meta)
            if type(value) is types.CoroutineType:
                value.send(None)
                value.close()
                raise RuntimeError("setupPlugin waits for the host, which it cannot yet")
        except StopIteration:
            pass
        except (Exception, HookTimeout) as error:  # noqa: BLE001 - an app's failure is a result
            app.error = describe_failure(error, app.file_name)
        finally:
            self._context.effects = None
            self._page.leave()

    def _run_batch(self, head: dict[str, Any], blob: bytes) -> None:
        sequence, start, trace = head["first"], 0, head["trace"]
        failed = head["failed"]
        project_id = self._project_id
        for length in head["lengths"]:
            raw = blob[start : start + length]
            start += length
            try:
                opened = open_envelope(raw, project_id)
            except (InvalidEvent, codec.InvalidJson, codec.TooDeep) as error:
                self._rows.append(invalid_row(sequence, error))
            else:
                failed_before = _failures(failed.get(str(sequence))) if failed else {}
                event = Event(sequence, raw, opened, failed_before, trace)
                distinct_id = opened["distinct_id"]
                if self._behind and distinct_id in self._behind:
                    self._behind[distinct_id].append(event)
                else:
                    self._start(event, distinct_id)
            sequence += 1
            if self._pending_bytes > _FLUSH_BYTES:
                self._flush()

    def _start(self, event: Event, distinct_id: str) -> bool:
        """Run an event's chain until it is finished or waits for the host; whether it is finished."""
        assert self._chain is not None, "RUN came before LOAD"
        effects = Effects(event.sequence)
        running = self._chain.run(event.opened, event.raw, effects, event.failed_before, trace=event.trace)
        return self._advance(event, running, effects, distinct_id)

    def _advance(
        self, event: Event, running: Running, effects: Effects, distinct_id: str, error: HookTimeout | None = None
    ) -> bool:
        self._context.effects = effects
        try:
            told = effects.running
            waited = running.throw(error) if error is not None else next(running)
            throws = 0
            while not _is_own(waited, effects) or error is not None:
                if effects.running != told:
                    error = None  # that hook has ended; it is the next app that waits now
                    if _is_own(waited, effects):
                        break
                throws += 1
                if throws > _MAX_THROWS:
                    raise HookTimeout("did not end when it was told to")
                waited = running.throw(error or TypeError("only what the host gives for this event can be awaited"))
        except StopIteration as stop:
            row, properties = stop.value
            for call_id in effects.call_ids:  # the host answers no more of them
                self._calls.pop(call_id, None)
            self._rows.append(row)
            self._blobs.append(properties)
            self._pending_bytes += len(properties) + effects.log_bytes + effects.capture_bytes
            if event.trace:
                self._pending_bytes += len(event.raw) * (1 + len(self._apps))
            return True
        except HookTimeout as timeout:
            running.close()
            return self._start_without(self._page.install, event, distinct_id, timeout)
        finally:
            self._context.effects = None
            self._page.leave()
        sequence = effects.sequence
        self._suspended[sequence] = Suspended(event, running, effects, distinct_id)
        self._waiting.setdefault(id(waited), []).append(sequence)
        self._behind.setdefault(distinct_id, deque())
        return False

    def _start_without(self, install: int, event: Event, distinct_id: str, timeout: HookTimeout) -> bool:
        """The timer struck between app code and ours, where no hook could fail of it: run the event without that app."""
        failed = {**event.failed_before, install: Failure("timeout", str(timeout))}
        opened = open_envelope(event.raw, self._project_id)
        return self._start(event._replace(opened=opened, failed_before=failed), distinct_id)

    def _resume(self, sequence: int, error: HookTimeout | None = None) -> None:
        suspended = self._suspended.pop(sequence)
        if self._advance(*suspended, error):
            self._release(suspended.distinct_id)

    def _release(self, distinct_id: str) -> None:
        """Run what waited for an event of this distinct_id, up to the next one that has to wait itself."""
        behind = self._behind.pop(distinct_id, None)
        while behind:
            if self._pending_bytes > _FLUSH_BYTES:
                self._flush()
            if not self._start(behind.popleft(), distinct_id):
                self._behind[distinct_id] = behind
                return

    def _send_call(self, effects: Effects, install: int, name: str, arguments: list[Any]) -> HostCall:
        if not effects.may_act:
            raise RuntimeError(f"{name} does not work in setupPlugin yet: call it in processEvent")
        if sum(effects.numbers.values()) >= HOST_CALLS:
            raise LimitExceeded(f"{name}: more than {HOST_CALLS} calls to the host for one event")
        call, call_id = HostCall(effects), self._next_call
        self._next_call += 1
        self._calls[call_id] = call
        effects.call_ids.append(call_id)
        effects.calls.append(call)
        number = effects.numbers.get(install, 0)
        effects.numbers[install] = number + 1
        self._send(FrameKind.CALL, [call_id, effects.sequence, install, number, name, arguments])
        return call

    def _reply(self, call_id: int, succeeded: bool, answer: Any) -> None:  # noqa: FBT001 - a frame's fields
        call = self._calls.pop(call_id, None)
        if call is None:
            return  # its event has ended without it
        if succeeded:
            call._finish(answer)  # noqa: SLF001 - out of reach of apps by its underscore
        else:
            call._fail(answer)  # noqa: SLF001
        for sequence in self._waiting.pop(id(call), ()):
            self._resume(sequence)

    def _cancel(self, sequence: int, message: str) -> None:
        if sequence not in self._suspended:
            return
        for waiting in self._waiting.values():
            if sequence in waiting:
                waiting.remove(sequence)
        self._resume(sequence, HookTimeout(message))

    def _flush(self, batches_ended: int = 0) -> None:
        if self._rows or batches_ended:
            rows, blobs = self._rows, self._blobs
            self._rows, self._blobs, self._pending_bytes = [], [], 0
            self._send(FrameKind.RESULTS, [batches_ended, rows], b"".join(blobs))

    def _send(self, kind: FrameKind, head: Any, blob: bytes = b"") -> None:
        self._connection.sendall(encode_frame(kind, orjson.dumps(head), blob))

    def _read_frame(self) -> tuple[int, bytes, bytes]:
        kind, head_length, blob_length = HEADER.unpack(self._read(HEADER.size))
        if head_length > HEAD_LIMIT_BYTES or blob_length > BLOB_LIMIT_BYTES:
            raise ValueError("the host sent a frame beyond the limits")
        return kind, self._read(head_length), self._read(blob_length)

    def _read(self, length: int) -> bytes:
        data = bytearray(length)
        view, have = memoryview(data), 0
        while have < length:
            received = self._connection.recv_into(view[have:])
            if not received:
                os._exit(0)
            have += received
        return bytes(data)


def _is_own(waited: Any, effects: Effects) -> bool:
    return type(waited) is HostCall and waited._effects is effects  # noqa: SLF001 - as above


def _failures(raw: dict[str, list[Any]] | None) -> dict[int, Failure]:
    return {int(install): Failure(*failure) for install, failure in (raw or {}).items()}

"""The child's loop: frames in, chains and hooks run, frames out. Blocking reads, no event loop for apps to reach."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Generator
from typing import Any, Final

import orjson

from sandbox import codec
from sandbox.app import App, Failure, app_file_name, load_app
from sandbox.chain import Blobs, Chain, ChainLimits, Mode, Result, Row, invalid_row
from sandbox.event import InvalidEvent
from sandbox.hook import invoke
from sandbox.invocation import Effects, HostCall
from sandbox.memory import end_if_used_up
from sandbox.page import Page, SoftTimer
from sandbox.scheduler import Scheduler
from sandbox.wire import BLOB_LIMIT_BYTES, HEAD_LIMIT_BYTES, HEADER, WIRE_VERSION, FrameKind, encode_frame

_FLUSH_BYTES: Final = 4 * 2**20
_ROW_BYTES: Final = 256
"""What a row takes besides its long texts, as a bound"""
_CHARACTER_BYTES: Final = 4

Answer = tuple[Failure | None, bytes]
_NO_FAILURES: Final[dict[int, Failure]] = {}


class LoadedChain:
    """The apps of one project that run one after another here, and their limits."""

    def __init__(self, project_id: int, apps: list[App], limits: ChainLimits, page: Page) -> None:
        self.project_id = project_id
        self.apps = {app.id: app for app in apps}
        self.limits = limits
        self._page = page
        self._chain: Chain | None = None

    @property
    def chain(self) -> Chain:
        """Of the apps that work."""
        if self._chain is None:
            working = [app for app in self.apps.values() if app.error is None]
            self._chain = Chain(self.project_id, working, self.limits, self._page)
        return self._chain

    def set_up(self, app: App, failure: Failure | None) -> None:
        """An app's setupPlugin has ended. One that failed it does not run."""
        app.error = failure
        self._chain = None


class EventRun:
    """One event on its way through a chain."""

    keeps_memory: Final = False

    __slots__ = (
        "_chain",
        "_event",
        "_mode",
        "_raw",
        "failed_before",
        "finish",
        "is_snapshot",
        "key",
        "limits",
        "sequence",
    )

    def __init__(
        self,
        loaded: LoadedChain,
        chain: Chain,
        mode: Mode,
        sequence: int,
        raw: bytes,
        finish: Callable[[Result, Effects], None],
    ) -> None:
        """Open the event. Raises as `event.open_envelope`."""
        event = chain.open(raw, mode)
        self.sequence = sequence
        self.limits = loaded.limits
        self.key: str | None = event["distinct_id"]
        self.is_snapshot: bool | None = None
        self.failed_before: dict[int, Failure] = _NO_FAILURES
        self.finish = finish
        self._chain = chain
        self._mode = mode
        self._raw = raw
        self._event: dict[str, Any] | None = event

    def begin(self, effects: Effects) -> Generator[HostCall, None, Result]:
        # The generator alone holds the event, so that what apps put into it is freed while the page names one of them.
        event, self._event = self._event, None
        event = event or self._chain.open(self._raw, self._mode)
        return self._chain.run(event, self._raw, effects, self.failed_before, self._mode, is_snapshot=self.is_snapshot)

    def without(self, install: int, failure: Failure) -> EventRun:
        self.failed_before = {**self.failed_before, install: failure}
        return self


class HookRun:
    """One call of a hook that is not part of a chain."""

    def __init__(
        self,
        loaded: LoadedChain,
        page: Page,
        sequence: int,
        app: App,
        hook: str,
        arguments: bytes,
        max_captures: int | None,
        send: Callable[[HookRun, Answer, Effects], None],
    ) -> None:
        self.sequence = sequence
        self.key: str | None = None
        self.app = app
        self.hook = hook
        self.keeps_memory = hook == "setupPlugin"
        self.limits = loaded.limits
        self._loaded = loaded
        self._page = page
        self._arguments = arguments
        self._max_captures = max_captures
        self._send = send
        self._failure: Failure | None = None

    def begin(self, effects: Effects) -> Generator[HostCall, None, Answer]:
        effects.max_captures = self._max_captures
        if self._failure is not None:
            effects.log(self.app.id, "ERROR", f"{self.hook} failed: {self._failure.located()}", "PLUGIN")
            return _failed(self._failure)
        # The generator alone holds the arguments, so that what the app puts into them is freed while the page names it.
        return invoke(self.app, self.hook, orjson.loads(self._arguments), effects, self._page, self.limits.event_bytes)

    def finish(self, result: Answer, effects: Effects) -> None:
        if self.hook == "setupPlugin":
            self._loaded.set_up(self.app, result[0])
        self._send(self, result, effects)

    def without(self, install: int, failure: Failure) -> HookRun:
        del install
        self._failure = failure
        return self


def _failed(failure: Failure) -> Generator[HostCall, None, Answer]:
    yield from ()
    return failure, b"null"


class Worker:
    """Serves one socket until it closes."""

    def __init__(self, connection: socket.socket, page: Page, timer: SoftTimer) -> None:
        self._connection = connection
        self._page = page
        self._timer = timer
        self._scheduler = Scheduler(page, timer, self._send_call, self._flush_if_full)
        self._chains: dict[int, LoadedChain] = {}
        self._rows: list[Row] = []
        self._blobs: Blobs = []
        self._pending_bytes = 0
        """Of the rows and blobs that were not sent, as a bound"""

    def serve(self) -> None:
        """Answer frames until the host closes the socket."""
        while True:
            kind, head, blob = self._read_frame()
            match kind:
                case FrameKind.RUN:
                    self._run_batch(orjson.loads(head), blob)
                    self._flush(batches_ended=1)
                case FrameKind.REPLY:
                    self._scheduler.reply(*orjson.loads(head))
                case FrameKind.INVOKE:
                    self._invoke(orjson.loads(head), blob)
                case FrameKind.LOAD:
                    self._load(orjson.loads(head), blob)
                case FrameKind.CANCEL:
                    self._scheduler.cancel(*orjson.loads(head))
                case FrameKind.UNLOAD:
                    self._chains.pop(orjson.loads(head)[0], None)
                case _:
                    raise ValueError(f"unexpected frame {kind}")
            self._flush()

    def _load(self, load: dict[str, Any], blob: bytes) -> None:
        limits, now = load["limits"], load["now"]
        clock = time.time if now is None else lambda: float(now)
        self._timer.cpu_seconds = limits["cpu_seconds"]
        apps: list[App] = []
        for install in load["installs"]:
            attachments: dict[str, dict[str, Any]] = {}
            for name, (content_type, file_name, start, stop) in install["attachments"].items():
                attachments[name] = {"content_type": content_type, "file_name": file_name, "contents": blob[start:stop]}
            self._timer.app_files.add(app_file_name(install))
            self._page.enter(0, install["id"], 0)
            apps.append(
                load_app(
                    install,
                    attachments,
                    self._scheduler.context,
                    limits["captures_per_event"],
                    load["library_version"],
                    clock,
                )
            )
            self._page.renewed = True  # its body may have used up its time
            end_if_used_up(limits["memory_bytes"])  # by what its body keeps, whether or not that failed
            self._page.leave()
        self._chains[load["chain"]] = LoadedChain(
            load["project_id"], apps, ChainLimits(*(limits[name] for name in ChainLimits._fields)), self._page
        )
        installs = [
            {
                "id": app.id,
                "hooks": list(app.hooks),
                "metrics": app.metrics,
                "error": app.error.as_list() if app.error else None,
            }
            for app in apps
        ]
        self._send(FrameKind.LOADED, {"version": WIRE_VERSION, "chain": load["chain"], "installs": installs})

    def _run_batch(self, head: dict[str, Any], blob: bytes) -> None:
        loaded = self._chains[head["chain"]]
        chain, failed, keys, snapshots = loaded.chain, head["failed"], head["keys"], head["snapshots"]
        mode = Mode(head["trace"], head["whole"], keys is not None)
        submit, finish = self._scheduler.submit, self._finish_event
        sequence, start = head["first"], 0
        for place, length in enumerate(head["lengths"]):
            raw = blob[start : start + length]
            start += length
            try:
                run = EventRun(loaded, chain, mode, sequence, raw, finish)
            except (InvalidEvent, codec.InvalidJson, codec.TooDeep) as error:
                self._rows.append(invalid_row(sequence, error))
            else:
                if keys is not None:
                    run.key = keys[place]
                if snapshots is not None:
                    run.is_snapshot = snapshots[place]
                if len(self._chains) > 1:
                    run.key = f"{head['chain']}:{run.key}"
                if failed:
                    run.failed_before = _failures(failed.get(str(sequence)))
                submit(run)
            sequence += 1
            if self._pending_bytes > _FLUSH_BYTES:
                self._flush()

    def _finish_event(self, result: Result, effects: Effects) -> None:
        row, blobs = result
        self._rows.append(row)
        self._blobs += blobs
        size = sum(map(len, blobs)) + effects.log_bytes + effects.capture_bytes + _ROW_BYTES
        self._pending_bytes += size + _CHARACTER_BYTES * (len(row[3]) + len(row[5]))  # distinct_id, elements_chain

    def _invoke(self, head: list[Any], blob: bytes) -> None:
        sequence, chain, install, hook, max_captures = head
        loaded = self._chains.get(chain)
        if loaded is None:
            return  # it was unloaded, and nobody waits for an answer
        app = loaded.apps[install]
        self._scheduler.submit(HookRun(loaded, self._page, sequence, app, hook, blob, max_captures, self._finish_hook))

    def _finish_hook(self, run: HookRun, answer: Answer, effects: Effects) -> None:
        failure, value = answer
        head = [run.sequence, failure.as_list() if failure else None, len(value), effects.notes() or None]
        self._flush()
        self._send(FrameKind.DONE, head, b"".join([value, *effects.capture_blobs]))

    def _send_call(self, *call: Any) -> None:
        self._send(FrameKind.CALL, list(call))

    def _flush_if_full(self) -> None:
        if self._pending_bytes > _FLUSH_BYTES:
            self._flush()

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


def _failures(raw: dict[str, list[Any]] | None) -> dict[int, Failure]:
    return {int(install): Failure(*failure) for install, failure in (raw or {}).items()}

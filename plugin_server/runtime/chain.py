"""The host's side of one chain: apps of one project that run one after another in one sandbox, and the events for them."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

import orjson

from plugin_server.model.project import Install, Limits, Project
from plugin_server.runtime.replies import Bounds, HookFailure, Loaded, LoadedInstall, LogLine
from plugin_server.runtime.work import InvocationResult, Work
from sandbox.wire import BLOB_LIMIT_BYTES

BATCH_EVENTS: Final = 500
BATCH_BYTES: Final = 8 * 2**20
BATCH_SECONDS: Final = 0.02
DELIVERY_HOOKS: Final = frozenset({"onEvent", "onSnapshot", "exportEvents", "composeWebhook"})


def _sendable(install: Install, attachments: dict[str, Any], broken: HookFailure | None) -> Any:
    """An install as LOAD has it. One that no frame can carry is sent as broken, for its author to read why."""
    entry = {
        "id": install.id,
        "name": install.app.name,
        "file_name": install.app.file_name,
        "source": install.app.source,
        "config": install.config,
        "attachments": attachments,
        "failed": None if broken is None else list(broken[1:]),
    }
    try:
        return orjson.Fragment(orjson.dumps(entry))
    except TypeError as error:
        message = (
            f"its source or config cannot be sent to a sandbox ({error}): save the source as UTF-8, use JSON values"
        )
        return {
            "id": install.id,
            "name": "",
            "file_name": "main.py",
            "source": "",
            "config": {},
            "attachments": {},
            "failed": ["compile", message, None],
        }


class Batch:
    """Events that are in a sandbox together."""

    __slots__ = ("chain", "events", "first", "start")

    def __init__(self, chain: Chain, first: int, events: int) -> None:
        self.chain = chain
        self.first = first
        self.events = events
        self.start = time.perf_counter()

    @property
    def sequences(self) -> range:
        return range(self.first, self.first + self.events)


class Chain:
    """Installs, what is known of them, and the events that wait.

    With `opened`, events come as events instead of envelopes; with `whole`, they leave so.
    """

    def __init__(
        self,
        number: int,
        project: Project,
        installs: Sequence[Install],
        record_bytes: int,
        *,
        opened: bool = False,
        whole: bool = False,
        set_up: bool = True,
    ) -> None:
        self.number = number
        self.project = project
        self.installs = tuple(installs)
        self.opened = opened
        self.whole = whole
        self.set_up = set_up
        """Call setupPlugin after loading"""
        self.record_bytes = record_bytes
        self.bounds = Bounds.of(self.installs, self.limits, record_bytes)
        self.queue: deque[Work[Any]] = deque()
        self.replay: deque[Work[Any]] = deque()
        """Events of a sandbox that died, to be run one by one"""
        self.loaded: tuple[LoadedInstall, ...] | None = None
        """None until it is loaded into the process that there is now"""
        self.known: tuple[LoadedInstall, ...] = ()
        """How it was loaded last"""
        self.became_ready = asyncio.Event()
        """It is loaded and set up"""
        self.is_removed = False
        """No sandbox has it any more: what is left of its runs counts no more"""
        self._to_set_up: deque[int] = deque()
        self._start_logs: list[LogLine] = []
        self.broken: dict[int, HookFailure] = {}
        """Installs that cost a sandbox while they were loaded or set up: they are not tried again"""
        self.has_delivery = False
        self._batch_events = 50
        self._last_end = 0.0

    @property
    def limits(self) -> Limits:
        return self.project.limits

    @property
    def ready(self) -> bool:
        return self.became_ready.is_set()

    @property
    def waiting(self) -> bool:
        return bool(self.queue or self.replay)

    def hooks(self, install_id: int) -> frozenset[str]:
        """The hooks of an install that works; none of one that does not."""
        for entry in self.known:
            if entry.install_id == install_id and entry.error is None:
                return entry.hooks
        return frozenset()

    def exports(self, install_id: int) -> frozenset[str]:
        """The hooks that an install's app has, whether or not it could be set up."""
        return next((entry.hooks for entry in self.known if entry.install_id == install_id), frozenset())

    def was_loaded(self, installs: tuple[LoadedInstall, ...]) -> None:
        """The process has it, and says this of its installs."""
        self.loaded = installs
        if self.set_up:
            self._to_set_up.extend(
                entry.install_id for entry in installs if entry.error is None and "setupPlugin" in entry.hooks
            )

    def next_to_set_up(self) -> int | None:
        """The install whose setupPlugin is to be called now, in their order; None when there is none left."""
        return self._to_set_up.popleft() if self._to_set_up else None

    def was_set_up(self, install_id: int, result: InvocationResult, retry_seconds: float | None) -> None:
        """An install's setupPlugin has ended; if it failed, it is called again after `retry_seconds`, or (None) no more."""
        failure = result.failure
        # What the failure's own line would say, the report of the load says better.
        self._start_logs += [line for line in result.logs if failure is None or line.source != "PLUGIN"]
        if failure is not None:
            again = f"retrying in {retry_seconds:g} s" if retry_seconds is not None else "it is not tried again"
            failure = failure._replace(message=f"{failure.message}: setupPlugin failed, {again}")
        assert self.loaded is not None
        self.loaded = tuple(
            entry._replace(error=failure) if entry.install_id == install_id else entry for entry in self.loaded
        )

    def become_ready(self) -> Loaded:
        """It takes events from now on; how its installs came up."""
        assert self.loaded is not None
        self.became_ready.set()
        self.known = self.loaded
        self.has_delivery = any(entry.hooks & DELIVERY_HOOKS for entry in self.known if entry.error is None)
        logs, self._start_logs = tuple(self._start_logs), []
        return Loaded(self.known, logs)

    def forget_process(self) -> None:
        """Its process has ended."""
        self.loaded = None
        self.became_ready.clear()
        self._to_set_up.clear()
        self._start_logs = []

    def load_frame(self, library_version: str, now: float | None) -> tuple[bytes, bytes]:
        """Head and blob of LOAD."""
        installs, parts, size = [], [], 0
        for install in self.installs:
            attachments = {}
            if size + sum(len(attachment.contents) for attachment in install.attachments.values()) > BLOB_LIMIT_BYTES:
                message = f"the attachments of the project's apps take more than {BLOB_LIMIT_BYTES} bytes"
                installs.append(_sendable(install, {}, HookFailure(install.id, "limit", message, None)))
                continue
            for name, attachment in install.attachments.items():
                stop = size + len(attachment.contents)
                attachments[name] = [attachment.content_type, attachment.file_name, size, stop]
                parts.append(attachment.contents)
                size = stop
            installs.append(_sendable(install, attachments, self.broken.get(install.id)))
        limits = self.limits
        head = {
            "chain": self.number,
            "project_id": self.project.id,
            "installs": installs,
            "library_version": library_version,
            "now": now,
            "limits": {
                "cpu_seconds": limits.cpu_seconds,
                "memory_bytes": limits.memory_bytes,
                "event_bytes": limits.event_bytes,
                "record_bytes": self.record_bytes,
                "captures_per_event": limits.captures_per_event,
            },
        }
        return orjson.dumps(head), b"".join(parts)

    def take_batch(self, queue: deque[Work[Any]], *, alone: bool) -> list[Work[Any]]:
        """The next events of `queue` that somebody waits for, as many as take about 20 ms, or one."""
        limit = 1 if alone else self._batch_events
        taken: list[Work[Any]] = []
        size = 0
        while queue and len(taken) < limit and size < BATCH_BYTES:
            work = queue.popleft()
            if not work.sink.closed:
                taken.append(work)
                size += len(work.raw)
        return taken

    def run_frame(self, first: int, works: Sequence[Work[Any]], *, trace: bool) -> tuple[bytes, bytes]:
        """Head and blob of RUN."""
        failed = {
            str(first + place): {str(install): list(why[1:]) for install, why in work.failed.items()}
            for place, work in enumerate(works)
            if work.failed
        }
        values = [work.raw for work in works]
        head = {
            "chain": self.number,
            "first": first,
            "lengths": list(map(len, values)),
            "failed": failed,
            "trace": trace,
            "whole": self.whole,
            "keys": [work.key for work in works] if self.opened else None,
            "snapshots": [work.is_snapshot for work in works] if self.opened else None,
        }
        return orjson.dumps(head), b"".join(values)

    def batch_ended(self, batch: Batch, *, alone: bool) -> None:
        """Size the next batch by what this one took."""
        now = time.perf_counter()
        seconds_each = (now - max(batch.start, self._last_end)) / batch.events
        self._last_end = now
        if not alone:
            wanted = BATCH_SECONDS / max(seconds_each, 1e-9)
            self._batch_events = max(1, min(BATCH_EVENTS, int((self._batch_events + wanted) / 2) + 1))

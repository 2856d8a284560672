"""A child without a process: the worker's loop on a socket that is a list, for the tests of what runs in it."""

from __future__ import annotations

from typing import Any

import orjson

from sandbox.page import Page, SoftTimer
from sandbox.wire import HEADER, FrameKind, encode_frame
from sandbox.worker import Worker

LIMITS = {
    "cpu_seconds": 1,
    "memory_bytes": 2**20,
    "event_bytes": 2**20,
    "record_bytes": 1_000_000,
    "captures_per_event": 100,
}


class Drained(Exception):
    """The host has nothing more to say for now."""


class Wire:
    """Stands for the socket: gives the frames that the host sent, takes apart those of the child."""

    def __init__(self) -> None:
        self.frames: list[tuple[int, Any, bytes]] = []
        self.incoming = bytearray()

    def sendall(self, data: bytes) -> None:
        kind, head, blob = HEADER.unpack_from(data)
        start = HEADER.size
        assert len(data) == start + head + blob
        self.frames.append((kind, orjson.loads(data[start : start + head]), data[start + head :]))

    def recv_into(self, view: memoryview) -> int:
        if not self.incoming:
            raise Drained
        # In pieces, as a socket may give them.
        taken = min(len(view), max(1, len(self.incoming) // 2))
        view[:taken] = self.incoming[:taken]
        del self.incoming[:taken]
        return taken


class Child:
    """Has one chain, number 1, of these apps; more by `load`."""

    def __init__(self, *sources: str, **load: Any) -> None:
        self.wire = Wire()
        self.page = Page()
        self.timer = SoftTimer(self.page)
        self.worker = Worker(self.wire, self.page, self.timer)  # type: ignore[arg-type]
        self.load(1, *sources, **load)

    def send(self, kind: FrameKind, head: Any, blob: bytes = b"") -> None:
        """A frame of the host's; returns when the child waits for the next one."""
        self.wire.incoming += encode_frame(kind, orjson.dumps(head), blob)
        try:
            self.worker.serve()
        except Drained:
            assert not self.wire.incoming
            assert not self.page.in_app

    def load(
        self,
        chain: int,
        *sources: str,
        first_install: int = 1,
        now: float | None = None,
        failed: Any = None,
        **limits: Any,
    ) -> None:
        installs = [
            {
                "id": number,
                "name": f"App{number}",
                "file_name": "main.py",
                "source": source,
                "config": {},
                "attachments": {},
                "failed": failed,
            }
            for number, source in enumerate(sources, first_install)
        ]
        head = {"chain": chain, "project_id": 2, "installs": installs, "library_version": "1", "now": now}
        self.send(FrameKind.LOAD, head | {"limits": LIMITS | limits})

    def run(self, *events: tuple[str, str, int] | bytes, chain: int = 1, first: int = 1, **options: Any) -> None:
        """Events as (name, distinct_id, number) or as they are on the wire."""
        raws = [event if isinstance(event, bytes) else raw_event(*event) for event in events]
        head = {"chain": chain, "first": first, "lengths": list(map(len, raws)), "failed": {}}
        self.send(
            FrameKind.RUN,
            head | {"trace": False, "whole": False, "keys": None, "snapshots": None} | options,
            b"".join(raws),
        )

    def invoke(
        self,
        sequence: int,
        hook: str,
        *arguments: Any,
        install: int = 1,
        chain: int = 1,
        max_captures: int | None = None,
    ) -> None:
        self.send(FrameKind.INVOKE, [sequence, chain, install, hook, max_captures], orjson.dumps(arguments))

    def answer(self, call_id: int, value: Any = None) -> None:
        self.send(FrameKind.REPLY, [call_id, True, value])

    def refuse(self, call_id: int, message: str, kind: str = "error") -> None:
        self.send(FrameKind.REPLY, [call_id, False, message, kind])

    def cancel(self, sequence: int, message: str) -> None:
        self.send(FrameKind.CANCEL, [sequence, message])

    @property
    def rows(self) -> list[Any]:
        return [row for kind, head, _ in self.wire.frames if kind == FrameKind.RESULTS for row in head[1]]

    @property
    def order(self) -> list[int]:
        """Sequence numbers as they were answered, events and invocations."""
        order: list[int] = []
        for kind, head, _ in self.wire.frames:
            if kind == FrameKind.RESULTS:
                order += [row[0] for row in head[1]]
            elif kind == FrameKind.DONE:
                order.append(head[0])
        return order

    @property
    def results(self) -> list[tuple[Any, Any]]:
        """Rows, each with what its part of the blob holds first: properties or the whole event."""
        found: list[tuple[Any, Any]] = []
        for kind, head, blob in self.wire.frames:
            start = 0
            for row in head[1] if kind == FrameKind.RESULTS else ():
                notes = row[7] or {}
                stop = start + row[6]
                found.append((row, orjson.loads(blob[start:stop]) if row[6] else None))
                start = stop + sum(part[-1] for part in (*notes.get("captures", ()), *notes.get("trace", ())))
            assert kind != FrameKind.RESULTS or start == len(blob)
        return found

    @property
    def done(self) -> list[tuple[int, Any, Any, Any]]:
        """(sequence, failure, value, notes), with each capture's properties in the place of their length."""
        found: list[tuple[int, Any, Any, Any]] = []
        for kind, head, blob in self.wire.frames:
            if kind == FrameKind.DONE:
                sequence, failure, stop, notes = head
                value = orjson.loads(blob[:stop])
                captures = []
                for capture in (notes or {}).get("captures", ()):
                    start, stop = stop, stop + capture[-1]
                    captures.append([*capture[:-1], orjson.loads(blob[start:stop])])
                assert stop == len(blob)
                if captures:
                    notes = {**notes, "captures": captures}
                found.append((sequence, failure, value, notes))
        return found

    @property
    def calls(self) -> list[Any]:
        return [head for kind, head, _ in self.wire.frames if kind == FrameKind.CALL]

    @property
    def loaded(self) -> list[Any]:
        return [head for kind, head, _ in self.wire.frames if kind == FrameKind.LOADED]


def raw_event(name: str, distinct_id: str, number: int) -> bytes:
    """An envelope as the host sends it."""
    data = orjson.dumps({"event": name, "properties": {"n": number}}).decode()
    return orjson.dumps({"uuid": f"u{number}", "distinct_id": distinct_id, "now": "2026-01-01T00:00:00Z", "data": data})


def opened_event(name: str, distinct_id: str, number: int) -> bytes:
    """The same event once it has been opened."""
    event = {"event": name, "distinct_id": distinct_id, "uuid": f"u{number}", "team_id": 2, "properties": {"n": number}}
    return orjson.dumps(event | {"now": "2026-01-01T00:00:00Z"})

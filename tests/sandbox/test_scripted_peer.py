"""A peer on the socket that is no honest child: whatever it sends, the host kills it, runs its events again, and lives on."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import orjson
import pytest

from plugin_server.host_api.calls import HostApi
from plugin_server.host_api.effects import RunEffects
from plugin_server.runtime import watch
from plugin_server.runtime.sandbox import CRASHES, Sandbox, SandboxServices
from sandbox.wire import (
    BLOB_LIMIT_BYTES,
    HEAD_LIMIT_BYTES,
    HEADER,
    PAGE_BYTES,
    WIRE_VERSION,
    FrameKind,
    Word,
    encode_frame,
)
from tests.sandbox.projects import Sink, project

LOADED = {
    "version": WIRE_VERSION,
    "chain": 1,
    "installs": [{"id": number, "hooks": ["processEvent"], "metrics": {}, "error": None} for number in (1, 2)],
}
PASSES = "def processEvent(event, meta):\n    return event\n"


class Handle:
    """Stands for the process: to kill it is to hang up."""

    def __init__(self, connection: socket.socket, page: int, hang_up: Callable[[], None]) -> None:
        self.pid = os.getpid()
        self.connection = connection
        self.page = page
        self.kill = hang_up

    def trace(self) -> str:
        return 'File "<1>/main.py", line 99999999999999 in x\nFile "<1>/main.py", line oops'

    def release(self) -> None:
        self.connection.close()
        os.close(self.page)


class Peer:
    """The other end: reads frames, and writes what its script says."""

    def __init__(self, connection: socket.socket, page: int) -> None:
        self.connection = connection
        self.page = page
        self.calls = 0

    async def receive(self) -> tuple[int, Any, bytes]:
        kind, head, blob = HEADER.unpack(await self._read(HEADER.size))
        return kind, orjson.loads(await self._read(head)), await self._read(blob)

    async def run_of(self) -> tuple[int, list[bytes]]:
        """The next batch: its first sequence number and its events."""
        while True:
            kind, head, blob = await self.receive()
            if kind == FrameKind.RUN:
                ends = [sum(head["lengths"][: place + 1]) for place in range(len(head["lengths"]))]
                return head["first"], [blob[e - length : e] for e, length in zip(ends, head["lengths"], strict=True)]

    async def send(self, raw: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.connection, raw)

    async def frame(self, kind: int, head: Any, blob: bytes = b"") -> None:
        await self.send(encode_frame(kind, head if isinstance(head, bytes) else orjson.dumps(head), blob))  # type: ignore[arg-type]

    async def load(self) -> None:
        kind, _, _ = await self.receive()
        assert kind == FrameKind.LOAD
        await self.frame(FrameKind.LOADED, LOADED)

    async def answer(self, first: int, count: int, ended: int = 1) -> None:
        await self.frame(FrameKind.RESULTS, *results(range(first, first + count), ended))

    async def honest(self) -> None:
        await self.load()
        while True:
            first, events = await self.run_of()
            await self.answer(first, len(events))

    def says_it_runs(self, sequence: int, install: int) -> None:
        words = [0] * (PAGE_BYTES // 4)
        words[Word.STATE], words[Word.SEQUENCE], words[Word.INSTALL] = 1, sequence, install
        os.pwrite(self.page, b"".join(word.to_bytes(4, "little") for word in words), 0)

    async def _read(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            chunk = await asyncio.get_running_loop().sock_recv(self.connection, length - len(data))
            if not chunk:
                raise ConnectionResetError
            data += chunk
        return data


def results(sequences: Any, ended: int = 1) -> tuple[Any, bytes]:
    rows = [[number, 0, "x", "d", "2026-01-01 00:00:00.000", "", 2, None] for number in sequences]
    return [ended, rows], b"{}" * len(rows)


Script = Callable[[Peer], Awaitable[None]]


class Bench:
    def __init__(self, script: Script, lives: int, cpu_seconds: float) -> None:
        self.script = script
        self.lives = lives
        self.restarts = 0
        self.spawned = 0
        self.problems: list[Any] = []
        self.peers: list[asyncio.Task[None]] = []
        self.project = project(PASSES, PASSES, hook_seconds=0.5, cpu_seconds=cpu_seconds)
        services = SandboxServices(self.spawn, HostApi({}), RunEffects, self, "1", 100_000)  # type: ignore[arg-type]
        self.sandbox = Sandbox(2**28, services)
        self.chain = self.sandbox.add_chain(self.project, self.project.installs)
        self.loads: list[Any] = []

    def submit(self, works: Any) -> None:
        self.sandbox.submit(self.chain, works)

    def loaded(self, _project: Any, loaded: Any) -> None:
        self.loads.append(loaded)

    def restarted(self, _project: Any) -> None:
        self.restarts += 1

    async def spawn(self, _memory: int, on_exit: Callable[[int | None], None]) -> Handle:
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        page = os.memfd_create("page")
        os.ftruncate(page, PAGE_BYTES)
        peer = Peer(theirs, os.dup(page))
        self.spawned += 1
        script = self.script if self.spawned <= self.lives else Peer.honest
        self.peers.append(asyncio.create_task(self.live(peer, script)))

        def hang_up() -> None:
            with contextlib.suppress(OSError):
                theirs.shutdown(socket.SHUT_RDWR)
            on_exit(-9)

        return Handle(ours, page, hang_up)

    async def live(self, peer: Peer, script: Script) -> None:
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            await script(peer)
            await asyncio.Event().wait()
        peer.connection.close()
        os.close(peer.page)

    async def tick(self) -> None:
        while True:
            await asyncio.sleep(0.02)
            self.sandbox.tick(0.02)


@contextlib.asynccontextmanager
async def sandbox_of(script: Script, lives: int = 1, cpu_seconds: float = 1000) -> AsyncIterator[Bench]:
    bench = Bench(script, lives, cpu_seconds)
    loop = asyncio.get_running_loop()
    previous = loop.get_exception_handler()
    loop.set_exception_handler(lambda _loop, context: bench.problems.append(context))
    ticking = asyncio.create_task(bench.tick())
    try:
        yield bench
    finally:
        ticking.cancel()
        await bench.sandbox.close()
        for task in bench.peers:
            task.cancel()
        outcomes = await asyncio.gather(ticking, *bench.peers, return_exceptions=True)
        await asyncio.sleep(0.01)
        loop.set_exception_handler(previous)
    assert bench.problems == []
    assert [o for o in outcomes if isinstance(o, Exception) and not isinstance(o, asyncio.CancelledError)] == []


async def garbage(peer: Peer) -> None:
    await peer.load()
    await peer.send(os.urandom(100_000))


async def garbage_before_it_has_loaded(peer: Peer) -> None:
    await peer.send(b"\xff" * 1_000)


async def a_head_that_is_not_json(peer: Peer) -> None:
    await peer.load()
    await peer.run_of()
    await peer.frame(FrameKind.RESULTS, b"{{{")


async def hangs_up(peer: Peer) -> None:
    await peer.load()
    await peer.run_of()
    peer.connection.shutdown(socket.SHUT_RDWR)


async def hangs_up_at_once(peer: Peer) -> None:
    peer.connection.shutdown(socket.SHUT_RDWR)


async def hangs_up_within_a_frame(peer: Peer) -> None:
    await peer.load()
    first, events = await peer.run_of()
    raw = encode_frame(FrameKind.RESULTS, orjson.dumps(results(range(first, first + len(events)))[0]), b"{}")
    await peer.send(raw[: len(raw) // 2])
    peer.connection.shutdown(socket.SHUT_RDWR)


async def stalls_within_a_frame(peer: Peer) -> None:
    await peer.load()
    await peer.run_of()
    await peer.send(HEADER.pack(FrameKind.RESULTS, 1_000, 0) + b"[1,[")


async def stalls_within_a_header(peer: Peer) -> None:
    await peer.load()
    await peer.run_of()
    await peer.send(b"\x11\x00")


async def never_loads(peer: Peer) -> None:
    await peer.receive()


async def never_answers(peer: Peer) -> None:
    await peer.load()
    await peer.run_of()


async def ends_its_batch_without_answers(peer: Peer) -> None:
    await peer.load()
    while True:
        await peer.run_of()
        await peer.frame(FrameKind.RESULTS, [1, []])


async def forgets_one(peer: Peer) -> None:
    await peer.load()
    first, events = await peer.run_of()
    await peer.answer(first + 1, len(events) - 1)


async def answers_what_it_was_not_given(peer: Peer) -> None:
    await peer.load()
    first, events = await peer.run_of()
    await peer.frame(FrameKind.RESULTS, *results([*range(first, first + len(events)), 10**9]))


async def answers_twice_in_one_frame(peer: Peer) -> None:
    await peer.load()
    first, events = await peer.run_of()
    await peer.frame(FrameKind.RESULTS, *results([*range(first, first + len(events)), first]))


async def answers_twice_in_two_frames(peer: Peer) -> None:
    await peer.load()
    first, events = await peer.run_of()
    await peer.answer(first, len(events) // 2, ended=0)
    await peer.answer(first, len(events))


async def ends_more_batches_than_it_has(peer: Peer) -> None:
    await peer.load()
    first, events = await peer.run_of()
    await peer.answer(first, len(events), ended=7)


async def ends_a_batch_twice(peer: Peer) -> None:
    await peer.load()
    first, events = await peer.run_of()
    await peer.answer(first, len(events) // 2)
    await peer.frame(FrameKind.RESULTS, [1, []])
    await peer.frame(FrameKind.RESULTS, [1, []])
    await peer.frame(FrameKind.RESULTS, [1, []])


async def results_before_it_has_loaded(peer: Peer) -> None:
    await peer.receive()
    await peer.answer(1, 10)


async def loads_twice(peer: Peer) -> None:
    await peer.load()
    await peer.frame(FrameKind.LOADED, LOADED)


async def loads_other_installs(peer: Peer) -> None:
    await peer.receive()
    await peer.frame(FrameKind.LOADED, LOADED | {"installs": [{"id": 5, "hooks": [], "metrics": {}, "error": None}]})


async def loads_a_chain_that_there_is_not(peer: Peer) -> None:
    await peer.receive()
    await peer.frame(FrameKind.LOADED, LOADED | {"chain": 7})


async def ends_an_invocation_that_it_was_not_given(peer: Peer) -> None:
    await peer.load()
    first, _ = await peer.run_of()
    await peer.frame(FrameKind.DONE, [first, None, 4, None], b"null")


async def answers_with_whole_events_unasked(peer: Peer) -> None:
    await peer.load()
    first, _ = await peer.run_of()
    await peer.frame(FrameKind.RESULTS, [0, [[first, 3, "", "", "", "", 2, None]]], b"{}")


async def speaks_for_an_install_of_another_project(peer: Peer) -> None:
    await peer.load()
    first, _ = await peer.run_of()
    notes = {"captures": [[77, 0, "stolen", "d", None, 2]]}
    await peer.frame(FrameKind.RESULTS, [0, [[first, 0, "x", "d", "2026-01-01 00:00:00.000", "", 2, notes]]], b"{}{}")


async def calls_for_an_install_of_another_project(peer: Peer) -> None:
    await peer.load()
    first, _ = await peer.run_of()
    await peer.frame(FrameKind.CALL, [1, first, 77, 0, "sleep", [0]])


async def a_head_of_many_empty_lists(peer: Peer) -> None:
    await peer.load()
    await peer.run_of()
    await peer.send(encode_frame(FrameKind.RESULTS, b"[1,[" + b"[]," * 1_000_000 + b"[]]]"))


async def an_oversized_head(peer: Peer) -> None:
    await peer.load()
    await peer.send(HEADER.pack(FrameKind.RESULTS, HEAD_LIMIT_BYTES + 1, 0))


async def an_oversized_blob(peer: Peer) -> None:
    await peer.load()
    await peer.send(HEADER.pack(FrameKind.RESULTS, 2, BLOB_LIMIT_BYTES + 1))


async def an_unknown_kind(peer: Peer) -> None:
    await peer.load()
    await peer.frame(200, [])


async def a_frame_of_the_hosts(peer: Peer) -> None:
    await peer.load()
    await peer.frame(FrameKind.RUN, {})


async def floods_with_empty_results(peer: Peer) -> None:
    await peer.load()
    while True:
        await peer.frame(FrameKind.RESULTS, [0, []])


async def floods_with_calls(peer: Peer) -> None:
    await peer.load()
    first, _ = await peer.run_of()
    for number in range(100_000):
        await peer.frame(FrameKind.CALL, [number, first, 1 + number % 2, number, "sleep", [3600]])


async def calls_for_nobody(peer: Peer) -> None:
    await peer.load()
    await peer.frame(FrameKind.CALL, [1, 10**6, 1, 0, "sleep", [0]])


async def calls_and_never_ends(peer: Peer) -> None:
    await peer.load()
    first, events = await peer.run_of()
    await peer.frame(FrameKind.CALL, [1, first, 1, 0, "sleep", [0]])
    await peer.frame(FrameKind.CALL, [1, first, 1, 0, "no such call", [{"a": []}]])
    await peer.frame(FrameKind.CALL, [2, first, 1, 1, "sleep", ["x"]])
    await peer.answer(first + 1, len(events) - 1)


async def lies_about_what_runs(peer: Peer) -> None:
    await peer.load()
    await peer.run_of()
    peer.says_it_runs(10**6, 77)
    peer.connection.shutdown(socket.SHUT_RDWR)


async def is_slow_to_send(peer: Peer) -> None:
    """Not a fault: an honest answer in crumbs."""
    await peer.load()
    first, events = await peer.run_of()
    head, blob = results(range(first, first + len(events)))
    raw = encode_frame(FrameKind.RESULTS, orjson.dumps(head), blob)
    for start in range(0, len(raw), 500):
        await peer.send(raw[start : start + 500])
        await asyncio.sleep(0)
    await peer.run_of()
    await peer.send(b"\xff" * 9)


SCRIPTS = [
    garbage,
    garbage_before_it_has_loaded,
    a_head_that_is_not_json,
    hangs_up,
    hangs_up_at_once,
    hangs_up_within_a_frame,
    stalls_within_a_frame,
    stalls_within_a_header,
    never_loads,
    never_answers,
    ends_its_batch_without_answers,
    forgets_one,
    answers_what_it_was_not_given,
    answers_twice_in_one_frame,
    answers_twice_in_two_frames,
    ends_more_batches_than_it_has,
    ends_a_batch_twice,
    results_before_it_has_loaded,
    loads_twice,
    loads_other_installs,
    loads_a_chain_that_there_is_not,
    ends_an_invocation_that_it_was_not_given,
    answers_with_whole_events_unasked,
    speaks_for_an_install_of_another_project,
    calls_for_an_install_of_another_project,
    a_head_of_many_empty_lists,
    an_oversized_head,
    an_oversized_blob,
    an_unknown_kind,
    a_frame_of_the_hosts,
    floods_with_empty_results,
    floods_with_calls,
    calls_for_nobody,
    calls_and_never_ends,
    lies_about_what_runs,
    is_slow_to_send,
]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(watch, "SILENCE_SECONDS", 0.3)


@pytest.mark.parametrize("script", SCRIPTS)
async def test_its_events_come_out_once_and_in_order_from_the_next_child(script):
    sink = Sink()
    async with sandbox_of(script, lives=2) as bench:
        # One that skips an event changes the order of its own project's; nobody else's.
        bench.submit(sink.works(120, keys=1_000 if script in {forgets_one, calls_and_never_ends} else 5))
        await sink.all()
        assert bench.restarts == 2
        assert not bench.sandbox.busy


@pytest.mark.parametrize("script", [hangs_up, never_answers, lies_about_what_runs, answers_twice_in_one_frame])
async def test_a_project_whose_children_always_die_gives_its_events_back_to_be_run_without_apps(script):
    """What is alone in a child that dies, and again, is at last marked to be run without its project's apps."""
    sink = Sink()
    seen: list[Any] = []

    async def dies_unless_told(peer: Peer) -> None:
        await peer.load()
        while True:
            kind, head, _ = await peer.receive()
            if kind == FrameKind.RUN:
                seen.append(head["failed"])
                if not head["failed"]:
                    if script is never_answers:
                        await asyncio.Event().wait()
                    if script is answers_twice_in_one_frame:
                        await peer.frame(FrameKind.RESULTS, *results([head["first"]] * 2))
                    if script is lies_about_what_runs:
                        peer.says_it_runs(head["first"] + 5_000, 1)
                    peer.connection.shutdown(socket.SHUT_RDWR)
                await peer.answer(head["first"], len(head["lengths"]))

    async with sandbox_of(dies_unless_told, lives=10**6) as bench:
        bench.submit(sink.works(2))
        await sink.all()
        assert bench.restarts <= 1 + 2 * CRASHES
        assert any(seen)
        assert all({"1", "2"} == set(installs) for failed in seen for installs in failed.values())
        left_out = [set(effects.left_out) for effects in sink.effects.values()]
        assert {1, 2} in left_out
        assert all(installs in ({1, 2}, set()) for installs in left_out)


async def test_children_that_die_while_loading_are_not_forked_without_pause(monkeypatch):
    pauses = []
    real = asyncio.sleep

    async def note(seconds: float, *args: Any) -> None:
        pauses.append(seconds)
        await real(0 if seconds > 0.05 else seconds, *args)

    monkeypatch.setattr("plugin_server.runtime.starter.asyncio.sleep", note)
    sink = Sink()
    async with sandbox_of(hangs_up_at_once, lives=9) as bench:
        bench.submit(sink.works(10))
        await sink.all()
        assert bench.restarts == 9
    waits = [pause for pause in pauses if pause > 0.05]
    assert waits == [min(0.1 * 2**number, 10.0) for number in range(9)]


async def test_a_page_that_names_another_install_during_a_set_up_loses_no_event():
    async def names_another(peer: Peer) -> None:
        await peer.receive()
        hooks = ["processEvent", "setupPlugin"]
        await peer.frame(
            FrameKind.LOADED,
            LOADED | {"installs": [{"id": n, "hooks": hooks, "metrics": {}, "error": None} for n in (1, 2)]},
        )
        while True:
            kind, head, _ = await peer.receive()
            if kind == FrameKind.INVOKE:
                peer.says_it_runs(head[0], 3 - head[2])
                peer.connection.shutdown(socket.SHUT_RDWR)

    sink = Sink()
    async with sandbox_of(names_another, lives=2) as bench:
        bench.submit(sink.works(40))
        await sink.all()


async def test_a_child_that_is_always_busy_with_something_new_is_not_waited_for(monkeypatch):
    monkeypatch.setattr("plugin_server.runtime.sandbox.SILENCE_SECONDS", 0.3)

    async def counts(peer: Peer) -> None:
        await peer.load()
        await peer.run_of()
        number = 0
        while True:
            words = [0] * (PAGE_BYTES // 4)
            words[Word.STATE], words[Word.INVOCATIONS] = 1, (number := number + 1)
            os.pwrite(peer.page, b"".join(word.to_bytes(4, "little") for word in words), 0)
            await asyncio.sleep(0.005)

    sink = Sink()
    async with sandbox_of(counts, lives=1, cpu_seconds=0.01) as bench:
        bench.submit(sink.works(1))
        await sink.all()
        assert bench.restarts == 1

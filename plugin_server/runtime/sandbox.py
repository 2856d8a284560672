"""One sandbox: a confined process that runs chains, started when there is work, replaced when it dies.

Several batches are in the child at a time, so that it never waits for the host. When it is killed or dies, its
unfinished events are run again one by one in a new process, without the install that was to blame, for the event that
it was to blame for.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson
import structlog

from plugin_server.model.errors import ProtocolViolation
from plugin_server.model.origin import Origin
from plugin_server.model.project import Install, Limits, Project
from plugin_server.runtime.calls import PendingCalls
from plugin_server.runtime.chain import Chain
from plugin_server.runtime.in_flight import InFlight
from plugin_server.runtime.process import Running, SandboxProcess
from plugin_server.runtime.replies import (
    Bounds,
    ChainResult,
    HookFailure,
    HostCallRequest,
    InvocationReply,
    LoadedFrame,
    hook_name,
    read_call,
    read_done,
    read_loaded,
    read_results,
)
from plugin_server.runtime.setup_retries import ATTEMPTS as SET_UP_ATTEMPTS
from plugin_server.runtime.setup_retries import SetUpRetries
from plugin_server.runtime.starter import Spawn, Starter
from plugin_server.runtime.watch import SILENCE_SECONDS, WALL_GRACE_SECONDS, Kill, Watch
from plugin_server.runtime.work import HostCalls, Invocation, InvocationResult, RunEffects, SandboxReport, Work
from sandbox.wire import FrameKind

BATCHES_IN_FLIGHT: Final = 4
LOAD_CRASHES: Final = 8
"""Unexplained deaths in a row after which apps that are being loaded are given up"""
CRASHES: Final = 3
"""Unexplained deaths that one event may be part of before its project's apps are left out for it"""
_DEFAULT_LIMITS: Final = Limits.model_validate({})
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class SandboxServices:
    """What every sandbox of a worker is given."""

    spawn: Spawn
    host_calls: HostCalls
    make_effects: Callable[[Project, Origin], RunEffects]
    """For calls of setupPlugin and teardownPlugin"""
    report: SandboxReport
    library_version: str
    record_bytes: int
    is_traced: Callable[[], bool] = lambda: False
    on_kill: Callable[[Project, int], None] = lambda _project, _install_id: None
    """Told of the install that cost a sandbox"""
    now: float | None = None
    """Seconds since 1970 at which the apps' clock stands, or None"""
    set_up_attempts: int = SET_UP_ATTEMPTS
    """Calls of a setupPlugin that keeps failing"""


class Sandbox:
    """Runs the chains that were added to it. Its owner calls `tick` regularly."""

    def __init__(self, memory_bytes: int, services: SandboxServices) -> None:
        self._services = services
        self._chains: dict[int, Chain] = {}
        self._next_chain = 1
        self._unloading: dict[int, Chain] = {}
        """Removed, though the process has yet to say how they loaded"""
        self._load_waiters = 0
        self._process: SandboxProcess | None = None
        self._closing = False
        self._starter = Starter(services.spawn, memory_bytes, self._on_frame, self._on_started, self._on_ended)
        self._in_flight = InFlight()
        self._invocations: deque[Invocation] = deque()
        """That wait for a process"""
        self._watch = Watch()
        self._batch_seconds = 0.0
        """Since a batch ended, while there is one"""
        self._blamed: tuple[Chain, HookFailure] | None = None
        self._set_up_retries = SetUpRetries(services.set_up_attempts)
        self._calls = PendingCalls(services.host_calls, lambda answer: self._send(FrameKind.REPLY, answer))
        self.last_used = time.monotonic()

    def add_chain(
        self,
        project: Project,
        installs: Sequence[Install],
        *,
        opened: bool = False,
        whole: bool = False,
        set_up: bool = True,
    ) -> Chain:
        """Make room for these apps; they are loaded with the first work."""
        number = self._next_chain
        self._next_chain += 1
        record_bytes = self._services.record_bytes
        chain = Chain(number, project, installs, record_bytes, opened=opened, whole=whole, set_up=set_up)
        self._chains[number] = chain
        if self._process is not None:
            self._load(chain)
        return chain

    def remove_chain(self, chain: Chain) -> None:
        """Forget apps that have no work left."""
        del self._chains[chain.number]
        chain.is_removed = True
        if self._process is not None:
            if chain.loaded is None:
                self._unloading[chain.number] = chain  # its LOADED is still to come
            self._send(FrameKind.UNLOAD, [chain.number])

    def submit(self, chain: Chain, works: Sequence[Work[Any]]) -> None:
        """Take events, to be run in this order per distinct_id. Each sink gets each of its events back once."""
        chain.queue.extend(works)
        self.last_used = time.monotonic()
        self._pump()

    async def invoke(
        self,
        chain: Chain,
        install_id: int,
        hook: str,
        arguments: bytes,
        effects: RunEffects,
        *,
        max_captures: int | None = None,
    ) -> InvocationResult:
        """Call a hook of an install with these arguments, a JSON list, and `meta`. It is run again when the sandbox dies over others.

        Its host calls leave their effects in `effects`. Cancelling the caller does not end the hook; its limits do.
        """
        invocation = Invocation(chain, install_id, hook, arguments, effects, max_captures)
        self._invocations.append(invocation)
        self.last_used = time.monotonic()
        self._pump()
        return await invocation.done

    async def loaded(self, chain: Chain) -> None:
        """Returns when the chain's apps are loaded and set up. Starts the process if there is none."""
        self._load_waiters += 1
        try:
            self._pump()
            await chain.became_ready.wait()
        finally:
            self._load_waiters -= 1

    async def tear_down(self, chain: Chain) -> None:
        """Call teardownPlugin of every app of a chain that has it. What fails is logged for its owner."""
        installs = [install.id for install in chain.installs if "teardownPlugin" in chain.hooks(install.id)]
        await asyncio.gather(*(self._tear_down_one(chain, install_id) for install_id in installs))

    async def _tear_down_one(self, chain: Chain, install_id: int) -> None:
        effects = self._own_effects(chain, "teardownPlugin")
        result = await self.invoke(chain, install_id, "teardownPlugin", b"[]", effects)
        if result.failure is not None:
            effects.forget([install_id])
        self._services.report.torn_down(chain.project, result.logs)
        self._services.report.set_up(chain.project, install_id, result, effects)

    def _own_effects(self, chain: Chain, hook: str) -> RunEffects:
        """Of a hook that runs for no event."""
        run_id = str(uuid.uuid4())
        return self._services.make_effects(chain.project, Origin(f"{hook}-{run_id}", run_id, hook))

    def kill(self, reason: str) -> None:
        """End the process; its work is run again in another."""
        if self._process is not None:
            self._process.kill(reason)

    async def close(self) -> None:
        """End the process. Events in it are not answered any more."""
        self._closing = True
        self._set_up_retries.close()
        await self._starter.close()
        await self._calls.close()
        if self._process is not None:
            self._process.kill("the server is stopping")
        for run in (*self._in_flight.runs.values(), *self._invocations):
            if isinstance(run, Invocation):
                run.done.cancel()

    @property
    def in_flight(self) -> int:
        """Events and invocations in it, or waiting for it."""
        return len(self._in_flight.runs) + len(self._invocations)

    @property
    def busy(self) -> bool:
        return bool(self._in_flight.runs or self._invocations) or any(chain.waiting for chain in self._chains.values())

    def holds(self, chain: Chain) -> bool:
        """Some work of this chain is not finished."""
        runs = (*self._in_flight.runs.values(), *self._invocations)
        return chain.waiting or any(run.chain is chain for run in runs)

    @property
    def alive(self) -> bool:
        """It has a process, or is about to."""
        return self._process is not None or self._starter.is_running

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def chains(self) -> tuple[Chain, ...]:
        return tuple(self._chains.values())

    def tick(self, elapsed_seconds: float) -> float:
        """Judge what runs; the seconds after which to do so again.

        `elapsed_seconds` is the time since the last tick, less what the host itself was stopped.
        """
        process, watch = self._process, self._watch
        loading = any(chain.loaded is None for chain in self._chains.values())
        if process is None or not (self._in_flight.runs or loading or process.in_mid_frame):
            watch.rest()
            return watch.next_seconds
        running = process.running()
        if self._is_overdue(elapsed_seconds):
            process.kill("it did not end a batch in the longest time that its apps may take")
            return watch.next_seconds
        if self._in_flight.batches or loading or running.in_app or not self._calls.waiting:
            limits = self._limits_of(running.install_id)
            verdict = watch.tick(running, process.cpu_seconds(), elapsed_seconds, limits)
            if verdict is not None:
                self._kill(verdict)
                return watch.next_seconds
        else:
            watch.rest()
        self._tick_waiting(elapsed_seconds, running)
        return watch.next_seconds

    def _tick_waiting(self, elapsed_seconds: float, running: Running) -> None:
        for sequence, waiting in self._calls.waiting.items():
            # What the host has answered waits for its turn in the child, and that is not its own doing.
            others_turn = running.in_app and running.sequence != sequence
            if (waiting.cancelled and others_turn) or not (waiting.cancelled or waiting.tasks):
                continue
            waiting.seconds += elapsed_seconds
            limit = self._in_flight.runs[sequence].chain.limits.hook_seconds
            if waiting.seconds > limit and not waiting.cancelled:
                waiting.cancelled = True
                self._send(FrameKind.CANCEL, [sequence, f"ran longer than {limit:g} s (hook_seconds)"])
            elif waiting.seconds > limit + WALL_GRACE_SECONDS:
                message = f"ran longer than {limit:g} s and did not end when it was told to (hook_seconds)"
                self._blame(sequence, waiting.install_id, "timeout", message, None)
                assert self._process is not None
                self._process.kill(message)
                return

    def _is_overdue(self, elapsed_seconds: float) -> bool:
        """Whatever its page says, a batch ends within what its events may take one after another."""
        batches = self._in_flight.batches
        if not batches:
            self._batch_seconds = 0.0
            return False
        self._batch_seconds += elapsed_seconds
        batch, installs = batches[0], len(batches[0].chain.installs)
        return self._batch_seconds > SILENCE_SECONDS + 2 * batch.events * installs * (
            batch.chain.limits.cpu_seconds + 1
        )

    def _limits_of(self, install_id: int) -> Limits:
        chains = self._chains.values()
        return next((chain.limits for chain in chains if install_id in chain.bounds.installs), _DEFAULT_LIMITS)

    # Sending

    def _pump(self) -> None:
        """Send what there is room for in the child."""
        if self._process is None:
            if self._chains and not self._closing:
                self._starter.start()
            return
        self._pump_invocations()
        in_flight = self._in_flight
        replaying = False
        for chain in self._chains.values():
            if chain.replay and chain.ready:
                replaying = True
                if not in_flight.batches:
                    self._send_batch(chain, chain.replay, alone=True)
        while not replaying and len(in_flight.batches) < BATCHES_IN_FLIGHT:
            chains = self._chains.values()
            turn = next((chain for chain in chains if chain.queue and chain.ready and not chain.replay), None)
            if turn is None:
                return
            if len(self._chains) > 1:
                self._chains[turn.number] = self._chains.pop(turn.number)  # to the end of the line
            self._send_batch(turn, turn.queue, alone=False)

    def _pump_invocations(self) -> None:
        for _ in range(len(self._invocations)):
            invocation = self._invocations.popleft()
            if invocation.chain.is_removed:
                invocation.done.cancel()
            elif invocation.chain.ready:
                self._send_invocation(invocation)
            else:
                self._invocations.append(invocation)

    def _send_invocation(self, invocation: Invocation) -> None:
        sequence = self._in_flight.add_invocation(invocation)
        head = [
            sequence,
            invocation.chain.number,
            invocation.install_id,
            invocation.hook,
            invocation.max_captures,
        ]
        self._send(FrameKind.INVOKE, head, invocation.arguments)

    def _send_batch(self, chain: Chain, queue: deque[Work[Any]], *, alone: bool) -> None:
        works = chain.take_batch(queue, alone=alone)
        if not works:
            return
        first = self._in_flight.add_batch(chain, works)
        head, blob = chain.run_frame(first, works, trace=self._services.is_traced())
        assert self._process is not None
        self._process.send(FrameKind.RUN, head, blob)

    def _send(self, kind: FrameKind, head: Any, blob: bytes = b"") -> None:
        if self._process is not None:
            self._process.send(kind, orjson.dumps(head), blob)

    # Receiving

    def _on_frame(self, kind: int, head: bytes, blob: bytes) -> None:
        match kind:
            case FrameKind.RESULTS:
                self._on_results(*read_results(head, blob, self._in_flight.bounds_of, len(self._in_flight.runs)))
            case FrameKind.CALL:
                self._on_call(read_call(head, self._in_flight.bounds_of))
            case FrameKind.DONE:
                self._on_done(read_done(head, blob, self._in_flight.bounds_of))
            case FrameKind.LOADED:
                self._on_loaded(read_loaded(head, self._bounds_of_chain))
            case _:
                raise ProtocolViolation(f"a frame of kind {kind} that was not expected")

    def _bounds_of_chain(self, number: int) -> Bounds:
        chain = self._chains.get(number) or self._unloading.get(number)
        if chain is None or chain.loaded is not None:
            raise ProtocolViolation("LOADED for a chain that it was not given, or a second one")
        return chain.bounds

    def _on_loaded(self, frame: LoadedFrame) -> None:
        if self._unloading.pop(frame.chain, None) is not None:
            return
        chain = self._chains[frame.chain]
        chain.was_loaded(frame.installs)
        self._set_up_next(chain)

    def _set_up_next(self, chain: Chain) -> None:
        """Call setupPlugin of the next install; when all are set up, the chain is ready for work."""
        self._in_flight.forget_set_up()
        install_id = chain.next_to_set_up()
        if install_id is not None:
            self._set_up(chain, install_id)
            return
        self._services.report.loaded(chain.project, chain.become_ready())
        self._pump()

    def _set_up(self, chain: Chain, install_id: int) -> None:
        effects = self._own_effects(chain, "setupPlugin")
        self._send_invocation(Invocation(chain, install_id, "setupPlugin", b"[]", effects))

    def _set_up_again(self, chain: Chain, install_id: int) -> None:
        """Its setupPlugin failed a while ago, and events have passed it by since."""
        if self._process is not None and chain.ready and not chain.is_removed:
            self._set_up(chain, install_id)

    def _on_done(self, reply: InvocationReply) -> None:
        run = self._in_flight.take_invocation(reply)
        self._calls.ended(reply.sequence)
        failure = None if reply.failure is None else HookFailure(run.install_id, *reply.failure)
        notes = reply.notes
        result = InvocationResult(failure, reply.value, notes.captures, notes.logs, notes.unheard)
        run.finish(result)
        if run.hook == "setupPlugin":
            self._was_set_up(run, result)
        self.last_used = time.monotonic()
        self._pump()

    def _was_set_up(self, run: Invocation, result: InvocationResult) -> None:
        chain, install_id = run.chain, run.install_id
        retries = self._set_up_retries
        if result.failure is None:
            retries.succeeded(install_id)
            self._services.report.set_up(chain.project, install_id, result, run.effects)
        else:
            retries.failed(install_id, lambda: self._set_up_again(chain, install_id))
        was_ready = chain.ready
        chain.was_set_up(install_id, result, retries.next_seconds(install_id))
        if not was_ready:
            self._set_up_next(chain)
        else:
            self._services.report.loaded(chain.project, chain.become_ready())

    def _on_results(self, batches_ended: int, results: list[tuple[int, ChainResult]]) -> None:
        batch, works = self._in_flight.take_results(batches_ended, results)
        waiting = self._calls.waiting
        by_sink: dict[tuple[int, bool], tuple[Any, list[tuple[Any, ChainResult]]]] = {}
        for work, (sequence, result) in zip(works, results, strict=True):
            if waiting and sequence in waiting:
                self._calls.ended(sequence)
            sink = work.sink
            key = (id(sink), work.chain.has_delivery)
            entry = by_sink.get(key)
            if entry is None:
                by_sink[key] = entry = (sink, [])
            entry[1].append((work.item, result))
        if works:
            self._starter.was_of_use()
        if batch is not None:
            self._batch_seconds = 0.0
            batch.chain.batch_ended(batch, alone=bool(batch.events == 1 and batch.chain.replay))
        self.last_used = time.monotonic()
        for (_, has_delivery), (sink, delivered) in by_sink.items():
            if not sink.closed:
                sink.deliver(delivered, has_delivery=has_delivery)
        self._pump()

    def _on_call(self, request: HostCallRequest) -> None:
        self._calls.start(request, self._in_flight.runs[request.sequence])

    # Life and death

    def _on_started(self, process: SandboxProcess) -> None:
        if process.has_ended:
            self._starter.was_of_no_use()
            self._pump()
            return
        self._process = process
        self._watch = Watch()
        for chain in self._chains.values():
            self._load(chain)

    def _load(self, chain: Chain) -> None:
        assert self._process is not None
        self._process.send(FrameKind.LOAD, *chain.load_frame(self._services.library_version, self._services.now))

    def _kill(self, verdict: Kill) -> None:
        assert self._process is not None
        running = self._process.running()
        if verdict.blame:
            line = self._process.line(running.install_id) or running.line or None
            self._blame(running.sequence, running.install_id, "timeout", verdict.message, line)
        self._process.kill(verdict.message)

    def _blame(self, sequence: int, install_id: int, kind: str, message: str, line: int | None) -> None:
        """An install is left out of one event from now on, or altogether if it was being loaded or set up."""
        failure = HookFailure(install_id, kind, message, line)
        run = self._in_flight.runs.get(sequence)
        if run is None:
            chain = next((chain for chain in self._chains.values() if install_id in chain.bounds.installs), None)
            if chain is None or chain.loaded is not None:
                return  # it names what it was not given, so nobody can be blamed
            chain.broken[install_id] = failure
            self._blamed = chain, failure
        elif (
            install_id not in run.chain.bounds.installs
            or install_id in (run.failed or {})
            or (isinstance(run, Invocation) and install_id != run.install_id)
        ):
            return
        else:
            run.failed = {**(run.failed or {}), install_id: failure}
            if isinstance(run, Invocation) and run.hook == "setupPlugin":
                run.chain.broken[install_id] = failure
            self._blamed = run.chain, failure

    def _on_ended(self, process: SandboxProcess, reason: str) -> None:
        """Put the unfinished work of a dead process back, first in line, and begin again."""
        running = process.running()
        process.release()
        if process is not self._process:
            return
        self._process = None
        if self._closing:
            return
        if process.ran_out_of_memory:
            # Whoever asks last need not be who took it. The first in a new process is.
            if self._in_flight.is_first:
                message = "used up the memory of its sandbox and kept it (memory_bytes)"
                self._blame(running.sequence, running.install_id, "memory", message, running.line or None)
        elif self._blamed is None and running.in_app and process.is_its_own_doing:
            message = f"ended the sandbox: {process.cause}"
            self._blame(running.sequence, running.install_id, "sandbox", message, running.line or None)
        blamed, self._blamed = self._blamed, None
        if blamed is None:
            self._starter.was_of_no_use()
            if any(not chain.ready for chain in self._chains.values()):
                self._give_up_loading()
            else:
                self._count_crash()
        unfinished = len(self._in_flight.runs)
        self._put_back()
        self._calls.drop_all()
        self._unloading.clear()
        self._batch_seconds = 0.0
        for chain in self._chains.values():
            chain.forget_process()
        self._report_death(reason, running, blamed[1] if blamed else None, unfinished)
        if blamed is not None:
            self._services.on_kill(blamed[0].project, blamed[1].install_id)
        if self.busy or self._load_waiters:
            self._pump()

    def _report_death(self, reason: str, running: Running, blamed: HookFailure | None, unfinished: int) -> None:
        projects = {chain.project.id: chain.project for chain in self._chains.values()}
        _log.warning(
            "sandbox_replaced",
            project_ids=sorted(projects),
            reason=reason,
            install_id=blamed.install_id if blamed else None,
            hook=hook_name(running.hook) if blamed else None,
            line=blamed.line if blamed else None,
            events_to_run_again=unfinished,
        )
        for project in projects.values():
            self._services.report.restarted(project)

    def _put_back(self) -> None:
        for run in reversed(self._in_flight.take_all()):
            if run.called:
                run.effects.forget(run.chain.bounds.installs)
            if isinstance(run, Work):
                if run.failed:
                    run.effects.left_out.update(run.failed)
                run.chain.replay.appendleft(run)
            elif run.chain.is_removed:
                run.done.cancel()
            elif run.failed:
                run.fail(next(iter(run.failed.values())))
            elif run.hook != "setupPlugin" or run.chain.ready:  # that is called again after the next load
                self._invocations.appendleft(run)

    def _give_up_loading(self) -> None:
        """It died while apps were loaded, and nobody is to blame. Past a bound those apps do not run."""
        if self._starter.failures >= LOAD_CRASHES:
            message = f"the sandbox died {LOAD_CRASHES} times while the project's apps were loaded"
            for chain in self._chains.values():
                if not chain.ready:
                    failures = {i.id: HookFailure(i.id, "sandbox", message, None) for i in chain.installs}
                    chain.broken = failures | chain.broken

    def _count_crash(self) -> None:
        """It died with nobody to blame. The suspects bear it up to a bound."""
        for run in self._in_flight.suspects():
            run.crashes += 1
            if run.crashes >= CRASHES:
                message = f"the sandbox died {CRASHES} times while this was in it"
                run.failed = {
                    install.id: HookFailure(install.id, "sandbox", message, None) for install in run.chain.installs
                }

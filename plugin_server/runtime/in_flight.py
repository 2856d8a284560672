"""What is in a sandbox's process now: the events and invocations that it was given and has not answered."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, Final

from plugin_server.model.errors import ProtocolViolation
from plugin_server.runtime.chain import Batch, Chain
from plugin_server.runtime.replies import Bounds, ChainResult, InvocationReply
from plugin_server.runtime.work import Invocation, Work
from sandbox.wire import EventOutcome

_LAST_SEQUENCE: Final = 2**31
"""Sequence numbers begin again here: the page holds 32 bits, and what is in flight is never that old"""
_EMITTED: Final = frozenset({EventOutcome.EMIT, EventOutcome.WHOLE})

Run = Work[Any] | Invocation


class InFlight:
    """Runs by their sequence numbers, and the batches that events are in.

    An answer is judged whole before any of it counts: what is in flight when the process is killed is run again.
    """

    def __init__(self) -> None:
        self.runs: dict[int, Run] = {}
        self.batches: deque[Batch] = deque()
        self._next_sequence = 1
        self._given = 0

    def add_batch(self, chain: Chain, works: Sequence[Work[Any]]) -> int:
        """The sequence number of the first of these events."""
        sequences = self._take_sequences(len(works))
        for sequence, work in zip(sequences, works, strict=True):
            work.chain = chain
            self.runs[sequence] = work
        self.batches.append(Batch(chain, sequences.start, len(works)))
        return sequences.start

    def add_invocation(self, invocation: Invocation) -> int:
        """Its sequence number."""
        sequence = self._take_sequences(1).start
        self.runs[sequence] = invocation
        return sequence

    def bounds_of(self, sequence: int) -> Bounds:
        """What may be answered to it. Raises ProtocolViolation for what is not here."""
        run = self.runs.get(sequence)
        if run is None:
            raise ProtocolViolation("an answer for an event that it was not given, or a second one")
        bounds: Bounds = run.chain.bounds
        if isinstance(run, Invocation) and run.max_captures is not None:
            return bounds._replace(captures=run.max_captures)
        return bounds

    def take_results(
        self, batches_ended: int, results: Sequence[tuple[int, ChainResult]]
    ) -> tuple[Batch | None, list[Work[Any]]]:
        """The batch that has ended and the events of these results, in their order. Raises ProtocolViolation."""
        if len({sequence for sequence, _ in results}) != len(results):
            raise ProtocolViolation("a second answer for an event")
        if not results and not batches_ended:
            raise ProtocolViolation("a RESULTS frame with nothing in it")
        if batches_ended not in (0, 1) or batches_ended > len(self.batches):
            raise ProtocolViolation("it ended a batch that it was not given")
        works: list[Work[Any]] = []
        runs = self.runs
        for sequence, result in results:
            run = runs[sequence]
            if type(run) is not Work:
                raise ProtocolViolation("an invocation that it answered as an event")
            if result.outcome in _EMITTED and (result.outcome is EventOutcome.WHOLE) is not run.chain.whole:
                raise ProtocolViolation("an event in a form that was not asked for")
            works.append(run)
        for sequence, _ in results:
            del runs[sequence]
        return self.batches.popleft() if batches_ended else None, works

    def take_invocation(self, reply: InvocationReply) -> Invocation:
        """The invocation that has ended. Raises ProtocolViolation."""
        run = self.runs[reply.sequence]
        if not isinstance(run, Invocation):
            raise ProtocolViolation("an event that it answered as an invocation")
        del self.runs[reply.sequence]
        return run

    def forget_set_up(self) -> None:
        """What it was given until now was for setting apps up."""
        self._given = len(self.runs)

    @property
    def is_first(self) -> bool:
        """At most one event or invocation was given since apps were set up: nobody else can have used the memory."""
        return self._given <= 1 and len(self.runs) <= 1

    def suspects(self) -> list[Run]:
        """Who may have killed the process, when nobody is known to have: what was alone in it, or all that waited."""
        ran = [sequence for batch in self.batches for sequence in batch.sequences]
        numbers = ran if len(ran) == 1 else [] if ran else list(self.runs)
        return [self.runs[number] for number in numbers if number in self.runs]

    def take_all(self) -> list[Run]:
        """Everything, in the order in which it was given: the process is gone."""
        runs = list(self.runs.values())
        self.runs.clear()
        self.batches.clear()
        self._given = 0
        return runs

    def _take_sequences(self, count: int) -> range:
        if self._next_sequence > _LAST_SEQUENCE:
            self._next_sequence = 1
        first = self._next_sequence
        self._next_sequence += count
        self._given += count
        return range(first, first + count)

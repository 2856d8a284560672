"""Many runs in one thread: they wait for the host side by side, and those of one distinct_id run one after another.

A run is one event's chain or one call of another hook: a generator that yields the host calls it waits for. One thread
drives them all; a run that never waits goes straight through.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from typing import Any, Final, Protocol

from sandbox.app import Failure
from sandbox.chain import ChainLimits
from sandbox.globals.errors import LimitExceeded
from sandbox.invocation import HOST_CALLS, Context, Effects, HostCall
from sandbox.memory import end_if_used_up
from sandbox.page import HookTimeout, Page, SoftTimer

_MAX_THROWS: Final = 10

SendCall = Callable[[int, int, int, int, str, Any], None]
"""Of call id, sequence, install, number among the install's calls of this run, name, arguments"""


class Run(Protocol):
    """What is driven. `key` is the distinct_id whose order it keeps, or None."""

    sequence: int
    key: str | None
    limits: ChainLimits

    @property
    def keeps_memory(self) -> bool:
        """What it does now is there for every later run."""
        ...

    def begin(self, effects: Effects) -> Generator[HostCall, None, Any]:
        """Its generator; what that returns goes to `finish`."""
        ...

    def finish(self, result: Any, effects: Effects) -> None:
        """Take what the generator returned."""
        ...

    def without(self, install: int, failure: Failure) -> Run:
        """The same run once more, but for that install, which has failed it."""
        ...


class _Suspended:
    """A run that waits for the host."""

    __slots__ = ("effects", "generator", "run", "waited")

    def __init__(self, run: Run, generator: Generator[HostCall, None, Any], effects: Effects, waited: HostCall) -> None:
        self.run = run
        self.generator = generator
        self.effects = effects
        self.waited = waited

    def waits_for(self, call: HostCall) -> bool:
        waited = self.waited
        return waited is call or call in waited._members  # noqa: SLF001 - out of reach of apps by its underscore


class Scheduler:
    """Drives the runs of one child."""

    def __init__(self, page: Page, timer: SoftTimer, send_call: SendCall, after_each: Callable[[], None]) -> None:
        self.context = Context(self._call, page)
        self._page = page
        self._timer = timer
        self._send_call = send_call
        self._after_each = after_each
        self._calls: dict[int, HostCall] = {}
        self._suspended: dict[int, _Suspended] = {}
        self._behind: dict[str, deque[Run]] = {}
        """Runs that wait for an earlier one of their key"""
        self._next_call = 1

    def submit(self, run: Run) -> None:
        """Start a run, or put it behind an earlier one of its key."""
        if self._behind and run.key in self._behind:
            self._behind[run.key].append(run)
        else:
            self._start(run)

    def reply(self, call_id: int, succeeded: bool, answer: Any, kind: str = "error") -> None:  # noqa: FBT001 - a frame's fields
        """The host has done what was asked, or failed to."""
        call = self._calls.pop(call_id, None)
        if call is None:
            return  # its run has ended without it
        effects = call._effects  # noqa: SLF001 - out of reach of apps by its underscore
        assert effects is not None
        effects.waiting_bytes -= call._size  # noqa: SLF001
        if succeeded:
            call._finish(answer)  # noqa: SLF001
        else:
            call._fail(answer, kind)  # noqa: SLF001
        suspended = self._suspended.get(effects.sequence)
        if suspended is not None and suspended.waits_for(call):
            self._resume(effects.sequence)

    def cancel(self, sequence: int, message: str) -> None:
        """End what a run waits for as timed out."""
        if sequence in self._suspended:
            self._resume(sequence, HookTimeout(message))

    def _start(self, run: Run) -> bool:
        """Drive a run until it is finished or waits for the host; whether it is finished."""
        effects = Effects(run.sequence)
        return self._advance(run, run.begin(effects), effects)

    def _advance(
        self,
        run: Run,
        generator: Generator[HostCall, None, Any],
        effects: Effects,
        error: HookTimeout | None = None,
    ) -> bool:
        self.context.effects = effects
        self._timer.cpu_seconds = run.limits.cpu_seconds
        try:
            told = effects.running
            waited = generator.throw(error) if error is not None else next(generator)
            throws = 0
            while not _is_own(waited, effects) or error is not None:
                if effects.running != told:
                    error = None  # that hook has ended; it is the next app that waits now
                    if _is_own(waited, effects):
                        break
                throws += 1
                if throws > _MAX_THROWS:
                    raise HookTimeout("did not end when it was told to")
                waited = generator.throw(error or TypeError("only what the host gives for this event can be awaited"))
        except StopIteration as stop:
            self._forget_calls(effects)
            if effects.ran_out or run.keeps_memory:
                end_if_used_up(run.limits.memory_bytes)
            run.finish(stop.value, effects)
            return True
        except HookTimeout as timeout:
            # The timer struck between app code and ours, where no hook could fail of it; or the hook goes on for ever.
            failure = Failure("timeout", str(timeout))
        except (MemoryError, RecursionError) as shortage:
            # An app left so little that our own code failed.
            failure = Failure("memory", f"{type(shortage).__name__}: the sandbox has no more memory (memory_bytes)")
        else:
            self._suspend(run, generator, effects, waited)
            return False
        finally:
            self.context.effects = None
            self._page.leave()
        # Both exceptions are gone by now, and with them what they kept.
        self._page.overran = ""
        self._page.enter(run.sequence, self._page.install, self._page.hook)
        _forget_frames(error)
        generator.close()
        _forget_frames(error)
        self._forget_calls(effects)
        if failure.kind == "memory":
            end_if_used_up(run.limits.memory_bytes)
        self._page.leave()
        return self._start(run.without(self._page.install, failure))

    def _suspend(self, run: Run, generator: Generator[HostCall, None, Any], effects: Effects, waited: HostCall) -> None:
        sequence = run.sequence
        self._suspended[sequence] = _Suspended(run, generator, effects, waited)
        if run.key is not None:
            self._behind.setdefault(run.key, deque())

    def _forget_calls(self, effects: Effects) -> None:
        for call_id in effects.call_ids:  # the host answers no more of them
            self._calls.pop(call_id, None)

    def _resume(self, sequence: int, error: HookTimeout | None = None) -> None:
        suspended = self._suspended.pop(sequence)
        run = suspended.run
        if self._advance(run, suspended.generator, suspended.effects, error) and run.key is not None:
            self._release(run.key)

    def _release(self, key: str) -> None:
        """Run what waited for a run of this key, up to the next one that has to wait itself."""
        behind = self._behind.pop(key, None)
        while behind:
            self._after_each()
            if not self._start(behind.popleft()):
                self._behind[key] = behind
                return

    def _call(self, effects: Effects, install: int, name: str, arguments: Any) -> HostCall:
        if sum(effects.numbers.values()) >= HOST_CALLS:
            raise LimitExceeded(f"{name}: more than {HOST_CALLS} calls to the host for one event")
        number = effects.numbers.get(install, 0)
        call, call_id = HostCall(effects, name, (install, number)), self._next_call
        self._next_call += 1
        self._calls[call_id] = call
        effects.call_ids.append(call_id)
        effects.calls.append(call)
        effects.numbers[install] = number + 1
        self._send_call(call_id, effects.sequence, install, number, name, arguments)
        return call


def _forget_frames(error: BaseException | None) -> None:
    """An error that was thrown into a run holds frames that hold the error: a cycle, freed in whichever app's time."""
    if error is not None:
        error.__traceback__ = error.__context__ = None


def _is_own(waited: Any, effects: Effects) -> bool:
    return type(waited) is HostCall and waited._effects is effects  # noqa: SLF001 - out of reach of apps

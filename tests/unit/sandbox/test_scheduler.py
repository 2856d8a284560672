"""Which run goes on when, with runs that do nothing but what a test says."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import pytest

from sandbox.app import Failure
from sandbox.chain import ChainLimits
from sandbox.globals.errors import LimitExceeded
from sandbox.invocation import HOST_CALLS, Effects, HostCall
from sandbox.page import HookTimeout, Page, SoftTimer
from sandbox.scheduler import Scheduler
from sandbox.wire import OUT_OF_MEMORY_STATUS

Body = Callable[["Bench", Effects], Generator[Any, None, Any]]


class Bench:
    """A scheduler, what it asked of the host, and what became of the runs."""

    def __init__(self) -> None:
        self.page = Page()
        self.timer = SoftTimer(self.page)
        self.sent: list[tuple[Any, ...]] = []
        self.finished: list[tuple[int, Any]] = []
        self.released = 0
        self.scheduler = Scheduler(self.page, self.timer, lambda *call: self.sent.append(call), self.count)

    def count(self) -> None:
        self.released += 1

    def call(self, install: int = 1, name: str = "sleep", *arguments: Any) -> HostCall:
        """As an app's global does it."""
        context = self.scheduler.context
        return context.send_call(context.current(name), install, name, list(arguments))

    def submit(self, sequence: int, body: Body, key: str | None = None, own: ChainLimits | None = None) -> Run:
        run = Run(self, sequence, body, key, own or limits())
        self.scheduler.submit(run)
        return run

    @property
    def order(self) -> list[int]:
        return [sequence for sequence, _ in self.finished]


def limits(cpu_seconds: float = 1, memory_bytes: int = 2**20) -> ChainLimits:
    return ChainLimits(cpu_seconds, memory_bytes, 2**20, 2**20)


class Run:
    def __init__(self, bench: Bench, sequence: int, body: Body, key: str | None, own: ChainLimits) -> None:
        self.sequence = sequence
        self.key = key
        self.limits = own
        self.keeps_memory = False
        self.bench = bench
        self.body = body
        self.effects: list[Effects] = []
        self.left_out: list[tuple[int, Failure]] = []

    def begin(self, effects: Effects) -> Generator[HostCall, None, Any]:
        self.effects.append(effects)
        return self.body(self.bench, effects) if not self.left_out else ends(self.bench, effects)

    def finish(self, result: Any, effects: Effects) -> None:
        assert effects is self.effects[-1]
        self.bench.finished.append((self.sequence, result))

    def without(self, install: int, failure: Failure) -> Run:
        self.left_out.append((install, failure))
        return self


def ends(_bench: Bench, _effects: Effects) -> Generator[HostCall, None, Any]:
    yield from ()
    return "ended"


def waits(bench: Bench, _effects: Effects) -> Generator[HostCall, None, Any]:
    call = bench.call()
    return (yield from call.__await__())


def times_out(_bench: Bench, _effects: Effects) -> Generator[HostCall, None, Any]:
    yield from ()
    raise HookTimeout("struck")


def test_a_run_that_waits_for_nothing_goes_straight_through():
    bench = Bench()
    for sequence in (1, 2, 3):
        bench.submit(sequence, ends, "ada")
    assert bench.finished == [(1, "ended"), (2, "ended"), (3, "ended")]
    assert bench.released == 0


def test_runs_of_a_key_keep_their_order_and_those_of_none_wait_for_nobody():
    bench = Bench()
    bench.submit(1, waits, "ada")
    bench.submit(2, ends, "ada")
    bench.submit(3, ends, "eve")
    bench.submit(4, waits)
    bench.submit(5, ends)
    bench.submit(6, waits, "ada")
    bench.submit(7, ends, "ada")
    assert bench.order == [3, 5]
    bench.scheduler.reply(1, True, "first")
    assert bench.order == [3, 5, 1, 2]
    bench.submit(8, ends, "ada")
    assert bench.order == [3, 5, 1, 2]
    bench.scheduler.reply(3, True, "third")
    assert bench.order == [3, 5, 1, 2, 6, 7, 8]
    bench.scheduler.reply(2, True, "second")
    assert bench.finished[-1] == (4, "second")
    bench.submit(9, ends, "ada")
    assert bench.order[-1] == 9
    assert bench.released == 4  # before each that was behind


def test_each_run_has_its_own_cpu_time_whenever_it_goes_on():
    bench = Bench()
    seen: list[tuple[int, float]] = []

    def notes(bench: Bench, effects: Effects) -> Generator[HostCall, None, Any]:
        seen.append((effects.sequence, bench.timer.cpu_seconds))
        yield from bench.call().__await__()
        seen.append((effects.sequence, bench.timer.cpu_seconds))

    bench.submit(1, notes, "ada", own=limits(5))
    bench.submit(2, notes, "eve", own=limits(0.25))
    bench.submit(3, notes, "ada", own=limits(7))
    bench.scheduler.reply(1, True, None)
    bench.scheduler.reply(2, True, None)
    bench.scheduler.reply(3, True, None)
    assert seen == [(1, 5), (2, 0.25), (1, 5), (3, 7), (2, 0.25), (3, 7)]


def test_a_refusal_of_the_host_raises_in_the_run():
    bench = Bench()

    def caught(bench: Bench, _effects: Effects) -> Generator[HostCall, None, Any]:
        try:
            yield from bench.call().__await__()
        except RuntimeError as error:
            return str(error)

    bench.submit(1, caught)
    bench.scheduler.reply(1, False, "no")
    assert bench.finished == [(1, "no")]


def test_answers_that_nobody_waits_for_change_nothing():
    bench = Bench()

    def asks_and_ends(bench: Bench, _effects: Effects) -> Generator[HostCall, None, Any]:
        bench.call()
        yield from ()

    bench.submit(1, asks_and_ends)
    bench.scheduler.reply(1, True, None)
    bench.scheduler.reply(77, True, None)
    bench.scheduler.cancel(1, "late")
    assert bench.order == [1]


def test_an_answer_that_comes_before_it_is_awaited_is_kept():
    bench = Bench()

    def two(bench: Bench, _effects: Effects) -> Generator[HostCall, None, Any]:
        first, second = bench.call(1, "sleep", 1), bench.call(2, "sleep", 2)
        return [(yield from first.__await__()), (yield from second.__await__())]

    bench.submit(1, two)
    assert bench.sent == [(1, 1, 1, 0, "sleep", [1]), (2, 1, 2, 0, "sleep", [2])]
    bench.scheduler.reply(2, True, "b")
    assert bench.finished == []
    bench.scheduler.reply(1, True, "a")
    assert bench.finished == [(1, ["a", "b"])]


def test_calls_are_numbered_per_install_and_run_and_bounded():
    bench = Bench()

    def many(bench: Bench, _effects: Effects) -> Generator[HostCall, None, Any]:
        yield from ()
        for number in range(HOST_CALLS):
            bench.call(number % 2)
        with pytest.raises(LimitExceeded, match="more than 1000 calls"):
            bench.call(3)

    bench.submit(1, many)
    bench.submit(2, waits)
    assert [call[3] for call in bench.sent[:4]] == [0, 0, 1, 1]
    assert bench.sent[-1][1:4] == (2, 1, 0)
    assert len(bench.sent) == HOST_CALLS + 1


def test_nobody_calls_the_host_while_nothing_runs():
    bench = Bench()
    with pytest.raises(RuntimeError, match="only while a hook runs"):
        bench.call()
    bench.submit(1, waits)
    with pytest.raises(RuntimeError, match="only while a hook runs"):
        bench.call()


def test_a_run_that_is_told_to_end_ends_with_the_timeout():
    bench = Bench()

    def fails(bench: Bench, _effects: Effects) -> Generator[HostCall, None, Any]:
        try:
            yield from bench.call().__await__()
        except HookTimeout as timeout:
            return f"failed: {timeout}"

    bench.submit(1, fails, "ada")
    bench.submit(2, ends, "ada")
    bench.scheduler.cancel(1, "too long")
    assert bench.finished == [(1, "failed: too long"), (2, "ended")]
    bench.scheduler.reply(1, True, None)
    bench.scheduler.cancel(1, "again")
    assert bench.order == [1, 2]


def test_a_run_whose_install_cannot_be_ended_is_run_without_it():
    bench = Bench()

    def stubborn(bench: Bench, effects: Effects) -> Generator[HostCall, None, Any]:
        effects.running = 39
        bench.page.enter(effects.sequence, 39, 2)
        while True:
            try:
                bench.page.leave()
                yield from bench.call().__await__()
            except HookTimeout:
                continue

    run = bench.submit(1, stubborn, "ada")
    bench.submit(2, ends, "ada")
    bench.scheduler.cancel(1, "too long")
    assert run.left_out == [(39, Failure("timeout", "did not end when it was told to"))]
    assert bench.finished == [(1, "ended"), (2, "ended")]
    assert len(run.effects) == 2
    assert run.effects[0] is not run.effects[1]
    for call_id in range(1, 20):
        bench.scheduler.reply(call_id, True, None)
    assert bench.order == [1, 2]


def test_a_timeout_between_app_and_child_leaves_the_install_out():
    bench = Bench()

    def strikes(bench: Bench, effects: Effects) -> Generator[HostCall, None, Any]:
        bench.page.enter(effects.sequence, 40, 2)
        bench.page.overran = "struck"
        yield from ()
        raise HookTimeout("struck")

    run = bench.submit(1, strikes)
    assert run.left_out == [(40, Failure("timeout", "struck"))]
    assert bench.finished == [(1, "ended")]
    assert bench.page.overran == ""
    assert not bench.page.in_app


def test_when_one_hook_is_ended_the_next_may_wait():
    bench = Bench()

    def two_hooks(bench: Bench, effects: Effects) -> Generator[HostCall, None, Any]:
        effects.running = 1
        try:
            yield from bench.call(1).__await__()
        except HookTimeout:
            effects.running = 2
        return (yield from bench.call(2).__await__())

    run = bench.submit(1, two_hooks)
    bench.scheduler.cancel(1, "too long")
    assert bench.finished == []
    bench.scheduler.reply(2, True, "answer of the second")
    assert bench.finished == [(1, "answer of the second")]
    assert run.left_out == []


@pytest.mark.parametrize("odd", [None, 5, HostCall(), "text"], ids=["nothing", "number", "nobody's call", "text"])
def test_only_what_the_host_gave_to_this_run_can_be_awaited(odd):
    bench = Bench()

    def awaits(_bench: Bench, _effects: Effects) -> Generator[Any, None, Any]:
        try:
            yield odd
        except TypeError as error:
            return str(error)

    bench.submit(1, awaits)
    assert bench.finished == [(1, "only what the host gives for this event can be awaited")]


def test_a_run_cannot_await_the_call_of_another():
    bench = Bench()
    stolen: list[HostCall] = []

    def gives(bench: Bench, _effects: Effects) -> Generator[HostCall, None, Any]:
        stolen.append(bench.call())
        yield from stolen[0].__await__()

    def takes(_bench: Bench, _effects: Effects) -> Generator[HostCall, None, Any]:
        yield from stolen[0].__await__()

    bench.submit(1, gives)
    with pytest.raises(TypeError, match="for this event"):
        bench.submit(2, takes)


def test_what_goes_on_awaiting_what_it_must_not_is_left_out():
    bench = Bench()

    def insists(bench: Bench, effects: Effects) -> Generator[Any, None, Any]:
        bench.page.enter(effects.sequence, 39, 2)
        while True:
            try:
                yield None
            except TypeError:
                continue

    run = bench.submit(1, insists)
    assert run.left_out == [(39, Failure("timeout", "did not end when it was told to"))]
    assert bench.order == [1]


def test_the_page_is_clear_whenever_nothing_runs():
    bench = Bench()

    def enters(bench: Bench, effects: Effects) -> Generator[HostCall, None, Any]:
        bench.page.enter(effects.sequence, 39, 2)
        yield from bench.call().__await__()
        bench.page.enter(effects.sequence, 39, 2)

    bench.submit(1, enters)
    assert not bench.page.in_app
    bench.scheduler.reply(1, True, None)
    assert not bench.page.in_app
    assert bench.scheduler.context.effects is None


def test_a_timeout_while_another_key_is_released_is_that_runs_own():
    bench = Bench()
    bench.submit(1, waits, "ada")
    late = bench.submit(2, times_out, "ada")
    bench.submit(3, ends, "ada")
    bench.scheduler.reply(1, True, "x")
    assert bench.finished == [(1, "x"), (2, "ended"), (3, "ended")]
    assert len(late.left_out) == 1


def runs_out(bench: Bench, effects: Effects) -> Generator[HostCall, None, Any]:
    bench.page.enter(effects.sequence, 39, 2)
    effects.ran_out = True
    yield from ()
    return "a failure that was described"


@pytest.mark.parametrize("shortage", [MemoryError, RecursionError])
def test_when_the_childs_own_code_runs_out_of_memory_the_app_that_ran_is_left_out(shortage):
    bench = Bench()

    def exhausts(bench: Bench, effects: Effects) -> Generator[HostCall, None, Any]:
        bench.page.enter(effects.sequence, 39, 2)
        yield from ()
        raise shortage

    run = bench.submit(1, exhausts)
    ((install, failure),) = run.left_out
    assert (install, failure.kind) == (39, "memory")
    assert shortage.__name__ in failure.message
    assert bench.finished == [(1, "ended")]
    assert not bench.page.in_app


def test_a_sandbox_whose_memory_is_free_again_goes_on():
    bench = Bench()
    bench.submit(1, runs_out)
    assert bench.finished == [(1, "a failure that was described")]


class Exited(BaseException):
    pass


@pytest.mark.parametrize("described", [True, False])
def test_a_sandbox_whose_memory_is_kept_ends_in_the_name_of_who_keeps_it(monkeypatch, described):
    bench = Bench()
    seen: list[tuple[int, bool, int]] = []

    def exit_(status: int) -> None:
        seen.append((status, bench.page.in_app, bench.page.install))
        raise Exited

    def exhausts(bench: Bench, effects: Effects) -> Generator[HostCall, None, Any]:
        bench.page.enter(effects.sequence, 39, 2)
        yield from ()
        raise MemoryError

    monkeypatch.setattr("sandbox.memory.os._exit", exit_)
    with pytest.raises(Exited):
        bench.submit(1, runs_out if described else exhausts, own=limits(memory_bytes=2**62))
    assert seen == [(OUT_OF_MEMORY_STATUS, True, 39)]
    assert bench.finished == []

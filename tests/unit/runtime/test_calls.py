"""The host calls of one sandbox: answered, journaled, and ended with the run that made them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import structlog

from plugin_server.model.errors import (
    AppError,
    DatabaseUnavailable,
    FetchFailed,
    FetchRefused,
    InvalidArgument,
    LimitReached,
    ProtocolViolation,
)
from plugin_server.model.project import Project
from plugin_server.runtime import calls
from plugin_server.runtime.calls import RUN_CALLS, PendingCalls
from plugin_server.runtime.replies import HostCallRequest
from plugin_server.runtime.work import Work
from tests.unit.runtime.doubles import Sink, chain, invocation


class Host:
    """HostCalls that answer when they are told to."""

    def __init__(self) -> None:
        self.asked: list[tuple[Project, Any, HostCallRequest, asyncio.Future[Any]]] = []
        self.cancelled: list[HostCallRequest] = []

    def is_outside(self, name: str) -> bool:
        return name == "fetch"

    async def answer(self, project: Project, effects: Any, request: HostCallRequest) -> Any:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.asked.append((project, effects, request, future))
        try:
            return await future
        except asyncio.CancelledError:
            self.cancelled.append(request)
            raise


class Bench:
    def __init__(self) -> None:
        self.host = Host()
        self.replies: list[list[Any]] = []
        self.calls = PendingCalls(self.host, self.replies.append)
        self.next_id = 0

    async def start(
        self, run: Any, sequence: int = 1, install: int = 1, number: int = 0, name: str = "fetch", asked: Any = 1
    ) -> HostCallRequest:
        self.next_id += 1
        request = HostCallRequest(self.next_id, sequence, install, number, name, [asked])
        self.calls.start(request, run)
        await settle()
        return request

    async def answer(self, place: int, value: Any) -> None:
        future = self.host.asked[place][3]
        if isinstance(value, Exception):
            future.set_exception(value)
        else:
            future.set_result(value)
        await settle()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def answers(run: Any) -> dict[tuple[int, int], list[Any]]:
    return {call: answered.answer for call, answered in run.effects.journal.items()}


def work(project_id: int = 2) -> Work[int]:
    made = Work(1, b"raw", Sink())
    made.chain = chain(1, 2, project_id=project_id)
    return made


async def test_a_call_is_answered_for_the_project_of_its_run():
    bench = Bench()
    await bench.start(work(7))
    assert bench.replies == []
    await bench.answer(0, {"a": 1})
    assert bench.replies == [[1, True, {"a": 1}]]
    assert bench.host.asked[0][0].id == 7


async def test_an_invocation_may_call_too():
    bench = Bench()
    run = invocation(chain(1))
    assert not run.called
    await bench.start(run)
    await bench.answer(0, None)
    assert bench.replies == [[1, True, None]]
    assert run.called
    assert bench.host.asked[0][1] is run.effects
    assert answers(run) == {(1, 0): [True, None]}


async def test_a_refusal_is_told_to_the_app_in_its_words():
    bench = Bench()
    await bench.start(work())
    await bench.answer(0, AppError("sleep: no"))
    assert bench.replies == [[1, False, "sleep: no", "error"]]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (AppError("no"), "error"),
        (InvalidArgument("no"), "value"),
        (LimitReached("no"), "limit"),
        (FetchFailed("no"), "fetch"),
        (FetchRefused("no"), "refused"),
    ],
)
async def test_a_refusal_says_which_error_the_app_gets(error, kind):
    bench = Bench()
    await bench.start(work())
    await bench.answer(0, error)
    assert bench.replies == [[1, False, "no", kind]]


async def test_what_is_away_is_noted_on_the_run_and_the_app_may_try_again_later():
    bench = Bench()
    run = work()
    await bench.start(run, name="storage.get")
    error = DatabaseUnavailable("secret")
    with structlog.testing.capture_logs():
        await bench.answer(0, error)
    assert run.effects.trouble == (1, error)
    ((_, succeeded, message, kind),) = bench.replies
    assert (succeeded, kind) == (False, "fetch")
    assert "secret" not in message


async def test_a_fault_of_the_host_leaves_nobody_waiting_and_tells_the_operator():
    bench = Bench()
    with structlog.testing.capture_logs() as logs:
        await bench.start(work())
        await bench.answer(0, ZeroDivisionError("secret"))
    ((call_id, succeeded, message, kind),) = bench.replies
    assert (call_id, succeeded, kind) == (1, False, "error")
    assert "secret" not in message
    assert [entry["event"] for entry in logs] == ["host_call_failed"]


async def test_what_was_answered_already_is_answered_from_the_journal_after_a_death():
    bench = Bench()
    run = work()
    await bench.start(run, number=0)
    await bench.start(run, number=1)
    await bench.start(run, number=2)
    await bench.answer(0, "first")
    await bench.answer(1, AppError("no"))
    bench.calls.drop_all()
    await settle()
    assert [request.number for request in bench.host.cancelled] == [2]
    bench.replies.clear()
    await bench.start(run, sequence=9, number=0)
    await bench.start(run, sequence=9, number=1)
    await bench.start(run, sequence=9, number=2)
    assert bench.replies == [[4, True, "first"], [5, False, "no", "error"]]
    assert len(bench.host.asked) == 4


async def test_what_is_only_buffered_is_asked_again_after_a_death():
    bench = Bench()
    run = work()
    await bench.start(run, name="storage.get")
    await bench.answer(0, "old")
    assert answers(run) == {}
    bench.calls.drop_all()
    await bench.start(run, sequence=9, name="storage.get")
    await bench.answer(1, "new")
    assert bench.replies == [[1, True, "old"], [2, True, "new"]]


async def test_events_that_were_posted_are_posted_again_after_a_death():
    bench = Bench()
    run = work()
    await bench.start(run)
    await bench.answer(0, {"status": 200, "captured": 1})
    assert answers(run) == {}


@pytest.mark.parametrize("other", [{"name": "api"}, {"asked": 2}])
async def test_an_answer_is_given_again_only_to_the_same_question(other):
    bench = Bench()
    run = work()
    await bench.start(run)
    await bench.answer(0, "first")
    bench.calls.drop_all()
    await bench.start(run, sequence=9, **other)
    await bench.answer(1, "other")
    assert bench.replies == [[1, True, "first"], [2, True, "other"]]


async def test_journals_are_kept_per_install_and_number_and_run():
    bench = Bench()
    run = work()
    await bench.start(run, install=1)
    await bench.answer(0, "of the first")
    await bench.start(run, install=2)
    await bench.start(run, install=1, number=1)
    await bench.start(work(), install=1)
    assert len(bench.replies) == 1
    assert len(bench.host.asked) == 4


async def test_when_a_run_has_ended_its_calls_are_given_up_and_those_of_others_stay():
    bench = Bench()
    await bench.start(work(), sequence=1, number=0)
    await bench.start(work(), sequence=1, install=2, number=0)
    await bench.start(work(), sequence=2)
    bench.calls.ended(1)
    bench.calls.ended(1)
    bench.calls.ended(77)
    await settle()
    assert [request.sequence for request in bench.host.cancelled] == [1, 1]
    assert list(bench.calls.waiting) == [2]
    await bench.answer(2, "x")
    assert bench.replies == [[3, True, "x"]]


async def test_each_install_that_waits_has_its_own_time_and_the_run_one_count():
    bench = Bench()
    run = work()
    await bench.start(run, install=1)
    first = bench.calls.waiting[1]
    first.seconds = 3.0
    first.cancelled = True
    await bench.start(run, install=1, number=1)
    assert bench.calls.waiting[1] is first
    await bench.start(run, install=2)
    second = bench.calls.waiting[1]
    assert (second.install_id, second.seconds, second.cancelled, second.calls) == (2, 0.0, False, 3)


@pytest.mark.parametrize("installs", [(1,), (1, 2)])
async def test_more_calls_than_an_honest_child_makes_for_one_event_are_a_violation(installs):
    bench = Bench()
    run = work()

    def start(place: int) -> None:
        install = installs[place % len(installs)]
        bench.calls.start(HostCallRequest(place, 1, install, place, "fetch", []), run)

    for place in range(RUN_CALLS):
        start(place)
    with pytest.raises(ProtocolViolation, match="more host calls"):
        start(RUN_CALLS)
    await settle()
    assert len(bench.host.asked) == RUN_CALLS
    await bench.calls.close()


async def test_more_calls_than_a_sandbox_may_have_under_way_are_refused_and_tried_again_later(monkeypatch):
    monkeypatch.setattr(calls, "PENDING_CALLS", 2)
    bench = Bench()
    runs = [work() for _ in range(4)]
    for sequence, run in enumerate(runs[:3], 1):
        await bench.start(run, sequence=sequence)
    ((call_id, succeeded, message, kind),) = bench.replies
    assert (call_id, succeeded, kind) == (3, False, "limit")
    assert "try again later" in message
    assert answers(runs[2]) == {}
    await bench.answer(0, "x")
    await bench.start(runs[3], sequence=4)
    await bench.answer(2, "y")
    assert bench.replies[1:] == [[1, True, "x"], [4, True, "y"]]
    await bench.calls.close()


async def test_what_the_calls_under_way_ask_with_is_bounded_together(monkeypatch):
    monkeypatch.setattr(calls, "PENDING_BYTES", 100)
    bench = Bench()
    run = work()

    async def start(number: int, size: int) -> None:
        bench.calls.start(HostCallRequest(number, 1, 1, number, "fetch", [], size), run)
        await settle()

    for number, size in enumerate((60, 50, 40, 1)):
        await start(number, size)
    assert [(reply[0], reply[1], reply[3]) for reply in bench.replies] == [(1, False, "limit"), (3, False, "limit")]
    assert all("100 bytes" in reply[2] for reply in bench.replies)
    await bench.answer(0, "x")
    await start(4, 60)
    assert len(bench.replies) == 3
    bench.calls.drop_all()
    await settle()
    await start(5, 100)
    assert len(bench.replies) == 3
    await bench.calls.close()


async def test_closing_ends_all_that_is_under_way():
    bench = Bench()
    for sequence in range(5):
        await bench.start(work(), sequence=sequence)
    await bench.calls.close()
    assert len(bench.host.cancelled) == 5
    assert bench.calls.waiting == {}
    assert bench.replies == []
    await bench.calls.close()


async def test_the_answer_of_a_call_that_was_given_up_is_not_kept():
    bench = Bench()
    run = work()
    await bench.start(run)
    bench.calls.drop_all()
    await settle()
    assert answers(run) == {}
    assert bench.replies == []


@pytest.mark.parametrize("end", [PendingCalls.drop_all, lambda pending: pending.ended(1)])
async def test_a_call_that_ends_in_the_same_moment_as_its_run_answers_nobody(end: Callable[[PendingCalls], None]):
    bench = Bench()
    run = work()
    await bench.start(run)
    bench.host.asked[0][3].set_result("late")
    end(bench.calls)
    await settle()
    assert bench.replies == []

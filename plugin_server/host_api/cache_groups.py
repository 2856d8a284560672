"""Calls that come while others are under way go together when those are done, in the order in which they came.

One transaction, or one round trip, for all of them: five hundred events that count in the cache cost a handful of each.
The work is done by a task of the group's, so that a caller who is cancelled takes no other call with him.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from plugin_server.host_api.cache_operations import Operation
from plugin_server.model.errors import AppError


class Place(NamedTuple):
    """A key of a scope."""

    scope: str
    key: str


@dataclass(frozen=True, slots=True)
class Call:
    """One call. `answer` is done when its caller has gone."""

    place: Place
    operation: Operation
    answer: asyncio.Future[Any]


Run = Callable[[Sequence[Call]], Awaitable[Sequence[Any]]]
"""Does the calls in order; the answer of each, an AppError where one failed. Raises when all have failed."""


class Groups:
    """See the module."""

    def __init__(self, run: Run, max_calls: int) -> None:
        self._run = run
        self._max_calls = max_calls
        self._waiting: deque[Call] = deque()
        self._places: Counter[Place] = Counter()
        self._task: asyncio.Task[None] | None = None

    def is_busy_with(self, place: Place) -> bool:
        """Is a call for it waiting or under way?"""
        return place in self._places

    async def call(self, place: Place, operation: Operation) -> Any:
        """The answer. Raises AppError, and what `run` raises. Cancelled, it may or may not be done."""
        call = Call(place, operation, asyncio.get_running_loop().create_future())
        self._waiting.append(call)
        self._places[place] += 1
        if self._task is None:
            self._task = asyncio.create_task(self._work(), name="cache-group")
        return await call.answer

    async def close(self) -> None:
        """Cancel what is under way or waits."""
        task = self._task
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _work(self) -> None:
        group: list[Call] = []
        try:
            while self._waiting:
                group = [self._waiting.popleft() for _ in range(min(len(self._waiting), self._max_calls))]
                await self._answer([call for call in group if not call.answer.done()])
                self._forget(group)
                group = []
        finally:
            self._task = None
            left = [*group, *self._waiting]  # nobody is, unless this task was cancelled
            self._waiting.clear()
            self._forget(left)
            for call in left:
                call.answer.cancel()

    async def _answer(self, group: Sequence[Call]) -> None:
        if not group:
            return
        try:
            answers = await self._run(group)
        except Exception as error:  # noqa: BLE001  (it is the callers' to handle)
            answers = [error] * len(group)
        for call, answer in zip(group, answers, strict=True):
            if call.answer.done():
                continue
            if isinstance(answer, Exception):
                call.answer.set_exception(answer)
            else:
                call.answer.set_result(answer)

    def _forget(self, group: Sequence[Call]) -> None:
        for call in group:
            self._places[call.place] -= 1
            if not self._places[call.place]:
                del self._places[call.place]


def attempt(do: Callable[..., Any], *arguments: Any) -> Any:
    """The answer, or the AppError that it failed with."""
    try:
        return do(*arguments)
    except AppError as error:
        return error

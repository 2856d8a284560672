"""`gather`: host calls and coroutines of an app, awaited side by side.

There is no event loop: the coroutine that `gather` makes drives the others itself. Each runs until it waits for the
host; when all of them wait, so does `gather`, for whichever of their calls is answered first. So all of it happens
within one run's turn, under its limits, and the scheduler sees only host calls of that run.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Coroutine
from typing import Any, Final

from sandbox.invocation import Context, Effects, HostCall, any_of

_AWAITABLE: Final = (HostCall, types.CoroutineType)


def make_gather(context: Context) -> Callable[..., Coroutine[Any, Any, list[Any]]]:
    """`await gather(*awaitables)`: their results in order. When all have ended, the first error among them is raised."""

    def gather(*awaitables: Any) -> Coroutine[Any, Any, list[Any]]:
        effects = context.current("gather")
        seen: set[int] = set()
        for awaitable in awaitables:
            if type(awaitable) not in _AWAITABLE:
                remedy = (
                    "write gather(*calls)" if type(awaitable) in (list, tuple) else "call the function: gather(f())"
                )
                raise TypeError(f"gather: {type(awaitable).__name__} cannot be awaited: {remedy}")
            if type(awaitable) is types.CoroutineType and id(awaitable) in seen:
                raise ValueError("gather: the same coroutine twice: call the function once for each")
            seen.add(id(awaitable))
        return _gathered(context, effects, [_Member(awaitable) for awaitable in awaitables])

    return gather


class _Member:
    """One of what is awaited: what it waits for, or how it ended."""

    __slots__ = ("awaitable", "error", "value", "waited")

    def __init__(self, awaitable: Any) -> None:
        self.awaitable = awaitable
        self.waited: HostCall | None = None
        self.value: Any = None
        self.error: Exception | None = None

    def run(self, effects: Effects) -> bool:
        """Go on until it waits for the host again; whether it has ended. Its error is kept."""
        try:
            if type(self.awaitable) is HostCall and self.awaitable.done:
                self.value = self.awaitable._outcome()  # noqa: SLF001 - out of reach of apps by its underscore
                return True
            waited = self.awaitable if type(self.awaitable) is HostCall else self.awaitable.send(None)
            if type(waited) is HostCall and waited._effects is effects:  # noqa: SLF001
                self.waited = waited
                return False
            _close(self.awaitable)
            self.error = TypeError("only what the host gives for this event can be awaited")
        except StopIteration as stop:
            self.value = stop.value
        except Exception as error:  # noqa: BLE001 - a time-out is none, and goes on up
            # Without this frame, which holds the error in turn: a cycle would be freed in whichever app's time.
            traceback = error.__traceback__
            self.error = error.with_traceback(traceback and traceback.tb_next)
        return True

    def is_ready(self) -> bool:
        return self.waited is None or self.waited._is_over()  # noqa: SLF001


async def _gathered(context: Context, effects: Effects, members: list[_Member]) -> list[Any]:
    pending, member = members, None
    try:
        if context.effects is not effects:
            raise RuntimeError("gather: await it in the event in which it was called")
        while pending:
            pending = [member for member in pending if not (member.is_ready() and member.run(effects))]
            if pending and not any(member.is_ready() for member in pending):
                await any_of(effects, [member.waited for member in pending if member.waited is not None])
        for member in members:
            if member.error is not None:
                raise member.error
        return [member.value for member in members]
    finally:
        for member in pending:
            _close(member.awaitable)
        # An error holds this frame by its traceback.
        del members, pending, member


def _close(awaitable: Any) -> None:
    """End a coroutine that is given up. What it does about that no longer counts."""
    try:
        if type(awaitable) is types.CoroutineType:
            awaitable.close()
    except Exception:  # noqa: BLE001, S110 - its own, while something else is on its way up
        pass

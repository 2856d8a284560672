"""What an app asks of the host, and what it makes of the answer: one hook on the worker's loop."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from tests.unit.sandbox.child import Child

_REST = "\njobs = {'mail': lambda payload, meta: None, 'send all': lambda payload, meta: None}\n"


class Asking:
    """`body` is that of an async hook, whose return value is logged; `before` stands before it in the module."""

    def __init__(self, body: str, before: str = "", *, hook: str = "async def onEvent", **load: Any) -> None:
        lines = textwrap.indent(body, "    ")
        source = f"{before}\nasync def run(event, meta):\n{lines}\n" if "async" in hook else ""
        if source:
            source += "async def onEvent(event, meta):\n    console.log([await run(event, meta)])\n"
        else:
            source = f"{before}\n{hook}(event, meta):\n{lines}\n"
        self.child = Child(source + _REST, **load)
        assert self.child.loaded[0]["installs"][0]["error"] is None, self.child.loaded
        self.child.invoke(1, "onEvent", {"event": "x"})

    @property
    def asked(self) -> list[tuple[str, list[Any]]]:
        """Names and arguments of the calls to the host."""
        return [(call[4], call[5]) for call in self.child.calls]

    def answer(self, *values: Any) -> None:
        """The calls that there are, in their order, with these values."""
        for call, value in zip(tuple(self.child.calls), values, strict=True):
            self.child.answer(call[0], value)

    def refuse(self, message: str, kind: str = "error") -> None:
        self.child.refuse(self.child.calls[-1][0], message, kind)

    @property
    def failure(self) -> Any:
        return self.child.done[0][1]

    @property
    def logged(self) -> list[str]:
        return [line[2] for line in (self.child.done[0][3] or {}).get("logs", ())]

    @property
    def returned(self) -> str:
        """The hook's value, as JSON in a list."""
        assert self.failure is None, self.failure
        return self.logged[-1]


def call_of(body: str, before: str = "") -> tuple[str, list[Any]]:
    """The one call that this makes."""
    asking = Asking(body, before)
    assert len(asking.asked) == 1, asking.child.done
    return asking.asked[0]


def result_of(body: str, *answers: Any, before: str = "") -> str:
    """What it returns, as JSON in a list, when its calls are answered so."""
    asking = Asking(body, before)
    for place, answer in enumerate(answers):
        asking.child.answer(asking.child.calls[place][0], answer)
    return asking.returned


def refusal_of(body: str, before: str = "") -> str:
    """The message with which it fails, without having asked the host."""
    asking = Asking(body, before)
    assert asking.asked == []
    assert asking.failure is not None, "nothing was wrong with it"
    message: str = asking.failure[1]
    return message


def spoiled(calls: Sequence[str], odd: Sequence[str]) -> list[str]:
    """Each call (with `{}` where an argument stands) with each odd argument."""
    return [call.format(value) for call in calls for value in odd]

"""The page that says what is running, and the timer that ends what runs too long.

The child writes the page, the host reads it, for blame only. The timer is the soft limit: it raises in app code where
the interpreter looks for signals. What never looks (a long call into C) is ended by the host, which kills the process.

Rejected: arming a timer for each call (0.7 µs an event) and sys.settrace (2.6–7.8 times slower).
"""

from __future__ import annotations

import math
import mmap
import signal
import struct
from types import CodeType, FrameType
from typing import Final

from sandbox.wire import PAGE_BYTES, Word

TICK_SECONDS: Final = 0.01
_HOOKS_COUNTED: Final = 1_000


_pack_into = struct.Struct("=6I").pack_into
"""The words in the order of `wire.Word`, at once: a tenth of a microsecond for each hook call"""


class HookTimeout(BaseException):
    """The running hook has used up its time. Not an Exception, and its name is out of reach: apps cannot catch it."""


class Page:
    """The words that say what runs now. Without `memory` it is private to this process."""

    def __init__(self, memory: mmap.mmap | None = None) -> None:
        self._memory = memory if memory is not None else bytearray(PAGE_BYTES)
        self._words = memoryview(self._memory).cast("I")
        self._invocations = 0
        self.overran = ""
        """The time-out's message while the hook has yet to end; else empty"""
        self.renewed = False
        """Whoever runs has its time anew from the next tick on: an error is to be described"""

    def enter(self, sequence: int, install: int, hook: int) -> None:
        """App code begins to run."""
        self._invocations = invocations = (self._invocations + 1) & 0xFFFFFFFF
        _pack_into(self._memory, 0, 1, sequence, install, hook, invocations, 0)

    def leave(self) -> None:
        """App code does not run."""
        self._words[0] = 0

    @property
    def in_app(self) -> bool:
        return bool(self._words[0])

    def runs(self, install: int) -> bool:
        """It is this install's code that runs."""
        words = self._words
        return bool(words[0]) and words[Word.INSTALL] == install

    @property
    def running(self) -> tuple[int, int]:
        """Event and install whose code runs, or ran last."""
        return self._words[Word.SEQUENCE], self._words[Word.INSTALL]

    @property
    def install(self) -> int:
        """Whose code runs, or ran last."""
        return self._words[Word.INSTALL]

    @property
    def hook(self) -> int:
        """Which of its hooks, as an index into HOOKS."""
        return self._words[Word.HOOK]

    @property
    def invocations(self) -> int:
        return self._invocations

    def note_line(self, line: int) -> None:
        """The line of app code that runs now."""
        self._words[Word.LINE] = line & 0xFFFFFFFF


class SoftTimer:
    """Ends a hook that has used `cpu_seconds` of CPU time for one event, waits left out, and again each tick while it goes on regardless."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self.cpu_seconds = math.inf
        """What one hook may use from now on"""
        self.app_files: set[str] = set()
        """The file names under which app code was compiled"""
        self._ticks: dict[tuple[int, int], int] = {}
        """By event and install: a hook that waits for the host goes on counting where it was"""

    def start(self) -> None:
        """Begin to tick. To be called before the process is confined, which ends the right to set timers."""
        signal.signal(signal.SIGPROF, self._tick)
        signal.setitimer(signal.ITIMER_PROF, TICK_SECONDS, TICK_SECONDS)

    def _tick(self, _signal: int, frame: FrameType | None) -> None:
        page = self._page
        if not page.in_app:
            return
        running = page.running
        ticks = 1 if page.renewed else self._ticks.pop(running, 0) + 1
        page.renewed = False
        if len(self._ticks) >= _HOOKS_COUNTED:
            self._ticks.pop(next(iter(self._ticks)))
        self._ticks[running] = ticks
        page.note_line(_app_line(frame, self.app_files))
        if ticks * TICK_SECONDS > self.cpu_seconds:
            page.overran = f"used more than {self.cpu_seconds:g} s of CPU time (cpu_seconds)"
            raise HookTimeout(page.overran)


def _app_line(frame: FrameType | None, app_files: set[str]) -> int:
    while frame is not None:
        code: CodeType = frame.f_code
        if code.co_filename in app_files:
            return frame.f_lineno or 0
        frame = frame.f_back
    return 0

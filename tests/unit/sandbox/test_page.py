"""The page that says what runs, and the timer's decisions, driven tick by tick."""

from __future__ import annotations

import sys

import pytest

from sandbox.page import TICK_SECONDS, HookTimeout, Page, SoftTimer
from sandbox.wire import HOOKS, Word


def words_of(page: Page) -> list[int]:
    return list(page._words)


def test_the_page_says_whose_code_runs():
    page = Page()
    page.enter(17, 39, HOOKS.index("processEvent"))
    words = words_of(page)
    assert (words[Word.STATE], words[Word.SEQUENCE], words[Word.INSTALL]) == (1, 17, 39)
    assert HOOKS[words[Word.HOOK]] == "processEvent"
    page.leave()
    assert not page.in_app
    assert page.install == 39


def test_every_entry_counts_also_past_32_bits():
    page = Page()
    page._invocations = 0xFFFFFFFF
    page.enter(2**32 - 1, 2**32 - 1, 0)
    assert page.invocations == 0
    page.enter(1, 1, 0)
    assert page.invocations == 1


def make_timer(page: Page, cpu_seconds: float) -> SoftTimer:
    timer = SoftTimer(page)
    timer.cpu_seconds = cpu_seconds
    return timer


def tick(timer: SoftTimer, count: int) -> None:
    for _ in range(count):
        timer._tick(0, sys._getframe())


def test_a_hook_that_used_up_its_time_is_ended_and_again_while_it_goes_on():
    page = Page()
    timer = make_timer(page, 5 * TICK_SECONDS)
    page.enter(1, 39, 2)
    tick(timer, 5)
    for _ in range(3):
        with pytest.raises(HookTimeout, match=r"0\.05 s of CPU time"):
            tick(timer, 1)


def test_a_timeout_is_remembered_for_the_hook_that_slips_past_it():
    page = Page()
    timer = make_timer(page, TICK_SECONDS)
    page.enter(1, 39, 2)
    tick(timer, 1)
    assert page.overran == ""
    with pytest.raises(HookTimeout) as timeout:
        tick(timer, 1)
    assert page.overran == str(timeout.value)


def test_each_event_and_each_install_has_the_whole_time():
    page = Page()
    timer = make_timer(page, 5 * TICK_SECONDS)
    for sequence in range(4):
        for install in (39, 40):
            page.enter(sequence, install, 2)
            tick(timer, 5)


def test_a_hook_that_waited_goes_on_counting_where_it_was_whatever_ran_meanwhile():
    page = Page()
    timer = make_timer(page, 5 * TICK_SECONDS)
    page.enter(1, 39, 2)
    tick(timer, 3)
    page.enter(2, 39, 2)
    tick(timer, 5)
    page.enter(1, 39, 2)
    tick(timer, 2)
    with pytest.raises(HookTimeout):
        tick(timer, 1)


def test_describing_an_error_has_time_of_its_own():
    page = Page()
    timer = make_timer(page, 5 * TICK_SECONDS)
    page.enter(1, 39, 2)
    tick(timer, 5)
    page.renewed = True
    tick(timer, 5)
    with pytest.raises(HookTimeout):
        tick(timer, 1)


def test_what_is_counted_is_bounded():
    page = Page()
    timer = make_timer(page, 5 * TICK_SECONDS)
    for sequence in range(3_000):
        page.enter(sequence, 39, 2)
        tick(timer, 1)
    assert len(timer._ticks) <= 1_000


def test_the_childs_own_code_is_never_interrupted():
    page = Page()
    timer = make_timer(page, TICK_SECONDS)
    tick(timer, 100)
    page.enter(1, 39, 2)
    page.leave()
    tick(timer, 100)


def test_the_page_names_the_innermost_line_of_app_code():
    page = Page()
    timer = make_timer(page, 1)
    timer.app_files.add("<39>/main.py")
    page.enter(1, 39, 2)
    namespace = {"tick": lambda: tick(timer, 1)}
    exec(compile("def inner():\n    tick()\n\ninner()\n", "<39>/main.py", "exec"), namespace)
    assert words_of(page)[Word.LINE] == 2
    page.enter(2, 39, 2)
    assert words_of(page)[Word.LINE] == 0


def test_apps_cannot_catch_the_timeout():
    assert not issubclass(HookTimeout, Exception)

"""Which installs cost too many sandboxes."""

from __future__ import annotations

import pytest

from plugin_server.runtime.strikes import WINDOW_SECONDS, Strikes


def test_an_install_that_costs_a_third_sandbox_within_ten_minutes_is_out():
    strikes = Strikes()
    assert strikes.add(2, 39, 0) is False
    assert strikes.add(2, 39, 300) is False
    assert strikes.add(2, 39, 600) is True


def test_one_that_costs_them_rarely_stays():
    strikes = Strikes()
    assert [strikes.add(2, 39, 301.0 * number) for number in range(50)] == [False] * 50


@pytest.mark.parametrize(("third", "verdict"), [(WINDOW_SECONDS, True), (WINDOW_SECONDS + 0.001, False)])
def test_the_window_ends_after_ten_minutes(third, verdict):
    strikes = Strikes()
    strikes.add(2, 39, 0)
    strikes.add(2, 39, 1)
    assert strikes.add(2, 39, third) == verdict


def test_old_strikes_are_forgotten_one_by_one():
    strikes = Strikes()
    times = [0, 500, 700, 900, 1_000]
    assert [strikes.add(2, 39, now) for now in times] == [False, False, False, True, True]


def test_installs_are_counted_apart_also_between_projects():
    strikes = Strikes()
    installs = ((1, 1), (1, 2), (2, 1))
    assert [strikes.add(project, install, now) for now in range(2) for project, install in installs] == [False] * 6
    assert strikes.add(1, 2, 2) is True
    assert strikes.add(2, 1, 1_000) is False

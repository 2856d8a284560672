"""No install waits for another's jobs, whatever is due and whatever hangs."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from plugin_server.background.fair import Due, InFlight, JobBounds, share_places

BOUNDS = JobBounds(in_flight=100, per_project=50, per_install=20, payload_bytes=1_000_000)
IDLE = InFlight(0, {}, {})


def due(install: int, count: int, *, project: int | None = None, size: int = 10, oldest: int = 0) -> Due:
    return Due(install, project or install, count, size, oldest)


def running(by_install: dict[int, int], payload_bytes: int = 0) -> InFlight:
    """Each install is a project of its own."""
    return InFlight(sum(by_install.values()), by_install, by_install, payload_bytes)


def test_one_install_gets_what_it_may_have_at_once():
    assert share_places([due(1, 1_000)], IDLE, BOUNDS) == {1: 20}
    assert share_places([due(1, 3)], IDLE, BOUNDS) == {1: 3}


def test_who_has_the_fewest_running_comes_first():
    places = share_places([due(1, 99, oldest=1), due(2, 99, oldest=2)], running({1: 19}), BOUNDS)
    assert list(places) == [2, 1]
    assert places == {2: 20, 1: 1}


def test_a_project_is_bounded_however_many_installs_it_has():
    places = share_places([due(number, 99, project=7) for number in range(1, 9)], IDLE, BOUNDS)
    assert sum(places.values()) == 50


def test_large_payloads_are_claimed_a_few_at_a_time():
    assert share_places([due(1, 99, size=300_000)], IDLE, BOUNDS) == {1: 3}
    assert share_places([due(1, 99, size=9_000_000)], IDLE, BOUNDS) == {1: 1}
    assert share_places([due(1, 99)], running({2: 1}, 1_000_000), BOUNDS) == {}


def test_paused_projects_get_none():
    assert share_places([due(1, 9), due(2, 9)], IDLE, BOUNDS, {1}) == {2: 9}


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 500)), max_size=60))
def test_installs_whose_jobs_hang_leave_a_place_for_the_next(arrivals):
    held: Counter[int] = Counter()
    for install, count in arrivals:
        places = share_places([due(install, count)], running(dict(held)), BOUNDS)
        held.update(places)  # and none of them ever ends
        assert held.total() <= BOUNDS.in_flight
        assert max(held.values(), default=0) <= BOUNDS.per_install
    if len(held) <= BOUNDS.in_flight // 10:
        assert share_places([due(99, 5)], running(dict(held)), BOUNDS)[99] >= 1

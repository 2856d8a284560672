"""When a sandbox has to be killed, tick by tick."""

from __future__ import annotations

from plugin_server.model.project import Limits
from plugin_server.runtime.process import Running
from plugin_server.runtime.watch import SILENCE_SECONDS, Kill, Watch

TICK = 0.05
LIMITS = Limits(hook_seconds=2, cpu_seconds=0.5)


def app(invocation: int = 1) -> Running:
    return Running(True, 7, 39, 2, invocation, 3)


IDLE = Running(False, 7, 39, 2, 1, 0)


def ticks(watch: Watch, running: Running, seconds: float, cpu_share: float, cpu_start: float = 0.0) -> Kill | None:
    """Tick for so long; the first verdict."""
    for number in range(1, round(seconds / TICK) + 1):
        verdict = watch.tick(running, cpu_start + number * TICK * cpu_share, TICK, LIMITS)
        if verdict is not None:
            return verdict
    return None


def test_a_hook_that_uses_too_much_cpu_is_blamed():
    verdict = ticks(Watch(), app(), 2, cpu_share=1)
    assert verdict is not None
    assert verdict.blame
    assert "cpu_seconds" in verdict.message


def test_a_hook_that_takes_too_long_without_cpu_is_blamed_later():
    watch = Watch()
    assert ticks(watch, app(), 2.9, cpu_share=0) is None
    verdict = ticks(watch, app(), 1, cpu_share=0)
    assert verdict is not None
    assert verdict.blame
    assert "hook_seconds" in verdict.message


def test_hooks_that_come_and_go_are_left_alone():
    watch = Watch()
    for number in range(400):
        assert watch.tick(app(number), number * TICK, TICK, LIMITS) is None


def test_a_child_that_does_nothing_is_killed_without_blame():
    watch = Watch()
    assert ticks(watch, IDLE, SILENCE_SECONDS - 1, cpu_share=0) is None
    verdict = ticks(watch, IDLE, 2, cpu_share=0)
    assert verdict is not None
    assert not verdict.blame


def test_rest_is_no_silence():
    watch = Watch()
    for _ in range(3):
        assert ticks(watch, IDLE, SILENCE_SECONDS - 1, cpu_share=1) is None
        watch.rest()


def test_cpu_of_an_earlier_hook_blames_nobody():
    watch = Watch()
    assert ticks(watch, app(1), 0.5, cpu_share=1) is None
    assert ticks(watch, app(2), 0.5, cpu_share=1, cpu_start=0.5) is None


def test_each_install_is_judged_by_its_own_projects_limits():
    roomy = Limits(hook_seconds=60, cpu_seconds=50)
    watch = Watch()
    assert all(watch.tick(app(1), number * TICK, TICK, roomy) is None for number in range(200))
    assert watch.tick(app(2), 10, TICK, LIMITS) is None
    verdict = watch.tick(app(2), 11, TICK, LIMITS)
    assert verdict == Kill("used more than 0.5 s of CPU time (cpu_seconds)", blame=True)

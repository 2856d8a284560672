"""What a run leaves, as a test sees it."""

from __future__ import annotations

from plugin_server.host_api.captures import new_root
from plugin_server.host_api.effects import JobRequest
from plugin_server.model.lineage import Lineage
from plugin_server.model.origin import Origin
from plugin_server.model.posted import PostedCapture
from plugin_server.model.project import App, Install, LoopPolicy, Project
from plugin_server.runtime.replies import Capture
from plugin_server.testing.host import HarnessEffects
from plugin_server.testing.memory import MemoryStorage
from plugin_server.testing.run import Run
from plugin_server.testing.settlement import Settlement, parent_of

PROJECT = Project(
    7, "p", "phc_p", (Install(1, App("A", "0", "main.py", "", {}), 1, {}),), LoopPolicy(max_events_per_root=9)
)
ORIGIN = Origin("in-0-1", "018f0000-0000-7000-8000-000000000001", "onEvent")
CAPTURES = [Capture(1, 0, "y", "d", None, {"n": 1})]
NOW = 1795392000.0


def settled(parent, captures=CAPTURES):
    """A run with two jobs, one of them later, a posted event and a metric."""
    settlement = Settlement(MemoryStorage(), lambda: NOW)
    effects = HarnessEffects(PROJECT, ORIGIN)
    own = effects.of(1)
    own.jobs += [JobRequest("soon", b"1", None), JobRequest("later", b'{"n":2}', int(NOW * 1000) + 500)]
    own.posted[0] = [PostedCapture("posted", "d", "2020-01-01T00:00:00Z", {})]
    own.metrics += [("sent", "increment", 2.0), ("sent", "increment", 1.0)]
    run = Run("onEvent")
    started = settlement.settle(run, parent, captures, effects)
    return run, started, settlement.take_unsettled()


def test_captures_jobs_and_metrics_are_listed_and_share_the_budget():
    run, started, unsettled = settled(parent_of(ORIGIN, Lineage(ORIGIN.parent_uuid, budget=9), 9))
    assert [capture["event"] for capture in run.captured] == ["y", "posted"]
    assert run.jobs == [
        {"job": "soon", "payload": 1, "run_at": None},
        {"job": "later", "payload": {"n": 2}, "run_at": "2026-11-23T00:00:00.500Z"},
    ]
    assert [entry.is_due for entry in started] == [True, False]
    assert [entry.job.share for entry in started] == [1, 1]
    assert run.metrics == {"sent": 3.0}
    assert [(entry.lineage.depth, entry.lineage.budget, entry.project_id) for entry in unsettled] == [(1, 1, 7)] * 2
    assert unsettled[0].event["team_id"] == 7


def test_what_the_budget_does_not_cover_is_cut_and_told():
    run, started, unsettled = settled(parent_of(ORIGIN, Lineage(ORIGIN.parent_uuid, budget=1), 1))
    assert len(unsettled) == 1
    assert started == []
    assert [(cut["reason"], cut["what"], cut["count"]) for cut in run.cuts] == [
        ("budget", "captures", 1),
        ("budget", "jobs", 2),
    ]
    assert all(log["source"] == "SYSTEM" for log in run.logs)


def test_captures_that_no_event_is_behind_are_roots_of_their_own():
    run, started, unsettled = settled(new_root(ORIGIN, PROJECT, link=None))
    assert [entry.lineage.root for entry in unsettled] == [capture["uuid"] for capture in run.captured]
    assert [entry.lineage.budget for entry in unsettled] == [9, 9]
    assert [entry.job.lineage for entry in started] == [None, None]

"""One event never leads to more events than its budget, whatever captures and jobs its tree has; chains of jobs are paced.

A model of the whole system: hooks capture and start jobs at random, captures come back as events, jobs run; only
`Captures.apply` and the split between chain and delivery are real.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from plugin_server.host_api.captures import AppliedCaptures, Captures, Parent, pace_ms
from plugin_server.host_api.effects import JobRequest, RunEffects
from plugin_server.model.job import NewJob
from plugin_server.model.lineage import LINEAGE_HEADER, Lineage, parse_lineage
from plugin_server.model.loop_guard import carried_budget, split_budget
from plugin_server.model.origin import Origin
from plugin_server.model.project import App, Install, LoopPolicy, Project
from plugin_server.runtime.replies import Capture

ROOT = "018f0000-0000-7000-8000-000000000001"
INSTALLS = tuple(Install(number, App(f"A{number}", "v", "main.py", "", {}), number, {}) for number in (1, 2, 3))
RUNS = 3_000
"""Of hooks; a chain of tail jobs has no end"""


@dataclass
class World:
    """Everything that one event leads to."""

    budget: int
    seed: int
    widest: int
    delivers: bool

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        policy = LoopPolicy(max_events_per_root=self.budget, max_depth=100, max_visits=32)
        self.project = Project(2, "p", "t", INSTALLS, policy)
        self.captures = Captures("in", "dlq", 1_000_000, lambda: 1_000.0)
        self.uuids: set[str] = set()
        self.events: deque[tuple[str, Lineage]] = deque([(ROOT, Lineage(ROOT, 0, (), self.budget))])
        self.jobs: deque[NewJob] = deque()

    def run(self) -> None:
        for _ in range(RUNS):
            if self.events:
                self._event(*self.events.popleft())
            elif self.jobs:
                self._job(self.jobs.popleft())
            else:
                return

    def _event(self, uuid: str, lineage: Lineage) -> None:
        shares = split_budget(lineage.budget, has_delivery=self.delivers)
        chain = Parent(uuid, f"in-0-{uuid}", lineage, malformed_lineage=False, share=shares.chain)
        applied = self._hook(chain, {1, 2, 3})
        left = carried_budget(lineage.budget, applied.admitted, has_delivery=self.delivers)
        for install in (1, 2, 3) if self.delivers else ():
            delivered = Parent(uuid, f"in-0-{uuid}", lineage, malformed_lineage=False, share=left // 3, hook="onEvent")
            self._hook(delivered, {install})

    def _job(self, job: NewJob) -> None:
        assert job.lineage is not None
        parent = Parent(
            job.id,
            f"job-{job.id}",
            job.lineage,
            malformed_lineage=False,
            share=job.share,
            hook=f"jobs.{job.name}",
            link=job.link,
        )
        self._hook(parent, {job.install_id})

    def _hook(self, parent: Parent, installs: set[int]) -> AppliedCaptures:
        effects = RunEffects(self.project, Origin(parent.source, parent.uuid, parent.hook))
        made = []
        for install in installs:
            made += [Capture(install, n, "x", "d", None, {}) for n in range(self.random.choice((0, 0, 1, self.widest)))]
            jobs = self.random.choice((0, 1, 1, self.widest))
            effects.of(install).jobs += [JobRequest("j", b"null", None) for _ in range(jobs)]
        applied = self.captures.apply(self.project, parent, made, effects)
        for record in applied.records:
            if record.topic == "in":
                uuid = orjson.loads(record.value)["uuid"]
                assert uuid not in self.uuids
                self.uuids.add(uuid)
                self.events.append((uuid, parse_lineage(dict(record.headers)[LINEAGE_HEADER])))
        self.jobs += applied.jobs
        return applied


@settings(max_examples=30)
@given(st.integers(0, 300), st.integers(0, 2**32), st.integers(1, 12), st.booleans())
def test_one_event_leads_to_no_more_events_than_its_budget(budget, seed, widest, delivers):
    world = World(budget, seed, widest, delivers)
    world.run()
    assert len(world.uuids) <= budget


def parent(*, share: int, link: int | None, is_root: bool = False) -> Parent:
    lineage = Lineage(ROOT, 0, (), 10_000)
    return Parent(
        ROOT, "job-1", lineage, malformed_lineage=False, share=share, hook="jobs.j", is_root=is_root, link=link
    )


def start(jobs: int, of: Parent, captures: int = 0) -> AppliedCaptures:
    tenant = Project(2, "p", "t", INSTALLS)
    effects = RunEffects(tenant, Origin(of.source, of.uuid, of.hook))
    effects.of(1).jobs += [JobRequest("j", b"null", None) for _ in range(jobs)]
    made = [Capture(1, number, "x", "d", None, {}) for number in range(captures)]
    return Captures("in", "dlq", 1_000_000, lambda: 1_000.0).apply(tenant, of, made, effects)


def test_a_tail_job_takes_over_what_is_left_and_costs_nothing():
    [job] = start(1, parent(share=10, link=0)).jobs
    assert (job.share, job.link) == (10, 1)
    [job] = start(1, parent(share=0, link=7)).jobs
    assert (job.share, job.link) == (0, 8)


def test_two_jobs_cost_one_each_and_begin_chains_of_their_own():
    jobs = start(2, parent(share=10, link=5)).jobs
    assert [(job.share, job.link) for job in jobs] == [(4, 0), (4, 0)]
    assert len(start(20, parent(share=10, link=5)).jobs) == 10


def test_the_one_job_of_an_event_or_a_tick_costs_one():
    assert [(job.share, job.link) for job in start(1, parent(share=10, link=None)).jobs] == [(9, 0)]
    assert start(1, parent(share=0, link=None)).jobs == []


def test_chains_of_a_tick_make_new_roots_and_cost_their_jobs_nothing():
    applied = start(1, parent(share=10, link=3, is_root=True), captures=50)
    assert [(job.share, job.lineage) for job in applied.jobs] == [(10, None)]
    lineages = [parse_lineage(dict(record.headers)[LINEAGE_HEADER]) for record in applied.records]
    assert len(lineages) == 50
    assert {(each.depth, each.path, each.budget) for each in lineages} == {(1, (1,), 1_000)}
    assert len({each.root for each in lineages}) == 50


def test_a_chain_without_end_is_paced_from_its_101st_link():
    assert {pace_ms(link) for link in range(101)} == {0}
    assert [pace_ms(link) / 1000 for link in range(101, 109)] == [2, 4, 8, 16, 32, 60, 60, 60]
    assert pace_ms(10**9) == 60_000
    [job] = start(1, parent(share=0, link=102)).jobs
    assert job.run_at_ms == 1_000_000 + 8_000


def test_a_chain_is_never_earlier_than_its_pace_and_may_be_later():
    of = parent(share=0, link=102)
    effects = RunEffects(Project(2, "p", "t", INSTALLS), Origin(of.source, of.uuid, of.hook))
    effects.of(1).jobs.append(JobRequest("j", b"null", 1_060_000))
    [job] = Captures("in", "dlq", 1_000_000, lambda: 1_000.0).apply(effects.project, of, (), effects).jobs
    assert job.run_at_ms == 1_060_000


def test_a_job_whose_capture_starts_the_job_again_ends_soon():
    """It is started by onEvent and captures an event, whose onEvent starts the job …"""
    tenant = Project(2, "p", "t", INSTALLS, LoopPolicy(max_depth=100, max_visits=32))
    captures = Captures("in", "dlq", 1_000_000, lambda: 1_000.0)
    events, seen = deque([(ROOT, Lineage(ROOT, 0, (), 1_000))]), 0
    while events:
        uuid, lineage = events.popleft()
        seen += 1
        share = split_budget(lineage.budget, has_delivery=True).delivery
        event = Parent(uuid, f"in-0-{seen}", lineage, malformed_lineage=False, share=share, hook="onEvent")
        effects = RunEffects(tenant, Origin(event.source, uuid, "onEvent"))
        effects.of(1).jobs.append(JobRequest("j", b"null", None))
        for job in captures.apply(tenant, event, (), effects).jobs:
            assert job.lineage is not None
            of = Parent(job.id, f"job-{job.id}", job.lineage, False, job.share, "jobs.j", link=job.link)
            for record in captures.apply(tenant, of, [Capture(1, 0, "x", "d", None, {})]).records:
                if record.topic == "in":
                    made = orjson.loads(record.value)["uuid"]
                    events.append((made, parse_lineage(dict(record.headers)[LINEAGE_HEADER])))
    assert 2 < seen < 20

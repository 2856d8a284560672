"""The four rules of the loop guard, and the bound that they prove: one root, at most so many events."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugin_server.model.lineage import DEPTH_CEILING, PATH_LENGTH, Lineage
from plugin_server.model.loop_guard import (
    CutReason,
    carried_budget,
    judge_captures,
    split_budget,
    split_share,
)
from plugin_server.model.project import LoopMode, LoopPolicy

ROOT = "018f0000-0000-7000-8000-000000000001"
AMOUNTS = st.integers(0, 5_000)


def always(_install: int) -> bool:
    return True


def policy(**fields: object) -> LoopPolicy:
    return LoopPolicy.model_validate(fields)


@given(AMOUNTS, st.booleans())
def test_halving_a_budget_makes_and_loses_nothing(budget, has_delivery):
    shares = split_budget(budget, has_delivery=has_delivery)
    assert shares.chain + shares.delivery == budget
    assert shares.chain >= shares.delivery >= 0
    assert has_delivery or shares.delivery == 0


@given(AMOUNTS, st.integers(0, 200))
def test_shares_and_what_they_cost_fit_what_they_are_taken_from(share, started):
    each = split_share(share, started)
    assert each >= 0
    assert each == 0 or started * (each + 1) <= share


@given(AMOUNTS, st.integers(0, 50), st.booleans())
def test_what_is_carried_on_was_not_spent_by_the_chain(budget, started, has_delivery):
    chain = split_budget(budget, has_delivery=has_delivery).chain
    spent = min(started, chain) * (1 + split_share(chain, min(started, chain)))
    assert carried_budget(budget, min(started, chain), has_delivery=has_delivery) + spent <= max(budget, 0)


class Tree:
    """All that comes of one root. `draw(low, high)` decides what each event does, and which is next."""

    def __init__(self, draw: Callable[[int, int], int], rules: LoopPolicy, *, delivery: bool) -> None:
        self.draw = draw
        self.rules = rules
        self.delivery = delivery
        self.derived = 0
        self.deepest = 0
        self.most_visits = 0
        self.waiting: list[Callable[[], None]] = []

    def run(self, steps: int) -> None:
        self.event(Lineage(ROOT, 0, (), self.rules.max_events_per_root))
        for _ in range(steps):
            if not self.waiting:
                return
            self.waiting.pop(self.draw(0, len(self.waiting) - 1))()

    def event(self, lineage: Lineage) -> None:
        self.deepest = max(self.deepest, lineage.depth)
        self.most_visits = max([self.most_visits, *map(lineage.path.count, lineage.path)])
        self.waiting.append(lambda: self.chain(lineage))

    def chain(self, lineage: Lineage) -> None:
        started = self.captures(lineage, split_budget(lineage.budget, has_delivery=self.delivery).chain)
        carried = carried_budget(lineage.budget, started, has_delivery=self.delivery)
        if self.delivery:
            receivers = self.draw(1, 3)
            for _ in range(receivers):
                self.waiting.append(lambda: self.captures_and_jobs(lineage, carried // receivers))

    def captures(self, lineage: Lineage, share: int) -> int:
        installs = [self.draw(1, 3) for _ in range(self.draw(0, 12))]
        verdict = judge_captures(lineage, share, installs, self.rules, always)
        assert verdict.admitted.keys() | verdict.cut.keys() == set(range(len(installs)))
        assert not verdict.admitted.keys() & verdict.cut.keys()
        self.derived += len(verdict.admitted)
        for child in verdict.admitted.values():
            self.event(child)
        return len(verdict.admitted)

    def captures_and_jobs(self, lineage: Lineage, share: int) -> None:
        """A delivery or a job, which starts captures and jobs from one share."""
        wanted, jobs = self.draw(0, 6), self.draw(0, 3)
        started = min(share, wanted + jobs)
        each = split_share(share, started)
        for number in range(started):
            self.derived += 1
            if number < jobs:
                self.waiting.append(lambda: self.captures_and_jobs(lineage, each))
            elif lineage.depth < self.rules.max_depth:
                self.event(Lineage(ROOT, lineage.depth + 1, lineage.path, each))


@given(
    st.data(),
    st.booleans(),
    st.integers(0, 40),
    st.integers(0, 12),
    st.integers(0, 5),
)
def test_no_tree_outgrows_the_budget_of_its_root(data, delivery, budget, max_depth, max_visits):
    rules = policy(max_events_per_root=budget, max_depth=max_depth, max_visits=max_visits)
    tree = Tree(lambda low, high: data.draw(st.integers(low, high)), rules, delivery=delivery)
    tree.run(60)
    assert tree.derived <= budget
    assert tree.deepest <= max_depth


@given(st.randoms(use_true_random=False), st.booleans(), st.integers(0, 1_000), st.integers(0, 10), st.integers(0, 4))
def test_no_large_tree_outgrows_the_budget_of_its_root(random, delivery, budget, max_depth, max_visits):
    rules = policy(max_events_per_root=budget, max_depth=max_depth, max_visits=max_visits)
    tree = Tree(random.randint, rules, delivery=delivery)
    tree.run(4_000)
    assert tree.derived <= budget
    assert tree.deepest <= max_depth


@given(st.lists(st.integers(1, 3), max_size=20), st.integers(0, 4), st.integers(0, 30))
def test_no_chain_visits_an_install_too_often(installs, max_visits, max_depth):
    rules = policy(max_visits=max_visits, max_depth=max_depth, max_events_per_root=10_000)
    lineage = Lineage(ROOT, 0, (), 10_000)
    for install in installs:
        verdict = judge_captures(lineage, lineage.budget, [install], rules, always)
        if verdict.cut:
            assert lineage.depth == max_depth or lineage.path.count(install) == max_visits or lineage.budget == 0
            return
        lineage = verdict.admitted[0]
        assert lineage.path.count(install) <= max_visits
    assert lineage.path == tuple(installs)


@pytest.mark.parametrize("mode", LoopMode)
def test_every_chain_ends_at_the_ceiling_in_every_mode(mode):
    rules = policy(mode=mode, max_depth=100, max_visits=32, max_events_per_root=1_000_000)
    lineage = Lineage(ROOT, 0, (), 1_000_000)
    for link in range(DEPTH_CEILING):
        lineage = judge_captures(lineage, lineage.budget, [link], rules, always).admitted[0]
    assert lineage.depth == DEPTH_CEILING
    assert len(lineage.path) == PATH_LENGTH
    assert judge_captures(lineage, lineage.budget, [1], rules, always).cut == {0: CutReason.DEPTH}


def test_a_depth_beyond_belief_is_cut_in_every_mode():
    for mode in LoopMode:
        verdict = judge_captures(Lineage(ROOT, 10**18, (), 5), 5, [1], policy(mode=mode), always)
        assert verdict.cut == {0: CutReason.DEPTH}


def test_each_rule_says_which_it_was():
    rules = policy(max_depth=2, max_visits=1)
    assert judge_captures(Lineage(ROOT, 2, (), 9), 9, [1], rules, always).cut == {0: CutReason.DEPTH}
    assert judge_captures(Lineage(ROOT, 1, (1,), 9), 9, [1, 2], rules, always).cut == {0: CutReason.VISITS}
    assert judge_captures(Lineage(ROOT, 0, (), 1), 1, [1, 2], rules, always).cut == {1: CutReason.BUDGET}
    assert judge_captures(Lineage(ROOT, 0, (), 9), 9, [1], rules, lambda _: False).cut == {0: CutReason.RATE}
    malformed = judge_captures(Lineage(ROOT, 0, (), 9), 9, [1], rules, always, malformed=True)
    assert malformed.cut == {0: CutReason.MALFORMED_LINEAGE}


def test_children_share_what_is_left_after_the_cuts():
    parent = Lineage(ROOT, 3, (7,), 100)
    verdict = judge_captures(parent, 100, [7, 8, 8], policy(max_visits=1), always)
    assert verdict.cut == {0: CutReason.VISITS}
    assert verdict.admitted == {
        1: Lineage(ROOT, 4, (7, 8), 49),
        2: Lineage(ROOT, 4, (7, 8), 49),
    }


@pytest.mark.parametrize(("mode", "warns"), [(LoopMode.WARN, True), (LoopMode.OFF, False)])
def test_other_modes_let_pass_what_a_rule_would_cut(mode, warns):
    rules = policy(mode=mode, max_depth=0, max_visits=1)
    verdict = judge_captures(Lineage(ROOT, 5, (1,), 0), 0, [1, 2], rules, always)
    assert verdict.admitted.keys() == {0, 1}
    assert not verdict.cut
    assert {child.budget for child in verdict.admitted.values()} == {0}
    assert verdict.warned == ({0: CutReason.DEPTH, 1: CutReason.DEPTH} if warns else {})


@pytest.mark.parametrize("mode", LoopMode)
def test_the_rate_holds_in_every_mode(mode):
    tokens = iter([True, False, True])
    verdict = judge_captures(Lineage(ROOT, 0, (), 10), 10, [1, 1, 1], policy(mode=mode), lambda _: next(tokens))
    assert verdict.cut == {1: CutReason.RATE}
    assert verdict.admitted.keys() == {0, 2}


def test_a_capture_that_another_rule_cuts_takes_no_token():
    asked = []

    def take(install: int) -> bool:
        asked.append(install)
        return True

    judge_captures(Lineage(ROOT, 0, (1,), 9), 9, [1, 2], policy(max_visits=1), take)
    assert asked == [2]

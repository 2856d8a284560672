from __future__ import annotations

import pytest

from plugin_server.host_api.captures import Captures, Parent, chain_text
from plugin_server.model.lineage import Lineage
from plugin_server.model.project import App, Install, LoopPolicy, Project
from plugin_server.runtime.replies import Capture

ROOT = "018f0000-0000-7000-8000-000000000001"
INSTALLS = (Install(1, App("Ping", "v", "main.py", "", {}), 1, {}),)
PARENT = Parent(ROOT, "events-0-1", Lineage(ROOT, 0, (), 1_000), malformed_lineage=False, share=1_000)


def project(**policy: object) -> Project:
    return Project(2, "p", "t", INSTALLS, LoopPolicy.model_validate(policy))


def captures(count: int) -> list[Capture]:
    return [Capture(1, number, "x", "ada", None, {}) for number in range(count)]


@pytest.mark.parametrize("mode", ["enforce", "warn", "off"])
def test_the_rate_of_an_install_holds_in_every_mode_and_refills(mode):
    now = [1_000.0]
    applied = Captures("in", "dlq", 100_000, lambda: now[0])
    tenant = project(captures_burst=5, captures_per_second=2, mode=mode)
    first = applied.apply(tenant, PARENT, captures(8))
    assert (first.admitted, [(cut.reason, cut.count) for cut in first.cuts]) == (5, [("rate", 3)])
    now[0] += 1
    assert applied.apply(tenant, PARENT, captures(8)).admitted == 2


def test_a_changed_policy_has_a_new_bucket():
    applied = Captures("in", "dlq", 100_000, lambda: 0.0)
    assert applied.apply(project(captures_burst=1), PARENT, captures(2)).admitted == 1
    assert applied.apply(project(captures_burst=2), PARENT, captures(2)).admitted == 2


def test_mode_warn_lets_pass_and_tells_the_owner():
    applied = Captures("in", "dlq", 100_000, lambda: 0.0).apply(project(mode="warn", max_depth=0), PARENT, captures(2))
    assert applied.admitted == 2
    assert [(cut.reason, cut.count, cut.was_cut) for cut in applied.cuts] == [("depth", 2, False)]
    assert "would have been cut (mode warn) by depth (max_depth 0): Ping (1)" in applied.logs[0].message
    assert {record.topic for record in applied.records} == {"in"}


def test_no_more_is_spent_than_the_share():
    parent = Parent(ROOT, "s", Lineage(ROOT, 0, (), 10), malformed_lineage=False, share=5)
    assert Captures("in", "dlq", 100_000, lambda: 0.0).apply(project(), parent, captures(9)).admitted == 5


def test_a_chain_longer_than_its_path_says_so():
    lineage = Lineage(ROOT, 40, (1, 7), 5)
    assert chain_text(project(), lineage, 1) == "… → Ping (1) → install 7 → Ping (1)"

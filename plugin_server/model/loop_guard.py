"""Which captures of an event go on, and with what lineage: the four rules that keep apps from generating events without end.

Pure functions of what they are given (docs/loop-guard.md). Depth bounds a chain, visits a loop, the budget the whole tree
below one root however deep and wide, the rate what one install does in one worker.

Rejected: depth alone (depth 10 with 10 captures each is 10^10 events), and refusing captures of captured events
outright (it breaks chains that people want; PostHog tried both, #23312, #46181, #59883).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from plugin_server.model.lineage import DEPTH_CEILING, PATH_LENGTH, Lineage
from plugin_server.model.project import LoopMode, LoopPolicy


class CutReason(StrEnum):
    DEPTH = "depth"
    VISITS = "visits"
    BUDGET = "budget"
    RATE = "rate"
    MALFORMED_LINEAGE = "malformed_lineage"


@dataclass(frozen=True, slots=True)
class LoopVerdict:
    """Of each requested capture, by its place in the request: its lineage if admitted, else why it is cut.

    `warned` are those that mode `warn` lets pass although a rule would cut them.
    """

    admitted: dict[int, Lineage]
    cut: dict[int, CutReason]
    warned: dict[int, CutReason]
    jobs: int = 0
    """Of the jobs that were started, those admitted: the first so many"""
    job_share: int = 0
    """What each of them may spend"""


@dataclass(frozen=True, slots=True)
class Shares:
    """How an event's budget is split between its processEvent chain and its delivery."""

    chain: int
    delivery: int


def split_budget(budget: int, *, has_delivery: bool) -> Shares:
    """Halve the budget between chain and delivery when the project has delivery hooks, the odd one to the chain."""
    delivery = budget // 2 if has_delivery else 0
    return Shares(chain=budget - delivery, delivery=delivery)


def carried_budget(budget: int, started: int, *, has_delivery: bool) -> int:
    """What an event carries on after its chain started `started` captures: delivery's half, or what nobody has touched."""
    if has_delivery:
        return split_budget(budget, has_delivery=True).delivery
    return budget if not started else 0


def split_share(share: int, started: int) -> int:
    """What each of `started` captures and jobs gets of `share`, after the one that each costs; the remainder is forgone."""
    return max(0, share - started) // started if started else 0


def judge_captures(
    parent: Lineage,
    share: int,
    installs: Sequence[int],
    policy: LoopPolicy,
    take_token: Callable[[int], bool],
    *,
    jobs: int = 0,
    is_tail: bool = False,
    malformed: bool = False,
) -> LoopVerdict:
    """Decide over the captures that one event's chain asked for, in program order, and the jobs that it started.

    `share` is what the chain may spend of the event's budget, `installs` the capturing install of each capture. Each
    capture and each job costs one and gets an equal part of the rest, the captures first. With `is_tail`, the one job
    takes over what is left and costs nothing.
    `take_token(install)` spends one token of the install's bucket (rule 4) and is called for a capture only when
    rules 1 and 2 let it pass. `malformed`: the event's own header could not be read, so nothing may pass.
    """
    if malformed:
        cut = dict.fromkeys(range(len(installs)), CutReason.MALFORMED_LINEAGE)
        return LoopVerdict({}, cut, {}, jobs=1 if is_tail else 0)
    cut = {}
    warned: dict[int, CutReason] = {}
    passing: list[int] = []
    for number, install in enumerate(installs):
        reason = _depth_or_visits(parent, install, policy)
        if reason is not None and (policy.mode is LoopMode.ENFORCE or parent.depth + 1 > DEPTH_CEILING):
            cut[number] = reason
            continue
        if not take_token(install):
            cut[number] = CutReason.RATE
            continue
        if reason is not None:
            warned[number] = reason
        passing.append(number)
    if policy.mode is LoopMode.ENFORCE:
        cut.update(dict.fromkeys(passing[share:], CutReason.BUDGET))
        passing = passing[:share]
    else:
        for number in passing[share:]:
            warned.setdefault(number, CutReason.BUDGET)
    count = len(passing)
    if is_tail:
        budget = max(0, share - count) // (count + 1)
        jobs, job_share = 1, max(0, share - count) - count * budget
    else:
        if policy.mode is LoopMode.ENFORCE:
            jobs = min(jobs, share - count)
        job_share = budget = split_share(share, count + jobs)
    admitted = {
        number: Lineage(parent.root, parent.depth + 1, (*parent.path, installs[number])[-PATH_LENGTH:], budget)
        for number in passing
    }
    return LoopVerdict(admitted, cut, warned if policy.mode is LoopMode.WARN else {}, jobs, job_share)


def _depth_or_visits(parent: Lineage, install: int, policy: LoopPolicy) -> CutReason | None:
    if parent.depth + 1 > min(policy.max_depth, DEPTH_CEILING):
        return CutReason.DEPTH
    if parent.path.count(install) + 1 > policy.max_visits:
        return CutReason.VISITS
    return None

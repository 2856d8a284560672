"""Whose due jobs are claimed next, so that no install waits for another's: a pure function of what is due and what runs.

An install takes at most a quarter of the places that are free, and the last tenth of all places goes to installs that have
nothing running, one each. So a hundred installs whose jobs hang leave a place for the next one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class JobBounds:
    """Jobs in one worker at a time: claimed, running or waiting for their commit."""

    in_flight: int = 1_000
    per_project: int = 500
    per_install: int = 200
    payload_bytes: int = 64 * 2**20
    """Of all payloads together, as far as they can be told beforehand"""


@dataclass(frozen=True, slots=True)
class Due:
    """Jobs of one install that could be claimed. `count` is a lower bound, `mean_bytes` the size of a payload."""

    install_id: int
    project_id: int
    count: int
    mean_bytes: int
    oldest_ms: int


@dataclass(frozen=True, slots=True)
class InFlight:
    """What runs now."""

    total: int
    by_project: Mapping[int, int]
    by_install: Mapping[int, int]
    payload_bytes: int = 0


def share_places(
    due: Iterable[Due], running: InFlight, bounds: JobBounds, paused_projects: Collection[int] = ()
) -> dict[int, int]:
    """How many jobs to claim of which install, those with the fewest running first."""
    free = bounds.in_flight - running.total
    kept = bounds.in_flight // 10
    free_bytes = bounds.payload_bytes - running.payload_bytes
    by_project = dict(running.by_project)
    waiting = [each for each in due if each.count > 0 and each.project_id not in paused_projects]
    waiting.sort(key=lambda each: (running.by_install.get(each.install_id, 0), each.oldest_ms, each.install_id))
    places: dict[int, int] = {}
    for each in waiting:
        if free <= 0 or free_bytes <= 0:
            break
        own = running.by_install.get(each.install_id, 0)
        wanted = min(
            each.count,
            bounds.per_install - own,
            bounds.per_project - by_project.get(each.project_id, 0),
            max(free // 4, 1) if free > kept else int(own == 0),
            max(1, free_bytes // max(1, each.mean_bytes)),
        )
        if wanted <= 0:
            continue
        places[each.install_id] = wanted
        by_project[each.project_id] = by_project.get(each.project_id, 0) + wanted
        free -= wanted
        free_bytes -= wanted * each.mean_bytes
    return places

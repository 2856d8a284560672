"""A job that an app has asked for."""

from __future__ import annotations

from dataclasses import dataclass

from plugin_server.model.lineage import Lineage


@dataclass(frozen=True, slots=True)
class NewJob:
    """A row of `jobs` to be. `payload` is JSON; `run_at_ms` None means at once.

    `lineage` is that of the event that the chain of jobs began with, None where each capture is a root of its own; `share`
    is what captures and jobs of this job may spend of it; `link` its place in a chain of tail jobs, from 0.
    """

    id: str
    project_id: int
    install_id: int
    name: str
    payload: bytes
    run_at_ms: int | None
    lineage: Lineage | None
    share: int
    link: int = 0

"""What a hook runs for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

SOURCE_HEADER: Final = "ps-source"
"""On an output record: the event's own record in ingestion, `topic-partition-offset`, from which delivery derives its ids"""


@dataclass(frozen=True, slots=True)
class Origin:
    """What the ids of all that a hook does derive from, so that they come out the same when it runs again.

    `source` is the `topic-partition-offset` of the event's record in ingestion, `job-<id>`, `tick-<install>-<task>-<ms>` or
    `setup-<id>`, never the attempt; `parent_uuid` the event's uuid, or the id of what else it runs for; `hook` as in
    `processEvent` and `jobs.<name>`.
    """

    source: str
    parent_uuid: str
    hook: str

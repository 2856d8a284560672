"""An event between its record and its outputs."""

from __future__ import annotations

from plugin_server.eventlog.port import InputRecord
from plugin_server.host_api.effects import RunEffects
from plugin_server.model.lineage import Lineage
from plugin_server.model.project import Project


class PendingEvent:
    """A decoded record of a known project. Not a dataclass: one is made for every event.

    `raw` is the envelope's JSON, as it came or with the defaults that it lacked; `lineage` is None for a root event.
    """

    __slots__ = (
        "effects",
        "historical_migration",
        "lineage",
        "malformed_lineage",
        "now",
        "project",
        "raw",
        "record",
        "uuid",
    )

    def __init__(
        self,
        record: InputRecord,
        raw: bytes,
        project: Project,
        uuid: str,
        now: str,
        *,
        historical_migration: bool,
    ) -> None:
        self.record = record
        self.raw = raw
        self.project = project
        self.uuid = uuid
        self.now = now
        self.historical_migration = historical_migration
        self.lineage: Lineage | None = None
        self.malformed_lineage = False
        self.effects: RunEffects | None = None
        """Those of its apps' host calls; None while there are none"""

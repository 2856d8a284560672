"""A delivery that is in this worker's hands, and whose it is."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from plugin_server.delivery.parcel import Parcel
from plugin_server.eventlog.port import OutputRecord
from plugin_server.host_api.commit import Completion


class Owner(Protocol):
    """The lane that a delivery comes from."""

    @property
    def closed(self) -> bool: ...

    @property
    def is_lost(self) -> bool:
        """Another worker has the lane."""
        ...

    def holds_up_others(self, install_id: int) -> bool:
        """The lane reads no more, and other installs wait for it to go on."""
        ...

    def completion(self, parcel: Parcel) -> tuple[Completion, Any]:
        """What marks a delivery of it that left effects."""
        ...

    def done(self, parcel: Parcel, records: Sequence[OutputRecord]) -> None:
        """The delivery needs the lane no more; these records it leaves."""
        ...


@dataclass(eq=False, slots=True)
class Shipment:
    """A delivery in this worker. `owner` is None for one that came from the database."""

    parcel: Parcel
    owner: Owner | None
    since: float
    """When it came; when its call began, once it is under way"""
    is_retry: bool = False
    row_bytes: int | None = None
    """It has a row in the database, or will have"""
    parked: asyncio.Future[None] | None = None
    """Done when the row is there"""
    is_probe: bool = False
    is_settling: bool = False
    """Its call has ended"""
    task: asyncio.Task[None] | None = field(default=None, repr=False)

    @property
    def has_row(self) -> bool:
        return self.row_bytes is not None

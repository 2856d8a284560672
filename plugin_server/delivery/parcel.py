"""What one call of a hook delivers: one event, or for exportEvents a batch, to one install. And how the database keeps it."""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import orjson

from plugin_server.delivery.event import DeliveryEvent, ProjectLookup, decode_event
from plugin_server.host_api.captures import Parent
from plugin_server.model.lineage import LINEAGE_HEADER
from plugin_server.model.origin import SOURCE_HEADER, Origin
from plugin_server.model.project import Install, Project
from sandbox import codec

EXPORT_EVENTS: Final = "exportEvents"
_NAMESPACE: Final = uuid.UUID("0c9a5d0e-6f0e-5f53-9a51-1d6f3a8f2b11")
_BODY_VERSION: Final = 1


class Member(NamedTuple):
    """An event, and what its captures in this call may spend of its budget."""

    event: DeliveryEvent
    share: int


@dataclass(eq=False, slots=True)
class Parcel:
    """`attempts` counts calls that have ended; `created_ms` says since when it is being delivered."""

    project: Project
    install: Install
    hook: str
    members: tuple[Member, ...]
    created_ms: int
    attempts: int = 0
    error: str = field(default="", repr=False)
    """Of the last attempt"""
    _source: str | None = field(default=None, init=False, repr=False)
    _row_id: str | None = field(default=None, init=False, repr=False)

    @property
    def source(self) -> str:
        """What ids derive from: the event's record in ingestion, or for a batch the first one's and a digest of all.

        A batch that is composed anew after a crash is another one: no two with different events have one id.
        """
        if self._source is None:
            sources = [member.event.source for member in self.members]
            self._source = sources[0]
            if self.hook == EXPORT_EVENTS:
                digest = hashlib.blake2b("\n".join(sources).encode(), digest_size=8).hexdigest()
                self._source = f"{sources[0]}+{len(sources) - 1}-{digest}"
        return self._source

    @property
    def id(self) -> str:
        """Of its row in `parked`: the same for the same delivery, so that a replay parks nothing twice."""
        return self._row_id or str(
            uuid.uuid5(_NAMESPACE, f"{self.project.id}|{self.source}|{self.install.id}|{self.hook}")
        )

    def adopt(self, row_id: str, source: str) -> None:
        """It is the delivery of this row, whatever its id would be today."""
        self._row_id, self._source = row_id, source

    @property
    def origin(self) -> Origin:
        """What ids and Idempotency-Keys of its call derive from, in every attempt the same."""
        return Origin(self.source, self._first.event.uuid, self.hook)

    @property
    def parent(self) -> Parent:
        """What captures descend from: the event, or the member of a batch with the largest share left (docs/loop-guard.md)."""
        member = self._first
        event = member.event
        return Parent(event.uuid, self.source, event.lineage, event.malformed_lineage, member.share, self.hook)

    @property
    def _first(self) -> Member:
        return self.members[0] if len(self.members) == 1 else max(self.members, key=lambda member: member.share)

    @property
    def arguments(self) -> bytes:
        """Those of the hook, as a JSON list."""
        if self.hook == EXPORT_EVENTS:
            return b"[[%b]]" % b",".join([member.event.json for member in self.members])
        return b"[%b]" % self.members[0].event.json

    @property
    def size(self) -> int:
        """Bytes of its events."""
        return sum([len(member.event.value) for member in self.members])

    def body(self) -> bytes:
        """As `parked.body` keeps it: the records as they came, with what they descend from."""
        members = []
        for event, share in self.members:
            lineage = [content.decode(errors="replace") for name, content in event.headers if name == LINEAGE_HEADER]
            key = None if event.key is None else event.key.decode(errors="replace")
            record = codec.loads(event.value)
            members.append({"source": event.source, "key": key, "share": share, "lineage": lineage, "record": record})
        return orjson.dumps({"v": _BODY_VERSION, "members": members})


def read_body(raw: bytes, projects: ProjectLookup) -> tuple[Member, ...] | None:
    """The reverse of `Parcel.body`. None when it cannot be read, or its project is gone."""
    members: list[Member] = []
    for value, key, headers, source, share in kept_records(raw):
        event = decode_event(projects, value, key, headers, source)
        if not isinstance(event, DeliveryEvent):
            return None
        members.append(Member(event, share))
    return tuple(members) or None


class KeptRecord(NamedTuple):
    """A record in the body of a parked row."""

    value: bytes
    key: bytes | None
    headers: list[tuple[str, bytes]]
    source: str
    share: int


def kept_records(raw: bytes) -> list[KeptRecord]:
    """The records of a parked row, as they came; none when the body cannot be read."""
    try:
        body = orjson.loads(raw)
        if body["v"] != _BODY_VERSION:
            return []
        return [_record(member) for member in body["members"]]
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        return []


def _record(member: dict[str, Any]) -> KeptRecord:
    source: str = member["source"]
    headers = [(LINEAGE_HEADER, text.encode()) for text in member["lineage"]]
    key = member["key"]
    return KeptRecord(
        orjson.dumps(member["record"]),
        None if key is None else key.encode(),
        [*headers, (SOURCE_HEADER, source.encode())],
        source,
        int(member["share"]),
    )

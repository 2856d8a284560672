"""The way of a project's events through its sandboxes: one chain, several of the same, or one after another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol
from zlib import crc32

import orjson
import structlog

from plugin_server.model.project import Project
from plugin_server.runtime.chain import Chain
from plugin_server.runtime.replies import ChainResult, HookFailure, Notes
from plugin_server.runtime.sandbox import Sandbox
from plugin_server.runtime.work import RunEffects, Work
from sandbox import codec
from sandbox.event import SNAPSHOT, check_whole, finish, open_envelope, stamps
from sandbox.wire import CHAIN_HOOKS, EventOutcome

_log = structlog.get_logger(__name__)


class Place(NamedTuple):
    """A chain and the sandbox that it is in."""

    sandbox: Sandbox
    chain: Chain


class Route(Protocol):
    """Takes a project's events."""

    @property
    def places(self) -> Sequence[Place]:
        """Every chain of the project."""
        ...

    def submit(self, works: Sequence[Work[Any]]) -> None:
        """Each sink is told of each of its events once."""
        ...


class OneChain:
    """All installs in one sandbox: the usual case, nothing added to it."""

    def __init__(self, place: Place) -> None:
        self.places = (place,)
        self._place = place

    def submit(self, works: Sequence[Work[Any]]) -> None:
        self._place.sandbox.submit(self._place.chain, works)


class Spread:
    """All installs in each of several sandboxes; events that share a key meet in the same one, so they keep their order."""

    def __init__(self, places: Sequence[Place]) -> None:
        self.places = tuple(places)

    def submit(self, works: Sequence[Work[Any]]) -> None:
        count = len(self.places)
        shares: list[list[Work[Any]]] = [[] for _ in range(count)]
        for work in works:
            key = work.key.encode("utf-8", "replace") if isinstance(work.key, str) else work.key or b""
            shares[crc32(key) % count].append(work)
        for place, share in zip(self.places, shares, strict=True):
            if share:
                place.sandbox.submit(place.chain, share)


class Passage:
    """One event on its way through the segments of a Relay: what has become of it so far."""

    __slots__ = ("has_delivery", "is_snapshot", "key", "notes", "now", "uuid", "work")

    def __init__(self, work: Work[Any], event: Mapping[str, Any]) -> None:
        """`event` is the work's, as it came."""
        self.work = work
        self.uuid: str = event["uuid"]
        self.now: str = event["now"]
        self.key: str = event["distinct_id"]
        self.is_snapshot = event["event"] == SNAPSHOT
        self.notes = Notes()
        self.has_delivery = False


class Relay:
    """Installs in sandboxes that are not the same: the event goes from one to the next, and is finished by the host."""

    def __init__(self, project: Project, places: Sequence[Place]) -> None:
        """`places` hold the project's installs in their order; their chains are `opened` and `whole`."""
        self.places = tuple(places)
        self._project = project
        self._segments = [_Segment(self, number, place) for number, place in enumerate(places)]

    def submit(self, works: Sequence[Work[Any]]) -> None:
        begun: list[tuple[Passage, bytes]] = []
        for work in works:
            if work.sink.closed:
                continue
            try:
                event = open_envelope(work.raw, self._project.id)
                raw = orjson.dumps(event)
            except (ValueError, TypeError) as error:  # InvalidEvent, InvalidJson, TooDeep, and orjson's own
                notes = Notes(error=(type(error).__name__, str(error)[:300]))
                work.sink.deliver(
                    [(work.item, ChainResult(EventOutcome.INVALID, "", "", "", "", "", notes))], has_delivery=False
                )
            else:
                begun.append((Passage(work, event), raw))
        if begun:
            self._segments[0].submit(begun)

    def passed(self, number: int, passages: Sequence[tuple[Passage, ChainResult]], *, has_delivery: bool) -> None:
        """Events came out of a segment."""
        onward: list[tuple[Passage, bytes]] = []
        for passage, result in passages:
            if passage.work.sink.closed:
                continue
            passage.has_delivery = passage.has_delivery or has_delivery
            if result.notes is not None:
                passage.notes = _joined(passage.notes, result.notes)
            if result.outcome is not EventOutcome.WHOLE:
                self._deliver(passage, result._replace(notes=passage.notes))
            elif (refusal := check_whole(result.properties, passage.uuid, self._project.id)) is not None:
                # Only a child that does not keep the rules sends that; it has spoilt its own project's event.
                _log.error("event_spoilt_by_sandbox", project_id=self._project.id, reason=refusal)
                notes = passage.notes._replace(error=("InvalidEvent", refusal))
                self._deliver(passage, ChainResult(EventOutcome.INVALID, "", "", "", "", "", notes))
            elif number + 1 < len(self._segments):
                onward.append((passage, result.properties.encode()))
            else:
                self._deliver(passage, self._finished(passage, result.properties))
        if onward:
            self._segments[number + 1].submit(onward)

    def _finished(self, passage: Passage, raw: str) -> ChainResult:
        event = codec.loads(raw)
        failed = {failure.install_id for failure in passage.notes.failures}
        ran = [
            install
            for place in self.places
            for install in place.chain.installs
            if not passage.is_snapshot and (place.chain.hooks(install.id) & CHAIN_HOOKS or install.id in failed)
        ]
        marks = stamps(
            [install.label for install in ran if install.id not in failed],
            [install.label for install in ran if install.id in failed],
        )
        name, distinct_id, timestamp, elements, properties = finish(
            event, codec.dumps(event["properties"]), passage.now, marks
        )
        notes = passage.notes if passage.notes != Notes() else None
        return ChainResult(EventOutcome.EMIT, name, distinct_id, timestamp, elements, properties.decode(), notes)

    def _deliver(self, passage: Passage, result: ChainResult) -> None:
        passage.work.sink.deliver([(passage.work.item, result)], has_delivery=passage.has_delivery)


class _Segment:
    """One chain of a Relay, and the sink of its events."""

    closed = False

    def __init__(self, relay: Relay, number: int, place: Place) -> None:
        self._relay = relay
        self._number = number
        self._place = place

    def submit(self, passages: Sequence[tuple[Passage, bytes]]) -> None:
        works = [Work(passage, raw, self, passage.key, self._left_out(passage)) for passage, raw in passages]
        for work in works:
            work.is_snapshot = work.item.is_snapshot
        self._place.sandbox.submit(self._place.chain, works)

    def _left_out(self, passage: Passage) -> dict[int, HookFailure] | None:
        failed = passage.work.failed
        if not failed:
            return None
        return {install.id: failed[install.id] for install in self._place.chain.installs if install.id in failed}

    def deliver(self, results: Sequence[tuple[Passage, ChainResult]], *, has_delivery: bool) -> None:
        self._relay.passed(self._number, results, has_delivery=has_delivery)

    def effects_of(self, item: Passage) -> RunEffects:
        return item.work.effects


def _joined(first: Notes, then: Notes) -> Notes:
    return Notes(
        (*first.captures, *then.captures),
        (*first.logs, *then.logs),
        (*first.failures, *then.failures),
        then.dropped_by,
        then.error,
        (*first.trace, *(then.trace[1:] if first.trace else then.trace)),
        (*first.unheard, *then.unheard),
    )

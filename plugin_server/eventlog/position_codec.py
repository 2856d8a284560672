"""A lane's `done` set as the text that travels in the metadata of its committed offset, and back.

`1;3,2+500` means version 1; relative to `next`, skip 3 offsets, one is done; skip 2 more, 500 are done. Numbers are
decimal, so that Kafka's own tools show something a person can read.

Tried and rejected: base64 of binary varints. It is longer in the worst case, where every second offset is done
(2.7 characters a run against 2), and says nothing to a reader.
"""

from __future__ import annotations

import re

import structlog

from plugin_server.eventlog.port import METADATA_LIMIT_BYTES, Position, Runs

_VERSION = "1;"
_RUN = re.compile(r"(0|[1-9][0-9]{0,18})(?:\+([1-9][0-9]{0,18}))?", re.ASCII)
_RAW_SHOWN_CHARACTERS = 80

log = structlog.get_logger(__name__)


def encode_done(position: Position) -> str:
    """The text for `position.done`, ASCII, empty for none. It may exceed METADATA_LIMIT_BYTES: `commit` refuses that.

    Raises ValueError when the runs are empty, touch, overlap, descend, or start before `position.next`.
    """
    if not position.done:
        return ""
    parts: list[str] = []
    end = position.next
    for start, stop in position.done:
        gap, length = start - end, stop - start
        if gap < 0 or length < 1 or (gap == 0 and parts):
            message = f"not ascending, separate runs at or beyond {position.next}: {position.done!r}"
            raise ValueError(message)
        parts.append(str(gap) if length == 1 else f"{gap}+{length}")
        end = stop
    return _VERSION + ",".join(parts)


def encode_checked(position: Position) -> str:
    """As `encode_done`, and raises ValueError when the text is longer than a broker keeps."""
    text = encode_done(position)
    if len(text) > METADATA_LIMIT_BYTES:
        message = (
            f"done takes {len(text)} bytes in {len(position.done)} runs, over {METADATA_LIMIT_BYTES}: "
            "the lane must stop taking events before that"
        )
        raise ValueError(message)
    return text


def decode_position(next_offset: int, raw_metadata: str | None) -> Position:
    """The position that was committed as `next_offset` with this metadata.

    Metadata that we did not write (an operator's tool resets offsets with its own) must not stop the lane:
    it is logged as a WARNING and taken as empty, so events that were done beyond `next_offset` run again.
    """
    if not raw_metadata:
        return Position(next_offset)
    done = _parse(next_offset, raw_metadata)
    if done is None:
        log.warning(
            "offset_metadata_not_ours",
            next_offset=next_offset,
            raw_metadata=raw_metadata[:_RAW_SHOWN_CHARACTERS],
            length=len(raw_metadata),
        )
        return Position(next_offset)
    return Position(next_offset, done)


def _parse(next_offset: int, raw_metadata: str) -> Runs | None:
    if not raw_metadata.startswith(_VERSION):
        return None
    runs: list[tuple[int, int]] = []
    end = next_offset
    for raw_run in raw_metadata[len(_VERSION) :].split(","):
        match = _RUN.fullmatch(raw_run)
        if match is None:
            return None
        gap = int(match[1])
        if gap == 0 and runs:
            return None
        start = end + gap
        end = start + int(match[2] or 1)
        runs.append((start, end))
    return tuple(runs)

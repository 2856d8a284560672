"""What passes between host and child: frames on one stream socket, and the page that says what is running.

This is the only module that both sides share a format through. A frame is a fixed header, a JSON head and a blob of
raw bytes (events, properties), so that event bytes are neither escaped nor copied into JSON:

    kind: u8 | head length: u32 | blob length: u32 | head: JSON | blob

The host trusts none of it: `plugin_server.runtime.replies` checks every field that a child sends.

Rejected: pickle (runs code), msgpack (a dependency in the child for nothing: orjson is there and as fast for
these heads), one frame per event (10–140 µs a round trip against 1–2 µs in batches).
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final

WIRE_VERSION: Final = 1
HEADER: Final = struct.Struct("<BII")
HEAD_LIMIT_BYTES: Final = 64 * 2**20
BLOB_LIMIT_BYTES: Final = 64 * 2**20


class FrameKind(IntEnum):
    """Host to child below 16, child to host from 16 on. The head's JSON is given behind each."""

    LOAD = 1
    """{"project_id", "installs": [{"id", "name", "file_name", "source", "config", "attachments",
    "failed": null | [kind, message, line]}], "limits", "library_version"};
    the blob holds the attachments' bytes."""
    RUN = 2
    """{"first": sequence number of the first event, "lengths": [bytes of each event in the blob],
    "failed": {"<sequence>": {"<install>": [kind, message, line]}}, "trace": bool}. `failed` installs are not called."""
    REPLY = 3
    """[call id, true, value] or [call id, false, message]"""
    CANCEL = 4
    """[sequence, message]: end that event's running hook as timed out"""

    LOADED = 16
    """{"version", "installs": [{"id", "hooks": [names], "error": null | [kind, message, line]}], "logs": […]}"""
    RESULTS = 17
    """[batches ended, [[sequence, outcome, event name, distinct_id, timestamp, elements_chain, length, notes], …]]; the
    blob holds the properties' JSON. `notes` is null or {"captures", "logs", "failed", "dropped_by", "error", "trace"}.
    One frame for each RUN says 1 batch ended, though events of it may still wait for the host."""
    CALL = 18
    """[call id, sequence, install, number among the install's calls for this event, name, arguments]"""


class EventOutcome(IntEnum):
    EMIT = 0
    DROP = 1
    INVALID = 2


class Word(IntEnum):
    """The page: u32 words that the child writes and the host reads, for blame only."""

    STATE = 0
    """0: the child's own code; 1: app code"""
    SEQUENCE = 1
    INSTALL = 2
    HOOK = 3
    """Index into HOOKS"""
    INVOCATIONS = 4
    """Counts up with every call of a hook"""
    LINE = 5
    """Of app code, as of the last timer tick"""


PAGE_BYTES: Final = 64
HOOKS: Final = ("load", "setupPlugin", "processEvent")


def encode_frame(kind: FrameKind, head: bytes, blob: bytes = b"") -> bytes:
    """One frame, ready to be written."""
    return b"".join((HEADER.pack(kind, len(head), len(blob)), head, blob))

"""What passes between host and child: frames on one stream socket, the page that says what is running, and traces.

This is the only module that both sides share a format through. A frame is a fixed header, a JSON head and a blob of
raw bytes (events, properties), so that event bytes are neither escaped nor copied into JSON:

    kind: u8 | head length: u32 | blob length: u32 | head: JSON | blob

A failure in a head is [kind, message, line, retryable].

The host trusts none of it: `plugin_server.runtime.replies` checks every field that a child sends.

Rejected: pickle (runs code), msgpack (a dependency in the child for nothing: orjson is there and as fast for
these heads), one frame per event (10–140 µs a round trip against 1–2 µs in batches).
"""

from __future__ import annotations

import signal
import struct
from enum import IntEnum
from typing import Final

WIRE_VERSION: Final = 3
HEADER: Final = struct.Struct("<BII")
HEAD_LIMIT_BYTES: Final = 16 * 2**20
"""Of JSON that the host parses at once: properties, captures and traces travel in the blob, and a child sends a frame
when a quarter of this is waiting"""
BLOB_LIMIT_BYTES: Final = 64 * 2**20


class FrameKind(IntEnum):
    """Host to child below 16, child to host from 16 on. The head's JSON is given behind each."""

    LOAD = 1
    """{"chain": its number, "project_id", "installs": [{"id", "name", "file_name", "source", "config", "attachments",
    "failed": null | failure}], "limits", "library_version", "now": null | seconds since 1970 at which the
    apps' clock stands}; the blob holds the attachments' bytes. A sandbox may have several chains."""
    RUN = 2
    """{"chain", "first": sequence number of the first event, "lengths": [bytes of each event in the blob],
    "failed": {"<sequence>": {"<install>": failure}}, "trace": bool, "whole": bool, "keys": null | [text],
    "snapshots": null | [null | bool]}.
    `failed` installs are not called. With `keys`, the events in the blob are events, not envelopes, and these are the
    distinct ids whose order they keep; `snapshots` says which of them came in as snapshots, null that its name does.
    `whole` asks for the events themselves, not for the fields of the output."""
    REPLY = 3
    """[call id, true, value] or [call id, false, message, kind], kind one of REPLY_ERRORS"""
    CANCEL = 4
    """[sequence, message]: end that event's or invocation's running hook as timed out"""
    INVOKE = 5
    """[sequence, chain, install, hook, captures that it may make, or null for captures_per_event]; the blob is a JSON list
    of the hook's arguments before `meta`"""
    UNLOAD = 6
    """[chain]: it gets no more work"""

    LOADED = 16
    """{"version", "chain", "installs": [{"id", "hooks": [names], "metrics": {name: "sum" | "max" | "min"},
    "error": null | failure}]}"""
    RESULTS = 17
    """[batches ended, [[sequence, outcome, event name, distinct_id, timestamp, elements_chain, length, notes], …]].

    For each row the blob holds `length` bytes (the properties' JSON, or the event's where `whole` was asked for), then
    its captures' properties, then its trace. `notes` is null or {"captures": [[install, number, event, distinct_id,
    timestamp, length], …], "logs", "failed", "dropped_by", "error", "trace": [[install, length], …], "unheard": [[install,
    number], …]}; `unheard` are the calls of storage.increment whose answers nobody awaited. `failed` has [install, *failure].
    One frame for each RUN says 1 batch ended, though events of it may still wait for the host."""
    CALL = 18
    """[call id, sequence, install, number among the install's calls in this run, name, arguments]"""
    DONE = 19
    """[sequence, null | failure, length, notes]: an invocation has ended; the blob holds what it returned,
    as JSON of that length, and then its captures' properties"""


class EventOutcome(IntEnum):
    EMIT = 0
    DROP = 1
    INVALID = 2
    WHOLE = 3
    """Emit, answered with the whole event"""


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


TRACE_SIGNAL: Final = signal.SIGUSR1
"""A child that gets it writes where it is to its standard error, which is a pipe to the host"""
OUT_OF_MEMORY_STATUS: Final = 12
"""A child ends itself so when an app has used up its memory and keeps it"""
PAGE_BYTES: Final = 64
APP_HOOKS: Final = (
    "setupPlugin",
    "teardownPlugin",
    "processEvent",
    "processEventBatch",
    "onEvent",
    "onSnapshot",
    "exportEvents",
    "composeWebhook",
    "runEveryMinute",
    "runEveryHour",
    "runEveryDay",
)
"""What an app may define, by its camelCase names; jobs come on top"""
CHAIN_HOOKS: Final = frozenset({"processEvent", "processEventBatch"})
"""An app that has one of these is a step of its chain"""
HOOKS: Final = ("load", *APP_HOOKS, "job")
"""What the page can name: also the execution of the module, and all jobs as one"""
JOB_PREFIX: Final = "jobs."
"""A job's name as a hook: `jobs.<name>`"""
REPLY_ERRORS: Final = ("error", "value", "limit", "fetch", "refused")
"""What an app sees of a host call that failed: RuntimeError, ValueError, LimitExceeded, FetchError, and a FetchError that is
not worth another try"""
METRIC_KINDS: Final = ("sum", "max", "min")


def encode_frame(kind: FrameKind, head: bytes, blob: bytes = b"") -> bytes:
    """One frame, ready to be written."""
    return b"".join((HEADER.pack(kind, len(head), len(blob)), head, blob))

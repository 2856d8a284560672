"""Where an event comes from: the `ps-lineage` header, stamped by the host only (docs/loop-guard.md).

    {"v":1,"root":"<uuid>","depth":<int>,"path":[<install id>,…],"budget":<int>}

Rejected: a property of the event. Properties are the client's and the app's to write; a header is neither's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import orjson

LINEAGE_HEADER = "ps-lineage"
PATH_LENGTH = 32
"""The path keeps its last 32 installs."""
DEPTH_CEILING = 100
"""No capture is made beyond this depth, whatever a project's policy says."""

_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_HEADER_LIMIT_BYTES = 2_048


class MalformedLineage(ValueError):
    """The lineage header is not one of ours. The event is processed; what its apps capture is refused."""


@dataclass(frozen=True, slots=True)
class Lineage:
    """One event's place in its tree.

    `root` is the uuid of the event that no app made, `depth` the captures between it and this one, `path` the
    installs that made them (oldest first), `budget` the events that this one may still lead to.
    """

    root: str
    depth: int = 0
    path: tuple[int, ...] = ()
    budget: int = 0

    def encode(self) -> bytes:
        """As the header's value."""
        path = ",".join(map(str, self.path))
        return b'{"v":1,"root":"%b","depth":%d,"path":[%b],"budget":%d}' % (
            self.root.encode(),
            self.depth,
            path.encode(),
            self.budget,
        )


def refused(root: str) -> Lineage:
    """The lineage of an event whose header is malformed: at the ceiling with nothing left, so that no capture passes."""
    return Lineage(root, depth=DEPTH_CEILING, path=(), budget=0)


def parse_lineage(raw: bytes) -> Lineage:
    """Read the header's value. Raises MalformedLineage for what lacks a field of `Lineage.encode`, or has it with another type."""
    if len(raw) > _HEADER_LIMIT_BYTES:
        raise MalformedLineage(f"longer than {_HEADER_LIMIT_BYTES} bytes")
    try:
        fields = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise MalformedLineage(f"not JSON: {error}") from error
    if type(fields) is not dict or fields.get("v") != 1 or type(fields["v"]) is not int:
        raise MalformedLineage("not a JSON object of version 1")
    root, depth, path, budget = (fields.get(name) for name in ("root", "depth", "path", "budget"))
    if type(root) is not str or not _UUID.fullmatch(root):
        raise MalformedLineage("root is not a UUID")
    if type(depth) is not int or depth < 0:
        raise MalformedLineage("depth is not a number of 0 or more")
    if type(budget) is not int or budget < 0:
        raise MalformedLineage("budget is not a number of 0 or more")
    if type(path) is not list or len(path) > PATH_LENGTH or any(type(install) is not int for install in path):
        raise MalformedLineage(f"path is not a list of at most {PATH_LENGTH} install ids")
    return Lineage(root, depth, tuple(path), budget)

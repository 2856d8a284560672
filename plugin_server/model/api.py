"""Requests to this server's own HTTP API, whether they came over the network or from an app in process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote


@dataclass(frozen=True, slots=True)
class ApiRequest:
    """`path` begins with `/` and has no query; header names are in lower case."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class ApiResponse:
    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


def plain_path(path: str) -> str:
    """A path without what changes nothing: escapes (one level of them), repeated slashes, a slash at its end."""
    return "/" + "/".join(part for part in unquote(path).split("/") if part)

"""Projects, their apps and installs, and the bounds on both: frozen values, validated where they enter (registry)."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class LoopMode(StrEnum):
    ENFORCE = "enforce"
    WARN = "warn"
    OFF = "off"


class LoopPolicy(BaseModel):
    """When a capture is cut (docs/loop-guard.md). `mode` decides over depth, visits and budget; rate and the ceiling always hold."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: LoopMode = LoopMode.ENFORCE
    max_depth: int = Field(10, ge=0, le=100)
    """Captures on the way from the root event to this one."""
    max_visits: int = Field(3, ge=0, le=32)
    """Times that one install may be on that way."""
    max_events_per_root: int = Field(1000, ge=0, le=1_000_000)
    """Events that one root event may lead to in all."""
    captures_per_second: float = Field(10_000, gt=0)
    """Refill of the token bucket of one install in one worker."""
    captures_burst: int = Field(100_000, ge=1)
    """Size of that bucket."""


class Limits(BaseModel):
    """What one project's apps may use."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    hook_seconds: float = Field(30, gt=0)
    """Wall time of one hook call."""
    cpu_seconds: float = Field(1, gt=0)
    """CPU time of one event in one app."""
    memory_bytes: int = Field(256 * 2**20, ge=64 * 2**20)
    """Address space of a sandbox beyond what the interpreter itself takes."""
    event_bytes: int = Field(2**20, ge=1024)
    """An event's JSON after an app."""
    captures_per_event: int = Field(100, ge=0)
    captures_per_run: int = Field(10_000, ge=0)
    """Of one run of a schedule, of a job that a person started, or of a job in a chain that these began."""
    log_lines_per_minute: int = Field(1000, ge=0)
    """Per install."""


class Isolation(StrEnum):
    """What shares one sandbox."""

    PROJECT = "project"
    """The apps of one project"""
    INSTALL = "install"
    """Nothing: each install has one of its own."""
    SHARED = "shared"
    """All projects that say so: for many small projects whose apps are trusted with each other's events"""


@dataclass(frozen=True, slots=True)
class SandboxPlan:
    """How a project's apps are spread over sandboxes."""

    isolation: Isolation = Isolation.PROJECT
    processes: int = 1
    """Sandboxes that share the project's events; more than one only with Isolation.PROJECT"""


@dataclass(frozen=True, slots=True)
class Attachment:
    content_type: str
    file_name: str
    contents: bytes


@dataclass(frozen=True, slots=True)
class App:
    """Code and manifest. `version` is the hash of both, in hex; `source` is the text of `file_name`."""

    name: str
    version: str
    file_name: str
    source: str
    manifest: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Install:
    """One app configured for one project. `config` may hold secrets: it goes to the sandbox, never to a log."""

    id: int
    app: App
    order: int
    config: dict[str, Any] = field(repr=False)
    attachments: dict[str, Attachment] = field(default_factory=dict, repr=False)

    @property
    def label(self) -> str:
        """As in `$plugins_failed`: name and install id."""
        return f"{self.app.name} ({self.id})"


@dataclass(frozen=True, slots=True)
class Project:
    """A tenant. `installs` are in the order in which they run: by `order`, then by id."""

    id: int
    name: str
    token: str
    installs: tuple[Install, ...] = ()
    loop_policy: LoopPolicy = field(default_factory=LoopPolicy)
    limits: Limits = field(default_factory=Limits)
    sandbox: SandboxPlan = field(default_factory=SandboxPlan)
    api_keys: tuple[bytes, ...] = field(default=(), repr=False)
    """Hashes of the personal API keys that open this project's API (model/api_keys.py)"""
    posthog_api_key: str | None = field(default=None, repr=False)
    """For the external PostHog. It goes to that host alone, never to a sandbox or a log."""

"""Every error that this server raises on purpose.

    PluginServerError
    ├── AppError              the author's fault; shown to the author, never ERROR in the operator's log
    │   ├── HookMissing
    │   ├── InvalidArgument
    │   ├── LimitReached
    │   └── FetchFailed
    │       └── FetchRefused
    ├── PlatformError         ours or the operator's; somebody has to act
    │   ├── ConfigurationError
    │   ├── LaneFenced
    │   └── ProtocolViolation
    └── Transient             a dependency is away; the same work is run again after a backoff
        ├── EventLogUnavailable
        ├── DatabaseUnavailable
        ├── CacheUnavailable
        ├── CommitOutcomeUnknown
        └── SandboxUnavailable

The docstring of a class is its default message, and says what to do next.
"""

from __future__ import annotations

from typing import ClassVar


class PluginServerError(Exception):
    """Something went wrong in the plugin server."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message if message is not None else (type(self).__doc__ or "").split("\n\n")[0])


class AppError(PluginServerError):
    """The app failed. Its logs show the hook and the line."""

    kind: ClassVar[str] = "error"
    """What the app sees it as (sandbox.wire, REPLY)"""


class InvalidArgument(AppError):
    """A call to the host has an argument that it cannot have. The message says which, and what to write instead."""

    kind = "value"


class LimitReached(AppError):
    """An app asked the host for more than its limits allow. The message names the limit."""

    kind = "limit"


class FetchFailed(AppError):
    """A request over the network failed. Trying again later may help."""

    kind = "fetch"


class FetchRefused(FetchFailed):
    """A request that this app may not make. The message says what would have to be allowed."""

    kind = "refused"


class HookMissing(AppError):
    """The app has no such hook, or does not run. Its logs say why."""


class PlatformError(PluginServerError):
    """The plugin server failed. Its log shows where."""


class ConfigurationError(PlatformError):
    """The configuration is wrong. Correct the setting that the message names and start again."""


class LaneFenced(PlatformError):
    """Another worker owns this lane now. Nothing to do: the lane is given up, or acquired again if it is still ours."""


class ProtocolViolation(PlatformError):
    """A sandbox sent something that it must not send. It is killed and its events run again elsewhere."""


class Transient(PluginServerError):
    """A dependency is away. The work is run again after a backoff; nothing is lost."""


class EventLogUnavailable(Transient):
    """The event log does not answer. Check that Kafka is up and that KAFKA_BROKERS names it."""


class DatabaseUnavailable(Transient):
    """The database does not answer. Check that it is up and that DATABASE_URL names it."""


class CacheUnavailable(Transient):
    """The cache does not answer. Check that Redis is up and that CACHE_URL names it."""


class CommitOutcomeUnknown(Transient):
    """A transaction failed or timed out, so whether it committed is unknown. The lane is acquired again, which settles it."""


class SandboxUnavailable(Transient):
    """No sandbox could be started. Check memory and process limits of this host."""

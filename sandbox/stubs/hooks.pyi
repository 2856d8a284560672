# The hooks that an app may define, in camelCase or snake_case, `def` or `async def`; the source of docs/app-reference.md.
# ruff: noqa: N802, PYI021 - names as apps write them; the docstrings are the reference

from typing import Any, TypeAlias

from __builtins__ import JSON, Meta  # type: ignore[import-not-found] # of this folder

Event: TypeAlias = dict[str, Any]
"""`event`, `distinct_id`, `properties`, `uuid`, `team_id`, `now`, and where the client sent them `timestamp`, `sent_at`, `ip`, `site_url`, `$set`, `$set_once`."""

def setupPlugin(meta: Meta) -> None:
    """Called before any other hook. One that fails is called again, after 3, 6, 12 … 768 seconds; meanwhile the app is left out. It may capture."""

def teardownPlugin(meta: Meta) -> None:
    """Called when the app is changed, removed or stopped. It may capture."""

def processEvent(event: Event, meta: Meta) -> Event | None:
    """Change an event on its way in, or drop it by returning None. `uuid` and `team_id` stay. If it fails, the event goes on as it was."""

def processEventBatch(events: list[Event], meta: Meta) -> list[Event] | None:
    """As `processEvent`, with a list; of an app that has both, `processEvent` is called. The list has one event, and the first one returned goes on."""

def onEvent(event: Event, meta: Meta) -> None:
    """Called with each event as all apps have left it. What it returns is not looked at. After a `RetryError` or `FetchError` it is called again."""

def onSnapshot(event: Event, meta: Meta) -> None:
    """As `onEvent`, for session recordings (`$snapshot`)."""

def exportEvents(events: list[Event], meta: Meta) -> None:
    """As `onEvent`, with many events at once (`exportEventsBufferBytes`, `exportEventsBufferSeconds`, `exportEventsToIgnore` in the config)."""

def composeWebhook(event: Event, meta: Meta) -> dict[str, JSON] | None:
    """Answer `{"url", "body", "headers", "method"}` (all but `url` optional, the method is POST) to have that request made, or None."""

def runEveryMinute(meta: Meta) -> None:
    """Called once a minute, on one worker; a call that is missed is made up for once. Calls of one install do not overlap."""

def runEveryHour(meta: Meta) -> None:
    """Called once an hour, likewise."""

def runEveryDay(meta: Meta) -> None:
    """Called once a day, likewise."""

jobs: dict[str, Any]
"""Functions `(payload, meta)` by name, to be started by `meta.jobs`; those that `publicJobs` in plugin.json names can be started by a person too."""
metrics: dict[str, str]
"""`"sum"`, `"max"` or `"min"` by name, for `meta.metrics`."""

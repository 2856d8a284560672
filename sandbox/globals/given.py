"""All names that an app finds besides Python's own."""

from __future__ import annotations

from sandbox.globals.console import make_console
from sandbox.globals.errors import FetchError, LimitExceeded, RetryError
from sandbox.globals.fetch import make_fetch
from sandbox.globals.gather import make_gather
from sandbox.globals.posthog import make_posthog
from sandbox.globals.sleep import make_sleep
from sandbox.invocation import Context


def given_globals(install: int, context: Context, captures_per_event: int, library_version: str) -> dict[str, object]:
    """Those of one install, by name. Described for authors in sandbox/stubs/."""
    return {
        "posthog": make_posthog(install, context, captures_per_event, library_version),
        "fetch": make_fetch(install, context),
        "console": make_console(install, context),
        "sleep": make_sleep(install, context),
        "gather": make_gather(context),
        "FetchError": FetchError,
        "LimitExceeded": LimitExceeded,
        "RetryError": RetryError,
    }

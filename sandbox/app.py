"""One install in a sandbox: compiled, executed once, its hooks found."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final

from sandbox import codec
from sandbox.environment import app_globals
from sandbox.globals.console import make_console, make_print
from sandbox.globals.meta import make_meta
from sandbox.globals.posthog import make_posthog
from sandbox.guards import is_app_callable
from sandbox.invocation import Context, LimitExceeded
from sandbox.page import HookTimeout
from sandbox.policy import AppSyntaxError, compile_app

HOOK_NAMES: Final = (
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
_MESSAGE_LENGTH: Final = 1_000


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a hook or an app failed, as its author should read it. `line` is the innermost line of app code."""

    kind: str
    """compile | app | timeout | memory | limit"""
    message: str
    line: int | None = None

    def as_list(self) -> list[Any]:
        return [self.kind, self.message, self.line]


@dataclass(slots=True)
class App:
    """An install that is loaded, or `error` says why not."""

    id: int
    label: str
    file_name: str
    meta: object = None
    hooks: dict[str, Callable[..., Any]] = field(default_factory=dict)
    error: Failure | None = None
    shares_state: bool = False
    """It imports what keeps state in the process (decimal contexts), to be reset before each call of a hook"""


def load_app(
    install: dict[str, Any],
    attachments: dict[str, dict[str, Any]],
    context: Context,
    captures_per_event: int,
    library_version: str,
) -> App:
    """Compile and execute an install's code (`id, name, file_name, source, config, failed`). Failures are in `App.error`.

    One that is `failed` already, since it killed a sandbox while loading, is not tried again.
    """
    app = App(install["id"], f"{install['name']} ({install['id']})", f"<{install['id']}>/{install['file_name']}")
    app.shares_state = "decimal" in install["source"]
    if install["failed"] is not None:
        app.error = Failure(*install["failed"])
        return app
    try:
        code = compile_app(install["source"], app.file_name)
        namespace = app_globals(
            {
                "posthog": make_posthog(app.id, context, captures_per_event, library_version),
                "console": make_console(app.id, context),
                "print": make_print(app.id, context),
                "sleep": make_sleep(app.id, context),
                "LimitExceeded": LimitExceeded,
            },
        )
        app.meta = make_meta(install["config"], attachments)
        exec(code, namespace)  # noqa: S102 - what a sandbox is for
        app.hooks = find_hooks(namespace)
    except AppSyntaxError as error:
        app.error = Failure("compile", error.message[:_MESSAGE_LENGTH], error.line)
    except (Exception, HookTimeout) as error:  # noqa: BLE001 - the author's error, reported to the author
        app.error = describe_failure(error, app.file_name)
    return app


def make_sleep(install: int, context: Context) -> Callable[[float], Any]:
    """`await sleep(seconds)`: the host's clock; other events go on meanwhile."""

    def sleep(seconds: float) -> Any:
        if type(seconds) not in (int, float) or not 0 <= seconds <= 3600:
            raise ValueError("sleep: seconds must be a number from 0 to 3600")
        return context.send_call(context.current("sleep"), install, "sleep", [seconds])

    return sleep


def find_hooks(namespace: dict[str, Any]) -> dict[str, Callable[..., Any]]:
    """The hooks that a module defines, by their camelCase names. Raises ValueError for what cannot be one."""
    hooks: dict[str, Callable[..., Any]] = {}
    for name in HOOK_NAMES:
        snake = re.sub(r"([A-Z])", r"_\1", name).lower()
        found = [candidate for candidate in (name, snake) if candidate in namespace]
        if len(found) == 2:
            raise ValueError(f"the app defines both {name} and {snake}: keep one of them")
        if found:
            value = namespace[found[0]]
            if not is_app_callable(value):
                raise ValueError(f"{found[0]} must be a function: write def {found[0]}(…)")
            hooks[name] = value
    return hooks


def describe_failure(error: BaseException, file_name: str) -> Failure:
    """A failure for the author. May run app code (an exception's own __str__), so the timer must be watching."""
    if isinstance(error, HookTimeout):
        kind, message = "timeout", str(error)
    else:
        kind = "memory" if type(error) is MemoryError else "limit" if type(error) is LimitExceeded else "app"
        try:
            text = str(error)
        except Exception:  # noqa: BLE001 - an exception of the app's that cannot be printed
            text = ""
        message = f"{type(error).__name__}: {text}" if text else type(error).__name__
    message = codec.replace_surrogates(message[:_MESSAGE_LENGTH])
    return Failure(kind, message, error_line(error.__traceback__, file_name))


def error_line(traceback: TracebackType | None, file_name: str) -> int | None:
    """The innermost line of the app's own code on the way to an error."""
    line = None
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == file_name:
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    return line

"""One install in a sandbox: compiled, executed once, its hooks found."""

from __future__ import annotations

import contextvars
import re
import time
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final

from sandbox import codec
from sandbox.environment import app_globals
from sandbox.globals.errors import LimitExceeded, RetryError, is_retryable
from sandbox.globals.given import given_globals
from sandbox.globals.jobs import Jobs
from sandbox.globals.meta import make_meta
from sandbox.globals.metrics import Metrics, find_metrics
from sandbox.globals.named import declare
from sandbox.guards import is_app_callable
from sandbox.invocation import Context
from sandbox.page import HookTimeout
from sandbox.policy import AppSyntaxError, compile_app
from sandbox.printable import printable
from sandbox.wire import APP_HOOKS, JOB_PREFIX

_MAX_JOBS: Final = 100
_JOB_NAME_LENGTH: Final = 100
_MESSAGE_LENGTH: Final = 1_000


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a hook or an app failed, as its author should read it. `line` is the innermost line of app code."""

    kind: str
    """compile | app | retry | timeout | memory | limit; or sandbox, which the host says"""
    message: str
    line: int | None = None
    retryable: bool = False
    """The same call may well succeed later"""

    def as_list(self) -> list[Any]:
        return [self.kind, self.message, self.line, self.retryable]

    def located(self) -> str:
        """The message with its line, for a log."""
        return self.message if self.line is None else f"{self.message} (line {self.line})"


@dataclass(slots=True)
class App:
    """An install that is loaded, or `error` says why not."""

    id: int
    label: str
    file_name: str
    meta: object = None
    hooks: dict[str, Callable[..., Any]] = field(default_factory=dict)
    metrics: dict[str, str] = field(default_factory=dict)
    """What it counts: sum, max or min by name"""
    error: Failure | None = None
    shares_state: bool = False
    """It imports what keeps state in the thread (decimal contexts): each call of a hook gets a context of its own"""
    waits: bool = False
    """A hook of it may wait for the host, and others run meanwhile"""


def load_app(
    install: dict[str, Any],
    attachments: dict[str, dict[str, Any]],
    context: Context,
    captures_per_event: int,
    library_version: str,
    clock: Callable[[], float] = time.time,
) -> App:
    """Compile and execute an install's code (`id, name, file_name, source, config, failed`). Failures are in `App.error`.

    One that is `failed` already, since it killed a sandbox while loading, is not tried again.
    """
    app = App(install["id"], f"{install['name']} ({install['id']})", app_file_name(install))
    app.shares_state = "decimal" in unicodedata.normalize("NFKC", install["source"])
    if install["failed"] is not None:
        app.error = Failure(*install["failed"])
        return app
    try:
        code = compile_app(install["source"], app.file_name)
        namespace = app_globals(
            given_globals(app.id, context, captures_per_event, library_version),
            clock=clock,
            is_running=lambda: context.page.runs(app.id),
        )
        jobs, metrics = Jobs(context, app.id), Metrics(context, app.id)
        app.meta = make_meta(app.id, context, install["config"], attachments, jobs, metrics)
        contextvars.Context().run(exec, code, namespace)
        app.hooks = find_hooks(namespace)
        app.metrics = find_metrics(namespace.get("metrics"))
        declare(jobs, {name.removeprefix(JOB_PREFIX): "" for name in app.hooks if name.startswith(JOB_PREFIX)})
        declare(metrics, app.metrics)
        app.waits = "async" in unicodedata.normalize("NFKC", install["source"])
    except AppSyntaxError as error:
        app.error = Failure("compile", error.message[:_MESSAGE_LENGTH], error.line)
    except (Exception, HookTimeout) as error:  # noqa: BLE001 - the author's error, reported to the author
        try:
            app.error = describe_failure(error, app.file_name)
        except HookTimeout as timeout:
            app.error = Failure("timeout", str(timeout))
    return app


def app_file_name(install: dict[str, Any]) -> str:
    """What tracebacks call an install's code. Unlike any other install's, and like no file."""
    return f"<{install['id']}>/{install['file_name']}"


def find_hooks(namespace: dict[str, Any]) -> dict[str, Callable[..., Any]]:
    """The hooks that a module defines, by their camelCase names, and its jobs as `jobs.<name>`.

    Raises ValueError for what cannot be one.
    """
    hooks: dict[str, Callable[..., Any]] = {}
    for name in APP_HOOKS:
        snake = re.sub(r"([A-Z])", r"_\1", name).lower()
        found = [candidate for candidate in (name, snake) if candidate in namespace]
        if len(found) == 2:
            raise ValueError(f"the app defines both {name} and {snake}: keep one of them")
        if found:
            value = namespace[found[0]]
            if not is_app_callable(value):
                raise ValueError(f"{found[0]} must be a function: write def {found[0]}(…)")
            hooks[name] = value
    return hooks | _find_jobs(namespace.get("jobs"))


def _find_jobs(jobs: object) -> dict[str, Callable[..., Any]]:
    if type(jobs) is not dict or not any(map(is_app_callable, jobs.values())):
        return {}  # a variable of the app's own that happens to have that name
    if len(jobs) > _MAX_JOBS:
        raise ValueError(f"jobs: an app has at most {_MAX_JOBS}")
    for name, job in jobs.items():
        if type(name) is not str or not 0 < len(name) <= _JOB_NAME_LENGTH or "\0" in name:
            raise ValueError(
                f"jobs: a job's name must be text of at most {_JOB_NAME_LENGTH} characters, none of them NUL"
            )
        if not is_app_callable(job):
            raise ValueError(f"jobs: {name!r} must be a function: write def … and put it into jobs")
    return {JOB_PREFIX + codec.replace_surrogates(name): job for name, job in jobs.items()}


def describe_failure(error: BaseException, file_name: str) -> Failure:
    """A failure for the author. May run app code (an exception's own __str__), so the timer must be watching."""
    if isinstance(error, HookTimeout):
        kind, message, retryable = "timeout", str(error), False
    else:
        kind, retryable = _kind_of(error), is_retryable(error)
        try:
            text = str(error)
        except Exception:  # noqa: BLE001 - an exception of the app's that cannot be printed
            text = ""
        if kind == "memory" and not text:
            text = "the sandbox has no more memory (memory_bytes)"
        message = f"{type(error).__name__}: {text}" if text else type(error).__name__
    line = error_line(error.__traceback__, file_name)
    return Failure(kind, printable(message[:_MESSAGE_LENGTH]), line, retryable)


def _kind_of(error: BaseException) -> str:
    if isinstance(error, RetryError):
        return "retry"
    return "memory" if type(error) is MemoryError else "limit" if type(error) is LimitExceeded else "app"


def error_line(traceback: TracebackType | None, file_name: str) -> int | None:
    """The innermost line of the app's own code on the way to an error."""
    line = None
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == file_name:
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    return line

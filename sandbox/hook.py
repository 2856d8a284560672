"""One call of a hook: driven over its host calls, its failure described, all of it while the page names the app.

`drive`, `outstanding` and `describe_under_watch` serve the chain too; `invoke` is for every hook that is not part of it.
"""

from __future__ import annotations

import contextlib
import contextvars
import types
from collections.abc import Callable, Generator
from typing import Any, Final

from sandbox import codec
from sandbox.app import App, Failure, describe_failure, error_line
from sandbox.invocation import Effects, HostCall
from sandbox.page import HookTimeout, Page
from sandbox.wire import HOOKS, JOB_PREFIX

_ANSWERING: Final = frozenset({"processEventBatch", "composeWebhook"})
"""Hooks whose return value means something; what others return is not looked at"""


class RefusedReturn(Exception):
    """What a hook returned cannot be taken; the message says why."""


_OURS: Final = (RefusedReturn, codec.NotJson, codec.TooDeep)
"""What our own code says of an app's values, without the name of its class"""


def hook_index(name: str) -> int:
    """The number under which the page names a hook."""
    return HOOKS.index("job" if name.startswith(JOB_PREFIX) else name)


def invoke(
    app: App, name: str, arguments: list[Any], effects: Effects, page: Page, limit_bytes: int
) -> Generator[HostCall, None, tuple[Failure | None, bytes]]:
    """Call a hook with `arguments` and `meta`; yields the host calls it waits for, and returns failure and answer.

    The answer is JSON, `null` for hooks that have none, of at most `limit_bytes`. A hook that fails leaves its log
    lines and no capture.
    """
    sequence, hook = effects.sequence, hook_index(name)
    call = own_context(app)
    try:
        effects.running = app.id
        page.enter(sequence, app.id, hook)
        value = call(app.hooks[name], *arguments, app.meta)
        if type(value) is types.CoroutineType:
            value = yield from drive(value, call, page, sequence, app.id, hook)
        if page.overran:
            raise HookTimeout(page.overran)
        answer = codec.dumps(value) if name in _ANSWERING else b"null"
        if len(answer) > limit_bytes:
            raise RefusedReturn(f"{name} returned more than {limit_bytes} bytes (event_bytes)")
        if name == "processEventBatch" and not _is_batch(value):
            raise RefusedReturn(f"{name} returned {type(value).__name__}: return a list of events")
        if name == "composeWebhook" and not _is_webhook(value):
            raise RefusedReturn(
                f'{name} returned {type(value).__name__}: return a dict with "url", or None for no request'
            )
        if effects.calls:
            page.leave()
            yield from outstanding(effects)
            page.enter(sequence, app.id, hook)
    except (Exception, HookTimeout) as error:  # noqa: BLE001 - an app's failure is a result
        failure = describe_under_watch(error, app, page, effects, hook)
        effects.undo_captures(0)
        effects.calls.clear()
        effects.log(app.id, "ERROR", f"{name} failed: {failure.located()}", "PLUGIN")
        return failure, b"null"
    return None, answer


def _is_batch(value: object) -> bool:
    return type(value) is list and all(type(event) is dict for event in value)


def _is_webhook(value: object) -> bool:
    """To be asked once it is JSON, whose keys are text."""
    return value is None or (type(value) is dict and type(value.get("url")) is str)


def own_context(app: App) -> Callable[..., Any]:
    """What calls an app's code: in a context of its own if it uses what is kept in one (decimal), else directly."""
    return contextvars.Context().run if app.shares_state else call_directly


def call_directly(function: Callable[..., Any], *arguments: Any) -> Any:
    """`function(*arguments)`"""
    return function(*arguments)


def drive(
    coroutine: types.CoroutineType[Any, Any, Any],
    call: Callable[..., Any],
    page: Page,
    sequence: int,
    install: int,
    hook: int,
) -> Generator[HostCall, None, Any]:
    """As `yield from`, but the page says whose code runs whenever it goes on: its limits hold after an await too."""
    error: BaseException | None = None
    while True:
        try:
            waited = call(coroutine.send, None) if error is None else call(coroutine.throw, error)
        except StopIteration as stop:
            return stop.value
        try:
            page.leave()
            error = yield waited
        except GeneratorExit:
            _close(coroutine, call, page, sequence, install, hook)
            raise
        except (Exception, HookTimeout) as thrown:  # noqa: BLE001 - for the hook to see
            error = thrown
        page.enter(sequence, install, hook)


def _close(
    coroutine: types.CoroutineType[Any, Any, Any],
    call: Callable[..., Any],
    page: Page,
    sequence: int,
    install: int,
    hook: int,
) -> None:
    """End a hook that is given up. What it does about that no longer counts."""
    page.enter(sequence, install, hook)
    with contextlib.suppress(Exception, HookTimeout):  # it has failed already
        call(coroutine.close)


def outstanding(effects: Effects) -> Generator[HostCall, None, None]:
    """Wait for every host call that the hook started. An error that the app did not wait for is logged for its owner."""
    deltas: list[list[int]] = []
    for call in effects.calls:
        if not call.done:
            yield call
        if call.unheard is not None:
            effects.log(
                effects.running, "ERROR", f"{call.what} failed, and nobody awaited it: {call.unheard}", "PLUGIN"
            )
        if call.is_delta:
            deltas.append(list(call.place))
    if deltas:
        effects.unheard = [*(effects.unheard or ()), *deltas]
    effects.calls.clear()


def describe_under_watch(error: BaseException, app: App, page: Page, effects: Effects, hook: int) -> Failure:
    """Describe what went wrong, and leave the page naming the app.

    The app's own code may run for it (an exception's `__str__`), and once more when the error is freed, so each has the
    hook's time anew.
    """
    sequence = effects.sequence
    page.leave()
    page.overran, page.renewed = "", True
    effects.ran_out = effects.ran_out or isinstance(error, MemoryError)
    if type(error) in _OURS:  # exactly: an app can extend what it catches, and print it as it likes
        page.enter(sequence, app.id, hook)
        return Failure("app", str(error), error_line(error.__traceback__, app.file_name))
    try:
        page.enter(sequence, app.id, hook)
        return describe_failure(error, app.file_name)
    except HookTimeout as timeout:
        page.overran = ""
        return Failure("timeout", str(timeout))
    finally:
        page.enter(sequence, app.id, hook)
        # Its frames hold it in turn, and a cycle would be freed in whichever app's time.
        error.__traceback__ = error.__context__ = error.__cause__ = None

"""One attempt at a delivery: the hook is called, for composeWebhook the request is made; what came of it is told, not judged."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol
from urllib.parse import urlsplit

import structlog

from plugin_server.delivery.parcel import Parcel
from plugin_server.delivery.webhook import COMPOSE_WEBHOOK, WEBHOOK_CALL, SendWebhook, Webhook, read_webhook
from plugin_server.eventlog.port import OutputRecord
from plugin_server.host_api.calls import CallContext
from plugin_server.host_api.captures import Parent
from plugin_server.host_api.commit import Commitment, Completion, Outcome
from plugin_server.host_api.invoke import Called
from plugin_server.model.errors import AppError, FetchFailed, FetchRefused, HookMissing, Transient
from plugin_server.model.origin import Origin
from plugin_server.model.project import Project
from plugin_server.runtime.replies import HookFailure, LogLine

_FIRST_BACKOFF_SECONDS: Final = 0.5
_LAST_BACKOFF_SECONDS: Final = 10.0
_log = structlog.get_logger(__name__)


class Invoker(Protocol):
    """Runs hooks and keeps what they did: host_api.invoke.Invoker."""

    async def exports(self, project: Project) -> Mapping[int, frozenset[str]]: ...

    async def call(
        self,
        project: Project,
        install_id: int,
        hook: str,
        arguments: Sequence[Any] | bytes,
        origin: Origin,
        *,
        max_captures: int | None = None,
        previous: Called | None = None,
    ) -> Called: ...

    def is_stale(self, called: Called) -> bool: ...

    def log_records(self, project: Project, called: Called) -> list[OutputRecord]: ...

    def settle(
        self, called: Called, parent: Parent, completion: Completion | None = None, token: Any = None
    ) -> Commitment: ...

    async def store(self, commitments: Sequence[Commitment]) -> list[Outcome]: ...


class Answer(NamedTuple):
    """What an attempt came to. `called` is None when the hook could not be called."""

    called: Called | None
    failure: HookFailure | None


class Caller:
    """Makes attempts. What the server itself needs and is away is waited for: that is nobody's failure."""

    def __init__(self, invoker: Invoker, send_webhook: SendWebhook) -> None:
        self.invoker = invoker
        self._send_webhook = send_webhook
        self.trouble: str | None = None
        """What is away, for the operator"""

    async def call(self, parcel: Parcel, previous: Called | None = None) -> Answer:
        """One attempt; `previous` is one whose effects could not be kept."""
        backoff = _FIRST_BACKOFF_SECONDS
        while True:
            try:
                answer = await self._attempt(parcel, previous)
            except Transient as error:
                await self.wait(error, backoff)
                backoff = min(backoff * 2, _LAST_BACKOFF_SECONDS)
            else:
                self.trouble = None
                return answer

    async def wait(self, error: Transient, seconds: float = _FIRST_BACKOFF_SECONDS) -> None:
        """For what is away."""
        if self.trouble is None:
            _log.warning("delivery_waits", error=str(error))
        self.trouble = str(error)
        await asyncio.sleep(seconds)

    async def _attempt(self, parcel: Parcel, previous: Called | None) -> Answer:
        install = parcel.install
        try:
            called = await self._call(parcel, previous)
            while called.failure is None and self.invoker.is_stale(called):
                called = await self._call(parcel, called)
        except HookMissing as error:
            return Answer(None, HookFailure(install.id, "host", str(error), None, retryable=True))
        if called.failure is not None or parcel.hook != COMPOSE_WEBHOOK:
            return Answer(called, called.failure)
        failure = await self._send(parcel, called)
        if failure is None:
            return Answer(called, None)
        called.effects.forget([install.id])
        line = LogLine(install.id, "ERROR", f"composeWebhook: {failure.message}", "PLUGIN")
        return Answer(called._replace(failure=failure, captures=(), logs=(*called.logs, line)), failure)

    async def _call(self, parcel: Parcel, previous: Called | None) -> Called:
        return await self.invoker.call(
            parcel.project, parcel.install.id, parcel.hook, parcel.arguments, parcel.origin, previous=previous
        )

    async def _send(self, parcel: Parcel, called: Called) -> HookFailure | None:
        """Make the request that the app composed; why it failed, if it did."""
        install_id = parcel.install.id
        try:
            webhook = read_webhook(called.value)
            if webhook is None:
                return None
            context = CallContext(parcel.project, parcel.install, WEBHOOK_CALL, called.effects)
            status = await self._send_webhook(context, webhook)
        except FetchRefused as error:
            return HookFailure(install_id, "app", str(error), None)
        except FetchFailed as error:
            return HookFailure(install_id, "retry", str(error), None, retryable=True)
        except AppError as error:
            return HookFailure(install_id, "app", str(error), None)
        if 200 <= status < 300:
            return None
        return HookFailure(install_id, "retry", f"{_shown(webhook)} answered {status}", None, retryable=True)


def _shown(webhook: Webhook) -> str:
    """Method and host: paths and queries may hold secrets."""
    return f"{webhook.method} to {urlsplit(webhook.url).hostname or 'the host'}"

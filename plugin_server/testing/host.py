"""What a server does for apps, with fakes behind its ports: storage and cache in memory, and mocks for a network.

The handlers of host calls are those of a server, so what they check and refuse is checked and refused here.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from plugin_server.delivery.webhook import WEBHOOK_CALL, Webhook
from plugin_server.host_api.app_metrics import count
from plugin_server.host_api.cache import cache_handlers
from plugin_server.host_api.cache_memory import MemoryCache
from plugin_server.host_api.calls import CallContext, Handler, HostApi
from plugin_server.host_api.effects import RunEffects
from plugin_server.host_api.fetch import make_fetch
from plugin_server.host_api.geoip import geoip_handlers
from plugin_server.host_api.jobs import make_jobs_handlers
from plugin_server.host_api.posthog_api import make_api
from plugin_server.host_api.storage import storage_handlers
from plugin_server.host_api.webhook import make_webhook_sender
from plugin_server.model.errors import InvalidArgument
from plugin_server.model.origin import Origin
from plugin_server.model.project import Install, Project
from plugin_server.runtime.replies import HostCallRequest
from plugin_server.runtime.work import Journal
from plugin_server.testing.http_mocks import ApiMocks, HttpMocks
from plugin_server.testing.memory import MemoryStorage
from plugin_server.testing.network import HOSTS, PERSONAL_API_KEY, Asker, MockDoors, MockNetwork, asker


class HarnessEffects(RunEffects):
    """The effects of one run, and what a test sees of it besides."""

    __slots__ = ("api_calls", "api_requests", "requests")

    def __init__(self, project: Project, origin: Origin, journal: Journal | None = None) -> None:
        super().__init__(project, origin, journal)
        self.requests: list[dict[str, Any]] = []
        self.api_requests: list[dict[str, Any]] = []
        """Those of the requests that posthog.api made"""
        self.api_calls: list[dict[str, Any]] = []

    def again(self) -> HarnessEffects:
        """Those of the run that repeats this one: what was asked outside is not asked again."""
        other = HarnessEffects(self.project, self.origin, self.journal)
        other.requests, other.api_requests, other.api_calls = self.requests, self.api_requests, self.api_calls
        return other


class HarnessHost:
    """HostCalls of a harness, and the state that apps change by them."""

    def __init__(
        self,
        installs: Sequence[Install],
        *,
        storage: Mapping[str, Any],
        cache: Mapping[str, Any],
        http: Sequence[Mapping[str, Any]],
        posthog_api: Sequence[Mapping[str, Any]],
        geoip: Mapping[str, Any],
        clock: Callable[[], float],
    ) -> None:
        """`storage` and `cache` are each install's at the start. Raises ValueError for what no test can mean."""
        self._installs = installs
        self._cache_at_start = dict(cache)
        self.storage = MemoryStorage()
        self.cache = MemoryCache(clock)
        self.network = MockNetwork(HttpMocks(http), ApiMocks(posthog_api))
        doors = MockDoors()
        handlers: dict[str, Handler] = {
            **storage_handlers(self.storage.ledger),
            **cache_handlers(self.cache, _scope_of),
            **make_jobs_handlers(clock),
            **geoip_handlers(GeoTable(geoip)),
            "metrics": count,
            "fetch": make_fetch(self.network, doors),
            "api": make_api(self.network, doors, HOSTS, lambda _project: PERSONAL_API_KEY),
        }
        self._api = HostApi(handlers)
        self._send_webhook = make_webhook_sender(self.network, doors)
        for install in installs:
            self.storage.write(install.id, storage)

    async def start(self) -> None:
        """Fill the cache."""
        await self.write_cache(self._cache_at_start)

    def is_outside(self, name: str) -> bool:
        """See HostCalls."""
        return self._api.is_outside(name)

    async def answer(self, project: Project, effects: Any, request: HostCallRequest) -> Any:
        """See HostCalls. The project is the run's own: an event may say which one."""
        del project
        run: HarnessEffects = effects
        is_api = request.name == "api"
        if is_api:
            run.api_calls.append(_describe_api_call(request.arguments))
        asker.set(Asker(run.project.id, run.requests, run.api_requests if is_api else None))
        return await self._api.answer(run.project, run, request)

    async def send_webhook(self, effects: HarnessEffects, install: Install, webhook: Webhook) -> int:
        """Make the request that composeWebhook returned; the status of its answer. Raises AppError."""
        asker.set(Asker(effects.project.id, effects.requests))
        return await self._send_webhook(CallContext(effects.project, install, WEBHOOK_CALL, effects), *webhook)

    def cache_of(self, install: Install) -> dict[str, Any]:
        """What is in an app's cache."""
        return self.cache.contents(install.app.name)

    def cache_ttl_seconds(self, install: Install) -> dict[str, float]:
        """How long those keys have left that do not stay for ever."""
        name = install.app.name
        left = {key: self.cache.ttl_seconds(name, key) for key in self.cache.contents(name)}
        return {key: seconds for key, seconds in left.items() if seconds is not None}

    async def write_cache(self, values: Mapping[str, Any]) -> None:
        """Set keys of every app's cache from outside; None deletes."""
        for scope in {install.app.name for install in self._installs}:
            for key, value in values.items():
                if value is None:
                    await self.cache.delete(scope, key)
                else:
                    await self.cache.set(scope, key, value)

    async def clear_cache(self) -> None:
        """Delete all that is there."""
        for install in self._installs:
            await self.write_cache(dict.fromkeys(self.cache_of(install)))


class GeoTable:
    """Locator of a test: the records that it gives."""

    def __init__(self, records: Mapping[str, Any]) -> None:
        """Raises ValueError for a key that is no IP address."""
        self._records = {ipaddress.ip_address(ip): record for ip, record in records.items()}

    def locate(self, ip: str) -> dict[str, Any] | None:
        """See Locator. Raises InvalidArgument for what is no IP address."""
        try:
            address = ipaddress.ip_address(ip)
        except ValueError:
            raise InvalidArgument(f"geoip.locate: {ip[:60]!r} is not an IP address like 203.0.113.7") from None
        return self._records.get(address)


def _scope_of(context: CallContext) -> str:
    return context.install.app.name


def _describe_api_call(arguments: Sequence[Any]) -> dict[str, Any]:
    method, path, options = arguments
    return {"method": str(method).upper(), "path": path, "options": dict(options)}

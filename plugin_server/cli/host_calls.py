"""Puts together what the host does for apps: one table of calls for all roles of a worker."""

from __future__ import annotations

import asyncio
import time
from importlib.metadata import version
from typing import Final

import structlog

from plugin_server.capture.posted import CAPTURE_PATHS, parse_capture
from plugin_server.database.engine import Database
from plugin_server.host_api.app_metrics import count
from plugin_server.host_api.cache import Cache, cache_handlers
from plugin_server.host_api.cache_database import DatabaseCache
from plugin_server.host_api.cache_redis import RedisCache
from plugin_server.host_api.calls import HostApi
from plugin_server.host_api.egress import PrivateAccess, private_access
from plugin_server.host_api.fetch import make_fetch
from plugin_server.host_api.geoip import GeoIp, geoip_handlers
from plugin_server.host_api.http_client import AiohttpClient
from plugin_server.host_api.jobs import make_jobs_handlers
from plugin_server.host_api.ledger import Ledger
from plugin_server.host_api.own_hosts import (
    OwnHosts,
    leads_to,
    listener_origins,
    make_own_hosts,
    make_redirect_check,
)
from plugin_server.host_api.posthog_api import make_api
from plugin_server.host_api.side_doors import OwnApi, SideDoors
from plugin_server.host_api.storage import storage_handlers
from plugin_server.host_api.webhook import make_webhook_sender
from plugin_server.model.errors import ConfigurationError, InvalidArgument, Transient
from plugin_server.settings import Settings

_EVERYWHERE: Final = "*"
_PRUNE_SECONDS: Final = 300.0
_log = structlog.get_logger(__name__)


class HostCalls:
    """`api` answers them; `send_webhook` makes the requests that apps compose."""

    def __init__(
        self, settings: Settings, database: Database, ledger: Ledger, own_api: OwnApi, listening: tuple[str, int]
    ) -> None:
        """`listening` is the address and port of the HTTP listener. Raises ConfigurationError."""
        hosts = own_hosts(settings, listening)
        self.access = allowed_private(settings)
        self.client = AiohttpClient(
            user_agent=f"plugin-server/{version('plugin-server')}",
            total_seconds=settings.fetch_seconds,
            response_bytes=settings.fetch_response_bytes,
            requests_per_second=settings.fetch_per_second,
            requests_burst=int(2 * settings.fetch_per_second) + 1,
            check_redirect=make_redirect_check(hosts, CAPTURE_PATHS),
            is_own=leads_to(*listening),
        )
        self.cache: Cache = RedisCache(settings.cache_url) if settings.cache_url else DatabaseCache(database)
        self._geoip = GeoIp(settings.geoip_database)
        doors = SideDoors(hosts, own_api, parse_capture, CAPTURE_PATHS)
        self.send_webhook = make_webhook_sender(self.client, doors, access=self.access)
        self.api = HostApi(
            {
                "fetch": make_fetch(self.client, doors, access=self.access),
                "api": make_api(self.client, doors, hosts, lambda project: project.posthog_api_key, access=self.access),
                "metrics": count,
                **storage_handlers(ledger),
                **cache_handlers(self.cache),
                **make_jobs_handlers(time.time),
                **geoip_handlers(self._geoip),
            }
        )

    async def close(self) -> None:
        """Close connections; requests under way fail."""
        await self.client.close()
        await self.cache.close()
        self._geoip.close()

    async def prune_cache(self) -> None:
        """Until cancelled: remove what has expired, now and then. Redis does that by itself."""
        while isinstance(self.cache, DatabaseCache):
            await asyncio.sleep(_PRUNE_SECONDS)
            try:
                await self.cache.prune()
            except Transient as error:
                _log.warning("cache_not_pruned", error=str(error), retry_seconds=_PRUNE_SECONDS)


def own_hosts(settings: Settings, listening: tuple[str, int]) -> OwnHosts:
    """The origins that are this server. Raises ConfigurationError."""
    own = [*settings.own_hosts, *listener_origins(*listening)]
    if settings.public_url is not None:
        own.append(settings.public_url)
    try:
        return make_own_hosts(own, settings.posthog_host)
    except InvalidArgument as error:
        raise ConfigurationError(f"OWN_HOSTS, PUBLIC_URL or POSTHOG_HOST is no origin: {error}") from error


def allowed_private(settings: Settings) -> PrivateAccess:
    """What the operator allows beyond public addresses. Raises ConfigurationError."""
    entries = [entry for entry in settings.allowed_private_hosts if entry != _EVERYWHERE]
    try:
        return private_access(entries, everywhere=_EVERYWHERE in settings.allowed_private_hosts)
    except InvalidArgument as error:
        raise ConfigurationError(f"ALLOWED_PRIVATE_HOSTS: {error}") from error

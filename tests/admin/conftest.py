"""The API on a real database and a real event log, asked over HTTP and in process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from plugin_server.admin.api.auth import AccessTokens, Authenticator
from plugin_server.admin.api.events import RecentEvents
from plugin_server.admin.api.handler import OwnApi
from plugin_server.admin.api.routes import api_routes
from plugin_server.database.engine import Database, sqlite_url
from plugin_server.database.migrate import migrate
from plugin_server.eventlog.embedded import EmbeddedEventLog
from plugin_server.model.api import ApiRequest
from plugin_server.model.api_keys import hash_api_key
from plugin_server.model.project import App, Attachment, Install, Project
from plugin_server.outputs.topics import make_topics

KEY, OTHER_KEY, SHARED_KEY = ("phx_" + letter * 30 for letter in "kos")
START = 1_800_000_000.0
TOPICS = make_topics("")

_MANIFEST = {
    "name": "Exporter",
    "description": "Sends events away",
    "url": "https://example.com",
    "config": [
        {"key": None, "markdown": "# Help"},
        {"key": "host", "type": "string"},
        {"key": "password", "type": "string", "secret": True},
        {"key": "unset", "type": "string", "secret": True},
        {"key": "schema", "type": "attachment"},
        {"key": "certificate", "type": "attachment", "secret": True},
    ],
}
INSTALL = Install(
    39,
    App("Exporter", "0123abcd", "main.py", "", _MANIFEST),
    1,
    {"host": "db.example.com", "password": "hunter2", "unset": ""},
    {
        "schema": Attachment("application/json", "schema.json", b'{"a": 1}'),
        "certificate": Attachment("application/octet-stream", "private.pem", b"-----BEGIN"),
    },
)
PROJECTS = {
    2: Project(2, "Acme", "phc_acme", (INSTALL,), api_keys=(hash_api_key(KEY), hash_api_key(SHARED_KEY))),
    3: Project(3, "Other", "phc_other", api_keys=(hash_api_key(OTHER_KEY), hash_api_key(SHARED_KEY))),
}


@dataclass
class Stage:
    """`seconds` is the clock of the API; it moves when told to."""

    database: Database
    event_log: EmbeddedEventLog
    tokens: AccessTokens
    client: TestClient[web.Request, web.Application] = field(init=False)
    own_api: OwnApi = field(init=False)
    seconds: float = START
    readings: float = 0.0

    async def http(
        self, method: str, path: str, body: Any = None, *, key: str | None = KEY, headers: dict[str, str] | None = None
    ) -> tuple[int, Any]:
        """Status and JSON; bytes are sent as they are."""
        raw = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        sent = {**({"Authorization": f"Bearer {key}"} if key else {}), **(headers or {})}
        async with self.client.request(method, path, data=raw, headers=sent) as response:
            text = await response.text()
            return response.status, json.loads(text) if text else None

    async def in_process(
        self, method: str, path: str, body: Any = None, project_id: int = 2, **query: str
    ) -> tuple[int, Any]:
        """As an app asks."""
        raw = b"" if body is None else json.dumps(body).encode()
        response = await self.own_api.answer(ApiRequest(method, path, query, {}, raw), project_id)
        return response.status, json.loads(response.body) if response.body else None


@pytest_asyncio.fixture
async def stage(database_url: str, tmp_path: Path) -> AsyncIterator[Stage]:
    database = Database(database_url)
    await migrate(database)
    log_database = Database(sqlite_url(tmp_path / "log"))
    event_log = EmbeddedEventLog(log_database, tmp_path / "log")
    await event_log.start()
    await event_log.ensure_topics(TOPICS.all, 2)
    made = Stage(database, event_log, AccessTokens("a secret of the operator"))

    def monotonic() -> float:  # each request reads the log anew
        made.readings += 10
        return made.readings

    made.own_api = OwnApi(
        database, RecentEvents(event_log, TOPICS.events, monotonic), PROJECTS.get, now=lambda: made.seconds
    )
    authenticator = Authenticator(made.tokens, PROJECTS.values, lambda: made.seconds)
    application = web.Application()
    application.add_routes(api_routes(made.own_api.answer, authenticator.projects_of, read_timeout_seconds=0.5))
    made.client = TestClient(TestServer(application))
    await made.client.start_server()
    yield made
    await made.client.close()
    await event_log.stop()
    await log_database.close()
    await database.close()
    await asyncio.sleep(0)

"""Who asks: bearer tokens, and the projects that they open.

Two kinds. Temporary access tokens are what an app's own requests carry: signed, for one project, for a minute, known
to nobody but the server; they need no storage. Personal API keys are what an operator configures for people and
programs (`personal_api_keys` of a project); the server keeps their hashes only.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Iterable

from plugin_server.admin.api.errors import not_authenticated
from plugin_server.model.api_keys import hash_api_key
from plugin_server.model.project import Project

TOKEN_SECONDS = 60
_PURPOSE = b"plugin-server: access tokens of the API, version 1"
_TOKEN = re.compile(r"pst_([0-9]{1,10})_([0-9]{1,12})_([0-9a-f]{64})")


class AccessTokens:
    """Issues and verifies temporary access tokens: `pst_<project>_<expiry>_<HMAC-SHA256>`.

    Without a `secret_key` the signing key is drawn for this process, so that other workers do not know its tokens.
    """

    def __init__(self, secret_key: str | None) -> None:
        self._key = (
            secrets.token_bytes(32)
            if secret_key is None
            else hmac.digest(secret_key.encode(), _PURPOSE, hashlib.sha256)
        )

    def issue(self, project_id: int, now: float) -> str:
        """A token for this project, good for TOKEN_SECONDS from `now` (seconds since the epoch)."""
        expires_at = int(now) + TOKEN_SECONDS
        return f"pst_{project_id}_{expires_at}_{self._signature(project_id, expires_at)}"

    def verify(self, token: str, now: float) -> int | None:
        """The project of a token that is ours and has not expired, else None."""
        parts = _TOKEN.fullmatch(token)
        if parts is None:
            return None
        project_id, expires_at = int(parts[1]), int(parts[2])
        is_ours = hmac.compare_digest(parts[3], self._signature(project_id, expires_at))
        return project_id if is_ours and now < expires_at else None

    def _signature(self, project_id: int, expires_at: int) -> str:
        return hmac.new(self._key, f"{project_id}.{expires_at}".encode(), hashlib.sha256).hexdigest()


class Authenticator:
    """Tells the projects that a request may act for. `projects` gives all that there are now; `now` is in seconds."""

    def __init__(
        self, tokens: AccessTokens, projects: Callable[[], Iterable[Project]], now: Callable[[], float]
    ) -> None:
        self._tokens = tokens
        self._projects = projects
        self._now = now

    def projects_of(self, authorization: str | None) -> frozenset[int]:
        """One or more ids, from the header `Authorization`. Raises ApiRefusal 401."""
        scheme, _, token = (authorization or "").partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            raise not_authenticated(
                "not_authenticated",
                "No credentials were given. Send the header `Authorization: Bearer <personal API key>`.",
            )
        project_id = self._tokens.verify(token, self._now())
        if project_id is not None:
            return frozenset((project_id,))
        return self._by_key(token)

    def _by_key(self, token: str) -> frozenset[int]:
        digest = hash_api_key(token)
        opened = set()
        for project in self._projects():
            for known in project.api_keys:  # all of them, and each in constant time
                if hmac.compare_digest(digest, known):
                    opened.add(project.id)
        if not opened:
            raise not_authenticated(
                "authentication_failed",
                "The bearer token is not known, or has expired. Send a personal API key that the projects file names "
                "under `personal_api_keys` of the project (a project's own token, phc_, is no such key).",
            )
        return frozenset(opened)

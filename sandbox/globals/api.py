"""`posthog.api`: the PostHog HTTP API, asked by the host in the name of the project."""

from __future__ import annotations

from typing import Any, Final

from sandbox.globals.arguments import check_text, read_options
from sandbox.globals.fetch import read_headers
from sandbox.globals.host_facade import HostFacade
from sandbox.globals.response import response_reader
from sandbox.invocation import HostCall

OPTIONS: Final = ("data", "host", "projectApiKey", "personalApiKey", "headers")
_IN_URL: Final = ("GET", "DELETE")
_ONE_KEY: Final = "You must specify a personalApiKey if you specify a projectApiKey and vice-versa!"


class Api(HostFacade):
    """`posthog.api` of one install."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "<posthog.api>"

    def get(self, path: str, options: dict[str, Any] | None = None, **named: Any) -> HostCall:
        """GET; `data` goes into the URL."""
        return self._request("GET", path, options, named)

    def post(self, path: str, options: dict[str, Any] | None = None, **named: Any) -> HostCall:
        """POST; `data` goes as JSON."""
        return self._request("POST", path, options, named)

    def put(self, path: str, options: dict[str, Any] | None = None, **named: Any) -> HostCall:
        """PUT; `data` goes as JSON."""
        return self._request("PUT", path, options, named)

    def patch(self, path: str, options: dict[str, Any] | None = None, **named: Any) -> HostCall:
        """PATCH; `data` goes as JSON."""
        return self._request("PATCH", path, options, named)

    def delete(self, path: str, options: dict[str, Any] | None = None, **named: Any) -> HostCall:
        """DELETE; `data` goes into the URL."""
        return self._request("DELETE", path, options, named)

    def _request(self, method: str, path: Any, options: Any, named: dict[str, Any]) -> HostCall:
        what = f"posthog.api.{method.lower()}"
        effects = self._context.current(what)
        given = read_options(what, options, named, OPTIONS)
        check_text(what, "path", path)
        for name in ("host", "projectApiKey", "personalApiKey"):
            check_text(what, name, given.get(name, ""))
        if bool(given.get("projectApiKey")) != bool(given.get("personalApiKey")):
            raise ValueError(_ONE_KEY)
        if "headers" in given:
            given["headers"] = read_headers(what, given["headers"])
        if method in _IN_URL and "data" in given and type(given["data"]) is not dict:
            raise TypeError(f"{what}: data must be a dict of URL parameters, not {type(given['data']).__name__}")
        read = response_reader(effects, self._install)
        return self._context.start(self._install, "api", [method, path, given], read, what=what)

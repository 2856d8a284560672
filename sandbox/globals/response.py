"""What `fetch` and `posthog.api` answer with."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from typing import Any

from sandbox import codec
from sandbox.facade import Facade
from sandbox.invocation import Effects, HostCall


class Headers(Facade):
    """Names in lower case; looked up in any case."""

    __slots__ = ("_values",)

    _values: dict[str, str]

    def __init__(self, values: dict[str, str]) -> None:
        object.__setattr__(self, "_values", values)

    def get(self, name: str, default: Any = None) -> Any:
        """The value of a header, or `default`."""
        return self._values.get(_lower(name), default)

    def has(self, name: str) -> bool:
        """Is there such a header?"""
        return _lower(name) in self._values

    def keys(self) -> list[str]:
        """All names."""
        return list(self._values)

    def items(self) -> list[tuple[str, str]]:
        """All names with their values."""
        return list(self._values.items())

    def __getitem__(self, name: str) -> str:
        value = self._values.get(_lower(name))
        if value is None:
            raise KeyError(name)
        return value

    def __contains__(self, name: object) -> bool:
        return type(name) is str and name.lower() in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._values))

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"<headers {self._values!r}>"


class Response(Facade):
    """Of one request: what came back, whatever its status.

    Its class is shared by all installs, and frozen; what it holds is data, out of reach by its underscores.
    """

    __slots__ = ("_body", "headers", "ok", "status", "url")

    _body: dict[str, str]
    headers: Headers
    ok: bool
    status: int
    url: str

    def __init__(self, answer: dict[str, Any]) -> None:
        """From the host's answer: status, headers, url, body (text or base64)."""
        status = answer["status"]
        keep = object.__setattr__
        keep(self, "status", status)
        keep(self, "ok", 200 <= status < 300)
        keep(self, "headers", Headers(answer["headers"]))
        keep(self, "url", answer["url"])
        keep(self, "_body", answer["body"])

    def json(self) -> HostCall:
        """To be awaited: the body as JSON. ValueError if it is none."""
        try:
            return _known(codec.loads(self._text()))
        except (codec.InvalidJson, codec.TooDeep) as error:
            call = HostCall()
            call._fail(f"the body of the response with status {self.status} is not JSON: {error}", "value")  # noqa: SLF001
            return call

    def text(self) -> HostCall:
        """To be awaited: the body as text; what is not UTF-8 becomes U+FFFD."""
        return _known(self._text())

    def bytes(self) -> HostCall:
        """To be awaited: the body as bytes."""
        body = self._body
        return _known(body["text"].encode() if "text" in body else base64.b64decode(body["base64"]))

    def _text(self) -> str:
        body = self._body
        return body["text"] if "text" in body else base64.b64decode(body["base64"]).decode(errors="replace")

    def __repr__(self) -> str:
        return f"<response {self.status}>"


def response_reader(effects: Effects, install: int) -> Callable[[Any], Response]:
    """What makes a Response of the host's answer, and counts the events that the request took to our own capture paths."""

    def read(answer: dict[str, Any]) -> Response:
        events = answer.get("captured")
        if events:
            effects.post(install, events)
        return Response(answer)

    return read


def _known(value: Any) -> HostCall:
    call = HostCall()
    call._finish(value)  # noqa: SLF001 - out of reach of apps by its underscore
    return call


def _lower(name: Any) -> str:
    if type(name) is not str:
        raise TypeError(f"response.headers: a name must be text, not {type(name).__name__}")
    return name.lower()

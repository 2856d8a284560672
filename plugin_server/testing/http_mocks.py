"""Which answer a test gives to a request: entries of `http=` and `posthog_api=`, read strictly, the first that fits wins."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl, unquote

import orjson

from plugin_server.host_api.egress import HostPattern
from plugin_server.host_api.http_client import HttpResponse
from plugin_server.host_api.urls import WebUrl, parse_url
from plugin_server.model.errors import FetchFailed, InvalidArgument

_ANSWER: Final = frozenset({"method", "times", "status", "json", "text", "headers", "network_error"})
_DEFAULT_ERROR: Final = "the network failed, as this test has it (network_error)"


@dataclass(slots=True)
class _Mock:
    """One entry. `place` is a URL, a URL's beginning or an API path, as the test wrote it."""

    method: str | None
    place: str
    is_prefix: bool
    uses_left: int | None
    answer: Mapping[str, Any]

    def may_answer(self, method: str) -> bool:
        return self.uses_left != 0 and self.method in (None, method)

    def use(self, url: str) -> HttpResponse:
        """The answer. Raises FetchFailed if that is a network error."""
        if self.uses_left is not None:
            self.uses_left -= 1
        answer = self.answer
        error = answer.get("network_error")
        if error:
            raise FetchFailed(error if isinstance(error, str) else _DEFAULT_ERROR)
        body, content_type = b"", "text/plain;charset=UTF-8"
        if "json" in answer:
            body, content_type = orjson.dumps(answer["json"]), "application/json"
        elif "text" in answer:
            text = answer["text"]
            body = text if isinstance(text, bytes) else str(text).encode()
        headers = {"content-type": content_type}
        headers |= {name.lower(): str(value) for name, value in (answer.get("headers") or {}).items()}
        return HttpResponse(answer.get("status", 200), headers, url, body)


class HttpMocks:
    """Of requests by `fetch` and all others, by URL."""

    def __init__(self, entries: Iterable[Mapping[str, Any]]) -> None:
        """Raises ValueError for an entry that cannot be meant."""
        self._mocks = [_read(entry, ("url", "url_prefix")) for entry in entries]
        self.hosts = tuple({_pattern_of(mock.place) for mock in self._mocks})
        """That some entry names"""

    def answer(self, method: str, url: WebUrl, as_given: str) -> HttpResponse | None:
        """None when no entry fits."""
        for mock in self._mocks:
            if not mock.may_answer(method):
                continue
            if mock.is_prefix:
                fits = as_given.startswith(mock.place) or url.text.startswith(parse_url(mock.place).text)
            else:
                fits = as_given == mock.place or is_same_url(url, parse_url(mock.place))
            if fits:
                return mock.use(url.text)
        return None


class ApiMocks:
    """Of requests by `posthog.api`, by path, whatever their host."""

    def __init__(self, entries: Iterable[Mapping[str, Any]]) -> None:
        """Raises ValueError for an entry that cannot be meant."""
        self._mocks = [_read(entry, ("path",)) for entry in entries]

    def answer(self, method: str, url: WebUrl, project_id: int) -> HttpResponse | None:
        """None when no entry fits. What an entry's query lacks, the request's may have."""
        asked = set(_pairs(url.query))
        for mock in self._mocks:
            path, _, query = mock.place.replace("@current", str(project_id)).partition("?")
            if (
                mock.may_answer(method)
                and unquote(url.path).strip("/") == unquote(path).strip("/")
                and asked >= set(_pairs(query))
            ):
                return mock.use(url.text)
        return None


def is_same_url(one: WebUrl, other: WebUrl) -> bool:
    """Do they name the same place? How their characters are escaped does not count."""
    return (
        one.origin == other.origin
        and unquote(one.path) == unquote(other.path)
        and _pairs(one.query) == _pairs(other.query)
    )


def _pairs(query: str) -> list[tuple[str, str]]:
    return parse_qsl(query.removeprefix("?"), keep_blank_values=True)


def _pattern_of(url: str) -> HostPattern:
    return HostPattern(parse_url(url).host, is_wildcard=False, port=None)


def _read(entry: Mapping[str, Any], places: tuple[str, ...]) -> _Mock:
    given = [name for name in places if name in entry]
    if len(given) != 1:
        raise ValueError(f"a mock needs {' or '.join(places)}: {dict(entry)!r}")
    unknown = sorted(entry.keys() - _ANSWER - set(places))
    if unknown:
        known = ", ".join(sorted({*_ANSWER, *places}))
        raise ValueError(f"a mock has {', '.join(map(repr, unknown))}; known are {known}")
    place, times, method = str(entry[given[0]]), entry.get("times"), entry.get("method")
    if times is not None and (type(times) is not int or times < 0):
        raise ValueError(f"times of a mock is a number of uses, not {times!r}")
    if given[0] != "path":
        try:
            parse_url(place)
        except InvalidArgument as error:
            raise ValueError(f"a mock's {given[0]}: {error}") from None
    return _Mock(None if method is None else str(method).upper(), place, given[0] == "url_prefix", times, entry)

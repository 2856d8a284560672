"""URLs that apps and redirects name, read strictly and written in one form.

What is checked is what is connected to: the text is read here once, and nothing reads the app's own spelling again. So
whatever two parsers could read differently is refused or rewritten: userinfo, backslashes, control characters, hosts
in other scripts, addresses in octal or hexadecimal, zone ids.

Rejected: `urllib.parse.urlsplit` (it removes tabs and line ends silently and takes nearly every host) and the parser of
the HTTP client (it does not know `0x7f.1`, the resolver does).
"""

from __future__ import annotations

import functools
import ipaddress
import re
import socket
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, urljoin

import idna

from plugin_server.model.errors import InvalidArgument

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

URL_CHARACTERS: Final = 32 * 1024
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_SPLIT: Final = re.compile(r"(https?)://([^/?#]*)([^?#]*)(\?[^#]*)?(?:#.*)?", re.IGNORECASE | re.DOTALL)
_AUTHORITY: Final = re.compile(r"(\[[^\]@]*\]|[^:\[\]@]+)(?::([0-9]{0,5}))?")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_LABEL: Final = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")
_NO_PERCENT: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_PATH_SAFE: Final = "/%!$&'()*+,;=:@~"
_QUERY_SAFE: Final = "/%!$&()*+,;=:@~?[]|{}^`"


@dataclass(frozen=True, slots=True)
class WebUrl:
    """An http(s) URL in its one form, ASCII throughout.

    `host` is in lower case and without a final dot, an IPv6 address without brackets; `address` is the host when that is
    an address, however it was written; one that an IPv6 address maps is that IPv4 address. `path` begins with `/` and has no dot segments; `query` is empty or begins with `?`.
    """

    scheme: str
    host: str
    port: int
    path: str
    query: str
    address: IpAddress | None

    @property
    def origin(self) -> str:
        """Scheme, host and port, the last only if it is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}" + ("" if self.port == _DEFAULT_PORTS[self.scheme] else f":{self.port}")

    @property
    def text(self) -> str:
        return f"{self.origin}{self.path}{self.query}"


@functools.lru_cache(maxsize=256)  # an app asks for the same few, each read once by `fetch` and once more by the client
def parse_url(untrusted: str) -> WebUrl:
    """Raises InvalidArgument for what is no http(s) URL, or one that could be read in two ways."""
    if len(untrusted) > URL_CHARACTERS:
        raise InvalidArgument(
            f"the URL has {len(untrusted)} characters, more than the {URL_CHARACTERS} that are allowed"
        )
    text = untrusted.strip(" ")
    if _CONTROL.search(text):
        raise InvalidArgument("the URL has a line end, a tab or another control character: percent-encode it")
    found = _SPLIT.fullmatch(text)
    if found is None:
        raise InvalidArgument(f"{_shown(text)} is no URL to fetch: it must begin with http:// or https:// and a host")
    scheme, authority, path, query = found[1].lower(), found[2], found[3], found[4] or ""
    if "@" in authority:
        raise InvalidArgument("the URL holds a user name or password: send them in the header Authorization")
    if "\\" in authority or "\\" in path:
        raise InvalidArgument("the URL has a backslash: write / instead, or %5C if the backslash is meant")
    split = _AUTHORITY.fullmatch(authority)
    if split is None:
        raise InvalidArgument(f"the URL has no valid host and port: {_shown(authority)}")
    host, address = read_host(split[1])
    port = int(split[2]) if split[2] else _DEFAULT_PORTS[scheme]
    if not 0 < port < 65_536:
        raise InvalidArgument(f"the URL has the port {port}: it must be a number from 1 to 65535")
    try:
        path = _quote(_without_dot_segments(path or "/"), _PATH_SAFE)
        query = _quote(query, _QUERY_SAFE) if len(query) > 1 else ""
    except UnicodeEncodeError:
        raise InvalidArgument("the URL has half of a surrogate pair, which is no character: leave it out") from None
    return WebUrl(scheme, host, port, path, query, address)


def join_url(base: WebUrl, untrusted_location: str) -> WebUrl:
    """Where a redirect from `base` leads. Raises InvalidArgument as `parse_url`."""
    if _CONTROL.search(untrusted_location) or len(untrusted_location) > URL_CHARACTERS:
        raise InvalidArgument("the redirect's Location is no URL")
    try:
        joined = urljoin(base.text, untrusted_location)
    except ValueError:
        raise InvalidArgument("the redirect's Location is no URL") from None
    return parse_url(joined)


def read_host(untrusted: str) -> tuple[str, IpAddress | None]:
    """A host in its one form, and its address if it is one. Raises InvalidArgument."""
    if untrusted.startswith("["):
        try:
            address = ipaddress.IPv6Address(untrusted.removeprefix("[").removesuffix("]"))
        except ValueError:
            raise InvalidArgument(f"{_shown(untrusted)} is no IPv6 address") from None
        if address.scope_id is not None:
            raise InvalidArgument(f"{_shown(untrusted)} has a zone id: write the address without it")
        # `::ffff:10.0.0.1` leads to where `10.0.0.1` does.
        plain = address.ipv4_mapped or address
        return str(plain), plain
    host = untrusted
    if not host.isascii():
        try:
            host = idna.encode(host, uts46=True).decode("ascii")
        except UnicodeError:
            raise InvalidArgument(f"{_shown(untrusted)} is no valid host name") from None
    host = host.lower().removesuffix(".")
    labels = host.split(".")
    if len(host) > 253 or not all(map(_LABEL.fullmatch, labels)):
        raise InvalidArgument(f"{_shown(untrusted)} is no valid host name")
    if _NUMBER.fullmatch(labels[-1]):
        # What ends in a number is an IPv4 address to resolvers and browsers, in any of its notations.
        try:
            address4 = ipaddress.IPv4Address(socket.inet_aton(host))
        except (OSError, ValueError):
            raise InvalidArgument(f"{_shown(untrusted)} is neither a host name nor an IPv4 address") from None
        return str(address4), address4
    return host, None


def _quote(text: str, safe: str) -> str:
    return quote(_NO_PERCENT.sub("%25", text), safe=safe)


def _without_dot_segments(path: str) -> str:
    """Servers and proxies take `%2e` for a dot, so it is one here."""
    kept: list[str] = []
    segments = path.split("/")[1:]
    for number, segment in enumerate(segments, 1):
        plain = segment.lower().replace("%2e", ".")
        if plain not in (".", ".."):
            kept.append(segment)
            continue
        if plain == ".." and kept:
            kept.pop()
        if number == len(segments):
            kept.append("")
    return "/" + "/".join(kept)


def _shown(text: str) -> str:
    """Enough to recognise it by: what follows may be a secret."""
    head = re.split(r"[?#]", text)[0].rpartition("@")[2]
    return repr(head if len(head) <= 60 else head[:57] + "...")

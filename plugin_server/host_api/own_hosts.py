"""Whose host a URL names: ours, the linked PostHog's, or a stranger's (docs/decisions/007).

Hosts are told apart by origin: scheme, host and port in their one form. What has another name and still leads to our listener
is found when its address is known (`leads_to`).
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv6Address, ip_address
from typing import Final

from plugin_server.host_api.urls import IpAddress, WebUrl, parse_url
from plugin_server.model.api import plain_path
from plugin_server.model.errors import FetchRefused, InvalidArgument

POSTHOG_CLOUD: Final = "https://app.posthog.com"
"""The host that apps name, or mean by naming none, when they mean the PostHog they run beside"""


class Side(StrEnum):
    OWN = "own"
    """This server: answered in process, never over the network"""
    LINKED = "linked"
    """The external PostHog that the operator linked"""
    FOREIGN = "foreign"
    """Any other host: it gets what the app gives, and nothing of ours"""


@dataclass(frozen=True, slots=True)
class OwnHosts:
    """`own` and `linked` are origins as WebUrl.origin gives them; `posthog` is what POSTHOG_CLOUD stands for."""

    own: frozenset[str]
    linked: str | None
    posthog: str

    def side_of(self, origin: str) -> Side:
        if origin in self.own:
            return Side.OWN
        return Side.LINKED if origin == self.linked else Side.FOREIGN

    def api_origin(self, untrusted_host: str | None) -> str:
        """The origin that the option `host` of `posthog.api` means. Raises InvalidArgument for more than an origin."""
        if untrusted_host is None:
            return self.posthog
        origin = origin_of(untrusted_host)
        return self.posthog if origin == POSTHOG_CLOUD else origin


def make_own_hosts(own: Iterable[str], posthog_host: str | None) -> OwnHosts:
    """From settings: `own` are OWN_HOSTS, PUBLIC_URL and the listener's origins, `posthog_host` is POSTHOG_HOST.

    Raises InvalidArgument for what is no origin.
    """
    origins = {origin_of(host) for host in own}
    if posthog_host is None:
        return OwnHosts(frozenset({*origins, POSTHOG_CLOUD}), None, POSTHOG_CLOUD)
    posthog = origin_of(posthog_host)
    return OwnHosts(frozenset(origins), None if posthog in origins else posthog, posthog)


def listener_origins(host: str, port: int) -> list[str]:
    """The origins under which a listener on this address is reached from its own machine."""
    hosts = ["127.0.0.1", "localhost", "[::1]"] if host in ("0.0.0.0", "::", "") else [host]  # noqa: S104
    if host in ("127.0.0.1", "::1"):
        hosts.append("localhost")
    return [f"http://{f'[{name}]' if ':' in name and name[0] != '[' else name}:{port}" for name in hosts]


def leads_to(host: str, port: int) -> Callable[[IpAddress, int], bool]:
    """Whether a connection to an address and port ends at a listener on `host` and `port`, which are its own."""
    listening = None
    with contextlib.suppress(ValueError):
        listening = ip_address(host.strip("[]"))
    if listening is not None and listening.is_unspecified:
        listening = None  # on every address of this machine; so is, to be sure, a listener on a name

    def is_own(address: IpAddress, other_port: int) -> bool:
        if other_port != port:
            return False
        plain = _unmapped(address)
        if plain.is_unspecified:  # stands for this machine
            return True
        return _is_of_this_machine(plain) if listening is None else plain == _unmapped(listening)

    return is_own


def _unmapped(address: IpAddress) -> IpAddress:
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def _is_of_this_machine(address: IpAddress) -> bool:
    if address.is_loopback:
        return True
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))
    except OSError:
        return False
    return True


def origin_of(untrusted: str) -> str:
    """The origin that a text names. Raises InvalidArgument when there is more to it than a final slash."""
    url = parse_url(untrusted)
    if url.path != "/" or "?" in untrusted or "#" in untrusted:
        raise InvalidArgument("the host must be scheme, host and port alone, as in https://app.posthog.com")
    return url.origin


def is_capture_path(path: str, capture_paths: Collection[str]) -> bool:
    """Is this one of `capture_paths` (each without a final slash), however many slashes and escapes it is written with?"""
    return plain_path(path) in capture_paths


def make_redirect_check(hosts: OwnHosts, capture_paths: Collection[str]) -> Callable[[WebUrl, str], None]:
    """For the HTTP client: refuses redirects that would post events past the loop guard, given URL and method of the hop."""

    def check(url: WebUrl, _method: str) -> None:
        side = hosts.side_of(url.origin)
        if side is Side.OWN:
            raise FetchRefused(f"the request was redirected to {url.origin}, which is this server: name it directly")
        if side is Side.LINKED and is_capture_path(url.path, capture_paths):
            raise FetchRefused(
                f"the request was redirected to the capture path {url.path} of {url.origin}: use posthog.capture"
            )

    return check

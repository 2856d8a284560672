"""Where apps may send requests: the hosts an app declares, and never a private address unless the operator says so.

Pure. The HTTP client asks `check_url` before each hop (redirects too) and `check_address` for every address that the
host's name resolves to, and then connects to those addresses and no others. plugin.json can narrow what an app
reaches; only the operator can widen it to private networks.

Rejected: a list of bad names, and checks before resolving alone. A name can resolve to anything, each time to something else.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from plugin_server.host_api.urls import IpAddress, WebUrl, parse_url, read_host
from plugin_server.model.errors import FetchRefused, InvalidArgument
from plugin_server.model.project import Install

OPERATOR_SETTING: Final = "PLUGIN_SERVER_ALLOWED_PRIVATE_HOSTS"

_PLACEHOLDER: Final = re.compile(r"\{([^{}]+)\}")
_PATTERN: Final = re.compile(r"(\*\.)?(\[[^\]]*\]|[^:\[\]*]+)(?::([0-9]{1,5}))?")
_CONFIGURED: Final = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]*://)?(?:[^/?#\\]*@)?([^/?#@\\]+)(?:[/?#].*)?", re.DOTALL)
_LOCAL_NAMES: Final = frozenset({"localhost", "ip6-localhost", "ip6-loopback", "metadata.google.internal", "metadata"})
"""Known to be local without asking a resolver"""

_METADATA: Final = frozenset(
    ip_address(address)
    for address in (
        "169.254.169.254",  # nearly every cloud
        "169.254.170.2",  # AWS containers
        "100.100.100.200",  # Alibaba
        "168.63.129.16",  # Azure, a public address
        "192.0.0.192",  # Oracle
        "fd00:ec2::254",  # AWS
        "fd20:ce::254",  # Google
    )
)
_PRIVATE_4: Final = tuple(
    map(IPv4Network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "127.0.0.0/8", "100.64.0.0/10"))
)
_FORMER_6TO4_RELAYS: Final = IPv4Network("192.88.99.0/24")
_GLOBAL_UNICAST_6: Final = IPv6Network("2000::/3")
_UNIQUE_LOCAL_6: Final = IPv6Network("fc00::/7")
_NAT64: Final = IPv6Network("64:ff9b::/96")
_ISATAP: Final = (0x00005EFE, 0x02005EFE)


class Reach(IntEnum):
    """How far away an address is. The greater one counts where an address holds another."""

    PUBLIC = 0
    PRIVATE = 1
    """Loopback, private networks, carrier-grade NAT: an operator may allow them by host name, or all together"""
    RESERVED = 2
    """Metadata services, link-local, multicast, unspecified and unassigned: an operator may allow them one by one"""


def reach_of(address: IpAddress) -> Reach:
    """Of an address, and of the IPv4 address inside it (mapped, NAT64, 6to4, ISATAP)."""
    if address in _METADATA:
        return Reach.RESERVED
    if isinstance(address, IPv4Address):
        if any(address in network for network in _PRIVATE_4):
            return Reach.PRIVATE
        if address.is_global and not (address.is_multicast or address.is_reserved or address in _FORMER_6TO4_RELAYS):
            return Reach.PUBLIC
        return Reach.RESERVED
    if address.ipv4_mapped is not None:
        return reach_of(address.ipv4_mapped)
    inner = IPv4Address(int(address) & 0xFFFF_FFFF)
    if address in _NAT64:
        return reach_of(inner)
    if address.is_loopback or address in _UNIQUE_LOCAL_6:
        return Reach.PRIVATE
    if address not in _GLOBAL_UNICAST_6 or not address.is_global:
        return Reach.RESERVED
    reach = Reach.PUBLIC
    if address.sixtofour is not None:
        reach = max(reach, reach_of(address.sixtofour))
    if int(address) >> 32 & 0xFFFF_FFFF in _ISATAP:
        reach = max(reach, reach_of(inner))
    return reach


@dataclass(frozen=True, slots=True)
class HostPattern:
    """`host`, `host:port` or `*.host`: the last means every name below it, not the name itself. No port: any port."""

    host: str
    is_wildcard: bool
    port: int | None

    def matches(self, host: str, port: int) -> bool:
        if self.port is not None and self.port != port:
            return False
        return host.endswith(f".{self.host}") if self.is_wildcard else host == self.host


def parse_pattern(text: str) -> HostPattern:
    """Raises InvalidArgument for what is no pattern."""
    found = _PATTERN.fullmatch(text.strip())
    if found is None:
        raise InvalidArgument(
            f"{text[:60]!r} is no host: write it as in api.example.com, *.example.com or example.com:8443"
        )
    host, address = read_host(found[2])
    if found[1] and address is not None:
        raise InvalidArgument(f"{text[:60]!r} has `*.` before an address, which stands for nothing")
    return HostPattern(host, found[1] is not None, int(found[3]) if found[3] else None)


@dataclass(frozen=True, slots=True)
class PrivateAccess:
    """What the operator allows beyond public addresses: `everywhere` all that is PRIVATE, `hosts` what these names resolve
    to if it is PRIVATE, `networks` these addresses whatever they are.
    """

    everywhere: bool = False
    hosts: tuple[HostPattern, ...] = ()
    networks: tuple[IPv4Network | IPv6Network, ...] = ()

    def allows_name(self, host: str, port: int) -> bool:
        return self.everywhere or any(pattern.matches(host, port) for pattern in self.hosts)

    def check_address(self, host: str, port: int, address: IpAddress) -> None:
        """Raises FetchRefused for an address that `host` must not stand for."""
        reach = reach_of(address)
        if reach is Reach.PUBLIC or (reach is Reach.PRIVATE and self.allows_name(host, port)):
            return
        mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
        if any(address in network or (mapped is not None and mapped in network) for network in self.networks):
            return
        remedy = f"An operator can allow it: {OPERATOR_SETTING}={host}"
        if reach is Reach.RESERVED:
            remedy = f"An operator can allow single addresses: {OPERATOR_SETTING}=<address>"
        kind = "a private address" if reach is Reach.PRIVATE else "an address that is not for apps"
        raise FetchRefused(f"{host} is {kind}, or its name resolves to one. {remedy}")


PUBLIC_ONLY: Final = PrivateAccess()


def private_access(entries: Iterable[str], *, everywhere: bool = False) -> PrivateAccess:
    """From settings: host patterns, addresses and networks (`10.1.0.0/16`). Raises InvalidArgument."""
    hosts: list[HostPattern] = []
    networks: list[IPv4Network | IPv6Network] = []
    for entry in entries:
        try:
            networks.append(ip_network(entry.strip().removeprefix("[").removesuffix("]"), strict=False))
        except ValueError:
            hosts.append(parse_pattern(entry))
    return PrivateAccess(everywhere, tuple(hosts), tuple(networks))


@dataclass(frozen=True, slots=True)
class EgressRules:
    """Of one install. `hosts` None: any public host. `problems` says which egress entries give no permission, and why."""

    install_id: int
    hosts: tuple[HostPattern, ...] | None = None
    access: PrivateAccess = PUBLIC_ONLY
    problems: tuple[str, ...] = ()

    def check_url(self, untrusted: str) -> WebUrl:
        """The URL, if its host may be asked. Raises InvalidArgument for what is no URL, FetchRefused for a host not allowed."""
        url = parse_url(untrusted)
        self.check(url)
        return url

    def check(self, url: WebUrl) -> None:
        """As `check_url`, for a URL that was read already."""
        if self.hosts is not None and not any(pattern.matches(url.host, url.port) for pattern in self.hosts):
            reasons = "".join(f" {problem}." for problem in self.problems)
            raise FetchRefused(
                f"this app may not talk to {url.host}:{url.port}: `egress` in its plugin.json does not name it.{reasons}"
                f' Add "{url.host}" there, or "{{key}}" for a host that the config value `key` gives'
            )
        if url.address is not None:
            self.access.check_address(url.host, url.port, url.address)
        elif url.host in _LOCAL_NAMES or url.host.endswith(".localhost"):
            self.access.check_address(url.host, url.port, IPv4Address("127.0.0.1"))

    def check_address(self, host: str, port: int, address: str) -> None:
        """Raises FetchRefused for an address that `host` must not resolve to."""
        self.access.check_address(host, port, ip_address(address))


def rules_of(install: Install, access: PrivateAccess = PUBLIC_ONLY) -> EgressRules:
    """What `egress` in the app's plugin.json and the install's config allow. A config value that is no host allows nothing."""
    entries = install.app.manifest.get("egress")
    if entries is None:
        return EgressRules(install.id, None, access)
    hosts: list[HostPattern] = []
    problems: list[str] = []
    for entry in entries:
        try:
            hosts.append(_resolve_entry(entry, install))
        except InvalidArgument as problem:
            problems.append(str(problem))
    return EgressRules(install.id, tuple(hosts), access, tuple(problems))


def _resolve_entry(entry: str, install: Install) -> HostPattern:
    port: int | None = None

    def substitute(match: re.Match[str]) -> str:
        nonlocal port
        host, port = _configured_host(match[1], install.config.get(match[1]))
        return host

    pattern = parse_pattern(_PLACEHOLDER.sub(substitute, entry))
    # The port of a config value counts where the value is the whole entry.
    if port is not None and _PLACEHOLDER.fullmatch(entry):
        return HostPattern(pattern.host, pattern.is_wildcard, port)
    return pattern


def _configured_host(key: str, value: object) -> tuple[str, int | None]:
    """Host and port in a config value, which is a URL or a host. The value may be a secret: messages name its key only."""
    if not isinstance(value, str) or not value.strip():
        raise InvalidArgument(f"`{{{key}}}` in `egress` allows nothing: the config value `{key}` is not set")
    found = _CONFIGURED.fullmatch(value.strip())
    try:
        if found is None:
            raise InvalidArgument
        pattern = parse_pattern(found[1])
    except InvalidArgument:
        raise InvalidArgument(
            f"`{{{key}}}` in `egress` allows nothing: the config value `{key}` is no host and no URL"
        ) from None
    if pattern.is_wildcard:
        raise InvalidArgument(f"`{{{key}}}` in `egress` allows nothing: the config value `{key}` must name one host")
    return (f"[{pattern.host}]" if ":" in pattern.host else pattern.host), pattern.port

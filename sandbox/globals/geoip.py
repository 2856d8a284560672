"""`meta.geoip`: where an address is."""

from __future__ import annotations

from sandbox.globals.arguments import check_text
from sandbox.globals.host_facade import HostFacade
from sandbox.invocation import HostCall


class Geoip(HostFacade):
    """`meta.geoip` of one install."""

    __slots__ = ()

    def locate(self, ip: str) -> HostCall:
        """To be awaited: the record of the operator's MaxMind database for an IP address, or None."""
        return self._start("geoip.locate", [check_text("geoip.locate", "ip", ip)])

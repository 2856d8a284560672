"""`meta.geoip`: where an IP address is, by the operator's MaxMind database (GeoLite2 City or the like).

The file is mapped into memory, shared by all workers of a machine, and opened again when another has taken its place.
Replace it by renaming, as geoipupdate does: a mapped file that is overwritten takes down the process that reads it.
"""

from __future__ import annotations

import base64
import ipaddress
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol

import maxminddb
import structlog

from plugin_server.host_api.calls import CallContext, Handler
from plugin_server.model.errors import ConfigurationError, InvalidArgument

_LOOK_SECONDS: Final = 10.0
_INT64: Final = range(-(2**63), 2**63)
_log = structlog.get_logger(__name__)


class Locator(Protocol):
    """Knows where addresses are: GeoIp, or the harness's table."""

    def locate(self, ip: str) -> dict[str, Any] | None:
        """The record as JSON with MaxMind's names (`country.iso_code`), None where there is none."""


class GeoIp:
    """A Locator over a file. Without one it knows no address, and tells the operator once that an app has asked.

    Reading is a few microseconds of CPU; a part of the file that is not in memory yet is read from disk.
    """

    def __init__(self, path: Path | None, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises ConfigurationError for a file that is missing or no MaxMind database."""
        self._path = path
        self._clock = clock
        self._looked_at = clock()
        self._is_missed = False
        self._reader: maxminddb.Reader | None = None
        self._file: tuple[int, int, int] | None = None
        if path is not None:
            try:
                self._open(path)
            except (OSError, ValueError, maxminddb.InvalidDatabaseError) as error:
                raise ConfigurationError(f"the GeoIP database {path} cannot be used: {error}") from error

    def locate(self, ip: str) -> dict[str, Any] | None:
        """See Locator.locate. Raises InvalidArgument for what is no IP address."""
        address = _address(ip)
        if self._path is None:
            if not self._is_missed:
                self._is_missed = True
                _log.warning(
                    "geoip_not_configured",
                    remedy="name a MaxMind database in PLUGIN_SERVER_GEOIP_DATABASE; apps get None",
                )
            return None
        self._look(self._path)
        try:
            record = None if self._reader is None else self._reader.get(address)
        except ValueError:  # an IPv6 address, and the database has only IPv4
            return None
        except maxminddb.InvalidDatabaseError as error:
            self._say_unreadable(self._path, error)
            return None
        found = _as_json(record)
        return found if isinstance(found, dict) else None

    def close(self) -> None:
        """Unmap the file."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _look(self, path: Path) -> None:
        """Is it another file now?"""
        now = self._clock()
        if now - self._looked_at < _LOOK_SECONDS:
            return
        self._looked_at = now
        try:
            if _identity(path) != self._file:
                self._open(path)
                self._is_missed = False
                _log.info("geoip_database_opened", path=str(path))
        except (OSError, ValueError, maxminddb.InvalidDatabaseError) as error:
            self._say_unreadable(path, error)  # the old one is still mapped

    def _open(self, path: Path) -> None:
        identity = _identity(path)
        reader = maxminddb.open_database(path, maxminddb.MODE_AUTO)
        self.close()
        self._reader, self._file = reader, identity

    def _say_unreadable(self, path: Path, error: Exception) -> None:
        if not self._is_missed:
            self._is_missed = True
            _log.warning("geoip_database_unreadable", path=str(path), error=str(error), remedy="replace the file")


def geoip_handlers(locator: Locator) -> dict[str, Handler]:
    """What answers `geoip.locate`."""

    async def locate(_context: CallContext, arguments: list[Any]) -> dict[str, Any] | None:
        match arguments:
            case [str() as ip]:
                return locator.locate(ip)
            case _:
                raise InvalidArgument("geoip.locate expects an IP address as text")

    return {"geoip.locate": locate}


def _address(ip: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        address = ipaddress.ip_address(ip)
    except ValueError:
        raise InvalidArgument(
            f"geoip.locate: {ip[:60]!r} is not an IP address like 203.0.113.7 or 2001:db8::7"
        ) from None
    if isinstance(address, ipaddress.IPv6Address):
        return address.ipv4_mapped or ipaddress.IPv6Address(int(address))  # without the zone
    return address


def _identity(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_ino, found.st_mtime_ns, found.st_size


def _as_json(value: Any) -> Any:
    """What JSON lacks: bytes become base64, numbers beyond 64 bits floats, NaN and infinities None."""
    match value:
        case dict():
            return {str(key): _as_json(item) for key, item in value.items()}
        case list():
            return [_as_json(item) for item in value]
        case bytes() | bytearray():
            return base64.b64encode(value).decode("ascii")
        case float():
            return value if math.isfinite(value) else None
        case int() if not isinstance(value, bool):
            return value if value in _INT64 else float(value)
        case _:
            return value

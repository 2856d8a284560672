"""Addresses are looked up in the operator's file; an app never gets worse than None for one that is not there."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import orjson
import pytest
import structlog

from plugin_server.host_api.calls import CallContext
from plugin_server.host_api.effects import RunEffects
from plugin_server.host_api.geoip import GeoIp, geoip_handlers
from plugin_server.model.errors import ConfigurationError, InvalidArgument
from plugin_server.model.origin import Origin
from plugin_server.model.project import App, Install, Project
from tests.mmdb import Uint128, write_mmdb

SYDNEY = {
    "city": {"geoname_id": 2147714, "names": {"en": "Sydney", "pt-BR": "Sydney"}},
    "country": {"iso_code": "AU", "is_in_european_union": False},
    "location": {"latitude": -33.8591, "longitude": 151.2002, "time_zone": "Australia/Sydney"},
    "subdivisions": [{"iso_code": "NSW"}],
}
BERLIN = {"city": {"names": {"en": "Berlin"}}}
INSTALL = Install(39, App("geo", "1", "main.py", "", {}), 1, {})
PROJECT = Project(2, "Acme", "phc_acme", (INSTALL,))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_mmdb(tmp_path / "city.mmdb", {"13.106.122.0/24": SYDNEY, "2001:db8::/32": BERLIN})


@pytest.mark.parametrize(
    ("ip", "record"),
    [
        ("13.106.122.3", SYDNEY),
        ("::ffff:13.106.122.3", SYDNEY),
        ("2001:db8::1", BERLIN),
        ("2001:db8::1%eth0", BERLIN),
        ("13.106.123.3", None),
        ("127.0.0.1", None),
        ("::", None),
    ],
)
def test_an_address_is_where_the_file_says(path: Path, ip: str, record: Any) -> None:
    assert GeoIp(path).locate(ip) == record


@pytest.mark.parametrize(
    "ip", ["", "localhost", "1.2.3", "1.2.3.4.5", " 1.2.3.4", "1.2.3.4/24", "::g", "x" * 10_000, "\0"]
)
def test_what_is_no_address_is_the_apps_mistake(path: Path, ip: str) -> None:
    for geoip in (GeoIp(path), GeoIp(None)):
        with pytest.raises(InvalidArgument, match="is not an IP address like") as caught:
            geoip.locate(ip)
        assert len(str(caught.value)) < 200


def test_an_ipv6_address_is_nowhere_in_a_file_of_ipv4(tmp_path: Path) -> None:
    geoip = GeoIp(write_mmdb(tmp_path / "v4.mmdb", {"1.2.3.0/24": BERLIN}, ip_version=4))
    assert geoip.locate("1.2.3.4") == BERLIN
    assert geoip.locate("2001:db8::1") is None


def test_a_record_is_json_whatever_is_in_it(tmp_path: Path) -> None:
    odd = {"big": Uint128(2**100), "raw": b"\xff", "nan": math.nan, "list": [Uint128(1), {"deep": math.inf}]}
    found = GeoIp(write_mmdb(tmp_path / "odd.mmdb", {"1.2.3.0/24": odd})).locate("1.2.3.4")
    assert found == {"big": float(2**100), "raw": "/w==", "nan": None, "list": [1, {"deep": None}]}
    orjson.dumps(found)


def test_a_record_that_is_no_map_counts_as_none(tmp_path: Path) -> None:
    assert GeoIp(write_mmdb(tmp_path / "odd.mmdb", {"1.2.3.0/24": ["x"]})).locate("1.2.3.4") is None


def test_without_a_file_apps_get_none_and_the_operator_is_told_once() -> None:
    geoip = GeoIp(None)
    with structlog.testing.capture_logs() as logs:
        assert geoip.locate("1.2.3.4") is None
        assert geoip.locate("1.2.3.4") is None
    assert [entry["event"] for entry in logs] == ["geoip_not_configured"]


@pytest.mark.parametrize("content", [None, b"", b"not a database" * 100])
def test_a_file_that_is_no_database_stops_the_start(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "city.mmdb"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"city\.mmdb cannot be used"):
        GeoIp(path)


def test_a_new_file_takes_over(path: Path) -> None:
    now = [0.0]
    geoip = GeoIp(path, lambda: now[0])
    write_mmdb(path.with_name("new"), {"13.106.122.0/24": BERLIN}).rename(path)
    assert geoip.locate("13.106.122.3") == SYDNEY
    now[0] = 11.0
    assert geoip.locate("13.106.122.3") == BERLIN


def test_a_new_file_that_is_broken_leaves_the_old_one(path: Path) -> None:
    now = [0.0]
    geoip = GeoIp(path, lambda: now[0])
    path.with_name("new").write_bytes(b"broken")
    path.with_name("new").rename(path)
    with structlog.testing.capture_logs() as logs:
        for now[0] in (11.0, 22.0):
            assert geoip.locate("13.106.122.3") == SYDNEY
    assert [entry["event"] for entry in logs] == ["geoip_database_unreadable"]
    path.unlink()
    now[0] = 33.0
    assert geoip.locate("13.106.122.3") == SYDNEY


async def test_apps_ask_by_a_call(path: Path) -> None:
    locate = geoip_handlers(GeoIp(path))["geoip.locate"]
    context = CallContext(PROJECT, INSTALL, 1, RunEffects(PROJECT, Origin("in-0-1", "u", "processEvent")))
    assert await locate(context, ["13.106.122.3"]) == SYDNEY
    for wrong in ([], [None], [5], ["1.2.3.4", 1]):
        with pytest.raises(InvalidArgument, match=r"geoip\.locate expects an IP address as text"):
            await locate(context, wrong)

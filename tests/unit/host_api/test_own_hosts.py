"""Own, linked, foreign: by origin alone."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from plugin_server.host_api.own_hosts import (
    POSTHOG_CLOUD,
    Side,
    is_capture_path,
    leads_to,
    listener_origins,
    make_own_hosts,
    make_redirect_check,
    origin_of,
)
from plugin_server.host_api.urls import parse_url
from plugin_server.model.errors import FetchRefused, InvalidArgument

PATHS = ("/capture", "/batch", "/e", "/track", "/i/v0/e")


@pytest.mark.parametrize(
    ("written", "origin"),
    [
        ("https://App.PostHog.com", "https://app.posthog.com"),
        ("https://app.posthog.com:443/", "https://app.posthog.com"),
        ("https://app.posthog.com./", "https://app.posthog.com"),
        ("http://app.posthog.com:80", "http://app.posthog.com"),
        ("https://app.posthog.com:8443", "https://app.posthog.com:8443"),
        ("http://[0::1]:6738", "http://[::1]:6738"),
        ("http://[::ffff:127.0.0.1]:6738", "http://127.0.0.1:6738"),
    ],
)
def test_an_origin_has_one_form(written: str, origin: str):
    assert origin_of(written) == origin


@pytest.mark.parametrize(
    "host",
    ["app.posthog.com", "https://a.example/path", "https://a.example?x", "https://a.example#x", "https://a@b", ""],
)
def test_more_than_an_origin_is_refused(host: str):
    with pytest.raises(InvalidArgument):
        origin_of(host)


def test_posthog_cloud_is_this_server_when_no_posthog_is_linked():
    hosts = make_own_hosts(["https://plugins.example"], None)
    assert hosts.side_of("https://app.posthog.com") is Side.OWN
    assert hosts.side_of("https://plugins.example") is Side.OWN
    assert hosts.side_of("https://us.posthog.com") is Side.FOREIGN
    assert hosts.side_of("http://plugins.example") is Side.FOREIGN
    assert hosts.side_of("https://plugins.example:8443") is Side.FOREIGN
    assert hosts.api_origin(None) == POSTHOG_CLOUD


def test_a_linked_posthog_takes_its_place():
    hosts = make_own_hosts(["https://plugins.example"], "https://PH.example:443")
    assert hosts.side_of("https://ph.example") is Side.LINKED
    assert hosts.side_of(POSTHOG_CLOUD) is Side.FOREIGN
    assert hosts.api_origin(None) == "https://ph.example"
    assert hosts.api_origin("https://app.posthog.com/") == "https://ph.example"
    assert hosts.api_origin("https://other.example/") == "https://other.example"


def test_posthog_cloud_itself_can_be_linked():
    assert make_own_hosts([], POSTHOG_CLOUD).side_of(POSTHOG_CLOUD) is Side.LINKED


def test_a_posthog_host_that_is_this_server_is_own():
    hosts = make_own_hosts(["https://plugins.example"], "https://plugins.example")
    assert hosts.side_of(hosts.api_origin(None)) is Side.OWN
    assert hosts.linked is None


@pytest.mark.parametrize(
    ("host", "origins"),
    [
        ("127.0.0.1", {"http://127.0.0.1:6738", "http://localhost:6738"}),
        ("0.0.0.0", {"http://127.0.0.1:6738", "http://localhost:6738", "http://[::1]:6738"}),
        ("::", {"http://127.0.0.1:6738", "http://localhost:6738", "http://[::1]:6738"}),
        ("::1", {"http://[::1]:6738", "http://localhost:6738"}),
        ("10.0.0.1", {"http://10.0.0.1:6738"}),
    ],
)
def test_the_listener_is_own(host: str, origins: set[str]):
    assert set(listener_origins(host, 6738)) == origins
    assert {origin_of(origin) for origin in origins} == origins


@pytest.mark.parametrize(
    ("listening", "address", "is_own"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "::ffff:127.0.0.1", True),
        ("127.0.0.1", "0.0.0.0", True),
        ("127.0.0.1", "127.0.0.2", False),
        ("127.0.0.1", "::1", False),
        ("::1", "::1", True),
        ("10.0.0.1", "10.0.0.1", True),
        ("10.0.0.1", "10.0.0.2", False),
        ("0.0.0.0", "127.0.0.2", True),
        ("::", "::1", True),
        ("", "::ffff:127.0.0.9", True),
        ("0.0.0.0", "192.0.2.1", False),
        ("localhost", "127.0.0.1", True),
    ],
)
def test_a_connection_that_ends_at_the_listener_is_known(listening: str, address: str, *, is_own: bool):
    assert leads_to(listening, 6738)(ip_address(address), 6738) is is_own
    assert not leads_to(listening, 6738)(ip_address(address), 6739)


@pytest.mark.parametrize("path", ["/capture", "/capture/", "//capture//", "/%63apture", "/i/v0/e/", "/i%2Fv0%2Fe"])
def test_capture_paths_are_found_however_they_are_written(path: str):
    assert is_capture_path(path, PATHS)


@pytest.mark.parametrize("path", ["/", "/captures", "/api/capture", "/Capture", "/e/x"])
def test_other_paths_are_no_capture_paths(path: str):
    assert not is_capture_path(path, PATHS)


def test_redirects_past_the_loop_guard_are_refused():
    check = make_redirect_check(make_own_hosts(["https://plugins.example"], "https://ph.example"), PATHS)
    check(parse_url("https://other.example/capture"), "POST")
    check(parse_url("https://ph.example/api/x"), "POST")
    for url in ("https://ph.example/capture/?data=x", "https://plugins.example/x"):
        with pytest.raises(FetchRefused, match="redirected"):
            check(parse_url(url), "POST")

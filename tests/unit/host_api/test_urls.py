"""URLs are read in one way or not at all."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from plugin_server.host_api.urls import URL_CHARACTERS, join_url, parse_url
from plugin_server.model.errors import InvalidArgument


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("https://example.com", "https://example.com/"),
        (" https://example.com/a ", "https://example.com/a"),
        ("HTTPS://EXAMPLE.com.:443/A?b=C#d", "https://example.com/A?b=C"),
        ("http://example.com:/", "http://example.com/"),
        ("http://example.com:8080?x", "http://example.com:8080/?x"),
        ("https://bücher.example/", "https://xn--bcher-kva.example/"),
        ("https://ｅｘａｍｐｌｅ。com/", "https://example.com/"),
        ("https://example.com/a b/ü?q=ü x", "https://example.com/a%20b/%C3%BC?q=%C3%BC%20x"),
        ("https://example.com/100%/%2f", "https://example.com/100%25/%2f"),
        ("https://example.com/a/../b/./c/%2E%2e/d/..", "https://example.com/b/"),
        ("https://example.com/../../etc", "https://example.com/etc"),
        ("https://a_b.example.com/", "https://a_b.example.com/"),
        ("http://2130706433/", "http://127.0.0.1/"),
        ("http://0x7f.1/", "http://127.0.0.1/"),
        ("http://0177.0.0.1/", "http://127.0.0.1/"),
        ("http://127.1./", "http://127.0.0.1/"),
        ("http://①②⑦.⓪.⓪.①/", "http://127.0.0.1/"),
        ("http://[0:0:0:0:0:0:0:1]:80/", "http://[::1]/"),
        ("http://[::FFFF:127.0.0.1]/", "http://127.0.0.1/"),
    ],
)
def test_a_url_has_one_form(written: str, read: str):
    assert parse_url(written).text == read


@pytest.mark.parametrize(
    ("written", "remedy"),
    [
        ("", "http://"),
        ("example.com", "must begin with http://"),
        ("file:///etc/passwd", "must begin with http://"),
        ("gopher://example.com/", "must begin with http://"),
        ("http:/example.com", "must begin with http://"),
        ("http:example.com", "must begin with http://"),
        ("javascript:alert(1)", "must begin with http://"),
        ("http://", "no valid host"),
        ("http://:80/", "no valid host"),
        ("http://user:secret@example.com/", "Authorization"),
        ("http://allowed.example@169.254.169.254/", "Authorization"),
        ("http://allowed.example%40evil.example/", "no valid host name"),
        ("http://allowed.example\\@evil.example/", "Authorization"),
        ("http://allowed.example\\.evil.example/", "backslash"),
        ("http://example.com\\evil", "backslash"),
        ("http://example.com/\\evil", "backslash"),
        ("http://exa\tmple.com/", "control character"),
        ("http://example.com/\r\nX-Evil: 1", "control character"),
        ("http://example.com/\0", "control character"),
        ("http://example.com:0/", "port"),
        ("http://example.com:65536/", "port"),
        ("http://example.com:99999999/", "no valid host and port"),
        ("http://example.com:80:80/", "no valid host and port"),
        ("http://example.com:８０/", "no valid host and port"),
        ("http://[fe80::1%25eth0]/", "zone id"),
        ("http://[fe80::1%eth0]/", "zone id"),
        ("http://[::1/", "no valid host and port"),
        ("http://::1/", "no valid host and port"),
        ("http://1.2.3.4.5/", "neither"),
        ("http://1.2.3.256/", "neither"),
        ("http://evil.0x/", "neither"),
        ("http://a..b/", "no valid host name"),
        ("http://exa mple.com/", "no valid host name"),
        ("http://-a.example/", "no valid host name"),
        (f"http://{'a' * 64}.example/", "no valid host name"),
        (f"http://{'a.' * 127}example/", "no valid host name"),
        ("http://\ud800.example/", "no valid host name"),
        ("http://example.com/\ud800", "surrogate"),
        ("http://example.com/" + "a" * URL_CHARACTERS, "more than"),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused_with_a_remedy(written: str, remedy: str):
    with pytest.raises(InvalidArgument, match=remedy):
        parse_url(written)


def test_messages_do_not_show_what_may_be_secret():
    for url in ("ftp://example.com/?token=sesame", "ftp://user:sesame@example.com/", "http://user:sesame@example.com/"):
        with pytest.raises(InvalidArgument) as caught:
            parse_url(url)
        assert "sesame" not in str(caught.value)


_PIECES = [
    "http://",
    "https://",
    "@",
    ":",
    "/",
    "\\",
    "?",
    "#",
    ".",
    "..",
    "%2e",
    "%",
    "[",
    "]",
    "::1",
    "127.0.0.1",
    "0x7f",
    "example.com",
    "evil",
    "a",
    "。",
    "ß",
    "ı",
    "80",
    "1",
    "%00",
    "xn--",
    "//",
]
_ODD = ["\u200d", "\ud800", "\t", "\n", " "]


@given(
    st.lists(st.sampled_from([*_PIECES, *_ODD]) | st.text(max_size=3), max_size=8).map("".join),
    st.sampled_from(["", "http://"]),
)
def test_all_parsers_agree_on_what_is_accepted(text: str, scheme: str):
    try:
        url = parse_url(scheme + text)
    except InvalidArgument:
        return
    assert url.text.isascii()
    assert url.text.isprintable()
    assert parse_url(url.text) == url
    split, other = urlsplit(url.text), URL(url.text, encoded=True)
    assert split.hostname == other.raw_host == url.host
    assert (split.port or {"http": 80, "https": 443}[url.scheme]) == other.port == url.port
    assert split.username is None
    assert url.path.startswith("/")
    assert not {".", ".."} & set(url.path.lower().replace("%2e", ".").split("/"))


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("/b?c", "https://example.com/b?c"),
        ("c", "https://example.com/a/c"),
        ("//other.example/x", "https://other.example/x"),
        ("http://other.example", "http://other.example/"),
        ("?q", "https://example.com/a/b?q"),
        ("/ü", "https://example.com/%C3%BC"),
        ("https://example.com/x#fragment", "https://example.com/x"),
    ],
)
def test_redirects_are_joined(location: str, target: str):
    assert join_url(parse_url("https://example.com/a/b"), location).text == target


@pytest.mark.parametrize(
    "location", ["ftp://example.com/", "/\\evil.example", "http://u@h/", "/\t", "http://[", "\udcff", "file:///x"]
)
def test_redirects_to_no_url_are_refused(location: str):
    with pytest.raises(InvalidArgument):
        join_url(parse_url("https://example.com/a/b"), location)

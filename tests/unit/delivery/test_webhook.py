"""What composeWebhook may return (behaviour 118)."""

from __future__ import annotations

from typing import Any

import pytest

from plugin_server.delivery.webhook import Webhook, read_webhook
from plugin_server.model.errors import InvalidArgument


def test_none_sends_nothing() -> None:
    assert read_webhook(None) is None


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ({"url": "https://x/"}, Webhook("POST", "https://x/", {}, b"")),
        ({"url": "https://x/", "method": "put", "body": "té"}, Webhook("PUT", "https://x/", {}, "té".encode())),
        (
            {"url": "https://x/", "body": {"a": [1]}},
            Webhook("POST", "https://x/", {"Content-Type": "application/json"}, b'{"a":[1]}'),
        ),
        (
            {"url": "https://x/", "body": [], "headers": {"content-type": "text/x"}},
            Webhook("POST", "https://x/", {"content-type": "text/x"}, b"[]"),
        ),
    ],
)
def test_a_request_is_completed(value: Any, wanted: Webhook) -> None:
    assert read_webhook(value) == wanted


@pytest.mark.parametrize(
    ("value", "part"),
    [
        ("https://x/", "not str"),
        ([], "not list"),
        ({}, "url"),
        ({"url": 1}, "url"),
        ({"url": "https://x/", "method": 1}, "method"),
        ({"url": "https://x/", "headers": []}, "headers"),
        ({"url": "https://x/", "headers": {"a": 1}}, "headers"),
        ({"url": "https://x/", "data": {}}, "'data'"),
    ],
)
def test_what_is_no_request_is_refused_with_what_is_wrong(value: Any, part: str) -> None:
    with pytest.raises(InvalidArgument, match=part):
        read_webhook(value)

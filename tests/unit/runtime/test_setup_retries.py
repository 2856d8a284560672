"""When a setupPlugin that keeps failing is called again."""

from __future__ import annotations

import pytest

from plugin_server.runtime.setup_retries import SetUpRetries, retry_seconds


def test_the_pauses_double_and_end():
    assert [retry_seconds(failures) for failures in range(1, 11)] == [3, 6, 12, 24, 48, 96, 192, 384, 768, None]


@pytest.mark.parametrize("attempts", [1, 3])
async def test_it_is_given_up_after_so_many_attempts(attempts):
    retries = SetUpRetries(attempts)
    for _ in range(attempts - 1):
        retries.failed(1, lambda: None)
        assert retries.next_seconds(1) is not None
    retries.failed(1, lambda: None)
    assert retries.next_seconds(1) is None
    retries.succeeded(1)
    retries.failed(1, lambda: None)
    assert (retries.next_seconds(1) is None) == (attempts == 1)
    retries.close()

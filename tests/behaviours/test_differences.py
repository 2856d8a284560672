"""docs/differences.md speaks of names and numbers that the code has, or has not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from plugin_server.background.retry import PLAIN_ATTEMPTS, RETRYABLE_ATTEMPTS
from plugin_server.delivery.retry import backoff_seconds
from plugin_server.host_api.cache import ITEM_BYTES, VALUE_BYTES
from plugin_server.host_api.cache_operations import LIST_ITEMS
from plugin_server.host_api.storage import VALUE_BYTES as STORED_BYTES
from plugin_server.model.project import Limits
from plugin_server.settings import Settings
from sandbox.event import STAMPS
from sandbox.globals.arguments import KEY_BYTES
from sandbox.globals.posthog import GENERIC_DISTINCT_ID
from sandbox.wire import APP_HOOKS

PAGE = Path(__file__).parents[2] / "docs" / "differences.md"
TEXT = PAGE.read_text("utf-8")
ROWS = [
    line.strip("|").split(" | ") for line in TEXT.splitlines() if line.startswith("| ") and "upstream |" not in line
]


def test_every_row_says_what_upstream_does_what_this_server_does_and_why():
    assert len(ROWS) > 60
    for row in ROWS:
        assert [len(row), all(cell.strip() for cell in row)] == [3, True]


@pytest.mark.parametrize(
    "said",
    [
        f"keys of {KEY_BYTES:,} bytes, values of {VALUE_BYTES // 2**20} MB in the cache and {STORED_BYTES // 2**20} MB in storage",
        f"lists of {LIST_ITEMS:,} items of {ITEM_BYTES // 1024} KB",
        f"tried {PLAIN_ATTEMPTS} times, or {RETRYABLE_ATTEMPTS} after a `RetryError`",
        f"after {', '.join(f'{backoff_seconds(n, 0):g}' for n in range(1, 6))} … s until `PARKED_HOURS`",
        f"to `{GENERIC_DISTINCT_ID}`",
        " and ".join((", ".join(f"`{name}`" for name in STAMPS[:-1]), f"`{STAMPS[-1]}`")),
    ],
)
def test_numbers_and_names_are_those_of_the_code(said):
    assert said in TEXT


def test_hooks_that_are_said_not_to_be_called_are_not():
    named = next(row[0] for row in ROWS if row[1].strip() == "they are not")
    assert not set(re.findall(r"`(\w+)`", named)) & set(APP_HOOKS)


def test_settings_and_limits_that_are_named_exist():
    names = set(re.findall(r"`([A-Z_]{4,})`", TEXT)) | {"log_lines_per_minute"}
    known = {name.upper() for name in Settings.model_fields} | set(Limits.model_fields)
    assert names <= known

"""docs/testing-apps.md leaves out no argument, attribute and key."""

from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path

import pytest

from plugin_server.testing import AppHarness, Node, Run, RunError, Tree
from plugin_server.testing.cases import _KNOWN, _NATIVE, _REMARKS, _STEP
from plugin_server.testing.compare import COMPARED
from plugin_server.testing.http_mocks import _ANSWER

PAGE = (Path(__file__).parents[3] / "docs" / "testing-apps.md").read_text("utf-8")
WORDS = {word for code in re.findall(r"`([^`\n]+)`", PAGE) for word in re.findall(r"[a-z_]\w*", code)}


def attributes(of: type) -> set[str]:
    return {name for name in vars(of) if not name.startswith("_")}


@pytest.mark.parametrize(
    "names",
    [
        set(inspect.signature(AppHarness).parameters) - {"apps"},
        attributes(AppHarness),
        attributes(Tree),
        {field.name for of in (Run, RunError, Node) for field in dataclasses.fields(of)},
        {*_KNOWN, *_STEP} - {*_NATIVE, *_REMARKS},
        set(COMPARED) - {"error_text_is_js_engine"},
        set(_ANSWER),
    ],
)
def test_all_of_them_are_on_the_page(names):
    assert names <= WORDS, f"docs/testing-apps.md lacks {sorted(names - WORDS)}"

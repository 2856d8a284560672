"""The examples' own cases, as `plugin-server app test` runs them."""

from __future__ import annotations

from pathlib import Path

import pytest

from plugin_server.testing.cases import read_cases, run_case

EXAMPLES = Path(__file__).parents[2] / "examples"
WITH_CASES = sorted(path.parent.name for path in EXAMPLES.glob("*/cases"))


@pytest.mark.parametrize("example", WITH_CASES)
async def test_the_cases_of_the_examples_pass(example: str):
    for case in read_cases(EXAMPLES / example):
        result = await run_case(str(EXAMPLES / example), case)
        assert result.passed, (result.id, result.problems, result.not_run)

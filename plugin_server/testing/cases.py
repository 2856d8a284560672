"""Cases: JSON files that say what an app makes of an event, run by `plugin-server app test` (docs/testing-apps.md).

A case is one step (`hook` and what goes in and comes out) or several (`steps`). Only what `expect` names is compared.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from plugin_server.model.errors import ConfigurationError
from plugin_server.testing.apps import AppLike
from plugin_server.testing.harness import AppHarness, HookNotFound
from plugin_server.testing.run import Run

_NOT_YET: Final = ("http", "posthog_api", "storage_before", "cache_before", "geoip", "native_results", "kinesis")
"""What the apps of such cases need from the host and this version does not have"""
_COMPARED: Final = frozenset({"event_out", "events_out", "error", "error_kind", "captured", "logs", "http_requests"})
_KNOWN: Final = frozenset(
    """id title config attachments now setup_first hook job payload event_in events_in expect steps match
    ignore_event_properties app kind origin source note oracle_2022 random_note upstream_test_stale jobs_run_inline http
    posthog_api storage_before cache_before geoip native_results native_fail kinesis""".split()  # noqa: SIM905
)
_IGNORED: Final = frozenset({"error_text_is_js_engine"})


@dataclass(frozen=True, slots=True)
class CaseResult:
    """What became of one case. `problems` are differences for a person to read; `not_run` says why it could not be."""

    id: str
    title: str
    problems: tuple[str, ...] = ()
    not_run: str | None = None

    @property
    def passed(self) -> bool:
        return not self.problems and self.not_run is None


def read_cases(directory: Path) -> list[dict[str, Any]]:
    """The cases in `directory/cases/*.json`: each file has one, or a list. Raises ConfigurationError. Blocks."""
    files = sorted((directory / "cases").glob("*.json"))
    if not files:
        raise ConfigurationError(f"{directory / 'cases'} has no .json file: write a case there (docs/testing-apps.md).")
    cases: list[dict[str, Any]] = []
    for file in files:
        try:
            content = json.loads(file.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"{file} is not JSON: {error}.") from error
        found = content if isinstance(content, list) else [content]
        cases += [read_case(case, str(file), number) for number, case in enumerate(found, 1)]
    return cases


def read_case(case: Any, file: str, number: int) -> dict[str, Any]:
    """A case with an id. Raises ConfigurationError for what is none, and for keys that no case has."""
    if not isinstance(case, dict) or not ("hook" in case or "job" in case or "steps" in case):
        raise ConfigurationError(f"{file}: case {number} needs `hook`, or `steps` that each have one.")
    unknown = sorted(case.keys() - _KNOWN)
    if unknown:
        raise ConfigurationError(
            f"{file}: case {number} has {', '.join(unknown)}; known are {', '.join(sorted(_KNOWN))}."
        )
    return {"id": f"{Path(file).stem}/{number:03}", "title": "", **case}


async def run_case(app: AppLike, case: Mapping[str, Any]) -> CaseResult:
    """Run one case in a harness of its own."""
    name, title = str(case["id"]), str(case["title"])
    steps: list[Mapping[str, Any]] = case.get("steps") or [case]
    lacking = sorted({key for key in _NOT_YET if case.get(key)})
    lacking += sorted({key for step in steps for key in step.get("expect", {}) if key not in _COMPARED | _IGNORED})
    if lacking:
        return CaseResult(name, title, not_run=f"needs {', '.join(lacking)}, which this version does not have")
    problems: list[str] = []
    async with AppHarness(
        app,
        config=case.get("config") or {},
        attachments=case.get("attachments") or {},
        now=case.get("now"),
        setup=case.get("setup_first", all(step.get("hook") != "setupPlugin" for step in steps)),
    ) as harness:
        for number, step in enumerate(steps, 1):
            where = f"step {number}: " if len(steps) > 1 else ""
            try:
                run = await harness.run(_hook(step), *_arguments(step))
            except HookNotFound as error:
                problems.append(f"{where}{error}")
                break
            problems += [f"{where}{problem}" for problem in _differences(run, step, case)]
    return CaseResult(name, title, tuple(problems))


def _hook(step: Mapping[str, Any]) -> str:
    return f"jobs.{step['job']}" if step.get("job") else str(step["hook"])


def _arguments(step: Mapping[str, Any]) -> list[Any]:
    for key in ("event_in", "events_in", "payload"):
        if key in step:
            return [step[key]]
    return []


def _differences(run: Run, step: Mapping[str, Any], case: Mapping[str, Any]) -> list[str]:
    expect: Mapping[str, Any] = step.get("expect") or {}
    whole = case.get("match", "exact") != "subset"
    ignored = case.get("ignore_event_properties") or ()
    problems: list[str] = []
    if "error" in expect or "error_kind" in expect:
        problems += _error_differences(run, expect)
    elif run.error is not None:
        return [f"failed: {run.error}"]
    for key in ("event_out", "events_out"):
        if key in expect:
            _compare(key, expect[key], run.event, problems, whole=whole, ignored=ignored)
    if "captured" in expect:
        found = [
            _as_expected(capture, wanted) for capture, wanted in zip(run.captured, expect["captured"], strict=False)
        ]
        found += [dict(capture) for capture in run.captured[len(found) :]]
        _compare("captured", expect["captured"], found, problems, whole=whole, ignored=())
    if "http_requests" in expect:
        _compare("http_requests", expect["http_requests"], run.requests, problems, whole=False, ignored=())
    if "logs" in expect:
        _compare("logs", expect["logs"], run.logs, problems, whole=False, ignored=())
    return problems


def _error_differences(run: Run, expect: Mapping[str, Any]) -> list[str]:
    """`error_kind` is one of `RunError.kind`, or `fatal`: any but `retry`."""
    error = run.error
    if error is None:
        return [f"no error, but one was expected: {expect.get('error') or expect.get('error_kind')}"]
    problems = []
    kind = expect.get("error_kind")
    if kind is not None and not (error.kind == kind or (kind == "fatal" and error.kind != "retry")):
        problems.append(f"error: of kind {error.kind} instead of {kind}")
    wanted = expect.get("error")
    if wanted is not None and not expect.get("error_text_is_js_engine") and not error.message.endswith(str(wanted)):
        problems.append(f"error: {error.message!r} instead of {wanted!r}")
    return problems


def _as_expected(capture: Mapping[str, Any], wanted: Any) -> dict[str, Any]:
    """A capture without what the server adds and the case does not name."""
    if not isinstance(wanted, Mapping):
        return dict(capture)
    named = wanted.get("properties") or {}
    properties = {
        key: value
        for key, value in capture["properties"].items()
        if key in named or key not in ("$lib", "$lib_version", "distinct_id")
    }
    return {key: properties if key == "properties" else value for key, value in capture.items() if key in wanted}


def _compare(
    where: str, wanted: Any, found: Any, problems: list[str], *, whole: bool, ignored: tuple[str, ...] | list[str]
) -> None:
    if isinstance(wanted, Mapping) and wanted.keys() == {"$any"}:
        return
    if isinstance(wanted, Mapping) and wanted.keys() == {"$regex"}:
        if not isinstance(found, str) or not re.search(wanted["$regex"], found):
            problems.append(f"{where}: {found!r} does not match {wanted['$regex']!r}")
    elif isinstance(wanted, Mapping) and isinstance(found, Mapping):
        skip = set(ignored) if where.endswith("properties") else set()
        problems += [
            f"{where}.{key} is missing, {wanted[key]!r} was expected" for key in wanted.keys() - found.keys() - skip
        ]
        if whole:
            problems += [
                f"{where}.{key} is {found[key]!r}, nothing was expected" for key in found.keys() - wanted.keys() - skip
            ]
        for key in (wanted.keys() & found.keys()) - skip:
            _compare(f"{where}.{key}", wanted[key], found[key], problems, whole=whole, ignored=ignored)
    elif isinstance(wanted, list) and isinstance(found, list):
        if len(wanted) != len(found):
            problems.append(f"{where} has {len(found)} entries, {len(wanted)} were expected")
        for number, (one, other) in enumerate(zip(wanted, found, strict=False)):
            _compare(f"{where}[{number}]", one, other, problems, whole=whole, ignored=ignored)
    elif type(wanted) in (int, float) and type(found) in (int, float):
        if wanted != found:
            problems.append(f"{where} is {found!r}, {wanted!r} was expected")
    elif wanted != found or type(wanted) is not type(found):
        problems.append(f"{where} is {found!r}, {wanted!r} was expected")

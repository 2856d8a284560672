"""Cases: JSON files that say what an app makes of an event, run by `plugin-server app test` (docs/testing-apps.md).

A case is one step (`hook` and what goes in and comes out) or several (`steps`). Only what `expect` names is compared.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from plugin_server.model.errors import ConfigurationError, InvalidArgument
from plugin_server.registry.problems import nearest, unknown_key
from plugin_server.testing.apps import AppLike
from plugin_server.testing.compare import COMPARED, State, differences
from plugin_server.testing.harness import AppHarness, HookNotFound

_NATIVE: Final = ("native_results", "native_fail", "kinesis")
"""Answers of client libraries that no app has here"""
_KNOWN: Final = frozenset(
    """id title config attachments now setup_first hook job payload event_in events_in expect steps match
    ignore_event_properties app kind origin source note oracle_2022 random_note upstream_test_stale jobs_run_inline http
    posthog_api storage_before cache_before geoip native_results native_fail kinesis storage_clear cache_clear
    cache_set""".split()  # noqa: SIM905
)
_MISSPELT: Final = 0.8
"""How much a key of `expect` is like one that is compared, from 0 to 1, to be a mistake in the case"""
_REMARKS: Final = frozenset("app kind origin source note oracle_2022 random_note upstream_test_stale".split())  # noqa: SIM905
"""Keys of a case for people, which no message needs to offer"""
_STEP: Final = frozenset(
    "hook job payload event_in events_in expect note storage_clear cache_clear cache_set".split()  # noqa: SIM905
)


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
    _refuse_unknown(case, _KNOWN, f"{file}: case {number}")
    for place, step in enumerate(case.get("steps") or (), 1):
        if not isinstance(step, dict) or not ("hook" in step or "job" in step):
            raise ConfigurationError(f"{file}: case {number}, step {place} needs `hook` or `job`.")
        _refuse_unknown(step, _STEP, f"{file}: case {number}, step {place}")
    return {"id": f"{Path(file).stem}/{number:03}", "title": "", **case}


def _refuse_unknown(given: Mapping[str, Any], known: frozenset[str], where: str) -> None:
    unknown = sorted(given.keys() - known)
    if unknown:
        offered = sorted(known - _REMARKS - set(_NATIVE))
        raise ConfigurationError(f"{where}: {unknown[0]!r} {unknown_key(unknown[0], offered)}")


async def run_case(app: AppLike, case: Mapping[str, Any]) -> CaseResult:
    """Run one case in a harness of its own. Raises ConfigurationError for an app that cannot be read."""
    name, title = str(case["id"]), str(case["title"])
    steps: list[Mapping[str, Any]] = case.get("steps") or [case]
    lacking = sorted({key for key in _NATIVE if case.get(key)})
    lacking += sorted({key for step in steps for key in step.get("expect") or () if key not in COMPARED})
    if misspelt := {key: meant for key in lacking if (meant := nearest(key, COMPARED, _MISSPELT))}:
        return CaseResult(name, title, tuple(f"expect.{key}: write `{meant}`" for key, meant in misspelt.items()))
    if lacking:
        return CaseResult(name, title, not_run=f"needs {', '.join(lacking)}, which this version does not have")
    try:
        harness = AppHarness(
            app,
            config=case.get("config") or {},
            attachments=case.get("attachments") or {},
            storage=case.get("storage_before") or {},
            cache=case.get("cache_before") or {},
            http=case.get("http") or (),
            posthog_api=case.get("posthog_api") or (),
            geoip=case.get("geoip") or {},
            now=case.get("now"),
            setup=case.get("setup_first", "steps" not in case and case.get("hook") != "setupPlugin"),
            jobs_inline=case.get("jobs_run_inline", True),
        )
    except (ValueError, InvalidArgument) as error:
        return CaseResult(name, title, (f"the case cannot be run: {error}",))
    problems: list[str] = []
    async with harness:
        for number, step in enumerate(steps, 1):
            where = f"step {number}: " if len(steps) > 1 else ""
            try:
                problems += [f"{where}{problem}" for problem in await _run_step(harness, step, case)]
            except (HookNotFound, InvalidArgument) as error:
                problems.append(f"{where}{error}")
                break
    return CaseResult(name, title, tuple(problems))


async def _run_step(app: AppHarness, step: Mapping[str, Any], case: Mapping[str, Any]) -> list[str]:
    if step.get("storage_clear"):
        await app.change_storage({}, clear=True)
    if step.get("cache_clear") or step.get("cache_set"):
        await app.change_cache(step.get("cache_set") or {}, clear=bool(step.get("cache_clear")))
    run = await app.run(_hook(step), *_arguments(step))
    return differences(
        run,
        State(app.storage, app.cache, app.cache_ttl_seconds),
        step.get("expect") or {},
        whole=case.get("match", "exact") != "subset",
        ignored=case.get("ignore_event_properties") or (),
        now=case.get("now"),
    )


def _hook(step: Mapping[str, Any]) -> str:
    return f"jobs.{step['job']}" if step.get("job") else str(step["hook"])


def _arguments(step: Mapping[str, Any]) -> list[Any]:
    for key in ("event_in", "events_in", "payload"):
        if key in step:
            return [step[key]]
    return []

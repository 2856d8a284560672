"""Wherein a run differs from what a case expects of it, as texts for a person."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from plugin_server.host_api.jobs import run_at_ms
from plugin_server.host_api.urls import parse_url
from plugin_server.model.errors import InvalidArgument
from plugin_server.testing.http_mocks import is_same_url
from plugin_server.testing.run import Run

COMPARED: Final = frozenset(
    """event_out events_out error error_kind captured logs http_requests posthog_api jobs storage_after cache_after
    cache_ttl_seconds error_text_is_js_engine""".split()  # noqa: SIM905
)
"""What a case's `expect` may name"""
_ADDED: Final = ("$lib", "$lib_version", "distinct_id")
_TTL_SECONDS: Final = 1.0
_WHEN_SECONDS: Final = 30.0
"""A run may have taken so long before it started the job, unless the clock stands still"""


@dataclass(frozen=True, slots=True)
class State:
    """What an app's storage and cache hold after a step."""

    storage: Mapping[str, Any]
    cache: Mapping[str, Any]
    cache_ttl_seconds: Mapping[str, float]


def differences(
    run: Run,
    state: State,
    expect: Mapping[str, Any],
    *,
    whole: bool = True,
    ignored: Sequence[str] = (),
    now: str | None = None,
) -> list[str]:
    """None when all is as expected. Only what `expect` names is looked at; without `whole`, there may be more of everything."""
    problems: list[str] = []
    if "error" in expect or "error_kind" in expect:
        problems += _error_differences(run, expect)
    elif run.error is not None:
        return [f"failed: {run.error}"]
    for key, found in (("event_out", run.event), ("events_out", run.event)):
        if key in expect:
            compare(key, expect[key], found, problems, whole=whole, ignored=ignored)
    if "captured" in expect:
        captured = _paired(expect["captured"], run.captured, _as_expected)
        compare("captured", expect["captured"], captured, problems, whole=whole)
    if "http_requests" in expect:
        by_api = set(map(id, run.api_requests))
        requests = [request for request in run.requests if id(request) not in by_api]
        wanted = [_request(request) for request in expect["http_requests"]]
        compare("http_requests", wanted, _paired(wanted, requests, _request_as_expected), problems, whole=False)
    if "posthog_api" in expect:
        compare("posthog_api", expect["posthog_api"], run.api_calls, problems, whole=whole)
    if "jobs" in expect:
        _compare_jobs(expect["jobs"], run.jobs, problems, now)
    if "logs" in expect:
        compare("logs", expect["logs"], run.logs, problems, whole=False)
    if "storage_after" in expect:
        compare("storage_after", expect["storage_after"], state.storage, problems, whole=whole)
    if "cache_after" in expect:
        compare("cache_after", expect["cache_after"], state.cache, problems, whole=whole)
    for key, seconds in (expect.get("cache_ttl_seconds") or {}).items():
        found_seconds = state.cache_ttl_seconds.get(key)
        if found_seconds is None or abs(found_seconds - float(seconds)) > _TTL_SECONDS:
            problems.append(f"cache_ttl_seconds.{key} is {found_seconds!r}, {seconds!r} was expected")
    return problems


def compare(
    where: str, wanted: Any, found: Any, problems: list[str], *, whole: bool, ignored: Sequence[str] = ()
) -> None:
    """Add what differs. `{"$any": true}` matches everything, `{"$regex": …}` text."""
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
            compare(f"{where}.{key}", wanted[key], found[key], problems, whole=whole, ignored=ignored)
    elif isinstance(wanted, list) and isinstance(found, list):
        if len(wanted) != len(found):
            problems.append(f"{where} has {len(found)} entries, {len(wanted)} were expected")
        for number, (one, other) in enumerate(zip(wanted, found, strict=False)):
            compare(f"{where}[{number}]", one, other, problems, whole=whole, ignored=ignored)
    elif type(wanted) in (int, float) and type(found) in (int, float):
        if wanted != found:
            problems.append(f"{where} is {found!r}, {wanted!r} was expected")
    elif wanted != found or type(wanted) is not type(found):
        problems.append(f"{where} is {found!r}, {wanted!r} was expected")


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


def _paired(wanted: Sequence[Any], found: Sequence[Mapping[str, Any]], shape: Any) -> list[Any]:
    """Each of `found` in the shape of what was wanted at its place."""
    paired = [shape(one, other) for one, other in zip(found, wanted, strict=False)]
    return paired + [dict(one) for one in found[len(paired) :]]


def _as_expected(capture: Mapping[str, Any], wanted: Any) -> dict[str, Any]:
    """A capture without what the server adds and the case does not name."""
    if not isinstance(wanted, Mapping):
        return dict(capture)
    named = wanted.get("properties") or {}
    properties = {key: value for key, value in capture["properties"].items() if key in named or key not in _ADDED}
    if "timestamp" in named:  # written among the properties, it becomes the event's own
        properties = {"timestamp": capture["timestamp"], **properties}
    return {key: properties if key == "properties" else value for key, value in capture.items() if key in wanted}


def _request(wanted: Mapping[str, Any]) -> dict[str, Any]:
    """A request as a case writes it: `text` is its body, and the names of its headers are of either case."""
    request = {("body" if key == "text" else key): value for key, value in wanted.items()}
    if "headers" in request:
        request["headers"] = {name.lower(): value for name, value in request["headers"].items()}
    return request


def _request_as_expected(request: Mapping[str, Any], wanted: Any) -> dict[str, Any]:
    shown = {**request, "headers": {name.lower(): value for name, value in request["headers"].items()}}
    url = wanted.get("url")
    if isinstance(url, str) and _is_same(url, shown["url"]):
        shown["url"] = url
    return shown


def _is_same(one: str, other: str) -> bool:
    try:
        return is_same_url(parse_url(one), parse_url(other))
    except InvalidArgument:
        return False


_IN: Final = re.compile(r"in \d+(\.\d+)? [a-z]+")


def _compare_jobs(
    wanted: Sequence[Mapping[str, Any]], found: Sequence[Mapping[str, Any]], problems: list[str], now: str | None
) -> None:
    """`name` or `job`, `payload`, and `run_at`, or `when`: `now`, or as in `in 20 seconds`."""
    expected, shown = [], []
    for one in wanted:
        entry = {"job": one.get("name", one.get("job"))}
        entry |= {key: one[key] for key in ("payload", "run_at") if key in one}
        expected.append(entry)
    for number, job in enumerate(found):
        names = expected[number] if number < len(expected) else job
        shown.append({key: value for key, value in job.items() if key in names})
    compare("jobs", expected, shown, problems, whole=True)
    for number, (one, job) in enumerate(zip(wanted, found, strict=False)):
        if "when" not in one:
            continue
        if one["when"] != "now" and not _IN.fullmatch(str(one["when"])):
            problems.append(f"jobs[{number}].when is {one['when']!r}: write `now`, or as in `in 20 seconds`")
        elif not _is_when(str(one["when"]), job["run_at"], now):
            problems.append(f"jobs[{number}].run_at is {job['run_at']!r}, {one['when']!r} was expected")


def _is_when(when: str, run_at: str | None, now: str | None) -> bool:
    if when == "now" or run_at is None:
        return when == "now" and run_at is None
    _, amount, unit = when.split()
    start = time.time() if now is None else datetime.fromisoformat(now).timestamp()
    due_ms = run_at_ms(["in", float(amount), unit], int(start * 1000))
    assert due_ms is not None
    return abs(datetime.fromisoformat(run_at).timestamp() - due_ms / 1000) <= (0 if now is not None else _WHEN_SECONDS)

"""`meta.jobs` and `meta.metrics`: what an app declares, and what it asks of the host by those names."""

from __future__ import annotations

import pytest

from sandbox.wire import METRIC_KINDS
from tests.unit.sandbox.asking import Asking, call_of, refusal_of, result_of
from tests.unit.sandbox.child import Child

UNITS = ["millisecond", "second", "minute", "hour", "day", "week", "month", "quarter", "year"]


@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        ("mail({'to': 'ada'}).runNow()", ["mail", {"to": "ada"}, None]),
        ("mail({'to': 'ada'}).run_now()", ["mail", {"to": "ada"}, None]),
        ("mail().runNow()", ["mail", None, None]),
        ("mail([1, (2, None)]).runNow()", ["mail", [1, [2, None]], None]),
        ("mail(5).runIn(3, 'minutes')", ["mail", 5, ["in", 3, "minutes"]]),
        ("mail(5).runIn(1.5, 'months')", ["mail", 5, ["in", 1.5, "months"]]),
        ("mail(5).run_in(0.5, 'hour')", ["mail", 5, ["in", 0.5, "hours"]]),
        ("mail(5).runAt('2026-01-31T12:00:00Z')", ["mail", 5, ["at", "2026-01-31T12:00:00+00:00"]]),
        ("mail(5).run_at('2026-01-31T12:00:00+02:00')", ["mail", 5, ["at", "2026-01-31T10:00:00+00:00"]]),
        ("mail(5).runAt('2026-01-31')", ["mail", 5, ["at", "2026-01-31T00:00:00+00:00"]]),
        ("mail(5).runAt(datetime(2026, 1, 31, 12))", ["mail", 5, ["at", "2026-01-31T12:00:00+00:00"]]),
        (
            "mail(5).runAt(datetime(2026, 1, 31, 12, tzinfo=timezone(timedelta(hours=-5))))",
            ["mail", 5, ["at", "2026-01-31T17:00:00+00:00"]],
        ),
    ],
)
def test_a_job_is_handed_to_the_host(call, arguments):
    before = "from datetime import datetime, timedelta, timezone"
    assert call_of(f"await meta.jobs.{call}", before) == ("jobs.enqueue", arguments)


@pytest.mark.parametrize("unit", UNITS)
def test_every_unit_is_known_in_singular_and_plural(unit):
    for name in (unit, f"{unit}s"):
        assert call_of(f"await meta.jobs.mail().runIn(3, '{name}')")[1][2] == ["in", 3, f"{unit}s"]


def test_a_job_is_found_by_item_too():
    assert call_of("await meta.jobs['send all']('x').runNow()") == ("jobs.enqueue", ["send all", "x", None])
    assert call_of("await meta['jobs']['mail']('x').runNow()")[1][0] == "mail"


def test_the_names_of_jobs_are_listed():
    assert result_of("return [list(meta.jobs), 'mail' in meta.jobs, 'x' in meta.jobs, 5 in meta.jobs]") == (
        '[[["mail","send all"],true,false,false]]'
    )
    assert result_of("return [hasattr(meta.jobs, 'mail'), hasattr(meta.jobs, 'x')]") == "[[true,false]]"


def test_a_job_that_is_not_run_asks_nothing():
    assert Asking("meta.jobs.mail({'a': 1})").asked == []


def test_a_payload_is_what_it_was_when_the_job_was_made():
    asking = Asking(
        "p = {'n': 1}\njob = meta.jobs.mail(p)\np['n'] = 2\nawait gather(job.runNow(), job.runIn(1, 'day'))"
    )
    assert [arguments[1] for _, arguments in asking.asked] == [{"n": 1}, {"n": 1}]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("x().runNow()", "AttributeError: the app has no job 'x'; it has 'mail', 'send all'"),
        ("mial", "AttributeError: the app has no job 'mial'; it has"),
        ("mail(1, 2).runNow()", "takes from 0 to 1 positional arguments"),
        ("mail({1, 2})", "jobs.mail: the payload must be JSON: set is not JSON"),
        ("mail({1: 2})", "jobs.mail: the payload must be JSON"),
        ("mail(float('inf'))", "NaN and infinities"),
        ("mail(meta)", "meta is not JSON"),
        ("mail().runIn()", "required positional argument"),
        ("mail().runIn(3)", "required positional argument"),
        ("mail().runIn(3, 'x')", "ValueError: Unknown time unit: xs"),
        ("mail().runIn(3, 'xs')", "ValueError: Unknown time unit: xs"),
        ("mail().runIn(3, 'Minutes')", "ValueError: Unknown time unit: Minutes"),
        ("mail().runIn(3, '')", "ValueError: Unknown time unit: s"),
        ("mail().runIn(3, 5)", "jobs.mail.runIn: unit must be text, not int"),
        ("mail().runIn(3, None)", "jobs.mail.runIn: unit must be text, not NoneType"),
        ("mail().runIn('3', 'minutes')", "jobs.mail.runIn: number must be a number, not str"),
        ("mail().runIn(True, 'minutes')", "number must be a number, not bool"),
        ("mail().runIn(None, 'minutes')", "number must be a number, not NoneType"),
        ("mail().runIn(float('nan'), 'minutes')", "number must be a finite number"),
        ("mail().runIn(-1, 'minutes')", "from now on, and at most 100 years away"),
        ("mail().runIn(101, 'years')", "at most 100 years away"),
        ("mail().runIn(10 ** 400, 'years')", "number must be a number of at most 63 bits"),
        (
            "mail('x' * 1_100_000)",
            "ValueError: jobs.mail: the payload has more than 1048576 bytes: keep it in meta.storage",
        ),
        ("mail().runAt()", "required positional argument"),
        ("mail().runAt('tomorrow')", "jobs.mail.runAt: 'tomorrow' is not ISO 8601 text"),
        ("mail().runAt('2026-13-01')", "is not ISO 8601 text"),
        ("mail().runAt('')", "is not ISO 8601 text"),
        ("mail().runAt(1769860800)", "takes a datetime or ISO 8601 text, not int"),
        ("mail().runAt(None)", "takes a datetime or ISO 8601 text, not NoneType"),
        ("mail().runAt('0001-01-01T00:00:00+05:00')", "before the year 1"),
        ("mail().runAt('9999-12-31T23:59:59-05:00')", "after the year 9999"),
    ],
)
def test_what_is_wrong_with_a_job_is_said_at_once(call, message):
    assert message in refusal_of(f"await meta.jobs.{call}")


@pytest.mark.parametrize("key", ["'x'", "5", "None", "['mail']", "b'mail'"])
def test_an_item_that_is_no_job_is_a_key_error(key):
    message = refusal_of(f"meta.jobs[{key}]")
    assert message.startswith("KeyError: ")
    assert "'mail', 'send all'" in message


def test_an_app_without_jobs_says_so():
    child = Child("def onEvent(event, meta):\n    meta.jobs.mail()\n")
    child.invoke(1, "onEvent", {})
    assert child.done[0][1][1] == "AttributeError: the app has no job 'mail'; it has none"


def test_an_unknown_job_fails_the_event_of_that_app_alone():
    child = Child("def processEvent(event, meta):\n    meta.jobs.nothing({}).runNow()\n    return event\n")
    child.run(("x", "ada", 1))
    assert "the app has no job 'nothing'" in child.rows[0][7]["failed"][0][2]


# Metrics

DECLARED = "metrics = {'a': 'sum', 'b': 'MAX', 'c': 'Min'}"


def test_metrics_are_told_when_the_app_is_loaded_in_lower_case():
    install = Child(f"{DECLARED}\n").loaded[0]["installs"][0]
    assert (install["metrics"], install["error"]) == ({"a": "sum", "b": "max", "c": "min"}, None)
    assert set(install["metrics"].values()) == set(METRIC_KINDS)


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ("{'a': 'avg'}", "metrics: 'a' must be one of sum, max, min"),
        ("{'a': 'sum', 'b': 5}", "metrics: 'b' must be one of"),
        ("{'a': 'sum', 5: 'sum'}", "a name must be text"),
        ("{'': 'sum'}", "a name must be text"),
        ("{'x' * 101: 'sum'}", "a name must be text of at most 100 characters"),
        ("{str(n): 'sum' for n in range(101)}", "an app has at most 100"),
    ],
)
def test_an_app_with_metrics_of_another_kind_is_not_loaded(metrics, message):
    install = Child(f"metrics = {metrics}\ndef processEvent(event, meta):\n    return event\n").loaded[0]["installs"][0]
    assert install["error"][0] == "app"
    assert message in install["error"][1]
    assert install["metrics"] == {}


@pytest.mark.parametrize("metrics", ["{}", "None", "[]", "{'requests': 0}", "['sum']", "'sum'"])
def test_a_variable_that_happens_to_be_called_metrics_declares_nothing(metrics):
    install = Child(f"metrics = {metrics}\n").loaded[0]["installs"][0]
    assert (install["metrics"], install["error"]) == ({}, None)


@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        ("a.increment(100)", ["a", "increment", 100]),
        ("a.increment(-10)", ["a", "increment", -10]),
        ("b.max(1.5)", ["b", "max", 1.5]),
        ("c.min(0)", ["c", "min", 0]),
    ],
)
def test_a_number_is_handed_to_the_host(call, arguments):
    assert call_of(f"await meta.metrics.{call}", DECLARED) == ("metrics", arguments)
    assert call_of(f"await meta['metrics']['{call[0]}'].{call[2:]}", DECLARED) == ("metrics", arguments)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("a.max(1)", "TypeError: metrics.a.max: the metric is declared as 'sum': call increment(number)"),
        ("b.increment(1)", "TypeError: metrics.b.increment: the metric is declared as 'max': call max(number)"),
        ("c.max(1)", "TypeError: metrics.c.max: the metric is declared as 'min': call min(number)"),
        ("d.increment(1)", "AttributeError: the app has no metric 'd'; it has 'a', 'b', 'c'"),
        ("a.increment('10')", "TypeError: metrics.a.increment: number must be a number, not str"),
        ("a.increment(None)", "number must be a number, not NoneType"),
        ("a.increment(True)", "number must be a number, not bool"),
        ("a.increment(float('inf'))", "number must be a finite number"),
        ("a.increment()", "required positional argument"),
        ("a.average(1)", "AttributeError"),
    ],
)
def test_what_is_wrong_with_a_metric_is_said_at_once(call, message):
    assert message in refusal_of(f"await meta.metrics.{call}", DECLARED)


def test_names_that_attribute_access_treats_with_care_can_be_jobs_and_metrics():
    before = "metrics = {'format': 'sum', 'send': 'sum'}"
    assert call_of("await meta.metrics.format.increment(1)", before)[1][0] == "format"
    child = Child(
        "jobs = {'send': lambda p, m: None, 'format': lambda p, m: None}\n"
        "def onEvent(event, meta):\n    meta.jobs.send(1).runNow()\n    meta.jobs.format(2).runNow()\n"
    )
    child.invoke(1, "onEvent", {})
    assert [call[5][:2] for call in child.calls] == [["send", 1], ["format", 2]]

"""Events as a test writes them, as an app gets them, and as they come back."""

from __future__ import annotations

import pytest

from plugin_server.testing.events import as_given, completed, parent_uuid, project_of, values_of

BARE = {"event": "x"}


def test_the_chain_gets_whole_events_and_gives_back_what_was_given():
    whole = completed(BARE, 7, 0.0)
    assert {**whole, "uuid": "u"} == {
        "event": "x",
        "uuid": "u",
        "distinct_id": "distinct id",
        "now": "1970-01-01T00:00:00.000Z",
        "team_id": 7,
        "properties": {},
    }
    assert as_given(whole, BARE) == BARE
    assert as_given(whole | {"properties": {"n": 1}}, BARE) == BARE | {"properties": {"n": 1}}
    assert as_given(whole | {"distinct_id": "changed"}, BARE) == BARE | {"distinct_id": "changed"}


def test_stamps_that_only_the_server_sets_are_taken_off():
    assert completed({"properties": {"$plugins_failed": ["x"], "n": 1}}, 1, 0.0)["properties"] == {"n": 1}


def test_other_hooks_get_copies_of_what_was_given():
    event = {"event": "x", "properties": {"n": []}}
    (copied,) = values_of("onEvent", [event], None)
    assert copied == event
    assert copied["properties"]["n"] is not event["properties"]["n"]
    assert values_of("exportEvents", [[BARE, BARE]], 7) == [[BARE | {"team_id": 7}] * 2]
    assert values_of("jobs.work", [{"team_id": 1}], 7) == [{"team_id": 1}]
    assert values_of("runEveryMinute", [], 7) == []


@pytest.mark.parametrize(("hook", "value"), [("onEvent", "x"), ("exportEvents", [1]), ("composeWebhook", None)])
def test_what_is_no_event_is_the_tests_mistake(hook, value):
    with pytest.raises(TypeError, match="an event is a dict"):
        values_of(hook, [value], None)


def test_what_a_hook_is_called_for_is_the_first_event_or_nothing():
    assert parent_uuid("onEvent", [{"uuid": "u"}]) == "u"
    assert parent_uuid("exportEvents", [[{"uuid": "u"}, {"uuid": "v"}]]) == "u"
    assert len(parent_uuid("onEvent", [BARE]) or "") == 36
    assert parent_uuid("jobs.work", [{"uuid": "u"}]) is None
    assert project_of("onEvent", [{"team_id": 5}], 1) == 5
    assert project_of("exportEvents", [[]], 1) == project_of("runEveryDay", [], 1) == 1

"""Messages of the output topic, field by field."""

from __future__ import annotations

import datetime as dt
import uuid

import orjson
from hypothesis import given
from hypothesis import strategies as st

from plugin_server.outputs.events import clickhouse_time, compose_event, person_id
from plugin_server.outputs.topics import make_topics

NAMESPACE = uuid.UUID("932979b4-65c3-4424-8467-0b66ec27bc22")
UUID = "018f0000-0000-7000-8000-000000000001"


@given(st.integers(1, 2**31 - 1), st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=30))
def test_a_person_has_the_id_that_posthog_gives(team, distinct_id):
    assert person_id(team, distinct_id) == str(uuid.uuid5(NAMESPACE, f"{team}:{distinct_id}"))


def compose(*, historical: bool = False) -> dict[str, object]:
    return orjson.loads(
        compose_event(
            "x",
            "ada",
            "2026-01-01 00:00:00.000",
            "a:b",
            '{"a":"\\"é"}',
            uuid=UUID,
            project_id=2,
            created_at="2026-01-01 00:00:01.000",
            captured_at="2026-01-01T00:00:00Z",
            historical_migration=historical,
        )
    )


def test_an_event_has_the_fields_that_clickhouse_reads():
    assert compose() == {
        "uuid": UUID,
        "event": "x",
        "properties": '{"a":"\\"é"}',
        "timestamp": "2026-01-01 00:00:00.000",
        "team_id": 2,
        "project_id": 2,
        "distinct_id": "ada",
        "elements_chain": "a:b",
        "created_at": "2026-01-01 00:00:01.000",
        "captured_at": "2026-01-01T00:00:00Z",
        "person_id": str(uuid.uuid5(NAMESPACE, "2:ada")),
        "person_created_at": "1970-01-01 00:00:05",
        "person_properties": "{}",
        "person_mode": "propertyless",
    }


def test_a_historical_migration_is_marked():
    assert compose(historical=True)["historical_migration"] is True


def test_times_are_utc_with_milliseconds():
    zone = dt.timezone(dt.timedelta(hours=2))
    assert clickhouse_time(dt.datetime(2026, 1, 1, 1, 2, 3, 456_789, zone)) == "2025-12-31 23:02:03.456"
    assert clickhouse_time(dt.datetime(2026, 1, 1, tzinfo=dt.UTC)) == "2026-01-01 00:00:00.000"


def test_topics_have_the_prefix():
    topics = make_topics("eu_")
    assert topics.events == "eu_clickhouse_events_json"
    assert len(set(topics.all)) == 6
    assert all(topic.startswith("eu_") for topic in topics.all)

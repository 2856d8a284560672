"""Tables, as SQLAlchemy Core. Times are milliseconds since the epoch, names carry the unit."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, LargeBinary, MetaData, Table, Text, false

metadata = MetaData()

# The embedded event log. A record's place in its partition is handed out by `log_partitions.next_offset`, which
# outlives the records, so that an offset never comes twice, not even after all records were pruned.
log_partitions = Table(
    "log_partitions",
    metadata,
    Column("topic", Text, primary_key=True),
    Column("partition", Integer, primary_key=True),
    Column("next_offset", BigInteger, nullable=False),
)

log_records = Table(
    "log_records",
    metadata,
    Column("topic", Text, primary_key=True),
    Column("partition", Integer, primary_key=True),
    Column("offset", BigInteger, primary_key=True, autoincrement=False),
    Column("key", LargeBinary),
    Column("value", LargeBinary),
    Column("headers", LargeBinary),
    Column("timestamp_ms", BigInteger, nullable=False),
)

# Who owns a lane (the latest epoch does), and for the embedded log what it has finished; Kafka keeps that itself.
lanes = Table(
    "lanes",
    metadata,
    Column("group", Text, primary_key=True),
    Column("topic", Text, primary_key=True),
    Column("partition", Integer, primary_key=True),
    Column("epoch", BigInteger, nullable=False),
    Column("next", BigInteger, nullable=False, server_default="0"),
    Column("done", Text, nullable=False, server_default=""),
)

LOG_TABLES = [log_partitions, log_records, lanes]

# Effects. The epoch fences the database against a lane's previous owner, as the transactional id fences Kafka; a table of
# its own, since on the embedded log `lanes` has an epoch already, which the log draws.
lane_epochs = Table(
    "lane_epochs",
    metadata,
    Column("group", Text, primary_key=True),
    Column("topic", Text, primary_key=True),
    Column("partition", Integer, primary_key=True),
    Column("epoch", BigInteger, nullable=False),
)

# What an event with effects in the database left behind: a replay emits it instead of running the event again.
recorded_results = Table(
    "recorded_results",
    metadata,
    Column("group", Text, primary_key=True),
    Column("topic", Text, primary_key=True),
    Column("partition", Integer, primary_key=True),
    Column("offset", BigInteger, primary_key=True, autoincrement=False),
    Column("records", LargeBinary, nullable=False),
)

# Deliveries of a lane that left effects: a replay of their event does not call these hooks of these installs again.
delivered = Table(
    "delivered",
    metadata,
    Column("group", Text, primary_key=True),
    Column("topic", Text, primary_key=True),
    Column("partition", Integer, primary_key=True),
    Column("offset", BigInteger, primary_key=True, autoincrement=False),
    Column("install_id", BigInteger, primary_key=True, autoincrement=False),
    Column("hook", Text, primary_key=True),
)

# Records that a finished job or delivery left, until they are in the event log.
outbox = Table(
    "outbox",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("topic", Text, nullable=False),
    Column("key", LargeBinary),
    Column("value", LargeBinary, nullable=False),
    Column("headers", LargeBinary),
)

# `meta.storage`: JSON by key. `version` is a random number, drawn anew with each write, so that no state comes back.
storage = Table(
    "storage",
    metadata,
    Column("install_id", BigInteger, primary_key=True, autoincrement=False),
    Column("key", Text, primary_key=True),
    Column("value", LargeBinary, nullable=False),
    Column("version", BigInteger, nullable=False),
)

# `meta.cache` without Redis. `scope` says whose it is; `value` is JSON.
cache = Table(
    "cache",
    metadata,
    Column("scope", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("value", LargeBinary, nullable=False),
    Column("expires_at_ms", BigInteger, index=True),
)

# Jobs that wait, run, or died. `claimed_until_ms` is a lease: after it, whoever comes takes the job over.
jobs = Table(
    "jobs",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project_id", BigInteger, nullable=False),
    Column("install_id", BigInteger, nullable=False),
    Column("name", Text, nullable=False),
    Column("payload", LargeBinary, nullable=False),
    Column("state", Text, nullable=False),  # waiting | dead
    Column("run_at_ms", BigInteger, nullable=False),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("claimed_by", Text),
    Column("claimed_until_ms", BigInteger, nullable=False, server_default="0"),
    Column("lineage", LargeBinary),  # as in the header; NULL where captures are new roots
    Column("share", BigInteger, nullable=False, server_default="0"),
    Column("link", BigInteger, nullable=False, server_default="0"),  # place in its chain of tail jobs
    Column("error", Text),
    Column("created_at_ms", BigInteger, nullable=False),
    Index("jobs_due", "state", "run_at_ms"),
    Index("jobs_of_install", "install_id", "state", "run_at_ms"),
)

# When each schedule (runEveryMinute, …) of an install runs next.
schedules = Table(
    "schedules",
    metadata,
    Column("install_id", BigInteger, primary_key=True, autoincrement=False),
    Column("task", Text, primary_key=True),
    Column("project_id", BigInteger, nullable=False),
    Column("next_run_at_ms", BigInteger, nullable=False, index=True),
    Column("claimed_by", Text),
    Column("claimed_until_ms", BigInteger, nullable=False, server_default="0"),
)

# Deliveries that wait to be tried again. `source` names the event's record in ingestion (the first one's of a batch), so
# that a replay parks nothing twice; `body` is what the hook is given, as JSON, with what its captures descend from.
parked = Table(
    "parked",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project_id", BigInteger, nullable=False),
    Column("install_id", BigInteger, nullable=False),
    Column("hook", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("events", Integer, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("next_try_at_ms", BigInteger, nullable=False),
    Column("claimed_by", Text),
    Column("claimed_until_ms", BigInteger, nullable=False, server_default="0"),
    Column("error", Text, nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    Index("parked_due", "install_id", "next_try_at_ms"),
)

# Annotations, as PostHog's API has them.
project_annotations = Table(  # `annotations` is taken by the import from __future__
    "annotations",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("project_id", BigInteger, nullable=False, index=True),
    Column("content", Text),
    Column("scope", Text, nullable=False),
    Column("creation_type", Text, nullable=False),
    Column("date_marker_ms", BigInteger),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("updated_at_ms", BigInteger, nullable=False),
    Column("deleted", Boolean, nullable=False, server_default=false()),
    Column("idempotency_key", Text),  # of the request that made it; NULL where it had none
    Index("annotations_made_once", "project_id", "idempotency_key", unique=True),
)

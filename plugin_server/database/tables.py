"""Tables, as SQLAlchemy Core. Times are milliseconds since the epoch, names carry the unit."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Integer, LargeBinary, MetaData, Table, Text

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

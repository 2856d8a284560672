"""The embedded event log, which earlier versions made themselves: where its tables are, they stay."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """See above."""
    op.create_table(
        "log_partitions",
        sa.Column("topic", sa.Text, primary_key=True),
        sa.Column("partition", sa.Integer, primary_key=True),
        sa.Column("next_offset", sa.BigInteger, nullable=False),
        if_not_exists=True,
    )
    op.create_table(
        "log_records",
        sa.Column("topic", sa.Text, primary_key=True),
        sa.Column("partition", sa.Integer, primary_key=True),
        sa.Column("offset", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("key", sa.LargeBinary),
        sa.Column("value", sa.LargeBinary),
        sa.Column("headers", sa.LargeBinary),
        sa.Column("timestamp_ms", sa.BigInteger, nullable=False),
        if_not_exists=True,
    )
    op.create_table(
        "lanes",
        sa.Column("group", sa.Text, primary_key=True),
        sa.Column("topic", sa.Text, primary_key=True),
        sa.Column("partition", sa.Integer, primary_key=True),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("next", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("done", sa.Text, nullable=False, server_default=""),
        if_not_exists=True,
    )

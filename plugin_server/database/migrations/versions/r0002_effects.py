"""What apps leave behind: storage, cache, jobs, schedules, parked deliveries, annotations, and how a crash is survived."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """See above."""
    op.create_table(
        "lane_epochs",
        sa.Column("group", sa.Text, primary_key=True),
        sa.Column("topic", sa.Text, primary_key=True),
        sa.Column("partition", sa.Integer, primary_key=True),
        sa.Column("epoch", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "recorded_results",
        sa.Column("group", sa.Text, primary_key=True),
        sa.Column("topic", sa.Text, primary_key=True),
        sa.Column("partition", sa.Integer, primary_key=True),
        sa.Column("offset", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("records", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "delivered",
        sa.Column("group", sa.Text, primary_key=True),
        sa.Column("topic", sa.Text, primary_key=True),
        sa.Column("partition", sa.Integer, primary_key=True),
        sa.Column("offset", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("install_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("hook", sa.Text, primary_key=True),
    )
    op.create_table(
        "outbox",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("topic", sa.Text, nullable=False),
        sa.Column("key", sa.LargeBinary),
        sa.Column("value", sa.LargeBinary, nullable=False),
        sa.Column("headers", sa.LargeBinary),
    )
    op.create_table(
        "storage",
        sa.Column("install_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("value", sa.LargeBinary, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "cache",
        sa.Column("scope", sa.Text, primary_key=True),
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("value", sa.LargeBinary, nullable=False),
        sa.Column("expires_at_ms", sa.BigInteger),
    )
    op.create_index("ix_cache_expires_at_ms", "cache", ["expires_at_ms"])
    op.create_table(
        "jobs",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("project_id", sa.BigInteger, nullable=False),
        sa.Column("install_id", sa.BigInteger, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("payload", sa.LargeBinary, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("run_at_ms", sa.BigInteger, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
        sa.Column("claimed_by", sa.Text),
        sa.Column("claimed_until_ms", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("lineage", sa.LargeBinary),
        sa.Column("share", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("link", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("error", sa.Text),
        sa.Column("created_at_ms", sa.BigInteger, nullable=False),
    )
    op.create_index("jobs_of_install", "jobs", ["install_id", "state", "run_at_ms"])
    op.create_index("jobs_due", "jobs", ["state", "run_at_ms"])
    op.create_table(
        "schedules",
        sa.Column("install_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("task", sa.Text, primary_key=True),
        sa.Column("project_id", sa.BigInteger, nullable=False),
        sa.Column("next_run_at_ms", sa.BigInteger, nullable=False),
        sa.Column("claimed_by", sa.Text),
        sa.Column("claimed_until_ms", sa.BigInteger, nullable=False, server_default="0"),
    )
    op.create_index("ix_schedules_next_run_at_ms", "schedules", ["next_run_at_ms"])
    op.create_table(
        "parked",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("project_id", sa.BigInteger, nullable=False),
        sa.Column("install_id", sa.BigInteger, nullable=False),
        sa.Column("hook", sa.Text, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("events", sa.Integer, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("next_try_at_ms", sa.BigInteger, nullable=False),
        sa.Column("claimed_by", sa.Text),
        sa.Column("claimed_until_ms", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("error", sa.Text, nullable=False),
        sa.Column("created_at_ms", sa.BigInteger, nullable=False),
    )
    op.create_index("parked_due", "parked", ["install_id", "next_try_at_ms"])
    op.create_table(
        "annotations",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("project_id", sa.BigInteger, nullable=False),
        sa.Column("content", sa.Text),
        sa.Column("scope", sa.Text, nullable=False),
        sa.Column("creation_type", sa.Text, nullable=False),
        sa.Column("date_marker_ms", sa.BigInteger),
        sa.Column("created_at_ms", sa.BigInteger, nullable=False),
        sa.Column("updated_at_ms", sa.BigInteger, nullable=False),
        sa.Column("deleted", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("idempotency_key", sa.Text),
    )
    op.create_index("ix_annotations_project_id", "annotations", ["project_id"])
    op.create_index("annotations_made_once", "annotations", ["project_id", "idempotency_key"], unique=True)

"""Adds the workers that are there and what jobs need of them, so that a job goes to a worker that can run it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006_workers"
down_revision = "0005_batches"
branch_labels = None
depends_on = None

DOCUMENT = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Makes the table and adds two columns that earlier versions leave empty: such jobs go anywhere."""
    op.create_table(
        "workers",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("hostname", sa.Text, nullable=False),
        sa.Column("pid", sa.Integer, nullable=False),
        sa.Column("engine_version", sa.Text, nullable=False),
        sa.Column("device", sa.Text, nullable=False),
        sa.Column("device_name", sa.Text, nullable=False),
        sa.Column("memory_bytes", sa.BigInteger, nullable=False),
        sa.Column("slots", sa.Integer, nullable=False),
        sa.Column("queue_classes", DOCUMENT, nullable=False),
        sa.Column("registered_at", TIME, nullable=False),
        sa.Column("heartbeat_at", TIME, nullable=False),
        sa.Column("drain_requested_at", TIME),
        sa.CheckConstraint("slots >= 1 AND memory_bytes > 0", name="ck_workers_room"),
    )
    op.add_column("jobs", sa.Column("needed_device", sa.Text))
    op.add_column("jobs", sa.Column("needed_memory_bytes", sa.BigInteger))


def downgrade() -> None:
    """Removes both."""
    op.drop_column("jobs", "needed_memory_bytes")
    op.drop_column("jobs", "needed_device")
    op.drop_table("workers")

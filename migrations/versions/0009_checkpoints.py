"""Adds the finished blocks of jobs under way that lie in the object store, for a worker on another machine."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0009_checkpoints"
down_revision = "0008_turns"
branch_labels = None
depends_on = None

DOCUMENT = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    """Makes the table."""
    op.create_table(
        "checkpoints",
        sa.Column("job_id", sa.Text, sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("block", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("fingerprint", sa.Text, nullable=False),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("record", DOCUMENT, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("block >= 0 AND size_bytes >= 0", name="ck_checkpoints_counts"),
        sa.CheckConstraint("length(sha256) = 64", name="ck_checkpoints_sha256"),
    )
    op.create_index("ix_checkpoints_sha256", "checkpoints", ["sha256"])


def downgrade() -> None:
    """Removes the table; jobs under way go on from what their own worker has, and the sweep frees the bytes."""
    op.drop_table("checkpoints")

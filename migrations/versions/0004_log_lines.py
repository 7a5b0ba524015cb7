"""Adds the newest log lines of each attempt, so that a user sees them without access to the worker's machine."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004_log_lines"
down_revision = "0003_event_positions"
branch_labels = None
depends_on = None

DOCUMENT = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")


def upgrade() -> None:
    """Makes the table."""
    op.create_table(
        "log_lines",
        sa.Column("job_id", sa.Text, sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("attempt", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("level", sa.Text, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("fields", DOCUMENT, nullable=False),
        sa.CheckConstraint("attempt >= 1 AND number >= 1", name="ck_log_lines_number"),
        sa.CheckConstraint("level IN ('info', 'warning', 'error')", name="ck_log_lines_level"),
        sa.CheckConstraint("source IN ('worker', 'child')", name="ck_log_lines_source"),
    )


def downgrade() -> None:
    """Removes the lines."""
    op.drop_table("log_lines")

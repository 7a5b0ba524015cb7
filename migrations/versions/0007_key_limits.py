"""Adds what a key may take, and the sessions that browsers open with keys."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007_key_limits"
down_revision = "0006_workers"
branch_labels = None
depends_on = None

LIMITS = ("max_jobs_in_flight", "max_stored_bytes", "max_calibration_bytes", "max_requests_per_minute")
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Makes the table and the columns; keys that are there have no limits."""
    for name in LIMITS:
        op.add_column("api_keys", sa.Column(name, sa.BigInteger))
    op.create_table(
        "sessions",
        sa.Column("token_sha256", sa.Text, primary_key=True),
        sa.Column("key_id", sa.Text, sa.ForeignKey("api_keys.id", ondelete="CASCADE"), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("expires_at", TIME, nullable=False),
        sa.CheckConstraint("length(token_sha256) = 64", name="ck_sessions_token"),
    )
    op.create_index("ix_sessions_key", "sessions", ["key_id"])
    op.create_index("ix_sessions_expires", "sessions", ["expires_at"])


def downgrade() -> None:
    """Removes both; browsers sign in again."""
    op.drop_table("sessions")
    for name in reversed(LIMITS):
        op.drop_column("api_keys", name)

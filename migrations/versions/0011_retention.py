"""Adds how long files and texts are kept, and the hub tokens of owners."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011_retention"
down_revision = "0010_webhooks"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Adds the columns and the table; what is there has no time and no pin."""
    for table in ("jobs", "calibration_sets"):
        op.add_column(table, sa.Column("pinned", sa.Boolean, nullable=False, server_default=sa.false()))
        op.add_column(table, sa.Column("expires_at", TIME))
    op.add_column("jobs", sa.Column("expiry_warned_at", TIME))
    op.create_table(
        "hub_tokens",
        sa.Column("owner_key_id", sa.Text, primary_key=True),
        sa.Column("token_sealed", sa.Text, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
    )


def downgrade() -> None:
    """Removes them; everything is kept."""
    op.drop_table("hub_tokens")
    op.drop_column("jobs", "expiry_warned_at")
    for table in ("calibration_sets", "jobs"):
        op.drop_column(table, "expires_at")
        op.drop_column(table, "pinned")

"""Adds when each owner was last given a worker, by queue class: owners take turns, however much one of them submits."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008_turns"
down_revision = "0007_key_limits"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Makes the table; nobody has had a turn yet."""
    op.create_table(
        "turns",
        sa.Column("owner_key_id", sa.Text, primary_key=True),
        sa.Column("queue_class", sa.Text, primary_key=True),
        sa.Column("claimed_at", sa.DateTime(timezone=True), nullable=False),
    )


def downgrade() -> None:
    """Removes the table: the oldest job goes first again."""
    op.drop_table("turns")

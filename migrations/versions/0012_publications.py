"""Adds publications: artifacts on their way to a repository of the model hub."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012_publications"
down_revision = "0011_retention"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Makes the table."""
    op.create_table(
        "publications",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("job_id", sa.Text, sa.ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
        sa.Column("owner_key_id", sa.Text, nullable=False),
        sa.Column("repo", sa.Text, nullable=False),
        sa.Column("private", sa.Boolean, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("commit", sa.Text),
        sa.Column("error", sa.Text),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("next_attempt_at", TIME),
        sa.Column("finished_at", TIME),
        sa.CheckConstraint("state IN ('pending', 'published', 'failed')", name="ck_publications_state"),
        sa.CheckConstraint("(state = 'pending') = (next_attempt_at IS NOT NULL)", name="ck_publications_next"),
    )
    op.create_index("ix_publications_job", "publications", ["job_id", "created_at"])
    op.create_index("ix_publications_due", "publications", ["next_attempt_at"])


def downgrade() -> None:
    """Removes the table; what is on the hub stays there."""
    op.drop_table("publications")

"""Adds the time at which a job fails unless it is over by then."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013_deadlines"
down_revision = "0012_publications"
branch_labels = None
depends_on = None

DUE = sa.text("deadline_at IS NOT NULL AND finished_at IS NULL")


def upgrade() -> None:
    """Adds the columns; jobs that are there have no deadline."""
    op.add_column("jobs", sa.Column("deadline_seconds", sa.Integer))
    op.add_column("jobs", sa.Column("deadline_at", sa.DateTime(timezone=True)))
    op.create_index("ix_jobs_deadline", "jobs", ["deadline_at"], postgresql_where=DUE, sqlite_where=DUE)


def downgrade() -> None:
    """Removes them; jobs under way have all the time they need."""
    op.drop_index("ix_jobs_deadline", "jobs")
    op.drop_column("jobs", "deadline_at")
    op.drop_column("jobs", "deadline_seconds")

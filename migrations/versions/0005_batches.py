"""Adds batches: jobs that were submitted together, models by configs, and are compared with each other."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005_batches"
down_revision = "0004_log_lines"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Makes both tables."""
    op.create_table(
        "batches",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("owner_key_id", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("idempotency_key", sa.Text),
        sa.Column("request_sha256", sa.Text),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.UniqueConstraint("owner_key_id", "idempotency_key", name="uq_batches_owner_idempotency_key"),
        sa.CheckConstraint("idempotency_key IS NULL OR request_sha256 IS NOT NULL", name="ck_batches_idempotency"),
    )
    op.create_table(
        "batch_jobs",
        sa.Column("batch_id", sa.Text, sa.ForeignKey("batches.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("model_index", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("config_index", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("job_id", sa.Text, sa.ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
        sa.UniqueConstraint("job_id", name="uq_batch_jobs_job"),
        sa.CheckConstraint("model_index >= 0 AND config_index >= 0", name="ck_batch_jobs_place"),
    )


def downgrade() -> None:
    """Removes both; the jobs stay."""
    op.drop_table("batch_jobs")
    op.drop_table("batches")

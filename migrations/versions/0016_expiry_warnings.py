"""Adds the warning before texts and models go, and the webhooks that are told of it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0016_expiry_warnings"
down_revision = "0015_uploaded_models"
branch_labels = None
depends_on = None

DOCUMENT = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")


def upgrade() -> None:
    """Adds the columns; what has a time is warned of before it goes, whatever the time says."""
    for table in ("calibration_sets", "uploaded_models"):
        op.add_column(table, sa.Column("expiry_warned_at", sa.DateTime(timezone=True)))
    op.add_column("webhooks", sa.Column("notices", DOCUMENT, nullable=False, server_default=sa.text("'[]'")))


def downgrade() -> None:
    """Removes them; texts and models go without a word, as before."""
    op.drop_column("webhooks", "notices")
    for table in ("uploaded_models", "calibration_sets"):
        op.drop_column(table, "expiry_warned_at")

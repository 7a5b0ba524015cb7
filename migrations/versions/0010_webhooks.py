"""Adds webhooks and the outbox of what they are to be told."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0010_webhooks"
down_revision = "0009_checkpoints"
branch_labels = None
depends_on = None

DOCUMENT = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")
TIME = sa.DateTime(timezone=True)
PENDING = sa.text("state = 'pending'")


def upgrade() -> None:
    """Makes both tables."""
    op.create_table(
        "webhooks",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("owner_key_id", sa.Text, nullable=False),
        sa.Column("all_owners", sa.Boolean, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("kinds", DOCUMENT, nullable=False),
        sa.Column("secret_sealed", sa.Text, nullable=False),
        sa.Column("enabled", sa.Boolean, nullable=False),
        sa.Column("disabled_reason", sa.Text, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("place_position", sa.BigInteger, nullable=False),
        sa.Column("place_job_id", sa.Text, nullable=False),
        sa.Column("place_seq", sa.BigInteger, nullable=False),
    )
    op.create_index("ix_webhooks_owner", "webhooks", ["owner_key_id", "created_at"])
    op.create_table(
        "webhook_deliveries",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("webhook_id", sa.Text, sa.ForeignKey("webhooks.id", ondelete="CASCADE"), nullable=False),
        sa.Column("job_id", sa.Text),
        sa.Column("seq", sa.BigInteger),
        sa.Column("body", DOCUMENT, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("status_code", sa.Integer),
        sa.Column("error", sa.Text),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("last_attempt_at", TIME),
        sa.Column("next_attempt_at", TIME),
        sa.UniqueConstraint("webhook_id", "job_id", "seq", name="uq_webhook_deliveries_event"),
        sa.CheckConstraint("state IN ('pending', 'delivered', 'failed')", name="ck_webhook_deliveries_state"),
        sa.CheckConstraint("(state = 'pending') = (next_attempt_at IS NOT NULL)", name="ck_webhook_deliveries_next"),
    )
    op.create_index("ix_webhook_deliveries_newest", "webhook_deliveries", ["webhook_id", "created_at", "id"])
    op.create_index(
        "ix_webhook_deliveries_due",
        "webhook_deliveries",
        ["next_attempt_at"],
        postgresql_where=PENDING,
        sqlite_where=PENDING,
    )


def downgrade() -> None:
    """Removes both; what was not sent is lost."""
    op.drop_table("webhook_deliveries")
    op.drop_table("webhooks")

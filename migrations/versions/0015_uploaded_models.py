"""Adds models that were uploaded as archives: a row each and one per file, the jobs on them, a quota of their bytes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015_uploaded_models"
down_revision = "0014_list_filters"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Makes the tables; a job that is there is on no uploaded model."""
    op.create_table(
        "uploaded_models",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("owner_key_id", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("model_type", sa.Text, nullable=False),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("pinned", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("expires_at", TIME),
        sa.UniqueConstraint("owner_key_id", "sha256", name="uq_uploaded_models_owner_sha256"),
        sa.CheckConstraint("length(sha256) = 64", name="ck_uploaded_models_sha256"),
        sa.CheckConstraint("size_bytes >= 0", name="ck_uploaded_models_size"),
    )
    op.create_table(
        "model_files",
        sa.Column("model_id", sa.Text, sa.ForeignKey("uploaded_models.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.CheckConstraint("length(sha256) = 64", name="ck_model_files_sha256"),
        sa.CheckConstraint("size_bytes >= 0", name="ck_model_files_size"),
        # It becomes a file of this name on workers, in a folder that it must not leave.
        sa.CheckConstraint("name <> '' AND name NOT LIKE '.%' AND name NOT LIKE '%/%'", name="ck_model_files_name"),
    )
    op.create_index("ix_model_files_sha256", "model_files", ["sha256"])
    # Alembic would add the key in a statement of its own, which SQLite does not have; both read this one.
    op.execute("ALTER TABLE jobs ADD COLUMN uploaded_model_id TEXT REFERENCES uploaded_models (id)")
    op.add_column("api_keys", sa.Column("max_model_bytes", sa.BigInteger))


def downgrade() -> None:
    """Removes them; the blobs go with the next sweep."""
    op.drop_column("api_keys", "max_model_bytes")
    op.drop_column("jobs", "uploaded_model_id")
    op.drop_table("model_files")
    op.drop_table("uploaded_models")

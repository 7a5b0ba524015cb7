"""Adds an index for each filter of the list of jobs, for those who see every owner's and, by method, for each owner."""

from __future__ import annotations

from alembic import op

revision = "0014_list_filters"
down_revision = "0013_deadlines"
branch_labels = None
depends_on = None

INDEXES = {
    "ix_jobs_state_created": ("state",),
    "ix_jobs_model_created": ("model",),
    "ix_jobs_method_created": ("method",),
    "ix_jobs_owner_method_created": ("owner_key_id", "method"),
}


def upgrade() -> None:
    """Reads the table once for each."""
    for name, columns in INDEXES.items():
        op.create_index(name, "jobs", [*columns, "created_at", "id"])


def downgrade() -> None:
    """Removes them; a list by a rare value reads the whole table again."""
    for name in INDEXES:
        op.drop_index(name, "jobs")

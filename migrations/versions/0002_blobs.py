"""Adds a row per blob of the object store: the sweep locks it while it removes the bytes, an upload while it counts
on them. Blobs that rows refer to already are entered as reserved now.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002_blobs"
down_revision = "0001_jobs"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)
# SQLite keeps times as text, in the width that store.tables.UtcDateTime writes.
NOW = {"sqlite": "strftime('%Y-%m-%d %H:%M:%f000', 'now')", "postgresql": "statement_timestamp()"}


def upgrade() -> None:
    """Makes the table and fills it."""
    op.create_table(
        "blobs",
        sa.Column("sha256", sa.Text, primary_key=True),
        sa.Column("reserved_at", TIME, nullable=False),
        sa.CheckConstraint("length(sha256) = 64", name="ck_blobs_sha256"),
    )
    op.create_index("ix_blobs_reserved", "blobs", ["reserved_at"])
    now = NOW[op.get_bind().dialect.name]
    known = "SELECT sha256 FROM artifacts UNION SELECT sha256 FROM calibration_sets"
    op.execute(f"INSERT INTO blobs (sha256, reserved_at) SELECT sha256, {now} FROM ({known}) AS known")  # noqa: S608 - the constants above
    # What the sweep asks for each blob: does a calibration set hold it? Artifacts have such an index already.
    op.create_index("ix_calibration_sets_sha256", "calibration_sets", ["sha256"])


def downgrade() -> None:
    """Removes the table; the blobs themselves stay."""
    op.drop_index("ix_calibration_sets_sha256", "calibration_sets")
    op.drop_table("blobs")

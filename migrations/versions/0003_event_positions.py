"""Gives events of all jobs one order that a reader can follow: a position that never falls behind what it has read.

On PostgreSQL it is the number of the writing transaction: everything below the oldest open one is final. SQLite has one
writer at a time, and a trigger counts. Rows written by code that knows no position get one too.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003_event_positions"
down_revision = "0002_blobs"
branch_labels = None
depends_on = None

TRIGGER = """
CREATE TRIGGER tr_events_position AFTER INSERT ON events BEGIN
    UPDATE event_clock SET position = position + 1;
    UPDATE events SET position = (SELECT position FROM event_clock) WHERE job_id = NEW.job_id AND seq = NEW.seq;
END
"""


def _on_sqlite() -> bool:
    return op.get_bind().dialect.name == "sqlite"


def upgrade() -> None:
    """Adds the column; the events of before come first, in the order of their jobs."""
    # Written on SQLite alone, where the largest position that exists would fall when a job is deleted.
    clock = op.create_table("event_clock", sa.Column("position", sa.BigInteger, nullable=False))
    op.bulk_insert(clock, [{"position": 0}])
    default = "0" if _on_sqlite() else "pg_current_xact_id()::text::bigint"
    op.add_column("events", sa.Column("position", sa.BigInteger, nullable=False, server_default=sa.text(default)))
    op.create_index("ix_events_position", "events", ["position", "job_id", "seq"])
    if _on_sqlite():
        op.execute(TRIGGER)


def downgrade() -> None:
    """Removes the order; the events stay."""
    if _on_sqlite():
        op.execute("DROP TRIGGER tr_events_position")
    op.drop_index("ix_events_position", "events")
    op.drop_column("events", "position")
    op.drop_table("event_clock")

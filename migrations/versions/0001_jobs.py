"""Makes the first schema: jobs with their history, calibration sets, artifacts and API keys.

The CHECK constraints refuse rows that no transition of `store.jobs.TRANSITIONS` could have made.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001_jobs"
down_revision = None
branch_labels = None
depends_on = None

DOCUMENT = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")
REAL: sa.types.TypeEngine[float] = sa.Double().with_variant(sa.Float(), "sqlite")
TIME = sa.DateTime(timezone=True)

HELD = "state IN ('running', 'cancelling')"
TERMINAL = "state IN ('succeeded', 'failed', 'cancelled')"
STAGES = "'preflight', 'downloading', 'calibrating', 'quantizing', 'packing', 'evaluating', 'uploading', 'publishing'"

JOB_CHECKS = {
    "state": f"state IN ('queued', 'running', 'cancelling') OR {TERMINAL}",
    "stage": f"stage IS NULL OR ({HELD} AND stage IN ({STAGES}))",
    # A lease, its holder and a held state come and go together.
    "lease": f"({HELD}) = (lease_expires_at IS NOT NULL)",
    "worker": "(lease_expires_at IS NULL) = (worker_id IS NULL)",
    "held_started": f"NOT ({HELD}) OR (started_at IS NOT NULL AND heartbeat_at IS NOT NULL AND attempt >= 1)",
    "finished": f"({TERMINAL}) = (finished_at IS NOT NULL)",
    "error": "(state = 'failed') = (error IS NOT NULL)",
    "evaluation": "evaluation IS NULL OR state = 'succeeded'",
    "attempt": "attempt >= 0 AND lease_token >= attempt",
    "failures": "failures >= 0 AND failures <= attempt AND failures <= max_attempts",
    "budget": "state NOT IN ('queued', 'running') OR failures < max_attempts",
    "max_attempts": "max_attempts BETWEEN 1 AND 100",
    "fraction": "progress_fraction >= 0 AND progress_fraction <= 1",
    "succeeded": "state <> 'succeeded' OR progress_fraction = 1",
    "blocks": "blocks_done >= 0 AND blocks_done <= blocks_total",
    "counters": "version >= 1 AND event_count >= 1",
    "idempotency": "idempotency_key IS NULL OR request_sha256 IS NOT NULL",
}


def _text(name: str, *, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=nullable)


def _time(name: str, *, nullable: bool = False) -> sa.Column[Any]:
    return sa.Column(name, TIME, nullable=nullable)


def _job_key() -> sa.Column[str]:
    return sa.Column("job_id", sa.Text, sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)


def _check(table: str, name: str, condition: str) -> sa.CheckConstraint:
    return sa.CheckConstraint(condition, name=f"ck_{table}_{name}")


def upgrade() -> None:
    """Makes every table."""
    _create_calibration_sets()
    _create_jobs()
    _create_job_labels()
    _create_attempts()
    _create_events()
    _create_linears()
    _create_artifacts()
    _create_api_keys()


def downgrade() -> None:
    """Removes every table, those that refer to another first."""
    children = ("artifacts", "linears", "events", "attempts", "job_labels")
    for table in (*children, "jobs", "calibration_sets", "api_keys"):
        op.drop_table(table)


def _create_calibration_sets() -> None:
    op.create_table(
        "calibration_sets",
        sa.Column("id", sa.Text, primary_key=True),
        _text("owner_key_id"),
        _text("name"),
        _text("format"),
        _text("sha256"),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("documents", sa.Integer, nullable=False),
        _time("created_at"),
        sa.UniqueConstraint("owner_key_id", "sha256", name="uq_calibration_sets_owner_sha256"),
        _check("calibration_sets", "format", "format IN ('text', 'jsonl')"),
        _check("calibration_sets", "sha256", "length(sha256) = 64"),
        _check("calibration_sets", "sizes", "size_bytes > 0 AND documents > 0"),
    )


def _create_jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", sa.Text, primary_key=True),
        _text("owner_key_id"),
        *_job_state_columns(),
        *_job_request_columns(),
        *_job_progress_columns(),
        sa.UniqueConstraint("owner_key_id", "idempotency_key", name="uq_jobs_owner_idempotency_key"),
        *(_check("jobs", name, condition) for name, condition in JOB_CHECKS.items()),
    )
    op.create_index("ix_jobs_created", "jobs", ["created_at", "id"])
    op.create_index("ix_jobs_owner_created", "jobs", ["owner_key_id", "created_at", "id"])
    op.create_index("ix_jobs_owner_state_created", "jobs", ["owner_key_id", "state", "created_at", "id"])
    op.create_index("ix_jobs_owner_model_created", "jobs", ["owner_key_id", "model", "created_at", "id"])
    queue_order: list[str | sa.TextClause] = ["queue_class", sa.text("priority DESC"), "created_at", "id"]
    _create_partial_index("ix_jobs_queued", queue_order, "state = 'queued'")
    _create_partial_index("ix_jobs_held", ["lease_expires_at"], "lease_expires_at IS NOT NULL")
    _create_partial_index("ix_jobs_owner_held", ["owner_key_id"], "lease_expires_at IS NOT NULL")


def _create_partial_index(name: str, columns: list[str | sa.TextClause], condition: str) -> None:
    where = sa.text(condition)
    op.create_index(name, "jobs", columns, postgresql_where=where, sqlite_where=where)


def _job_state_columns() -> list[sa.Column[Any]]:
    return [
        _text("state"),
        _text("stage", nullable=True),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("max_attempts", sa.Integer, nullable=False),
        sa.Column("lease_token", sa.BigInteger, nullable=False),
        _time("lease_expires_at", nullable=True),
        _text("worker_id", nullable=True),
        sa.Column("error", DOCUMENT),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("event_count", sa.BigInteger, nullable=False),
        _time("created_at"),
        _time("updated_at"),
        _time("available_at"),
        _time("started_at", nullable=True),
        _time("heartbeat_at", nullable=True),
        _time("finished_at", nullable=True),
    ]


def _job_request_columns() -> list[sa.Column[Any]]:
    return [
        sa.Column("spec", DOCUMENT, nullable=False),
        _text("method"),
        _text("model"),
        sa.Column("calibration_set_id", sa.Text, sa.ForeignKey("calibration_sets.id")),
        _text("queue_class"),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("labels", DOCUMENT, nullable=False),
        _text("idempotency_key", nullable=True),
        _text("request_sha256", nullable=True),
    ]


def _job_progress_columns() -> list[sa.Column[Any]]:
    return [
        sa.Column("progress_fraction", REAL, nullable=False),
        sa.Column("blocks_done", sa.Integer, nullable=False),
        sa.Column("blocks_total", sa.Integer, nullable=False),
        _time("eta_at", nullable=True),
        sa.Column("rss_bytes", sa.BigInteger),
        _text("last_linear", nullable=True),
        sa.Column("last_loss", REAL),
        sa.Column("resolved", DOCUMENT, nullable=False),
        sa.Column("evaluation", DOCUMENT),
        sa.Column("warnings", DOCUMENT, nullable=False),
    ]


def _create_job_labels() -> None:
    op.create_table(
        "job_labels",
        _job_key(),
        sa.Column("key", sa.Text, primary_key=True),
        _text("value"),
    )
    op.create_index("ix_job_labels_key_value", "job_labels", ["key", "value", "job_id"])


def _create_attempts() -> None:
    op.create_table(
        "attempts",
        _job_key(),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        _text("worker_id"),
        _time("started_at"),
        _time("ended_at", nullable=True),
        _text("outcome", nullable=True),
        sa.Column("error", DOCUMENT),
        _check("attempts", "number", "number >= 1"),
        _check("attempts", "ended", "(ended_at IS NULL) = (outcome IS NULL)"),
        _check("attempts", "outcome", "outcome IN ('succeeded', 'failed', 'cancelled', 'released', 'lease_lost')"),
    )
    where = sa.text("ended_at IS NULL")
    op.create_index(
        "uq_attempts_one_open", "attempts", ["job_id"], unique=True, postgresql_where=where, sqlite_where=where
    )


def _create_events() -> None:
    op.create_table(
        "events",
        _job_key(),
        sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
        _text("kind"),
        _time("at"),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("payload", DOCUMENT, nullable=False),
        _check("events", "seq", "seq >= 1"),
    )


def _create_linears() -> None:
    op.create_table(
        "linears",
        _job_key(),
        sa.Column("block", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("linear", sa.Text, primary_key=True),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("bits", sa.Integer, nullable=False),
        sa.Column("group_size", sa.Integer, nullable=False),
        sa.Column("loss", REAL),
        sa.Column("relative_loss", REAL),
        sa.Column("tokens", sa.BigInteger, nullable=False),
        sa.Column("damp_percent", REAL),
        sa.Column("seconds", REAL, nullable=False),
        sa.Column("warnings", DOCUMENT, nullable=False),
        _check("linears", "block", "block >= 0 AND attempt >= 1"),
        _check("linears", "measures", "tokens >= 0 AND seconds >= 0"),
    )


def _create_artifacts() -> None:
    op.create_table(
        "artifacts",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("job_id", sa.Text, sa.ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
        _text("name"),
        _text("sha256"),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        _text("media_type"),
        _time("created_at"),
        sa.UniqueConstraint("job_id", "name", name="uq_artifacts_job_name"),
        # The name becomes a path in the archive: it must stay inside.
        _check("artifacts", "name", "name <> '' AND name NOT LIKE '/%' AND name NOT LIKE '%..%'"),
        _check("artifacts", "sha256", "length(sha256) = 64"),
        _check("artifacts", "size", "size_bytes >= 0"),
    )
    op.create_index("ix_artifacts_sha256", "artifacts", ["sha256"])


def _create_api_keys() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Text, primary_key=True),
        _text("name"),
        _text("secret_sha256"),
        sa.Column("scopes", DOCUMENT, nullable=False),
        _time("created_at"),
        _time("expires_at", nullable=True),
        _time("revoked_at", nullable=True),
        _check("api_keys", "secret", "length(secret_sha256) = 64"),
    )

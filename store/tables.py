"""The tables as SQLAlchemy sees them, for SQLite and PostgreSQL. Only `store.repository` and the migration test use it.

The schema itself is made by `migrations/`, by hand; a test compares the two. CHECK constraints are written down in the
migrations alone, since nothing here creates a table.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Double,
    FetchedValue,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    false,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

if TYPE_CHECKING:
    from sqlalchemy.engine import Dialect
    from sqlalchemy.types import TypeEngine


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC time. SQLite stores naive text, always with six digits of a second: it sorts as time does."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuses a naive time: it would be read as some machine's local time."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value!r} carries no time zone")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Returns UTC whatever the connection's time zone is."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if dialect.name == "sqlite" else value.astimezone(UTC)


# none_as_null: a missing object is SQL NULL, which CHECK constraints can see, and never the JSON word null.
Document = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
# SQLite knows no Double that differs from its Float; the word keeps PostgreSQL at eight bytes.
Real: TypeEngine[float] = Double().with_variant(Float(), "sqlite")

metadata = MetaData()


def _text(name: str, *, nullable: bool = False) -> Column[str]:
    return Column(name, Text, nullable=nullable)


def _time(name: str, *, nullable: bool = False) -> Column[datetime]:
    return Column(name, UtcDateTime, nullable=nullable)


def _job_key() -> Column[str]:
    return Column("job_id", Text, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)


calibration_sets = Table(
    "calibration_sets",
    metadata,
    Column("id", Text, primary_key=True),
    _text("owner_key_id"),
    _text("name"),
    _text("format"),
    _text("sha256"),
    Column("size_bytes", BigInteger, nullable=False),
    Column("documents", Integer, nullable=False),
    _time("created_at"),
    Column("pinned", Boolean, nullable=False, server_default=false()),
    _time("expires_at", nullable=True),
    _time("expiry_warned_at", nullable=True),
    UniqueConstraint("owner_key_id", "sha256", name="uq_calibration_sets_owner_sha256"),
    Index("ix_calibration_sets_sha256", "sha256"),
)

uploaded_models = Table(
    "uploaded_models",
    metadata,
    Column("id", Text, primary_key=True),
    _text("owner_key_id"),
    _text("name"),
    _text("model_type"),
    _text("sha256"),
    Column("size_bytes", BigInteger, nullable=False),
    _time("created_at"),
    Column("pinned", Boolean, nullable=False, server_default=false()),
    _time("expires_at", nullable=True),
    _time("expiry_warned_at", nullable=True),
    UniqueConstraint("owner_key_id", "sha256", name="uq_uploaded_models_owner_sha256"),
)

model_files = Table(
    "model_files",
    metadata,
    Column("model_id", Text, ForeignKey("uploaded_models.id", ondelete="CASCADE"), primary_key=True),
    Column("name", Text, primary_key=True),
    _text("sha256"),
    Column("size_bytes", BigInteger, nullable=False),
    Index("ix_model_files_sha256", "sha256"),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", Text, primary_key=True),
    _text("owner_key_id"),
    _text("state"),
    _text("stage", nullable=True),
    Column("spec", Document, nullable=False),
    _text("method"),
    _text("model"),
    Column("resolved", Document, nullable=False),
    Column("evaluation", Document),
    Column("calibration_set_id", Text, ForeignKey("calibration_sets.id")),
    _text("queue_class"),
    _text("needed_device", nullable=True),
    Column("needed_memory_bytes", BigInteger),
    Column("priority", Integer, nullable=False),
    Column("labels", Document, nullable=False),
    _text("idempotency_key", nullable=True),
    _text("request_sha256", nullable=True),
    Column("attempt", Integer, nullable=False),
    Column("failures", Integer, nullable=False),
    Column("max_attempts", Integer, nullable=False),
    Column("deadline_seconds", Integer),
    _time("deadline_at", nullable=True),
    Column("lease_token", BigInteger, nullable=False),
    _time("lease_expires_at", nullable=True),
    _text("worker_id", nullable=True),
    Column("progress_fraction", Real, nullable=False),
    Column("blocks_done", Integer, nullable=False),
    Column("blocks_total", Integer, nullable=False),
    _time("eta_at", nullable=True),
    Column("rss_bytes", BigInteger),
    _text("last_linear", nullable=True),
    Column("last_loss", Real),
    Column("error", Document),
    Column("warnings", Document, nullable=False),
    Column("version", BigInteger, nullable=False),
    # How many events the job has: the next seq is taken by the UPDATE that also locks the row.
    Column("event_count", BigInteger, nullable=False),
    _time("created_at"),
    _time("updated_at"),
    _time("available_at"),
    _time("started_at", nullable=True),
    _time("heartbeat_at", nullable=True),
    _time("finished_at", nullable=True),
    Column("pinned", Boolean, nullable=False, server_default=false()),
    _time("expires_at", nullable=True),
    _time("expiry_warned_at", nullable=True),
    Column("uploaded_model_id", Text, ForeignKey("uploaded_models.id")),
    UniqueConstraint("owner_key_id", "idempotency_key", name="uq_jobs_owner_idempotency_key"),
    Index("ix_jobs_created", "created_at", "id"),
    Index("ix_jobs_state_created", "state", "created_at", "id"),
    Index("ix_jobs_model_created", "model", "created_at", "id"),
    Index("ix_jobs_method_created", "method", "created_at", "id"),
    Index("ix_jobs_owner_created", "owner_key_id", "created_at", "id"),
    Index("ix_jobs_owner_state_created", "owner_key_id", "state", "created_at", "id"),
    Index("ix_jobs_owner_model_created", "owner_key_id", "model", "created_at", "id"),
    Index("ix_jobs_owner_method_created", "owner_key_id", "method", "created_at", "id"),
)
_queued = text("state = 'queued'")
_held = text("lease_expires_at IS NOT NULL")
_due = text("deadline_at IS NOT NULL AND finished_at IS NULL")
Index(
    "ix_jobs_queued",
    jobs.c.queue_class,
    jobs.c.priority.desc(),
    jobs.c.created_at,
    jobs.c.id,
    postgresql_where=_queued,
    sqlite_where=_queued,
)
Index("ix_jobs_held", jobs.c.lease_expires_at, postgresql_where=_held, sqlite_where=_held)
Index("ix_jobs_owner_held", jobs.c.owner_key_id, postgresql_where=_held, sqlite_where=_held)
Index("ix_jobs_deadline", jobs.c.deadline_at, postgresql_where=_due, sqlite_where=_due)

turns = Table(
    "turns",
    metadata,
    Column("owner_key_id", Text, primary_key=True),
    Column("queue_class", Text, primary_key=True),
    _time("claimed_at"),
)

job_labels = Table(
    "job_labels",
    metadata,
    _job_key(),
    Column("key", Text, primary_key=True),
    _text("value"),
    Index("ix_job_labels_key_value", "key", "value", "job_id"),
)

batches = Table(
    "batches",
    metadata,
    Column("id", Text, primary_key=True),
    _text("owner_key_id"),
    _text("name"),
    _text("idempotency_key", nullable=True),
    _text("request_sha256", nullable=True),
    _time("created_at"),
    UniqueConstraint("owner_key_id", "idempotency_key", name="uq_batches_owner_idempotency_key"),
)

batch_jobs = Table(
    "batch_jobs",
    metadata,
    Column("batch_id", Text, ForeignKey("batches.id", ondelete="CASCADE"), primary_key=True),
    Column("model_index", Integer, primary_key=True, autoincrement=False),
    Column("config_index", Integer, primary_key=True, autoincrement=False),
    Column("job_id", Text, ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    UniqueConstraint("job_id", name="uq_batch_jobs_job"),
)

attempts = Table(
    "attempts",
    metadata,
    _job_key(),
    Column("number", Integer, primary_key=True, autoincrement=False),
    _text("worker_id"),
    _time("started_at"),
    _time("ended_at", nullable=True),
    _text("outcome", nullable=True),
    Column("error", Document),
)
_open = text("ended_at IS NULL")
Index("uq_attempts_one_open", attempts.c.job_id, unique=True, postgresql_where=_open, sqlite_where=_open)

events = Table(
    "events",
    metadata,
    _job_key(),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    _text("kind"),
    _time("at"),
    Column("attempt", Integer, nullable=False),
    Column("payload", Document, nullable=False),
    # Where the event stands among those of all jobs; what it means and who writes it differs, see migration 0003.
    Column("position", BigInteger, nullable=False, server_default=FetchedValue()),
    Index("ix_events_position", "position", "job_id", "seq"),
)

event_clock = Table("event_clock", metadata, Column("position", BigInteger, nullable=False))

linears = Table(
    "linears",
    metadata,
    _job_key(),
    Column("block", Integer, primary_key=True, autoincrement=False),
    Column("linear", Text, primary_key=True),
    Column("attempt", Integer, nullable=False),
    Column("bits", Integer, nullable=False),
    Column("group_size", Integer, nullable=False),
    Column("loss", Real),
    Column("relative_loss", Real),
    Column("tokens", BigInteger, nullable=False),
    Column("damp_percent", Real),
    Column("seconds", Real, nullable=False),
    Column("warnings", Document, nullable=False),
)

log_lines = Table(
    "log_lines",
    metadata,
    _job_key(),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    _time("at"),
    _text("level"),
    _text("source"),
    _text("text"),
    Column("fields", Document, nullable=False),
)

artifacts = Table(
    "artifacts",
    metadata,
    Column("id", Text, primary_key=True),
    Column("job_id", Text, ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    _text("name"),
    _text("sha256"),
    Column("size_bytes", BigInteger, nullable=False),
    _text("media_type"),
    _time("created_at"),
    UniqueConstraint("job_id", "name", name="uq_artifacts_job_name"),
    Index("ix_artifacts_sha256", "sha256"),
)

checkpoints = Table(
    "checkpoints",
    metadata,
    _job_key(),
    Column("block", Integer, primary_key=True, autoincrement=False),
    _text("fingerprint"),
    _text("sha256"),
    Column("size_bytes", BigInteger, nullable=False),
    Column("record", Document, nullable=False),
    Column("attempt", Integer, nullable=False),
    _time("created_at"),
    Index("ix_checkpoints_sha256", "sha256"),
)

blobs = Table(
    "blobs",
    metadata,
    Column("sha256", Text, primary_key=True),
    _time("reserved_at"),
    Index("ix_blobs_reserved", "reserved_at"),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Text, primary_key=True),
    _text("name"),
    _text("secret_sha256"),
    Column("scopes", Document, nullable=False),
    _time("created_at"),
    _time("expires_at", nullable=True),
    _time("revoked_at", nullable=True),
    Column("max_jobs_in_flight", BigInteger),
    Column("max_stored_bytes", BigInteger),
    Column("max_calibration_bytes", BigInteger),
    Column("max_requests_per_minute", BigInteger),
    Column("max_model_bytes", BigInteger),
)

sessions = Table(
    "sessions",
    metadata,
    Column("token_sha256", Text, primary_key=True),
    Column("key_id", Text, ForeignKey("api_keys.id", ondelete="CASCADE"), nullable=False),
    _time("created_at"),
    _time("expires_at"),
    Index("ix_sessions_key", "key_id"),
    Index("ix_sessions_expires", "expires_at"),
)

workers = Table(
    "workers",
    metadata,
    Column("id", Text, primary_key=True),
    _text("hostname"),
    Column("pid", Integer, nullable=False),
    _text("engine_version"),
    _text("device"),
    _text("device_name"),
    Column("memory_bytes", BigInteger, nullable=False),
    Column("slots", Integer, nullable=False),
    Column("queue_classes", Document, nullable=False),
    _time("registered_at"),
    _time("heartbeat_at"),
    _time("drain_requested_at", nullable=True),
)

webhooks = Table(
    "webhooks",
    metadata,
    Column("id", Text, primary_key=True),
    _text("owner_key_id"),
    Column("all_owners", Boolean, nullable=False),
    _text("name"),
    _text("url"),
    Column("kinds", Document, nullable=False),
    _text("secret_sealed"),
    Column("enabled", Boolean, nullable=False),
    _text("disabled_reason"),
    _time("created_at"),
    # Where it stands in the stream of all jobs' events: nothing behind it is in the outbox yet.
    Column("place_position", BigInteger, nullable=False),
    _text("place_job_id"),
    Column("place_seq", BigInteger, nullable=False),
    # Apart from the kinds of events, which is all that workers of earlier versions can read.
    Column("notices", Document, nullable=False, server_default=text("'[]'")),
    Index("ix_webhooks_owner", "owner_key_id", "created_at"),
)

webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    Column("id", Text, primary_key=True),
    Column("webhook_id", Text, ForeignKey("webhooks.id", ondelete="CASCADE"), nullable=False),
    _text("job_id", nullable=True),
    Column("seq", BigInteger),
    Column("body", Document, nullable=False),
    _text("state"),
    Column("attempts", Integer, nullable=False),
    Column("status_code", Integer),
    _text("error", nullable=True),
    _time("created_at"),
    _time("last_attempt_at", nullable=True),
    _time("next_attempt_at", nullable=True),
    UniqueConstraint("webhook_id", "job_id", "seq", name="uq_webhook_deliveries_event"),
    Index("ix_webhook_deliveries_newest", "webhook_id", "created_at", "id"),
)
_pending = text("state = 'pending'")
Index(
    "ix_webhook_deliveries_due",
    webhook_deliveries.c.next_attempt_at,
    postgresql_where=_pending,
    sqlite_where=_pending,
)

hub_tokens = Table(
    "hub_tokens",
    metadata,
    Column("owner_key_id", Text, primary_key=True),
    _text("token_sealed"),
    _time("created_at"),
)

publications = Table(
    "publications",
    metadata,
    Column("id", Text, primary_key=True),
    Column("job_id", Text, ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    _text("owner_key_id"),
    _text("repo"),
    Column("private", Boolean, nullable=False),
    _text("state"),
    Column("attempts", Integer, nullable=False),
    _text("commit", nullable=True),
    _text("error", nullable=True),
    _time("created_at"),
    _time("next_attempt_at", nullable=True),
    _time("finished_at", nullable=True),
    Index("ix_publications_job", "job_id", "created_at"),
    Index("ix_publications_due", "next_attempt_at"),
)

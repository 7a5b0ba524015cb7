"""The worker's rules for what is kept: each setting lets go of its own things, with a warning between."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from store.jobs import NewCalibrationSet
from tests.conformance.test_models import new_model
from tests.worker.bench import OWNER, Bench
from worker.retention import apply_retention

DAY = timedelta(days=1)


def ruled(bench: Bench, **settings: float | None) -> Bench:
    """Returns the bench of a worker with other rules."""
    services = replace(bench.services, settings=bench.services.settings.model_copy(update=settings))
    return replace(bench, services=services)


def test_texts_and_models_are_dated_warned_of_and_removed(bench: Bench):
    """By a rule of their own each; the notice lies between the warning and the end, also where the rule is new."""
    text = NewCalibrationSet(owner_key_id=OWNER, name="text", format="text", sha256="1" * 64, size_bytes=1, documents=1)
    with bench.services.database.transaction() as repository:
        stored = repository.add_calibration_set(text)
        model = repository.add_uploaded_model(new_model(OWNER))
    apply_retention(ruled(bench, model_days=0.0001).services)
    with bench.services.database.reading() as repository:
        assert repository.get_calibration_set(stored.id).expires_at is None
        warned = repository.get_uploaded_model(model.id)
    assert warned.expiry_warned_at is not None
    assert warned.expires_at is not None
    assert warned.expires_at > datetime.now(UTC) + DAY / 2
    apply_retention(ruled(bench, calibration_days=0.0, expiry_notice_hours=0.0).services)
    with bench.services.database.reading() as repository:
        assert repository.list_calibration_sets(OWNER) == ()
        assert repository.list_uploaded_models(OWNER) == (warned,)

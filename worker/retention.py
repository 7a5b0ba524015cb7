"""Lets go of what has been kept long enough, with a word in the job's history a day before."""

from __future__ import annotations

import structlog

from worker.services import Services

DAY_SECONDS = 86_400.0
HOUR_SECONDS = 3_600.0


def apply_retention(services: Services) -> None:
    """Gives files and texts their time, warns of it, and removes what is over. Raises StorageUnavailableError."""
    settings = services.settings
    notice = settings.expiry_notice_hours * HOUR_SECONDS
    with services.database.transaction() as repository:
        if settings.artifact_days is not None:
            repository.assign_expiry(settings.artifact_days * DAY_SECONDS, notice)
        warned = repository.warn_of_expiry(notice)
    with services.database.transaction() as repository:
        expired = repository.expire_artifacts()
        sets = repository.expire_calibration_sets(_seconds(settings.calibration_days))
        models = repository.expire_uploaded_models(_seconds(settings.model_days))
    if warned or expired or sets or models:
        log = structlog.get_logger().bind(worker_id=services.worker_id)
        log.info("retention", warned=warned, expired=expired, calibration_sets=sets, uploaded_models=models)


def _seconds(days: float | None) -> float | None:
    return None if days is None else days * DAY_SECONDS

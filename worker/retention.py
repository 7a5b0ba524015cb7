"""Lets go of what has been kept long enough, with a word a day before."""

from __future__ import annotations

import structlog

from store.kept import KeptKind
from worker.services import Services

DAY_SECONDS = 86_400.0
HOUR_SECONDS = 3_600.0

Done = tuple[tuple[str, ...], tuple[str, ...]]
"""The ids of what was warned of and of what is gone."""


def apply_retention(services: Services) -> None:
    """Gives files, texts and models their time, warns of it, and removes what is over.

    Raises StorageUnavailableError.
    """
    log = structlog.get_logger().bind(worker_id=services.worker_id)
    notice = services.settings.expiry_notice_hours * HOUR_SECONDS
    done = {"artifacts": _let_files_go(services, notice)}
    for kind in KeptKind:
        done[kind] = _let_go(services, kind, notice)
    for what, (warned, expired) in done.items():
        if warned or expired:
            log.info("retention", of=what, warned=warned, expired=expired)


def _let_files_go(services: Services, notice: float) -> Done:
    days = services.settings.artifact_days
    with services.database.transaction() as repository:
        if days is not None:
            repository.assign_expiry(days * DAY_SECONDS, notice)
        warned = repository.warn_of_expiry(notice)
    with services.database.transaction() as repository:
        return warned, repository.expire_artifacts()


def _let_go(services: Services, kind: KeptKind, notice: float) -> Done:
    settings = services.settings
    days = {
        KeptKind.CALIBRATION_SET: settings.calibration_days,
        KeptKind.UPLOADED_MODEL: settings.model_days,
    }[kind]
    with services.database.transaction() as repository:
        if days is not None:
            repository.date_kept(kind, days * DAY_SECONDS, notice)
        warned = repository.warn_of_kept(kind, notice)
    with services.database.transaction() as repository:
        return warned, repository.expire_kept(kind)

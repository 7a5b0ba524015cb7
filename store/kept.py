"""What owners store for their jobs to use, and what is told of it when its time comes: plain values, no SQL."""

from __future__ import annotations

from enum import StrEnum


class KeptKind(StrEnum):
    """What is kept apart from jobs."""

    CALIBRATION_SET = "calibration_set"
    UPLOADED_MODEL = "uploaded_model"


class NoticeKind(StrEnum):
    """What webhooks are told of besides the histories of jobs; the value is the message's type."""

    CALIBRATION_SET_EXPIRING = "calibration_set.expiring"
    """It goes soon; the message says when."""
    CALIBRATION_SET_EXPIRED = "calibration_set.expired"
    """It is gone."""
    UPLOADED_MODEL_EXPIRING = "uploaded_model.expiring"
    UPLOADED_MODEL_EXPIRED = "uploaded_model.expired"

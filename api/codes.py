"""Every `code` that a problem of this API can carry; the document lists them, and programs may rely on them."""

from __future__ import annotations

from core.errors import (
    CalibrationProblem,
    InsufficientResourcesError,
    InvalidConfigError,
    MissingPackageError,
    ModelProblem,
    TargetRefusedError,
)
from store.errors import (
    BlobCorruptError,
    IdempotencyConflictError,
    NotFoundError,
    QuotaExceededError,
    SecretKeyRequiredError,
    StorageUnavailableError,
    WrongStateError,
)

EDGE_CODES = (
    "bad_request",
    "batch_refused",
    "batch_too_large",
    "binding_mismatch",
    "blob_missing",
    "body_too_large",
    "calibration_set_unknown",
    "cross_origin_refused",
    "csrf_token_wrong",
    "host_refused",
    "http_error",
    "hub_token_missing",
    "internal_error",
    "invalid_last_event_id",
    "invalid_page_token",
    "invalid_request",
    "malformed_json",
    "malformed_multipart",
    "method_not_allowed",
    "missing_scope",
    "precondition_failed",
    "range_not_satisfiable",
    "rate_limited",
    "session_over",
    "too_many_streams",
    "unauthenticated",
    "unsupported_media_type",
    "upload_incomplete",
    "uploaded_model_unknown",
    "webhook_url_refused",
)
_ERRORS = (
    InsufficientResourcesError,
    InvalidConfigError,
    MissingPackageError,
    TargetRefusedError,
    BlobCorruptError,
    IdempotencyConflictError,
    NotFoundError,
    QuotaExceededError,
    SecretKeyRequiredError,
    StorageUnavailableError,
    WrongStateError,
)
PROBLEM_CODES = sorted(
    {*EDGE_CODES, *(error.code for error in _ERRORS), *map(str, ModelProblem), *map(str, CalibrationProblem)}
)

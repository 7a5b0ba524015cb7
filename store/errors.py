"""What the store refuses: one class per decision that a caller can make, facts as attributes."""

from __future__ import annotations


class StoreError(Exception):
    """Base of every error that the store raises on purpose."""

    code: str = "store_error"


class NotFoundError(StoreError):
    """No such row, or a row of another owner: the two cannot be told apart from outside."""

    code = "not_found"

    def __init__(self, kind: str, identifier: str) -> None:
        self.kind = kind
        self.identifier = identifier
        super().__init__(f"There is no {kind} {identifier!r}.")


class WrongStateError(StoreError):
    """The job is in a state that does not allow this."""

    code = "wrong_state"

    def __init__(self, job_id: str, state: str, action: str) -> None:
        self.job_id = job_id
        self.state = state
        self.action = action
        super().__init__(f"Job {job_id} is {state}; it cannot be {action}.")


class LeaseLostError(StoreError):
    """Another claim, a cancel or the sweeper took the job: stop the work and write nothing more."""

    code = "lease_lost"

    def __init__(self, job_id: str, lease_token: int) -> None:
        self.job_id = job_id
        self.lease_token = lease_token
        super().__init__(f"The lease {lease_token} on job {job_id} is no longer held.")


class IdempotencyConflictError(StoreError):
    """The same Idempotency-Key came with another request."""

    code = "idempotency_conflict"

    def __init__(self, idempotency_key: str) -> None:
        self.idempotency_key = idempotency_key
        super().__init__(
            f"Idempotency-Key {idempotency_key!r} was used before with another request. "
            "Use a new key for a new request."
        )


class QuotaExceededError(StoreError):
    """An owner would take more than its key allows. quota: a field of `store.keys.Quotas`."""

    code = "quota_exceeded"

    def __init__(self, quota: str, allowed: int, used: int) -> None:
        self.quota = quota
        self.allowed = allowed
        self.used = used
        super().__init__(f"The key's quota {quota} is {allowed:,}; with this it would be {used:,}.")


class SecretKeyRequiredError(StoreError):
    """Something is to be encrypted, and API and workers have no secret in common."""

    code = "secret_key_required"

    def __init__(self) -> None:
        super().__init__("This service has no BITMILL_SECRET_KEY, so that it can keep no secrets for its workers.")


class SecretUnreadableError(StoreError):
    """What was encrypted cannot be read with this process's secret."""

    code = "secret_unreadable"

    def __init__(self) -> None:
        super().__init__("A stored secret was encrypted with another BITMILL_SECRET_KEY than this process has.")


class StorageUnavailableError(StoreError):
    """The database or the object store did not answer; the same call may work later."""

    code = "storage_unavailable"

    def __init__(self, what: str, detail: str) -> None:
        self.what = what
        self.detail = detail
        super().__init__(f"{what} did not answer: {detail}.")


class BlobCorruptError(StoreError):
    """Stored bytes do not have the hash that they are named by."""

    code = "blob_corrupt"

    def __init__(self, sha256: str, found: str) -> None:
        self.sha256 = sha256
        self.found = found
        super().__init__(f"Stored bytes of {sha256} hash to {found}.")


class TransferRefusedError(StoreError):
    """Rows cannot be moved to another database now. remedy: what to do first."""

    code = "transfer_refused"

    def __init__(self, reason: str, remedy: str) -> None:
        self.reason = reason
        self.remedy = remedy
        super().__init__(f"{reason} {remedy}")

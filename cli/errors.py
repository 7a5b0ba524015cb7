"""Turns what went wrong into an exit code and a sentence with a remedy; the only place that knows the codes.

docs/cli.md shows the same table; a test compares the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from core import errors as core_errors
from store import errors as store_errors


class ExitCode(IntEnum):
    """What a script can tell from the exit status."""

    OK = 0
    FAILED = 1
    USAGE = 2
    UNAVAILABLE = 3
    REFUSED = 4
    CANCELLED = 5
    INTERRUPTED = 130


MEANINGS: dict[ExitCode, str] = {
    ExitCode.OK: "It worked.",
    ExitCode.FAILED: "The work itself failed: a job or a run ended badly, or a file does not match its checksum.",
    ExitCode.USAGE: "An option or an input is refused before any work; the message names the field and the remedy.",
    ExitCode.UNAVAILABLE: "Something it needs is not there: no service at the address, port taken, folder not "
    "writable, disk full, database down.",
    ExitCode.REFUSED: "The service said no: missing or wrong key, unknown id, or a state that does not allow it.",
    ExitCode.CANCELLED: "The job that was waited for was cancelled.",
    ExitCode.INTERRUPTED: "Interrupted with Ctrl-C; `run` keeps its finished blocks and goes on when run again.",
}


class CliError(Exception):
    """A command cannot go on. hint: what to do next. field: the option or request field, where one is to blame."""

    def __init__(
        self, exit_code: ExitCode, message: str, *, hint: str = "", code: str = "", field: str | None = None
    ) -> None:
        """The message is one sentence; the hint may be empty."""
        self.exit_code = exit_code
        self.message = message
        self.hint = hint
        self.code = code or exit_code.name.lower()
        self.field = field
        super().__init__(f"{message} {hint}".strip())


@dataclass(frozen=True, slots=True, kw_only=True)
class Complaint:
    """What is printed on stderr, as a line for people or as one JSON object."""

    exit_code: ExitCode
    code: str
    message: str
    hint: str
    field: str | None


CORE_EXIT_CODES: dict[type[core_errors.CoreError], ExitCode] = {
    core_errors.InvalidConfigError: ExitCode.USAGE,
    core_errors.TargetRefusedError: ExitCode.USAGE,
    core_errors.ModelRefusedError: ExitCode.USAGE,
    core_errors.CalibrationRefusedError: ExitCode.USAGE,
    core_errors.ResumeRefusedError: ExitCode.USAGE,
    core_errors.MissingPackageError: ExitCode.UNAVAILABLE,
    core_errors.InsufficientResourcesError: ExitCode.UNAVAILABLE,
    core_errors.MissingPackageError: ExitCode.UNAVAILABLE,
    core_errors.RunStoppedError: ExitCode.INTERRUPTED,
    core_errors.NumericalError: ExitCode.FAILED,
    core_errors.ArtifactInvalidError: ExitCode.FAILED,
    core_errors.ArtifactDegenerateError: ExitCode.FAILED,
}

STORE_EXIT_CODES: dict[type[store_errors.StoreError], ExitCode] = {
    store_errors.NotFoundError: ExitCode.REFUSED,
    store_errors.WrongStateError: ExitCode.REFUSED,
    store_errors.QuotaExceededError: ExitCode.REFUSED,
    store_errors.TransferRefusedError: ExitCode.REFUSED,
    store_errors.SecretKeyRequiredError: ExitCode.UNAVAILABLE,
    store_errors.SecretUnreadableError: ExitCode.UNAVAILABLE,
    store_errors.StorageUnavailableError: ExitCode.UNAVAILABLE,
    store_errors.BlobCorruptError: ExitCode.FAILED,
}

STORE_HINTS: dict[type[store_errors.StoreError], str] = {
    store_errors.StorageUnavailableError: "Check BITMILL_DATABASE_URL and that the database runs; in embedded mode, "
    "the file in the data directory.",
}


def complaint_from(error: CliError | core_errors.CoreError | store_errors.StoreError) -> Complaint:
    """Returns what to print for an error that was raised on purpose."""
    if isinstance(error, CliError):
        return Complaint(
            exit_code=error.exit_code, code=error.code, message=error.message, hint=error.hint, field=error.field
        )
    if isinstance(error, core_errors.CoreError):
        return Complaint(
            exit_code=CORE_EXIT_CODES.get(type(error), ExitCode.FAILED),
            code=error.code,
            message=_without_hint(str(error), error.hint),
            hint=error.hint,
            field=getattr(error, "field", None),
        )
    return Complaint(
        exit_code=STORE_EXIT_CODES.get(type(error), ExitCode.FAILED),
        code=error.code,
        message=str(error),
        hint=STORE_HINTS.get(type(error), ""),
        field=None,
    )


def _without_hint(message: str, hint: str) -> str:
    """Core's messages end in their hint; it is printed on a line of its own here."""
    return message.removesuffix(hint).strip() if hint else message

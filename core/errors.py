"""What the engine refuses or fails at: one class per decision that a caller can make.

Every error carries its facts as attributes, a stable `code`, and a `hint` that says what to do next.
"""

from __future__ import annotations

from enum import StrEnum


class CoreError(Exception):
    """Base of every error that the engine raises on purpose."""

    code: str = "core_error"
    hint: str = ""


class InvalidConfigError(CoreError):
    """A quantization or calibration option cannot be used as given."""

    code = "invalid_config"

    def __init__(self, field: str, value: object, reason: str, allowed: str) -> None:
        self.field = field
        self.value = value
        self.reason = reason
        self.allowed = allowed
        self.hint = f"Set {field} to {allowed}."
        super().__init__(f"{field}={value!r}: {reason}. Allowed: {allowed}.")


class TargetRefusedError(CoreError):
    """A named loader cannot load what this configuration would write."""

    code = "target_incompatible"

    def __init__(self, target: str, field: str, reason: str, nearest: str) -> None:
        self.target = target
        self.field = field
        self.reason = reason
        self.nearest = nearest
        self.hint = f"Nearest combination that {target} loads: {nearest}."
        super().__init__(f"{target} cannot load this artifact ({field}): {reason}. {self.hint}")


class MissingPackageError(CoreError):
    """A package that only this feature needs is not installed."""

    code = "missing_package"

    def __init__(self, feature: str, package: str, extra: str) -> None:
        self.feature = feature
        self.package = package
        self.hint = f"Install it with: pip install 'bitmill[{extra}]'"
        super().__init__(f"{feature} needs {package}, which is not installed. {self.hint}")


class ModelProblem(StrEnum):
    """Why a model folder, or an archive of one, is refused; the value is the error's code."""

    NOT_FOUND = "model_not_found"
    CONFIG_MISSING = "model_config_missing"
    CONFIG_INVALID = "model_config_invalid"
    TOKENIZER_MISSING = "tokenizer_missing"
    WEIGHTS_MISSING = "weights_missing"
    SHARD_MISSING = "shard_missing"
    SAFETENSORS_CORRUPT = "safetensors_corrupt"
    FORBIDDEN_FILE = "forbidden_file"
    REMOTE_CODE = "remote_code_refused"
    ALREADY_QUANTIZED = "already_quantized"
    UNSUPPORTED_ARCHITECTURE = "unsupported_architecture"
    NON_FINITE_WEIGHTS = "non_finite_weights"
    ARCHIVE_INVALID = "archive_invalid"
    ARCHIVE_UNSAFE = "archive_unsafe"
    ARCHIVE_TOO_LARGE = "archive_too_large"


class ModelRefusedError(CoreError):
    """The model folder cannot be quantized; nothing was written."""

    def __init__(self, problem: ModelProblem, detail: str, hint: str) -> None:
        self.problem = problem
        self.code = problem.value
        self.detail = detail
        self.hint = hint
        super().__init__(f"{detail} {hint}".strip())


class CalibrationProblem(StrEnum):
    """Why a calibration text is refused; the value is the error's code."""

    EMPTY = "calibration_empty"
    BINARY = "calibration_binary"
    MALFORMED = "calibration_malformed"
    TOO_LARGE = "calibration_too_large"
    TOO_FEW_TOKENS = "calibration_too_few_tokens"
    NO_CHAT_TEMPLATE = "calibration_no_chat_template"
    DATASET_UNUSABLE = "calibration_dataset_unusable"
    TOO_SLOW = "calibration_too_slow"


class CalibrationRefusedError(CoreError):
    """The calibration text cannot be used; `tokens_available` and `tokens_needed` are set where they were counted."""

    def __init__(
        self,
        problem: CalibrationProblem,
        detail: str,
        hint: str,
        *,
        tokens_available: int | None = None,
        tokens_needed: int | None = None,
    ) -> None:
        self.problem = problem
        self.code = problem.value
        self.detail = detail
        self.hint = hint
        self.tokens_available = tokens_available
        self.tokens_needed = tokens_needed
        super().__init__(f"{detail} {hint}".strip())


class InsufficientResourcesError(CoreError):
    """The machine has less disk or memory than the run needs; nothing was started."""

    code = "insufficient_resources"

    def __init__(self, resource: str, needed_bytes: int, available_bytes: int) -> None:
        self.resource = resource
        self.needed_bytes = needed_bytes
        self.available_bytes = available_bytes
        self.hint = f"Free {resource} or use another machine."
        super().__init__(
            f"The run needs {needed_bytes / 1e9:.2f} GB of {resource}, {available_bytes / 1e9:.2f} GB are available. "
            f"{self.hint}"
        )


class NumericalError(CoreError):
    """A linear's Hessian could not be factorized, even after every damping step."""

    code = "numerical_error"

    def __init__(self, linear: str, detail: str) -> None:
        self.linear = linear
        self.detail = detail
        self.hint = "Raise damp_percent, or use a longer and more varied calibration text."
        super().__init__(f"{linear}: {detail} {self.hint}")


class ResumeRefusedError(CoreError):
    """The work folder belongs to another run; resuming would mix two results."""

    code = "resume_refused"

    def __init__(self, field: str, expected: str, found: str) -> None:
        self.field = field
        self.expected = expected
        self.found = found
        self.hint = "Delete the work folder, or start the run with the settings that it was begun with."
        super().__init__(f"Cannot resume: {field} is {found!r}, the work folder has {expected!r}. {self.hint}")


class RunStoppedError(CoreError):
    """The caller's `should_stop` answered True; every finished block is kept for a resume."""

    code = "stopped"

    def __init__(self, blocks_done: int) -> None:
        self.blocks_done = blocks_done
        self.hint = "Run again with the same settings to go on from the last finished block."
        super().__init__(f"Stopped after {blocks_done} finished blocks. {self.hint}")


class ArtifactInvalidError(CoreError):
    """A written artifact does not pass its own check (a missing tensor, a wrong hash, a wrong shape)."""

    code = "artifact_invalid"

    def __init__(self, file: str, detail: str) -> None:
        self.file = file
        self.detail = detail
        self.hint = "Do not use this artifact; run the job again."
        super().__init__(f"{file}: {detail} {self.hint}")


class ArtifactDegenerateError(CoreError):
    """The quantized model no longer speaks, where the float model does. Both answers are the evidence."""

    code = "artifact_degenerate"

    def __init__(self, fault: str, prompt: str, float_text: str, quantized_text: str) -> None:
        self.fault = fault
        self.prompt = prompt
        self.float_text = float_text
        self.quantized_text = quantized_text
        self.hint = "Use more bits, smaller groups or other calibration text."
        super().__init__(
            f"The quantized model's answer to {prompt!r} is degenerate: {fault}. It says {quantized_text!r}, "
            f"the float model {float_text!r}. {self.hint}"
        )

"""What a run did, linear by linear and in total: frozen values, to and from `quantization_report.json`.

It measures nothing; the pipeline fills it in. Standard library only.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Self

from core.errors import ArtifactInvalidError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

REPORT_FILE = "quantization_report.json"
REPORT_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearReport:
    """One quantized linear.

    loss: tr((W-Ŵ)H(W-Ŵ)ᵀ). relative_loss: loss / tr(W H Wᵀ). tokens: calibration tokens that reached the linear.
    damp_percent: the fraction of mean diag H that was really added, after every damping step. order: how the columns
    were solved. loss, relative_loss, damp_percent and order are None where the method uses no Hessian. refined: whether
    refinement was kept; None where it was not tried. channel_alpha: AWQ's exponent; None where no operation in front
    could take channel scales over, and in other methods.
    """

    block: int
    name: str
    bits: int
    group_size: int
    loss: float | None
    relative_loss: float | None
    tokens: int
    damp_percent: float | None
    order: str | None
    seconds: float
    refined: bool | None = None
    channel_alpha: float | None = None
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON values."""
        return {**asdict(self), "warnings": list(self.warnings)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Reads what `to_dict` wrote; raises TypeError on a missing or an unknown field."""
        return cls(**{**values, "warnings": tuple(values.get("warnings", ()))})


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizationReport:
    """One run.

    config: the quantization config's `to_dict`. bits_per_weight: bits on disk (codes, scales, zeros, group indexes)
    per weight of the quantized linears. seconds_by_stage: wall time, keyed by `core.events.Stage` values.
    seconds_by_work: the same time up to packing, keyed by `core.profile.Work` values; of a resumed run, this attempt's.
    calibration_sha256: digest of the token windows, None without calibration. versions: program name to version.
    provenance: what the caller knows about the source, never a local path. budget: the plan's `to_dict`, None without.
    devices: those that batches ran on, the one that solved first; empty in reports of before there were several.
    """

    config: dict[str, Any]
    linears: tuple[LinearReport, ...]
    blocks: int
    blocks_resumed: int
    bits_per_weight: float
    seconds_by_stage: dict[str, float]
    peak_rss_bytes: int
    versions: dict[str, str]
    calibration_sha256: str | None = None
    calibration_samples: int = 0
    calibration_tokens: int = 0
    warnings: tuple[str, ...] = ()
    provenance: dict[str, Any] = field(default_factory=dict)
    budget: dict[str, Any] | None = None
    seconds_by_work: dict[str, float] = field(default_factory=dict)
    devices: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        """Returns the wall time of all stages together."""
        return sum(self.seconds_by_stage.values())

    @property
    def mean_relative_loss(self) -> float | None:
        """Returns the mean over the linears that have a Hessian; None where none has."""
        losses = [linear.relative_loss for linear in self.linears if linear.relative_loss is not None]
        return sum(losses) / len(losses) if losses else None

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON values: the totals first, the linears last."""
        totals = {name: getattr(self, name) for name in self.__slots__ if name not in {"linears", "warnings"}}
        return {
            "report_version": REPORT_VERSION,
            **totals,
            "seconds": self.seconds,
            "mean_relative_loss": self.mean_relative_loss,
            "devices": list(self.devices),
            "warnings": list(self.warnings),
            "linears": [linear.to_dict() for linear in self.linears],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Reads what `to_dict` wrote; raises ValueError on another report version, TypeError on unknown fields."""
        given = dict(values)
        version = given.pop("report_version", None)
        if version != REPORT_VERSION:
            raise ValueError(f"report_version is {version!r}, this program reads {REPORT_VERSION}.")
        for derived in ("seconds", "mean_relative_loss"):
            given.pop(derived, None)
        given["linears"] = tuple(LinearReport.from_dict(linear) for linear in given["linears"])
        for listed in ("warnings", "devices"):
            given[listed] = tuple(given.get(listed, ()))
        return cls(**given)

    def write(self, path: Path) -> None:
        """Writes the report as indented JSON; a value that is not finite is an error, since JSON has no word for it."""
        path.write_text(json.dumps(self.to_dict(), indent=2, allow_nan=False, ensure_ascii=False) + "\n", "utf-8")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Reads what `write` wrote; raises ArtifactInvalidError where it is not a report of this version."""
        try:
            return cls.from_dict(json.loads(path.read_text("utf-8")))
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ArtifactInvalidError(path.name, f"not a readable report ({error}).") from error

"""What the engine tells its caller while it runs: small frozen values, to and from plain dicts for a pipe.

The engine emits; it never prints and never stores. Standard library only.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, ClassVar


class Stage(StrEnum):
    """The part of a run that is under way."""

    PREFLIGHT = "preflight"
    CALIBRATING = "calibrating"
    QUANTIZING = "quantizing"
    PACKING = "packing"
    EVALUATING = "evaluating"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Base of every event."""

    kind: ClassVar[str] = "event"

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON values with `kind` first."""
        return {"kind": self.kind, **asdict(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted(Event):
    """The run knows its size. blocks_resumed: finished blocks taken over from an earlier attempt."""

    kind: ClassVar[str] = "run_started"
    blocks_total: int
    blocks_resumed: int
    fingerprint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StageStarted(Event):
    """A stage begins."""

    kind: ClassVar[str] = "stage_started"
    stage: Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class StageAdvanced(Event):
    """Work inside a stage moved on: `done` of `total` units (batches, linears, files). Also the sign of life."""

    kind: ClassVar[str] = "stage_advanced"
    stage: Stage
    done: int
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearQuantized(Event):
    """One linear is solved. loss: tr((W-Ŵ)H(W-Ŵ)ᵀ); relative_loss: loss / tr(W H Wᵀ); both null without a Hessian."""

    kind: ClassVar[str] = "linear_quantized"
    block: int
    linear: str
    bits: int
    group_size: int
    loss: float | None
    relative_loss: float | None
    tokens: int
    damp_percent: float | None
    seconds: float
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockQuantized(Event):
    """One block is on disk, synced and recorded: a resume starts behind it. rss_bytes: resident memory now."""

    kind: ClassVar[str] = "block_quantized"
    block: int
    blocks_total: int
    seconds: float
    rss_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WarningRaised(Event):
    """Something that a user must see, such as a starved linear; kept in the report too."""

    kind: ClassVar[str] = "warning"
    code: str
    message: str
    block: int | None = None
    linear: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationDrawn(Event):
    """The windows are drawn. tokens_available: exactly, in all documents. sha256: digest of the windows."""

    kind: ClassVar[str] = "calibration_drawn"
    documents: int
    tokens_available: int
    samples: int
    seq_len: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetPlanned(Event):
    """Bits and group sizes are chosen. bits: per quantized weight. divergence: predicted. plan: the whole `to_dict`."""

    kind: ClassVar[str] = "budget_planned"
    bits: float
    divergence: float
    plan: dict[str, Any]


EVENT_CLASSES: dict[str, type[Event]] = {
    event.kind: event
    for event in (
        RunStarted,
        StageStarted,
        StageAdvanced,
        CalibrationDrawn,
        BudgetPlanned,
        LinearQuantized,
        BlockQuantized,
        WarningRaised,
    )
}


def event_from_dict(values: dict[str, Any]) -> Event:
    """Reads what `Event.to_dict` wrote; raises KeyError on an unknown kind, TypeError on unknown fields."""
    fields = dict(values)
    event_class = EVENT_CLASSES[fields.pop("kind")]
    if "stage" in fields:
        fields["stage"] = Stage(fields["stage"])
    if "warnings" in fields:
        fields["warnings"] = tuple(fields["warnings"])
    return event_class(**fields)

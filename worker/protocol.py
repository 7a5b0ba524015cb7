"""What supervisor and child say to each other: one JSON object per line, a spec and signs of life in, events out.

Pure values and their bytes; pipes and processes are in `channel` (the child's end) and `process` (the supervisor's).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from core.configs import DEFAULT_FORMATS, Format

MAX_LINE_BYTES = 1 << 20

EXIT_FAILED = 3
"""The child wrote a failure line and ended on its own."""
EXIT_ORPHANED = 4
"""The supervisor's end of the pipe closed: it died, so the child ends without a word."""
EXIT_FORSAKEN = 5
"""The supervisor gave no sign of life for too long: its lease may belong to another worker by now."""


class Line(BaseModel):
    """Base of everything that crosses the pipe."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def encode(self) -> bytes:
        """Returns the line with its line end."""
        return self.model_dump_json().encode() + b"\n"


class Asked(Line):
    """What the job asks for, as plain values of `core.configs`; calibration and budget are None without one.

    writes_text: the float model writes its calibration text itself.
    """

    quantization: dict[str, Any]
    calibration: dict[str, Any] | None = None
    budget: dict[str, Any] | None = None
    targets: tuple[str, ...] = ()
    formats: tuple[Format, ...] = DEFAULT_FORMATS
    writes_text: bool = False


class CalibrationText(Line):
    """The calibration text: its place, where it lies already unless the float model is to write it.

    look: whether the job is told what a look over the text finds.
    """

    path: Path
    look: bool = True


class FaultPlan(Line):
    """What a test has planned, see `worker.faults`; empty in every other place."""

    plan: str = ""
    folder: Path | None = None


class QuantizeSpec(Line):
    """One attempt's whole work order.

    threads: for the engine, None for all; fewer hold less memory at a time and change no byte of the result.
    activation_memory: bytes for what calibration batches hold, None for the default; it changes none either. device: on
    which the engine works. provenance: what is known about the source; it goes into the report.
    plan: what an earlier attempt chose under the budget.
    cache_dir: where the rates of this machine are kept; None measures none.
    engine_file: a test's stand-in for the engine, None in every other place. silence_seconds: without a line from the
    supervisor the child ends.
    """

    asked: Asked
    model_dir: Path
    work_dir: Path
    out_dir: Path
    calibration: CalibrationText | None
    plan: dict[str, Any] | None = None
    evaluate: bool = False
    evaluate_nf4: bool = True
    threads: int | None = None
    device: str = "cpu"
    activation_memory: int | None = None
    provenance: dict[str, Any] = Field(default_factory=dict)
    cache_dir: Path | None = None
    engine_file: Path | None = None
    faults: FaultPlan = FaultPlan()
    silence_seconds: float


class DownloadSpec(Line):
    """A model of the hub to fetch. token: for gated models; it travels here and in no environment or command line.

    asked, work_dir: as in `QuantizeSpec`; what will not run on this model or this machine is not fetched for it.
    """

    asked: Asked
    work_dir: Path
    repo: str
    revision: str | None
    endpoint: str
    token: str | None = Field(repr=False)
    cache_dir: Path
    faults: FaultPlan = FaultPlan()
    silence_seconds: float


class DatasetSpec(Line):
    """A data set of the hub to calibrate on. name: as in the request. revision: of an earlier attempt, else None.

    out: where its documents are written. token: as in DownloadSpec.
    """

    name: str
    revision: str | None
    endpoint: str
    token: str | None = Field(repr=False)
    cache_dir: Path
    out: Path
    silence_seconds: float
    faults: FaultPlan = FaultPlan()


class UploadSpec(Line):
    """A finished artifact to upload to the hub. token: of the owner; it travels here and nowhere else."""

    repo: str
    private: bool
    folder: Path
    endpoint: str
    token: str = Field(repr=False)
    message: str
    silence_seconds: float


class Tick(Line):
    """A sign of life, both ways. rss_bytes: the child's resident memory."""

    kind: Literal["tick"] = "tick"
    rss_bytes: int | None = None


class Stop(Line):
    """The supervisor asks for an end: at the next batch, or once the block that is under way is on disk."""

    kind: Literal["stop"] = "stop"
    after_block: bool = False


class Fetched(Line):
    """How much of what is to be fetched has come."""

    kind: Literal["fetched"] = "fetched"
    done_bytes: int
    total_bytes: int


class EngineEvent(Line):
    """An event of `core.events`, as its `to_dict` wrote it."""

    kind: Literal["event"] = "event"
    event: dict[str, Any]


class Result(Line):
    """The child's last line when all went well. evaluation: measured quality. resolved: facts found on the way."""

    kind: Literal["result"] = "result"
    evaluation: dict[str, Any] | None = None
    resolved: dict[str, Any] = Field(default_factory=dict)


class FailureLine(Line):
    """The child's last line when it gave up; the fields are those of `worker.errors.Failure`."""

    kind: Literal["failure"] = "failure"
    code: str
    message: str
    hint: str = ""
    block: int | None = None
    linear: str | None = None


class Stopped(Line):
    """The child's last line when it stopped because it was asked to; finished blocks are on disk."""

    kind: Literal["stopped"] = "stopped"


FromChild = Tick | Fetched | EngineEvent | Result | FailureLine | Stopped
ToChild = Tick | Stop

FETCH_SPEC: TypeAdapter[DownloadSpec | DatasetSpec] = TypeAdapter(DownloadSpec | DatasetSpec)
"""What the downloader reads: the two share no set of fields."""

_FROM_CHILD: TypeAdapter[FromChild] = TypeAdapter(Annotated[FromChild, Field(discriminator="kind")])
_TO_CHILD: TypeAdapter[ToChild] = TypeAdapter(Annotated[ToChild, Field(discriminator="kind")])


def parse_from_child(line: bytes) -> FromChild:
    """Reads a line that a child wrote; raises pydantic.ValidationError where it is none of ours."""
    return _FROM_CHILD.validate_json(line)


def parse_to_child(line: bytes) -> ToChild:
    """Reads a line that a supervisor wrote; raises pydantic.ValidationError where it is none of ours."""
    return _TO_CHILD.validate_json(line)

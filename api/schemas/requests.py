"""What a submit reads: types, ranges and words of each field. Rules across fields and all defaults are core.configs'.

Every option of the configs stands here under its own name; a test holds the two sets and their defaults equal.
"""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from core.configs import BITS, DEFAULT_FORMATS, CalibrationConfig, Format, GPTQConfig, Method, Order, ScaleSearch
from core.overrides import MAX_PATTERNS
from store.jobs import NewJob

INT32_MAX = 2**31 - 1
BUILTIN_SET = "builtin"
LABELS_MAX = 32
BATCH_JOBS_MAX = 100


def default_of(config_class: type[Any], name: str) -> Any:  # noqa: ANN401 - of whatever type the field has
    """Returns the default that a dataclass writes for one of its fields."""
    (value,) = (field.default for field in fields(config_class) if field.name == name)
    if value is MISSING:
        raise TypeError(f"{config_class.__name__}.{name} has no default")
    return value


def _printable(text: str) -> str:
    """PostgreSQL text cannot hold NUL, and no name here needs any control character."""
    if not text.isprintable():
        raise ValueError("must consist of printable characters")
    return text


Text = Annotated[str, StringConstraints(min_length=1, max_length=1024), AfterValidator(_printable)]
LabelKey = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,62}$")]
LabelValue = Annotated[str, StringConstraints(max_length=255), AfterValidator(_printable)]


class Strict(BaseModel):
    """Base of everything that is read: nothing is converted, nothing unknown is dropped."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class PathModel(Strict):
    """A model folder on the machine, under one of the roots that the operator allows."""

    source: Literal["path"]
    path: Text = Field(description="Absolute, or relative to `root`.", examples=["/models/SmolLM2-135M-Instruct"])
    root: Text | None = Field(default=None, description="Name of the allowed root that a relative path starts from.")


class HubModel(Strict):
    """A model of the hub, fetched by the worker."""

    source: Literal["hub"]
    repo: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9][A-Za-z0-9._-]{0,95})?$",
        examples=["HuggingFaceTB/SmolLM2-135M-Instruct"],
    )
    revision: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}$",
        description="A commit, tag or branch; the commit that it stands for is recorded.",
    )


AnyModel = Annotated[PathModel | HubModel, Field(discriminator="source")]


class CalibrationOptions(Strict):
    """Which text is drawn from, and how many windows of how many tokens."""

    set: str = Field(
        default=BUILTIN_SET,
        pattern=r"^(builtin|cal_[0-9a-f]{32})$",
        description="`builtin`, or the id of an uploaded calibration set.",
    )
    samples: int = Field(
        default=default_of(CalibrationConfig, "samples"), ge=1, le=INT32_MAX, description="Windows, 1 to 65,536."
    )
    seq_len: int = Field(
        default=default_of(CalibrationConfig, "seq_len"),
        ge=1,
        le=INT32_MAX,
        description="Tokens per window, 16 to 131,072.",
    )
    seed: int = Field(
        default=default_of(CalibrationConfig, "seed"),
        ge=0,
        le=2**32 - 1,
        description="Chooses the windows; the same seed gives the same bytes.",
    )


class JobOptions(Strict):
    """What is done to a model. What is left out takes the documented default."""

    method: Annotated[Method, Field(strict=False)] = Field(
        default=Method.GPTQ, description="`rtn` rounds to nearest and takes no calibration."
    )
    bits: int = Field(
        default=default_of(GPTQConfig, "bits"), json_schema_extra={"enum": list(BITS)}, description="Bits per weight."
    )
    group_size: int = Field(
        default=default_of(GPTQConfig, "group_size"),
        ge=-1,
        le=INT32_MAX,
        description="Inputs that share one scale; -1: a whole row. Must divide every linear's inputs.",
    )
    sym: bool = Field(default=default_of(GPTQConfig, "sym"), description="Zero point fixed at the middle of the grid.")
    dynamic: dict[str, dict[str, bool | float | int | str]] = Field(
        default={},
        max_length=MAX_PATTERNS,
        description=(
            "Other options for single linears: `+:regex` with options, `-:regex` with none to leave linears in float. "
            "The first pattern that matches a stored name from its start decides; one that decides nothing is refused."
        ),
        examples=[{r"+:.*\.down_proj": {"bits": 8}, r"-:model\.layers\.0\.": {}}],
    )
    order: Annotated[Order, Field(strict=False)] = Field(
        default=default_of(GPTQConfig, "order"), description="Column order and source of the group scales."
    )
    desc_act: bool | None = Field(default=None, description="Another spelling of `order`, with `static_groups`.")
    static_groups: bool | None = Field(default=None, description="Another spelling of `order`, with `desc_act`.")
    damp_percent: float = Field(
        default=default_of(GPTQConfig, "damp_percent"),
        description="A fraction (not a percentage) of the mean Hessian diagonal, between 0 and 1.",
    )
    true_sequential: bool = Field(
        default=default_of(GPTQConfig, "true_sequential"),
        description="Each linear sees inputs that already carry the quantized linears before it.",
    )
    scale_search: Annotated[ScaleSearch, Field(strict=False)] = Field(
        default=default_of(GPTQConfig, "scale_search"), description="How a group's scale is chosen."
    )
    signed_scales: bool = Field(
        default=default_of(GPTQConfig, "signed_scales"),
        description="A symmetric group's scale may be negative, so that its largest weight takes the extra level.",
    )
    mismatch_alpha: float = Field(
        default=default_of(GPTQConfig, "mismatch_alpha"),
        description="0 to 1: how far a linear's target moves to reproduce the float model's outputs; 0 is faster.",
    )
    calibration: CalibrationOptions = Field(default_factory=CalibrationOptions)
    formats: list[Annotated[Format, Field(strict=False)]] = Field(
        default=list(DEFAULT_FORMATS),
        min_length=1,
        max_length=2,
        description=(
            "Layouts written from one run: the first is the artifact, the other a folder in it. "
            "`gptq` is v1 for symmetric grids and v2 for asymmetric ones."
        ),
    )
    targets: list[Literal["vllm", "transformers", "gptqmodel"]] = Field(
        default_factory=list,
        max_length=3,
        description="Loaders that the artifact must suit; what one cannot load is refused before work starts.",
    )
    evaluate: bool = Field(default=False, description="Measure perplexity before and after, on held-out text.")
    labels: dict[LabelKey, LabelValue] = Field(default_factory=dict, max_length=LABELS_MAX)
    priority: int = Field(
        default=default_of(NewJob, "priority"), ge=-100, le=100, description="Higher is claimed earlier."
    )
    max_attempts: int = Field(
        default=default_of(NewJob, "max_attempts"), ge=1, le=10, description="Attempts before a failure is final."
    )


class JobRequest(JobOptions):
    """One model, one method, one artifact. What is left out takes the documented default."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": {"source": "path", "path": "/models/SmolLM2-135M-Instruct"},
                    "method": "gptq",
                    "bits": 4,
                    "group_size": 64,
                    "calibration": {"set": "builtin", "samples": 32, "seq_len": 512, "seed": 0},
                    "targets": ["gptqmodel", "transformers"],
                    "labels": {"team": "search"},
                }
            ]
        },
    )

    model: AnyModel


class BatchRequest(Strict):
    """Every config on every model: one job each. Nothing is stored where one of them cannot run."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "bits against group size",
                    "models": [{"source": "path", "path": "/models/SmolLM2-135M-Instruct"}],
                    "configs": [
                        {"bits": 4, "group_size": 64, "evaluate": True},
                        {"bits": 3, "group_size": 32, "evaluate": True},
                        {"method": "rtn", "bits": 4, "group_size": 64, "evaluate": True},
                    ],
                    "labels": {"study": "first"},
                }
            ]
        },
    )

    name: Annotated[str, StringConstraints(max_length=200), AfterValidator(_printable)] = ""
    models: list[AnyModel] = Field(min_length=1, max_length=BATCH_JOBS_MAX)
    configs: list[JobOptions] = Field(min_length=1, max_length=BATCH_JOBS_MAX)
    labels: dict[LabelKey, LabelValue] = Field(
        default_factory=dict, max_length=LABELS_MAX, description="For every job; a config's own labels win."
    )

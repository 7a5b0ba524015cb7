"""What a submit reads. The options of methods and of the draw are made from `core.configs`; the rest stands here."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, StringConstraints

from api.schemas.options import Strict, only_for, options_model
from core.calibration.hub import NAME_PATTERN, PREFIX, PRESETS, SELF_SET
from core.configs import (
    CONFIG_CLASSES,
    DEFAULT_FORMATS,
    BudgetConfig,
    CalibrationConfig,
    Format,
    Method,
    Preset,
    all_options,
    methods_with,
)
from core.configs.options import declared_options
from store.jobs import NewJob

BUILTIN_SET = "builtin"
LABELS_MAX = 32
BATCH_JOBS_MAX = 100
CALIBRATED = tuple(method for method, config_class in CONFIG_CLASSES.items() if config_class.needs_calibration)
DEADLINE_MAX_SECONDS = 365 * 24 * 3600


def default_of(config_class: type[Any], name: str) -> Any:  # noqa: ANN401 - of whatever type the field has
    """Returns the default that a dataclass writes for one of its fields."""
    (value,) = (field.default for field in fields(config_class) if field.name == name)
    if value is MISSING:
        raise TypeError(f"{config_class.__name__}.{name} has no default")
    return value


def printable(text: str) -> str:
    """PostgreSQL text cannot hold NUL, and no name here needs any control character."""
    if not text.isprintable():
        raise ValueError("must consist of printable characters")
    return text


Text = Annotated[str, StringConstraints(min_length=1, max_length=1024), AfterValidator(printable)]
LabelKey = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,62}$")]
LabelValue = Annotated[str, StringConstraints(max_length=255), AfterValidator(printable)]


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


class UploadedModelSource(Strict):
    """A model that was uploaded as an archive."""

    source: Literal["upload"]
    id: str = Field(
        pattern=r"^mdl_[0-9a-f]{32}$",
        description="As `POST /v1/uploaded-models` answered.",
        examples=["mdl_0199b2c4d0007f0190a1b2c3d4e5f602"],
    )
    name: Text | None = Field(default=None, description="As the spec of a job shows it; not read.")
    sha256: str | None = Field(
        default=None,
        pattern=r"^[0-9a-f]{64}$",
        description="Refused where the upload has another; the spec of a job carries it.",
    )


AnyModel = Annotated[PathModel | HubModel | UploadedModelSource, Field(discriminator="source")]


if TYPE_CHECKING:
    BudgetOptions = Strict
    DrawOptions = Strict
    MethodOptions = Strict
else:
    BudgetOptions = options_model("BudgetOptions", declared_options(BudgetConfig), "A size to stay under.")
    DrawOptions = options_model("DrawOptions", declared_options(CalibrationConfig), "How text is drawn.")
    MethodOptions = options_model("MethodOptions", all_options(), "Of every method.", methods_with)


class CalibrationOptions(DrawOptions):
    """Which text is drawn from, and how many windows of how many tokens."""

    set: str = Field(
        default=BUILTIN_SET,
        pattern=rf"^(builtin|self|cal_[0-9a-f]{{32}}|{NAME_PATTERN})$",
        description=(
            "`builtin`; the id of an uploaded calibration set; `hub:` with wikitext2, c4, pileval, ultrachat or "
            "OWNER/DATASET[@REVISION][:FILE-PATTERN][#COLUMN], which the worker fetches; or `self`, text that the "
            "float model writes itself, which takes the memory of the whole model."
        ),
        examples=[BUILTIN_SET, *(f"{PREFIX}{name}" for name in PRESETS), SELF_SET],
    )


class PublishTo(Strict):
    """A repository of the model hub."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"repo": "acme/tiny-4bit", "private": True}]})

    repo: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}$",
        description="owner/name; made where it is not there.",
    )
    private: bool = Field(default=True, description="Of a repository that is made; one that is there stays as it is.")


class NeedsOptions(Strict):
    """Which workers may take the job."""

    queue_class: str | None = Field(
        default=None,
        pattern=r"^[a-z0-9_-]{1,64}$",
        description="One that this service has; the first of them by default. `GET /v1/workers` shows them.",
    )
    device: Literal["cpu", "cuda"] | None = Field(default=None, description="What it must run on; any by default.")
    memory_bytes: int | None = Field(
        default=None,
        ge=1,
        le=2**53,
        description="Memory that the worker must have; the estimate of a local model by default.",
    )


class JobOptions(MethodOptions):
    """What is done to a model. What is left out takes the documented default."""

    method: Annotated[Method, Field(strict=False)] = Field(
        default=Method.GPTQ,
        description="`rtn` rounds to nearest and takes no calibration.",
    )
    preset: Annotated[Preset, Field(strict=False)] | None = Field(
        default=None,
        description="Values between time and accuracy; options that are given go before the preset's.",
        json_schema_extra=only_for([method for method, config in CONFIG_CLASSES.items() if config.presets]),
    )
    desc_act: bool | None = Field(
        default=None,
        description="Another spelling of `order`, with `static_groups`.",
        json_schema_extra=only_for(methods_with("order")),
    )
    static_groups: bool | None = Field(
        default=None,
        description="Another spelling of `order`, with `desc_act`.",
        json_schema_extra=only_for(methods_with("order")),
    )
    calibration: CalibrationOptions = Field(default_factory=CalibrationOptions, json_schema_extra=only_for(CALIBRATED))
    budget: BudgetOptions | None = Field(
        default=None,
        description=(
            "A size to stay under: bits and group size of each linear are then chosen from measured losses, and `bits` "
            "and `group_size` are not used. Linears that `dynamic` decides about keep what it says."
        ),
        examples=[{"bits": 3.5}],
        json_schema_extra=only_for(CALIBRATED),
    )
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
    evaluate: bool = Field(
        default=False,
        description=(
            "Measure the artifact against the float model on held-out text: perplexity, KL divergence, the likeliest "
            "next token, and what both say to a prompt."
        ),
    )
    evaluate_nf4: bool = Field(
        default=True,
        description=(
            "With `evaluate`: measure NF4 beside it, where the worker has bitsandbytes. It takes a pass of its own."
        ),
    )
    publish_to: PublishTo | None = Field(
        default=None, description="Where the files go on the hub once they are there; needs a hub token."
    )
    needs: NeedsOptions = Field(default_factory=NeedsOptions)
    labels: dict[LabelKey, LabelValue] = Field(default_factory=dict, max_length=LABELS_MAX)
    priority: int = Field(
        default=default_of(NewJob, "priority"), ge=-100, le=100, description="Higher is claimed earlier."
    )
    max_attempts: int = Field(
        default=default_of(NewJob, "max_attempts"), ge=1, le=10, description="Attempts before a failure is final."
    )
    deadline_s: int | None = Field(
        default=default_of(NewJob, "deadline_seconds"),
        ge=1,
        le=DEADLINE_MAX_SECONDS,
        description=(
            "Seconds from the submit: a job that is not over by then fails with `deadline_exceeded`. A retry starts "
            "them anew. No deadline by default."
        ),
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

    name: Annotated[str, StringConstraints(max_length=200), AfterValidator(printable)] = ""
    models: list[AnyModel] = Field(min_length=1, max_length=BATCH_JOBS_MAX)
    configs: list[JobOptions] = Field(min_length=1, max_length=BATCH_JOBS_MAX)
    labels: dict[LabelKey, LabelValue] = Field(
        default_factory=dict, max_length=LABELS_MAX, description="For every job; a config's own labels win."
    )

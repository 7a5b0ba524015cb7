"""The options that `run` and `jobs submit` share: their spelling, their help, and the request that they stand for.

An option that is not given stays out of the request: defaults are written in `core.configs` and nowhere else.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from core.configs import (
    DEFAULT_FORMATS,
    CalibrationConfig,
    Format,
    GPTQConfig,
    Method,
    Order,
    QuantizationConfig,
    ScaleSearch,
    config_from_dict,
)
from core.errors import InvalidConfigError
from core.overrides import FORM
from core.preflight.targets import Target

_DEFAULT = GPTQConfig()
_CALIBRATION = CalibrationConfig()


GRID = "Grid"
GPTQ = "GPTQ"
CALIBRATION = "Calibration"
CONNECTION = "Connection"

MethodOption = Annotated[
    Method, typer.Option("--method", help="gptq, or rtn: plain rounding, the floor to beat.", rich_help_panel=GRID)
]
BitsOption = Annotated[
    int | None,
    typer.Option("--bits", help="2, 3, 4 or 8.", show_default=str(_DEFAULT.bits), rich_help_panel=GRID),
]
GroupSizeOption = Annotated[
    int | None,
    typer.Option(
        "--group-size",
        help="Inputs that share one scale; -1 for a whole row.",
        show_default=str(_DEFAULT.group_size),
        rich_help_panel=GRID,
    ),
]
SymOption = Annotated[
    bool | None,
    typer.Option(
        "--sym/--no-sym",
        help="Fixed zero point (GPTQ v1 format), or one per group (v2).",
        show_default="sym",
        rich_help_panel=GRID,
    ),
]
DynamicOption = Annotated[
    str | None,
    typer.Option(
        "--dynamic",
        metavar="JSON",
        help='Options of single linears, first match: {"+:REGEX": {"bits": 8}, "-:REGEX": {}} (- leaves it in float).',
        rich_help_panel=GRID,
    ),
]
DescActOption = Annotated[
    bool | None,
    typer.Option(
        "--desc-act/--no-desc-act",
        help="Solve the columns by falling activation.",
        show_default="desc-act",
        rich_help_panel=GPTQ,
    ),
]
StaticGroupsOption = Annotated[
    bool | None,
    typer.Option(
        "--static-groups/--no-static-groups",
        help="Fix the groups first; with --desc-act this is free at inference.",
        show_default="static-groups",
        rich_help_panel=GPTQ,
    ),
]
DampPercentOption = Annotated[
    float | None,
    typer.Option(
        "--damp-percent",
        help="Fraction (not a percentage) of the mean Hessian diagonal added to it.",
        show_default=str(_DEFAULT.damp_percent),
        rich_help_panel=GPTQ,
    ),
]
TrueSequentialOption = Annotated[
    bool | None,
    typer.Option(
        "--true-sequential/--no-true-sequential",
        help="Solve each linear on inputs that carry those before it in its block.",
        show_default="true-sequential",
        rich_help_panel=GPTQ,
    ),
]
ScaleSearchOption = Annotated[
    ScaleSearch | None,
    typer.Option(
        "--scale-search",
        help="How a group's scale is chosen.",
        show_default=str(_DEFAULT.scale_search),
        rich_help_panel=GPTQ,
    ),
]
SignedScalesOption = Annotated[
    bool | None,
    typer.Option(
        "--signed-scales/--no-signed-scales",
        help="Let a symmetric group's scale be negative where that fits its largest weight.",
        show_default="signed-scales",
        rich_help_panel=GPTQ,
    ),
]
MismatchAlphaOption = Annotated[
    float | None,
    typer.Option(
        "--mismatch-alpha",
        help="0 to 1: how far to correct for inputs that earlier rounding changed; 0 is faster.",
        show_default=str(_DEFAULT.mismatch_alpha),
        rich_help_panel=GPTQ,
    ),
]
SamplesOption = Annotated[
    int | None,
    typer.Option(
        "--samples", help="Windows drawn.", show_default=str(_CALIBRATION.samples), rich_help_panel=CALIBRATION
    ),
]
SeqLenOption = Annotated[
    int | None,
    typer.Option(
        "--seq-len", help="Tokens per window.", show_default=str(_CALIBRATION.seq_len), rich_help_panel=CALIBRATION
    ),
]
SeedOption = Annotated[
    int | None,
    typer.Option("--seed", help="Of the draw.", show_default=str(_CALIBRATION.seed), rich_help_panel=CALIBRATION),
]
TargetOption = Annotated[
    list[Target] | None,
    typer.Option(
        "--target", help="A loader that must accept the artifact; give it again for more.", rich_help_panel=GRID
    ),
]
FormatOption = Annotated[
    list[Format] | None,
    typer.Option(
        "--format",
        help="Checkpoint layout; give it again for a further folder inside the artifact, from the same run.",
        show_default=str(DEFAULT_FORMATS[0]),
        rich_help_panel=GRID,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, errors as JSON on stderr.")]
UrlOption = Annotated[
    str | None,
    typer.Option(
        "--url",
        help="Address of the service; else BITMILL_URL.",
        show_default="http://127.0.0.1:8080",
        rich_help_panel=CONNECTION,
    ),
]
ApiKeyOption = Annotated[
    str | None,
    typer.Option("--api-key", help="Bearer key; better in BITMILL_API_KEY.", rich_help_panel=CONNECTION),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizationOptions:
    """What was typed about the method and the grid; None where nothing was."""

    method: Method
    bits: int | None
    group_size: int | None
    sym: bool | None
    desc_act: bool | None
    static_groups: bool | None
    damp_percent: float | None
    true_sequential: bool | None
    scale_search: ScaleSearch | None
    signed_scales: bool | None
    mismatch_alpha: float | None
    dynamic: str | None = None

    def given(self) -> dict[str, Any]:
        """Returns the fields of a request: what was typed, with `order` for the two flags that spell it."""
        fields = {
            "method": str(self.method),
            "bits": self.bits,
            "group_size": self.group_size,
            "sym": self.sym,
            "dynamic": None if self.dynamic is None else _parsed(self.dynamic),
            "order": self._order(),
            "damp_percent": self.damp_percent,
            "true_sequential": self.true_sequential,
            "scale_search": None if self.scale_search is None else str(self.scale_search),
            "signed_scales": self.signed_scales,
            "mismatch_alpha": self.mismatch_alpha,
        }
        return {name: value for name, value in fields.items() if value is not None}

    def config(self) -> QuantizationConfig:
        """Returns the checked config; raises InvalidConfigError naming the field."""
        return config_from_dict(self.given())

    def _order(self) -> str | None:
        """Returns the order that the flags name; a flag that is not given keeps its part of the default order."""
        if self.desc_act is None and self.static_groups is None:
            return None
        return str(
            Order.from_flags(
                desc_act=_DEFAULT.order.sorts_columns if self.desc_act is None else self.desc_act,
                static_groups=_DEFAULT.order.fixes_groups if self.static_groups is None else self.static_groups,
            )
        )


def _parsed(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError as error:
        raise InvalidConfigError("dynamic", text, f"not JSON ({error})", FORM) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationOptions:
    """What was typed about the calibration; None where nothing was."""

    samples: int | None
    seq_len: int | None
    seed: int | None

    def given(self) -> dict[str, Any]:
        """Returns what was typed."""
        fields = {"samples": self.samples, "seq_len": self.seq_len, "seed": self.seed}
        return {name: value for name, value in fields.items() if value is not None}

    def config(self) -> CalibrationConfig:
        """Returns the checked config; raises InvalidConfigError naming the field."""
        return CalibrationConfig.from_dict(self.given())

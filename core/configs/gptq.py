"""GPTQ's options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from core.configs.base import QuantizationConfig
from core.configs.options import option
from core.configs.values import Method, Order, Preset, ScaleSearch


@dataclass(frozen=True, slots=True, kw_only=True)
class GPTQConfig(QuantizationConfig):
    """GPTQ (Frantar et al. 2022, arXiv 2210.17323)."""

    method: ClassVar[Method] = Method.GPTQ
    presets: ClassVar[Mapping[Preset, Mapping[str, Any]]] = {
        Preset.FAST: {"order": Order.DESC_ACT_STATIC, "refine_rounds": 0, "mismatch_alpha": 0.0},
        Preset.DEFAULT: {
            "order": Order.DESC_ACT_STATIC,
            "refine_rounds": 2,
            "mismatch_alpha": 0.75,
            "mismatch_every": 2,
            "stream_beta": 0.75,
        },
        Preset.BEST: {
            "order": Order.ACT_GROUP_AWARE,
            "refine_rounds": 4,
            "mismatch_alpha": 0.75,
            "mismatch_every": 1,
            "stream_beta": 0.75,
        },
    }

    order: Order = option(Order.DESC_ACT_STATIC, help="Column order and source of the group scales.")
    damp_percent: float = option(
        0.05,
        help="A fraction (not a percentage) of the mean Hessian diagonal that is added to it, between 0 and 1.",
        low=0.0,
        high=1.0,
        open_ends=True,
        reason="not a fraction of the mean Hessian diagonal",
        allowed="a fraction between 0 and 1, both excluded",
        per_linear=True,
    )
    true_sequential: bool = option(
        True,
        help="Each linear sees inputs that already carry the quantized linears before it in its block.",
    )
    scale_search: ScaleSearch = option(ScaleSearch.CURVATURE, help="How a group's scale is chosen.", per_linear=True)
    refine_rounds: int = option(
        2,
        help=(
            "Rounds of least-squares scales and coordinate descent on codes after the solve, 0 to 50; with hold_out "
            "kept per linear only where the tokens that judge agree."
        ),
        low=0,
        high=50,
        allowed="a whole number from 0 to 50",
    )
    signed_scales: bool = option(
        True,
        help="A searched scale of a symmetric group may be negative, so that its largest weight takes the extra level.",
    )
    feed_all_experts: bool = option(
        False,
        help=(
            "Every expert's statistics come from every token, while what leaves the experts stays what the router "
            "chose; for models whose experts starve, at the time of a dense model."
        ),
    )
    mismatch_alpha: float = option(
        0.75,
        help=(
            "0 to 1: how far a linear's target moves from its own weights towards those that reproduce the float "
            "model's outputs (Qronos-class, arXiv 2505.11695); 0 runs no float path and is faster."
        ),
        low=0.0,
        high=1.0,
        allowed="a number from 0 to 1",
    )
    mismatch_damp: float = option(
        0.3,
        help="A fraction of the mean Hessian diagonal that damps the target, between 0 and 1; more trusts it less.",
        low=0.0,
        high=1.0,
        open_ends=True,
        reason="not a fraction of the mean Hessian diagonal",
        allowed="a fraction between 0 and 1, both excluded",
    )
    mismatch_every: int = option(
        2,
        help="The float path runs beside every n-th calibration batch: 1 is the most accurate, larger is faster.",
        low=1,
        high=64,
        allowed="a whole number from 1 to 64",
    )

    stream_beta: float = option(
        0.75,
        help=(
            "0 to 1: how far linears that write into the residual stream also make up for what that has drifted from "
            "the float model's; without effect where no float path runs, and with true_sequential off."
        ),
        low=0.0,
        high=1.0,
        allowed="a number from 0 to 1",
    )
    hold_out: bool = option(
        False,
        help=(
            "Keep an eighth of the calibration batches out of the solve, to judge refinement by; otherwise it is taken "
            "as it is. Order auto keeps them out in any case."
        ),
    )

    @property
    def holds_out(self) -> bool:
        """Whether some calibration tokens are kept to choose by."""
        return self.hold_out or self.order is Order.AUTO

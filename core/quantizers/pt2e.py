"""Hands the weights that a method chose on to torchao's PT2E, which quantizes the activations of the exported model.

PT2E on its own fits scales to the weights anew and moves them off the grid that GPTQ solved for. Here the exported
weights are Ŵ, and an observer of our own answers with the scales and zeros that they lie on: the integers that PT2E
computes from them are GPTQ's. Needs torchao (the extra `pt2e`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import nn
from torch.fx import GraphModule, Node
from torchao.quantization.pt2e import HistogramObserver, MinMaxObserver, ObserverBase, UniformQuantizationObserverBase
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
from torchao.quantization.pt2e.quantizer import QuantizationAnnotation, QuantizationSpec, Quantizer

from core.configs import ActivationRange, PT2EConfig
from core.errors import CalibrationProblem, CalibrationRefusedError, InvalidConfigError
from core.model.modules import QuantizedLinear
from core.weights import QuantizedWeight

_LINEAR: Final = torch.ops.aten.linear.default
_ANNOTATION: Final = "quantization_annotation"  # where torchao looks for it
_OBSERVERS: Final = {ActivationRange.HISTOGRAM: HistogramObserver, ActivationRange.MINMAX: MinMaxObserver}


@dataclass(frozen=True, slots=True, kw_only=True)
class HandedOn:
    """One linear's grid as PT2E stores it: int8 codes that are shifted by half the grid.

    scales_O: float32, positive. zeros_O: int64. lowest, highest: the smallest and the largest code.
    """

    scales_O: torch.Tensor  # noqa: N815 - shapes live in names
    zeros_O: torch.Tensor  # noqa: N815
    lowest: int
    highest: int


def prepare_exported(
    model: nn.Module, config: PT2EConfig, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> GraphModule:
    """Exports the model as it runs on one example call, and puts observers on its quantized linears.

    The model's `QuantizedLinear` modules become float linears that hold Ŵ. Raises InvalidConfigError where their grid
    cannot be handed on: it must be one positive scale per output, and the model must run in float32.
    """
    linears = {path: module for path, module in model.named_modules() if isinstance(module, QuantizedLinear)}
    if not linears:
        raise InvalidConfigError(
            "model", type(model).__name__, "it has no quantized linear", "what convert made with GPTQConfig"
        )
    _refuse_other_dtypes(model)
    grids = {path: handed_on(path, module.quantized_weight()) for path, module in linears.items()}
    for path, module in linears.items():
        _replace(model, path, module)
    prepared = prepare_pt2e(_exported(model, args, kwargs), _HandingOn(grids, config))
    assert isinstance(prepared, GraphModule)  # noqa: S101 - torchao is untyped
    return prepared


def convert_exported(prepared: GraphModule) -> GraphModule:
    """Replaces observers by quantization; raises CalibrationRefusedError where the model was not run since."""
    observers = [module for module in prepared.modules() if isinstance(module, UniformQuantizationObserverBase)]
    if not all(bool(torch.isfinite(observer.min_val).all()) for observer in observers):
        raise CalibrationRefusedError(
            CalibrationProblem.EMPTY,
            "No call was made between prepare and convert.",
            "Run the prepared model on calibration data, then convert.",
        )
    converted = convert_pt2e(prepared)
    assert isinstance(converted, GraphModule)  # noqa: S101 - torchao is untyped
    return converted


def handed_on(path: str, weight: QuantizedWeight) -> HandedOn:
    """Returns a weight's grid for PT2E; raises InvalidConfigError where it has groups or a negative scale."""
    if weight.group_size != -1:
        raise InvalidConfigError(
            "group_size", weight.group_size, f"PT2E has one scale per output, and {path} has one per group", "-1"
        )
    if bool((weight.scales_OG <= 0).any()):
        raise InvalidConfigError(
            "signed_scales", "true", f"PT2E takes positive scales only, and {path} has negative ones", "false"
        )
    half = 1 << (weight.bits - 1)
    return HandedOn(
        scales_O=weight.scales_OG[:, 0].float(),
        zeros_O=weight.zeros_OG[:, 0].long() - half,
        lowest=-half,
        highest=half - 1,
    )


class FixedPerChannelObserver(ObserverBase):  # type: ignore[misc]  # torchao is untyped
    """Answers with given scales and zeros, one per output channel, whatever weight passes it.

    torchao's own fixed observer knows one scale per tensor only.
    """

    def __init__(self, *, grid: HandedOn, **_: Any) -> None:  # noqa: ANN401 - torchao repeats the spec's fields
        super().__init__(dtype=torch.int8)
        self.qscheme = torch.per_channel_affine
        self.ch_axis = 0
        self.quant_min, self.quant_max = grid.lowest, grid.highest
        self.register_buffer("scale", grid.scales_O)
        self.register_buffer("zero_point", grid.zeros_O)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Observes nothing."""
        return x

    def calculate_qparams(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the scales and the zeros."""
        return self.scale, self.zero_point


class _HandingOn(Quantizer):  # type: ignore[misc]  # torchao is untyped
    """Marks every linear whose weight has a known grid: 8-bit input, weight on that grid, output in float."""

    def __init__(self, grids: Mapping[str, HandedOn], config: PT2EConfig) -> None:
        super().__init__()
        self._grids = grids
        self._activation = QuantizationSpec(
            dtype=torch.uint8,
            quant_min=0,
            quant_max=255,
            qscheme=torch.per_tensor_affine,
            observer_or_fake_quant_ctr=_OBSERVERS[config.activation_range].with_args(),
        )

    def annotate(self, model: GraphModule) -> GraphModule:
        """Writes the specs into the graph."""
        for node in model.graph.nodes:
            grid = self._grid_of(node)
            if grid is not None:
                X, W = node.args[:2]
                specs = {X: self._activation, W: _weight_spec(grid)}
                node.meta[_ANNOTATION] = QuantizationAnnotation(input_qspec_map=specs, _annotated=True)
        return model

    def validate(self, model: GraphModule) -> None:
        """Has nothing to add."""

    def _grid_of(self, node: Node) -> HandedOn | None:
        if node.target is not _LINEAR:
            return None
        weight = node.args[1]
        if not isinstance(weight, Node) or weight.op != "get_attr":
            return None
        return self._grids.get(str(weight.target).removesuffix(".weight"))


def _weight_spec(grid: HandedOn) -> QuantizationSpec:
    return QuantizationSpec(
        dtype=torch.int8,
        quant_min=grid.lowest,
        quant_max=grid.highest,
        qscheme=torch.per_channel_affine,
        ch_axis=0,
        observer_or_fake_quant_ctr=FixedPerChannelObserver.with_args(grid=grid),
    )


def _refuse_other_dtypes(model: nn.Module) -> None:
    """In a shorter dtype Ŵ would be rounded once more, and its integers could not be told from it."""
    for name, parameter in model.named_parameters():
        if parameter.dtype is not torch.float32:
            dtype = str(parameter.dtype).removeprefix("torch.")
            raise InvalidConfigError("dtype", dtype, f"{name} is not in float32", "float32 (model.float())")


def _replace(model: nn.Module, path: str, module: QuantizedLinear) -> None:
    linear = nn.Linear(module.in_features, module.out_features, bias=module.bias is not None, device="meta")
    linear.weight = nn.Parameter(module.dequantize(), requires_grad=False)
    if module.bias is not None:
        linear.bias = nn.Parameter(module.bias, requires_grad=False)
    parent, _, attribute = path.rpartition(".")
    setattr(model.get_submodule(parent), attribute, linear)


def _exported(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> nn.Module:
    """Exports without a key-value cache, which would be an output of the graph."""
    settings: Any = getattr(model, "config", None)
    cached = getattr(settings, "use_cache", None)
    if cached is not None:
        settings.use_cache = False
    try:
        return torch.export.export(model.eval(), args, dict(kwargs), strict=False).module()
    finally:
        if cached is not None:
            settings.use_cache = cached

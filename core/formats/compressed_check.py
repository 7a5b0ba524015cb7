"""Checks the tensors of a `pack-quantized` artifact against the grids that its config names. No loader, no source."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import torch

from core.errors import ArtifactInvalidError
from core.formats.compressed_tensors import LAYOUT, PACKED, SCALE, SHAPE, ZERO_POINT, grid_of
from core.formats.findings import Finding
from core.preflight.rules import Grid
from core.preflight.safetensors_header import TensorFacts

CONFIG_FILE: Final = "config.json"
WORD_BITS: Final = 32


def compressed_linears(
    quantization: Mapping[str, Any], tensors: Mapping[str, TensorFacts]
) -> dict[str, tuple[Grid, tuple[int, int]]]:
    """Returns grid and (out_features, in_features) of every packed linear by name.

    Raises ArtifactInvalidError where the config names no grid for one.
    """
    linears = {}
    for name in sorted(tensors):
        prefix, _, suffix = name.rpartition(".")
        if suffix == PACKED:
            grid = grid_of(quantization.get("config_groups"), prefix)
            out_features, words = tensors[name].shape
            linears[prefix] = grid, (out_features, words * WORD_BITS // grid.bits)
    return linears


def compressed_findings(
    quantization: Mapping[str, Any],
    tensors: Mapping[str, TensorFacts],
    load: Callable[[str], torch.Tensor],
) -> Iterator[Finding]:
    """Yields everything that is wrong for every loader. load: reads one tensor by name."""
    if quantization.get("format") != LAYOUT:
        yield Finding(file=CONFIG_FILE, detail=f"format is not {LAYOUT}.")
        return
    try:
        linears = compressed_linears(quantization, tensors)
    except ArtifactInvalidError as error:
        yield Finding(file=error.file, detail=error.detail)
        return
    if not linears:
        yield Finding(file="model.safetensors", detail="no quantized linear.")
    for prefix, (grid, shape) in linears.items():
        yield from _linear_findings(prefix, grid, shape, tensors, load)


def _linear_findings(
    prefix: str,
    grid: Grid,
    shape: tuple[int, int],
    tensors: Mapping[str, TensorFacts],
    load: Callable[[str], torch.Tensor],
) -> Iterator[Finding]:
    def finding(suffix: str, problem: str) -> Finding:
        file = tensors[f"{prefix}.{PACKED}"].file
        return Finding(file=file, detail=f"{prefix}.{suffix}: {problem}.")

    if f"{prefix}.weight" in tensors:
        yield finding(PACKED, "the float weight is there too")
    complete = True
    for suffix, facts in _expected(grid, shape).items():
        found = tensors.get(f"{prefix}.{suffix}")
        if found is None or (found.dtype, found.shape) != facts:
            complete = False
            yield finding(suffix, "absent" if found is None else f"{found.dtype} {found.shape}, not {facts}")
    if not complete:
        return
    if load(f"{prefix}.{SHAPE}").tolist() != list(shape):
        yield finding(SHAPE, f"not {shape}, which the codes fill")
    scales = load(f"{prefix}.{SCALE}")
    if not bool(torch.isfinite(scales).all()) or not bool(scales.all()):
        yield finding(SCALE, "a scale is zero or not finite")


def _expected(grid: Grid, shape: tuple[int, int]) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Returns dtype and shape by suffix."""
    out_features, in_features = shape
    groups = 1 if grid.group_size == -1 else in_features // grid.group_size
    expected: dict[str, tuple[str, tuple[int, ...]]] = {
        PACKED: ("int32", (out_features, in_features * grid.bits // WORD_BITS)),
        SCALE: ("float16", (out_features, groups)),
        SHAPE: ("int64", (2,)),
    }
    if not grid.sym:
        expected[ZERO_POINT] = ("int32", (out_features * grid.bits // WORD_BITS, groups))
    return expected

"""The tensors and the config of compressed-tensors' `pack-quantized` layout, made of a GPTQ checkpoint's, and back.

Each tensor is the transpose of a GPTQ one (zeros as version 2 stores them), so no linear is solved twice:
weight_packed [O, I*bits/32] along I, weight_scale [O, G], weight_zero_point [O*bits/32, G] along O for asymmetric
grids, weight_shape [2]. There is no `g_idx`: column i belongs to group i // group_size.
Source: compressed-tensors 0.20, compressors/pack_quantized.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import torch

from core.errors import ArtifactInvalidError
from core.formats.gptq import V2, from_gptq_tensors
from core.formats.packing import pack
from core.preflight.rules import Grid
from core.weights import QuantizedWeight

METHOD: Final = "compressed-tensors"
LAYOUT: Final = "pack-quantized"
PACKED: Final = "weight_packed"
SCALE: Final = "weight_scale"
ZERO_POINT: Final = "weight_zero_point"
SHAPE: Final = "weight_shape"
SUFFIXES: Final = (PACKED, SCALE, ZERO_POINT, SHAPE)
"""The tensors that stand for a linear's `weight`; `bias` keeps its name. ZERO_POINT only where the grid has zeros."""
EVERY_LINEAR: Final = "Linear"
"""The target that matches by class name."""
HEAD: Final = "lm_head"
HEADS: Final = frozenset({HEAD, "embed_out"})


def transposed_suffixes(*, sym: bool) -> dict[str, str]:
    """Returns which tensor of the GPTQ layout (version 2 for asymmetric grids) is the transpose of which one here."""
    pairs = {"qweight": PACKED, "scales": SCALE}
    return pairs if sym else {**pairs, "qzeros": ZERO_POINT}


def shape_tensor(out_features: int, in_features: int) -> torch.Tensor:
    """Returns weight_shape."""
    return torch.tensor([out_features, in_features], dtype=torch.int64)


def from_compressed_tensors(prefix: str, tensors: Mapping[str, torch.Tensor], grid: Grid) -> QuantizedWeight:
    """Returns the linear that the tensors stand for.

    Raises ArtifactInvalidError where a tensor is absent or the shapes do not belong together.
    """
    suffixes = (PACKED, SCALE, SHAPE) if grid.sym else SUFFIXES
    absent = [suffix for suffix in suffixes if f"{prefix}.{suffix}" not in tensors]
    if absent:
        raise ArtifactInvalidError(prefix, f"tensor {absent[0]!r} is absent.")
    scale_OG = tensors[f"{prefix}.{SCALE}"]
    out_features, in_features = (int(size) for size in tensors[f"{prefix}.{SHAPE}"])
    width = in_features if grid.group_size == -1 else grid.group_size
    qzeros = _middle_zeros(scale_OG, grid.bits) if grid.sym else tensors[f"{prefix}.{ZERO_POINT}"].T
    stored = {
        f"{prefix}.qweight": tensors[f"{prefix}.{PACKED}"].T,
        f"{prefix}.qzeros": qzeros,
        f"{prefix}.scales": scale_OG.T,
        f"{prefix}.g_idx": torch.arange(in_features, dtype=torch.int32) // width,
    }
    weight = from_gptq_tensors(prefix, stored, bits=grid.bits, group_size=grid.group_size, sym=grid.sym, version=V2)
    if (weight.out_features, weight.in_features) != (out_features, in_features):
        raise ArtifactInvalidError(prefix, f"{SHAPE} says {(out_features, in_features)}, the codes say otherwise.")
    return weight


def _middle_zeros(scale_OG: torch.Tensor, bits: int) -> torch.Tensor:
    zeros_GO = torch.full(scale_OG.T.shape, 2 ** (bits - 1), dtype=torch.uint8)
    return pack(zeros_GO, bits)


def compressed_config_dict(
    grids: Mapping[str, Grid], ignore: Iterable[str], *, meta: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns config.json's `quantization_config`.

    grids: of every quantized linear by stored name. ignore: modules that stay in float though they may be linears.
    One grid for all is written as a rule for the class; several are written linear by linear, because a loader that
    joins q, k and v finds the class before it finds the parts' names. meta: how the
    artifact was made; readers pass over it.
    """
    by_grid: dict[Grid, list[str]] = {}
    for name, grid in grids.items():
        by_grid.setdefault(grid, []).append(name)
    uniform = len(by_grid) == 1
    heads = [name for name in grids if name in HEADS]  # vLLM knows the head by its name alone, not by the class
    groups = {
        f"group_{number}": {
            "targets": [EVERY_LINEAR, *heads] if uniform else sorted(names),
            "weights": _weights(grid),
            "input_activations": None,
            "output_activations": None,
        }
        for number, (grid, names) in enumerate(by_grid.items())
    }
    return {
        "quant_method": METHOD,
        "format": LAYOUT,
        "quantization_status": "compressed",
        "config_groups": groups,
        "ignore": sorted({*ignore} if heads else {HEAD, *ignore}),
        "kv_cache_scheme": None,
        "global_compression_ratio": None,
        "meta": dict(meta),
    }


def grid_of(groups: object, prefix: str) -> Grid:
    """Returns a linear's grid from the config's `config_groups`; raises ArtifactInvalidError where none names it."""
    for group in groups.values() if isinstance(groups, dict) else ():
        match group:
            case {"targets": [*targets], "weights": weights} if prefix in targets or EVERY_LINEAR in targets:
                return _grid(prefix, weights)
    raise ArtifactInvalidError("config.json", f"no config group names {prefix}.")


def _weights(grid: Grid) -> dict[str, Any]:
    whole_row = grid.group_size == -1
    return {
        "num_bits": grid.bits,
        "type": "int",
        "symmetric": grid.sym,
        "strategy": "channel" if whole_row else "group",
        "group_size": None if whole_row else grid.group_size,
        "dynamic": False,
    }


def _grid(prefix: str, weights: object) -> Grid:
    match weights:
        case {"num_bits": int(bits), "type": "int", "symmetric": bool(sym), "strategy": "channel"}:
            return Grid(bits=bits, group_size=-1, sym=sym)
        case {"num_bits": int(bits), "type": "int", "symmetric": bool(sym), "group_size": int(group_size)}:
            return Grid(bits=bits, group_size=group_size, sym=sym)
    raise ArtifactInvalidError("config.json", f"the config group of {prefix} is no integer grid.")

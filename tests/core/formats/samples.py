"""Random and hand-made quantized weights for the format tests."""

from __future__ import annotations

import torch

from core.weights import QuantizedWeight


def random_weight(  # the options of the grid, each of which some test varies
    *,
    bits: int,
    sym: bool,
    out_features: int = 32,
    in_features: int = 64,
    group_size: int = 16,
    shuffled: bool = False,
    seed: int = 0,
) -> QuantizedWeight:
    """Returns a weight with every code and zero that the width allows, and scales of both signs."""
    generator = torch.Generator().manual_seed(seed)
    width = in_features if group_size == -1 else group_size
    groups = in_features // width
    g_idx = torch.arange(in_features, dtype=torch.int32) // width
    if shuffled:
        g_idx = g_idx[torch.randperm(in_features, generator=generator)]
    zeros = torch.randint(0, 2**bits, (out_features, groups), generator=generator, dtype=torch.uint8)
    return QuantizedWeight(
        codes_OI=torch.randint(0, 2**bits, (out_features, in_features), generator=generator, dtype=torch.uint8),
        scales_OG=torch.randn(out_features, groups, generator=generator).half(),
        zeros_OG=torch.full_like(zeros, 2 ** (bits - 1)) if sym else zeros,
        g_idx_I=g_idx,
        bits=bits,
        group_size=group_size,
        sym=sym,
    )

"""What a solved linear is: integer codes, scales, zeros and the group of each input. Nothing about files or modules.

Legend: O out_features, I in_features, G groups.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizedWeight:
    """The weight of one linear on its grid: W_hat = scales · (codes - zeros), per input column through `g_idx_I`.

    codes_OI: uint8, 0 to 2^bits-1. scales_OG: float16, as stored; a scale may be negative (signed grids), never 0.
    zeros_OG: uint8, 0 to 2^bits-1; 2^(bits-1) everywhere when sym. g_idx_I: int32, group of each input, in
    the layout of the checkpoint. group_size: -1 or inputs per group. order: how the columns were solved, as recorded.
    """

    codes_OI: torch.Tensor  # noqa: N815 - shapes live in names (style.md)
    scales_OG: torch.Tensor  # noqa: N815
    zeros_OG: torch.Tensor  # noqa: N815
    g_idx_I: torch.Tensor  # noqa: N815
    bits: int
    group_size: int
    sym: bool

    @property
    def out_features(self) -> int:
        """Returns O."""
        return self.codes_OI.shape[0]

    @property
    def in_features(self) -> int:
        """Returns I."""
        return self.codes_OI.shape[1]

    @property
    def monotone_groups(self) -> bool:
        """Whether g_idx is i // group_size, which loaders handle without a gather."""
        width = self.in_features if self.group_size == -1 else self.group_size
        plain = torch.arange(self.in_features, dtype=torch.int32, device=self.g_idx_I.device) // width
        return bool(torch.equal(self.g_idx_I, plain))

    def dequantize(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Returns W_hat [O, I], computed in float32 and then cast."""
        if self.monotone_groups:
            W_hat_OGS = self.codes_OI.float().view(*self.scales_OG.shape, -1)
            W_hat_OGS = W_hat_OGS.sub_(self.zeros_OG[:, :, None]).mul_(self.scales_OG.float()[:, :, None])
            return W_hat_OGS.view(self.codes_OI.shape).to(dtype)
        group_I = self.g_idx_I.long()
        W_hat_OI = self.codes_OI.float().sub_(self.zeros_OG[:, group_I])
        return W_hat_OI.mul_(self.scales_OG.float()[:, group_I]).to(dtype)

"""The linear that `convert` leaves in a model: integer codes, scales and zeros, never a rounded float weight."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from core.weights import QuantizedWeight


class QuantizedLinear(nn.Module):
    """Computes x Ŵᵀ + bias with Ŵ = scales · (codes - zeros), expanded for each call and not kept.

    Buffers: codes uint8 [O, I], scales float16 [O, G], zeros uint8 [O, G], g_idx int32 [I]; bias [O] in its own dtype.
    """

    codes: torch.Tensor
    scales: torch.Tensor
    zeros: torch.Tensor
    g_idx: torch.Tensor
    bias: torch.Tensor | None

    def __init__(self, weight: QuantizedWeight, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.bits = weight.bits
        self.group_size = weight.group_size
        self.sym = weight.sym
        self.in_features = weight.in_features
        self.out_features = weight.out_features
        self.register_buffer("codes", weight.codes_OI)
        self.register_buffer("scales", weight.scales_OG)
        self.register_buffer("zeros", weight.zeros_OG)
        self.register_buffer("g_idx", weight.g_idx_I)
        self.register_buffer("bias", None if bias is None else bias.detach().clone())

    def quantized_weight(self) -> QuantizedWeight:
        """Returns the weight as the engine's value; shares the module's memory."""
        return QuantizedWeight(
            codes_OI=self.codes,
            scales_OG=self.scales,
            zeros_OG=self.zeros,
            g_idx_I=self.g_idx,
            bits=self.bits,
            group_size=self.group_size,
            sym=self.sym,
        )

    def dequantize(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Returns Ŵ [O, I]."""
        return self.quantized_weight().dequantize(dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the linear's output [..., O] in the dtype of x [..., I]."""
        return functional.linear(x, self.dequantize(x.dtype), self.bias)

    def extra_repr(self) -> str:
        """Describes the module in `print(model)`."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}, "
            f"bits={self.bits}, group_size={self.group_size}, sym={self.sym}"
        )

"""Puts torch's own 4-bit kernel of the CPU in place of a model's linears: weights stay packed while it decodes.

The kernel computes W = (code - 8) · scale + offset per group, so that offset = (8 - zero) · scale, both in the dtype of
the activations. Legend: O out_features, I in_features, G groups.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch

from core.evaluation.loading import DequantizedSource
from core.model.skeleton import Skeleton

if TYPE_CHECKING:
    from core.weights import QuantizedWeight

KERNEL: Final = "torch_int4pack"
BITS: Final = 4
GROUP_SIZES: Final = frozenset({32, 64, 128, 256})
ROWS: Final = 16
"""The kernel takes a multiple of so many rows."""
MIDDLE: Final = 8
INNER_TILES: Final = 1
"""Tells the kernel's packing how to tile; the CPU has one way."""


class PackedLinear(torch.nn.Module):
    """A linear on packed codes. weight: holds nothing but the dtype, which some families look at."""

    weight: torch.Tensor
    packed: torch.Tensor
    scales_offsets_GO2: torch.Tensor  # noqa: N815 - shapes live in names (style.md)
    order_I: torch.Tensor | None  # noqa: N815
    bias: torch.Tensor | None

    def __init__(self, weight: QuantizedWeight, bias: torch.Tensor | None, dtype: torch.dtype) -> None:
        super().__init__()
        self.group_size, self.out_features = weight.group_size, weight.out_features
        codes_OI = weight.codes_OI
        order_I = None if weight.monotone_groups else torch.argsort(weight.g_idx_I, stable=True)
        if order_I is not None:
            codes_OI = codes_OI[:, order_I]
        scales_OG = weight.scales_OG.float()
        offsets_OG = (MIDDLE - weight.zeros_OG.float()) * scales_OG
        both_GO2 = torch.stack([scales_OG, offsets_OG], dim=-1).transpose(0, 1).contiguous().to(dtype)
        convert = torch.ops.aten._convert_weight_to_int4pack_for_cpu  # noqa: SLF001 - torch has no public name for it
        packed = convert(codes_OI.int().contiguous(), INNER_TILES)
        self.register_buffer("weight", torch.empty(0, dtype=dtype))
        self.register_buffer("packed", packed)
        self.register_buffer("scales_offsets_GO2", both_GO2)
        self.register_buffer("order_I", order_I)
        self.register_buffer("bias", None if bias is None else bias.detach().to(dtype))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns [..., O] of [..., I]."""
        if self.order_I is not None:
            x = x[..., self.order_I]
        flat = x.reshape(-1, x.shape[-1])
        multiply = torch.ops.aten._weight_int4pack_mm_for_cpu  # noqa: SLF001 - same
        y: torch.Tensor = multiply(flat, self.packed, self.group_size, self.scales_offsets_GO2)
        if self.bias is not None:
            y = y + self.bias
        return y.reshape(*x.shape[:-1], self.out_features)


def fits_kernel(weight: QuantizedWeight) -> bool:
    """Whether the kernel takes the linear: 4 bits, its group sizes, whole groups, a multiple of its rows."""
    groups_G = torch.bincount(weight.g_idx_I.long(), minlength=weight.scales_OG.shape[1])
    return (
        weight.bits == BITS
        and weight.group_size in GROUP_SIZES
        and weight.out_features % ROWS == 0
        and bool((groups_G == weight.group_size).all())
    )


def pack_linears(skeleton: Skeleton, source: DequantizedSource) -> bool:
    """Puts packed linears into a loaded model; False where one does not fit, and then some may have been put in.

    Every quantized linear must be one that the kernel takes: a rate of half a model says nothing.
    """
    paths = {stored: target.removesuffix(".weight") for target, stored in skeleton.names.source_of.items()}
    for prefix in source.linears():
        path = paths[f"{prefix}.weight"]
        module, weight = skeleton.model.get_submodule(path), source.linear(prefix)
        if not isinstance(module, torch.nn.Linear) or not fits_kernel(weight):
            return False
        skeleton.model.set_submodule(path, PackedLinear(weight, module.bias, skeleton.dtype))
    return True


def resident_bytes(model: torch.nn.Module) -> int:
    """Returns what a model's tensors take, each storage once."""
    storages = {
        tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
        for tensor in [*model.parameters(), *model.buffers()]
    }
    return sum(storages.values())

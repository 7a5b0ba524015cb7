"""A solved linear to the tensors of the GPTQ checkpoint format and back.

On disk everything is transposed: qweight [I*bits/32, O], qzeros [G, O*bits/32], scales [G, O], g_idx [I], bias [O].
Version 1 ("gptq") stores zero-1, version 2 ("gptq_v2") stores the zero itself. An asymmetric zero of 0 would underflow
into its neighbours in version 1, so symmetric grids are written as version 1 and asymmetric ones as version 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch

from core.configs import BITS
from core.errors import ArtifactInvalidError, InvalidConfigError
from core.formats.packing import pack, unpack
from core.preflight.targets import codes_per_word
from core.weights import QuantizedWeight

V1: Final = "gptq"
V2: Final = "gptq_v2"
SUFFIXES: Final = ("qweight", "qzeros", "scales", "g_idx")
"""The tensors that stand for a linear's `weight`; `bias` keeps its name."""


def checkpoint_format(*, sym: bool) -> str:
    """Returns "gptq" for symmetric grids and "gptq_v2" for asymmetric ones."""
    return V1 if sym else V2


def check_packable(out_features: int, in_features: int, bits: int) -> None:
    """Raises InvalidConfigError, naming `bits`, where the shape does not fill whole 32-bit words."""
    unit = codes_per_word(bits)
    for what, size in (("out_features", out_features), ("in_features", in_features)):
        if size % unit:
            fitting = [
                width
                for width in BITS
                if out_features % codes_per_word(width) == in_features % codes_per_word(width) == 0
            ]
            raise InvalidConfigError(
                "bits",
                bits,
                f"{what} {size} of a linear is not a multiple of {unit}, which {bits}-bit words need",
                " or ".join(map(str, fitting)) or "none: no width fits this shape",
            )


def to_gptq_tensors(
    prefix: str, weight: QuantizedWeight, bias: torch.Tensor | None, *, version: str | None = None
) -> dict[str, torch.Tensor]:
    """Returns the linear's tensors by name, on the CPU.

    bias: [O] of any float dtype, stored as float16. version: of the whole checkpoint; None is version 1 where
    `weight.sym`, else version 2. Raises InvalidConfigError where the shape does not fill words, ArtifactInvalidError
    where the bias has no float16 value or version 1 is asked to hold an asymmetric grid.
    """
    check_packable(weight.out_features, weight.in_features, weight.bits)
    version = version or checkpoint_format(sym=weight.sym)
    if version == V1 and not weight.sym:
        raise ArtifactInvalidError(prefix, "an asymmetric grid cannot be stored in version 1.")
    zeros_GO = weight.zeros_OG.cpu().T - (1 if version == V1 else 0)
    tensors = {
        f"{prefix}.qweight": pack(weight.codes_OI.cpu(), weight.bits).T.contiguous(),
        f"{prefix}.qzeros": pack(zeros_GO, weight.bits),
        f"{prefix}.scales": weight.scales_OG.cpu().T.contiguous(),
        f"{prefix}.g_idx": weight.g_idx_I.cpu(),
    }
    if bias is not None:
        tensors[f"{prefix}.bias"] = _stored_bias(prefix, bias)
    return tensors


def from_gptq_tensors(
    prefix: str, tensors: Mapping[str, torch.Tensor], *, bits: int, group_size: int, sym: bool, version: str
) -> QuantizedWeight:
    """Returns the linear that `to_gptq_tensors` wrote. version: "gptq" or "gptq_v2".

    Raises ArtifactInvalidError where a tensor is absent or the shapes do not belong together.
    """
    try:
        qweight, qzeros, scales, g_idx = (tensors[f"{prefix}.{suffix}"] for suffix in SUFFIXES)
    except KeyError as error:
        raise ArtifactInvalidError(prefix, f"tensor {error.args[0]!r} is absent.") from error
    codes_OI = unpack(qweight.T, bits)
    # uint8 arithmetic wraps, but a stored zero of version 1 is at most 2^bits-2, so the sum stays in range.
    zeros_OG = (unpack(qzeros, bits) + (1 if version == V1 else 0)).T.contiguous()
    weight = QuantizedWeight(
        codes_OI=codes_OI,
        scales_OG=scales.T.contiguous(),
        zeros_OG=zeros_OG,
        g_idx_I=g_idx,
        bits=bits,
        group_size=group_size,
        sym=sym,
    )
    _check_shapes(prefix, weight)
    return weight


def _stored_bias(prefix: str, bias: torch.Tensor) -> torch.Tensor:
    stored = bias.detach().cpu().to(torch.float16)
    if not bool(torch.isfinite(stored).all()):
        raise ArtifactInvalidError(f"{prefix}.bias", "the bias has values that float16 cannot hold.")
    return stored


def _check_shapes(prefix: str, weight: QuantizedWeight) -> None:
    out_features, in_features = weight.codes_OI.shape
    groups = weight.scales_OG.shape[1]
    expected = {"scales": (out_features, groups), "zeros": (out_features, groups), "g_idx": (in_features,)}
    found = {"scales": weight.scales_OG.shape, "zeros": weight.zeros_OG.shape, "g_idx": weight.g_idx_I.shape}
    for name, shape in expected.items():
        if tuple(found[name]) != shape:
            raise ArtifactInvalidError(prefix, f"{name} has the shape {tuple(found[name])}, not {shape}.")
    if int(weight.g_idx_I.min()) < 0 or int(weight.g_idx_I.max()) >= groups:
        raise ArtifactInvalidError(prefix, f"g_idx names a group outside 0 to {groups - 1}.")

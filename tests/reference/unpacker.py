"""Reads the GPTQ checkpoint format in plain Python, from the format's definition alone: one bit at a time, no tricks.

It shares no code with core.formats, so that a mistake there cannot hide in its own mirror.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch


def read_code(words: Sequence[int], position: int, bits: int) -> int:
    """Returns code number `position` of one line of 32-bit words: bits position*bits and up, lowest first."""
    code = 0
    for offset in range(bits):
        bit = position * bits + offset
        code |= ((words[bit // 32] >> (bit % 32)) & 1) << offset
    return code


def unpack_line(words: Sequence[int], bits: int) -> list[int]:
    """Returns all codes of one line of words; negative int32 values stand for words with the top bit set."""
    unsigned = [word & 0xFFFFFFFF for word in words]
    return [read_code(unsigned, position, bits) for position in range(len(words) * 32 // bits)]


def dequantized_weight(prefix: str, tensors: Mapping[str, torch.Tensor], bits: int, version: str) -> torch.Tensor:
    """Returns a linear's weight [O, I] in float64: scale * (code - zero), exact. version: "gptq" or "gptq_v2"."""
    columns = tensors[f"{prefix}.qweight"].T.tolist()
    codes = [unpack_line(column, bits) for column in columns]
    stored_plus = 1 if version == "gptq" else 0
    zeros = [[zero + stored_plus for zero in unpack_line(row, bits)] for row in tensors[f"{prefix}.qzeros"].tolist()]
    scales = tensors[f"{prefix}.scales"].double().tolist()
    groups = tensors[f"{prefix}.g_idx"].tolist()
    return torch.tensor(
        [
            [scales[group][output] * (code - zeros[group][output]) for code, group in zip(row, groups, strict=True)]
            for output, row in enumerate(codes)
        ],
        dtype=torch.float64,
    )

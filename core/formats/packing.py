"""Unsigned codes of 2, 3, 4 or 8 bits to 32-bit words and back, along the last dimension; no transposes here.

Every width is one dense little-endian bit stream: code n takes the bits n*bits to n*bits+bits-1, bit 0 first. For
2, 4 and 8 bits a word holds 32/bits whole codes; for 3 bits, 32 codes fill 3 words and two codes straddle:

    bits 2   word 0  |c15 ... c2 c1 c0|                        16 codes
    bits 4   word 0  |c7 c6 c5 c4 c3 c2 c1 c0|                  8 codes
    bits 8   word 0  |c3 c2 c1 c0|                              4 codes
    bits 3   word 0  |10 c9 ... c1 c0|    c10 = bits 30, 31 of word 0 and bit 0 of word 1
             word 1  |1 c20 ... c11 0|    c21 = bit 31 of word 1 and bits 0, 1 of word 2
             word 2  |c31 ... c22 21|
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import torch

WORD_BITS: Final = 32
_LANES: Final = 8
"""Codes that are packed together inside one 64-bit integer."""
_CHUNK_LANES: Final = 1 << 15
"""Integers worked on at a time: their few temporaries stay in the cache."""


def pack(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """Packs uint8 codes [..., N], each below 2^bits, into int32 words [..., N*bits/32].

    N must fill whole words (`core.preflight.targets.codes_per_word`). Codes are trusted: one that is too large spoils
    its neighbours.
    """
    *leading, count = codes.shape
    flat = codes.reshape(-1).contiguous()
    if flat.storage_offset() % _LANES:  # a slice of something larger: torch only reinterprets aligned memory
        flat = flat.clone()
    if bits == _LANES:
        return flat.view(torch.int32).view(*leading, count // 4)
    lanes = flat.view(torch.int64)
    dense = torch.empty(len(lanes), bits, dtype=torch.uint8, device=codes.device)
    for part, target in _chunks(lanes, dense):
        target.copy_(_close_gaps(part, bits).view(torch.uint8).view(-1, _LANES)[:, :bits])
    return dense.view(-1).view(torch.int32).view(*leading, count * bits // WORD_BITS)


def unpack(words: torch.Tensor, bits: int) -> torch.Tensor:
    """Unpacks int32 words [..., W] into uint8 codes [..., 32*W/bits]; the inverse of `pack`."""
    *leading, count = words.shape
    flat = words.reshape(-1).contiguous().view(torch.uint8)
    if bits == _LANES:
        return flat.view(*leading, count * 4)
    dense = flat.view(-1, bits)
    lanes = torch.empty(len(dense), dtype=torch.int64, device=words.device)
    for part, target in _chunks(dense, lanes):
        spread = torch.zeros(len(part), _LANES, dtype=torch.uint8, device=words.device)
        spread[:, :bits] = part
        target.copy_(_open_gaps(spread.view(torch.int64).view(-1), bits))
    return lanes.view(torch.uint8).view(*leading, count * WORD_BITS // bits)


def _chunks(source: torch.Tensor, target: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    for start in range(0, len(source), _CHUNK_LANES):
        yield source[start : start + _CHUNK_LANES], target[start : start + _CHUNK_LANES]


def _close_gaps(lanes: torch.Tensor, bits: int) -> torch.Tensor:
    """Moves the low `bits` of the 8 bytes of each integer together, at its low end."""
    for width in (8, 16, 32):
        # Lanes of `width` bits each hold `used` bits at their low end; every pair of them becomes one lane.
        used = bits * width // _LANES
        low = _lane_mask(2 * width, used)
        lanes = (lanes & low) | ((lanes >> (width - used)) & (low << used))
    return lanes


def _open_gaps(lanes: torch.Tensor, bits: int) -> torch.Tensor:
    """Undoes `_close_gaps`."""
    for width in (32, 16, 8):
        used = bits * width // _LANES
        low = _lane_mask(2 * width, used)
        lanes = (lanes & low) | ((lanes & (low << used)) << (width - used))
    return lanes


def _lane_mask(width: int, used: int) -> int:
    """Returns a 64-bit mask with the low `used` bits of every lane of `width` bits set; never reaches the sign bit."""
    return sum(((1 << used) - 1) << start for start in range(0, 64, width))

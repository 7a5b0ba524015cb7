"""The solver's products: left · rightᵀ into new memory, or into and onto a view, of whole matrices and of triangles.

On a CPU with wide vectors they run in `numba_float32` or, `rounded` to bfloat16, in `numba_rounded`; elsewhere, and in
other dtypes, torch multiplies, triangles in a few parts so that little of their other half takes part.

Legend: O rows of the left side, J rows of the right, I columns of both.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch

from core.kernels.compiled import multiplies
from core.kernels.halves import WHOLE, Half, Halves
from core.matmul import product
from core.profile import Work, count

# Without the kernels triangles are multiplied in this many parts, none narrower than so many columns.
PARTS = 4
PART_COLUMNS = 512
ALIGNED = 64
_RATE_WIDTH = 1024
_RATE_TRIES = 7


def times_transposed(
    left_OI: torch.Tensor, right_JI: torch.Tensor, work: Work, *, factor: float = 1.0, halves: Halves = WHOLE
) -> torch.Tensor:
    """Returns factor · left · rightᵀ [O, J] and counts its operations; a symmetric right side is its own transpose."""
    product_OJ = right_JI.new_empty(left_OI.shape[0], right_JI.shape[0])
    multiply_into(product_OJ, left_OI, right_JI, work, factor=factor, halves=halves)
    return product_OJ


def multiply_into(
    product_OJ: torch.Tensor,
    left_OI: torch.Tensor,
    right_JI: torch.Tensor,
    work: Work,
    *,
    factor: float = 1.0,
    halves: Halves = WHOLE,
) -> None:
    """Overwrites a view, which shares no memory with the sides, by factor · left · rightᵀ."""
    _multiply(product_OJ, left_OI, right_JI, work, factor=factor, adds=False, halves=halves)


def add_product(
    sums_OJ: torch.Tensor,
    left_OI: torch.Tensor,
    right_JI: torch.Tensor,
    work: Work,
    *,
    factor: float = 1.0,
    halves: Halves = WHOLE,
) -> None:
    """Adds factor · left · rightᵀ to a view, which shares no memory with the sides."""
    _multiply(sums_OJ, left_OI, right_JI, work, factor=factor, adds=True, halves=halves)


def rounded(left_OI: torch.Tensor) -> torch.Tensor:
    """Returns a left side in bfloat16: in its products with float32 right sides these are rounded as well.

    So they are wherever the product is computed, at twice the rate of float32 where the CPU has an instruction for it.
    """
    return left_OI.bfloat16()


def quadratic_form(left_OI: torch.Tensor, H_II: torch.Tensor, work: Work) -> float:
    """Returns tr(A H Aᵀ) for A float32, in one of whose places it is `rounded`, as H is.

    H is symmetric: what lies below its diagonal counts for what lies above it too.
    """
    rounded_OI = rounded(left_OI)
    if _takes_pairs(rounded_OI) and left_OI.numel():
        from core.kernels import numba_rounded  # noqa: PLC0415 - Numba may be missing

        count(work, operations=float(left_OI.numel()) * left_OI.shape[1], dtype="bfloat16")
        return numba_rounded.quadratic_form(left_OI, rounded_OI, H_II)
    twice_OI = times_transposed(rounded_OI, H_II, work, factor=2.0, halves=Halves(right=Half.LOWER))
    twice_OI.addcmul_(rounded_OI.float(), H_II.diagonal().bfloat16().float(), value=-1)
    return times_elementwise(twice_OI, left_OI)


def _takes_pairs(rounded_OI: torch.Tensor) -> bool:
    """Whether the kernel multiplies this side, whose columns it takes two at a time."""
    return multiplies(rounded_OI, torch.bfloat16) and rounded_OI.shape[1] % 2 == 0


def times_elementwise(left_OI: torch.Tensor, right_OI: torch.Tensor) -> float:
    """Returns the sum of the products of what lies at the same places; float32 or wider."""
    return float(torch.dot(left_OI.reshape(-1), right_OI.reshape(-1)))


def _multiply(
    sums_OJ: torch.Tensor,
    left_OI: torch.Tensor,
    right_JI: torch.Tensor,
    work: Work,
    *,
    factor: float,
    adds: bool,
    halves: Halves,
) -> None:
    operations = 2.0 * left_OI.numel() * right_JI.shape[0] * (1.0 if halves == WHOLE else 0.5)
    count(work, operations=operations, dtype=str(left_OI.dtype).removeprefix("torch."))
    if not left_OI.shape[1] and not adds:
        sums_OJ.zero_()
    if not left_OI.numel() or not right_JI.numel():
        return
    if left_OI.dtype is torch.bfloat16 and right_JI.dtype is torch.float32:
        if _takes_pairs(left_OI):
            from core.kernels import numba_rounded  # noqa: PLC0415 - Numba may be missing

            numba_rounded.multiply(sums_OJ, left_OI, right_JI, factor=factor, adds=adds, half=halves.right)
            return
        left_OI, right_JI = left_OI.float(), right_JI.bfloat16().float()
    if multiplies(sums_OJ, torch.float32):
        from core.kernels import numba_float32  # noqa: PLC0415 - Numba may be missing

        numba_float32.multiply(sums_OJ, left_OI, right_JI, factor=factor, adds=adds, halves=halves)
        return
    for part in _parts(halves, sums_OJ.shape, left_OI.shape[1]):
        left, right = left_OI[part.rows, part.depth], right_JI[part.columns, part.depth]
        if halves.left is not Half.ALL:
            left = _half(left, halves.left, part.rows.start - part.depth.start)
        if halves.right is not Half.ALL:
            right = _half(right, halves.right, part.columns.start - part.depth.start)
        target, part_OJ = sums_OJ[part.rows, part.columns], product(left, right)
        if adds:
            target.add_(part_OJ, alpha=factor)
        else:
            torch.mul(part_OJ, factor, out=target)


class _Part(NamedTuple):
    rows: slice
    columns: slice
    depth: slice


def _parts(halves: Halves, shape: tuple[int, ...], depth: int) -> Iterator[_Part]:
    """Yields what is multiplied at a time: all, or what a part of the half's rows has to do with."""
    rows, columns, whole = slice(0, shape[0]), slice(0, shape[1]), slice(0, depth)
    if halves.wanted is not Half.ALL:
        for part in parts_of(shape[0]):
            yield _Part(part, _beside(halves.wanted, part, shape[1]), whole)
    elif halves.left is not Half.ALL:
        for part in parts_of(shape[0]):
            yield _Part(part, columns, _beside(halves.left, part, depth))
    elif halves.right is not Half.ALL:
        for part in parts_of(shape[1]):
            yield _Part(rows, part, _beside(halves.right, part, depth))
    else:
        yield _Part(rows, columns, whole)


def parts_of(width: int) -> list[slice]:
    """Returns the parts in which a triangle of this width is multiplied without kernels."""
    columns = max(PART_COLUMNS, -(-width // (PARTS * ALIGNED)) * ALIGNED)
    return [slice(start, min(start + columns, width)) for start in range(0, width, columns)]


def _beside(half: Half, part: slice, width: int) -> slice:
    return slice(0, part.stop) if half is Half.LOWER else slice(part.start, width)


def _half(matrix: torch.Tensor, half: Half, diagonal: int) -> torch.Tensor:
    return torch.tril(matrix, diagonal) if half is Half.LOWER else torch.triu(matrix, diagonal)


def product_rates(dtypes: Iterable[str], *devices: torch.device) -> dict[str, float]:
    """Returns the operations per second of the devices' matrix products by dtype name, measured in a blink each.

    What is named twice counts once. The products are those of this module: torch's own can be slower.
    """
    return {name: sum(_best_rate(getattr(torch, name), device) for device in {*devices}) for name in dtypes}


def _best_rate(dtype: torch.dtype, device: torch.device) -> float:
    return max(_product_rate(dtype, device) for _ in range(_RATE_TRIES))


def _product_rate(dtype: torch.dtype, device: torch.device) -> float:
    left, right = (torch.ones(_RATE_WIDTH, _RATE_WIDTH, dtype=dtype, device=device) for _ in range(2))
    started = time.perf_counter()
    float(times_transposed(left, right, Work.OTHER)[0, 0])  # waits where the device computes on its own
    return 2.0 * _RATE_WIDTH**3 / (time.perf_counter() - started)

"""Float32 products at the CPU's full rate: of the solver's matrices, and in a model's linears.

torch hands float32 products to a library that on processors of some makers runs at half their vector width; the other
one that it brings does not, and is called here. Both sum in float32; the order of the sums, and so the last digits,
differ. Other devices and dtypes take torch's own product. The library keeps a kernel of its own, about 1 MB, for every
shape that it has met: numbers of rows that are any take torch's product too.

Legend: O rows of the left side, J rows of the right, I columns of both.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from core.profile import Work, count

# Absent where torch was built without the library; torch's own compiler calls it too.
_LINEAR: Any = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch._C._has_mkldnn else None  # noqa: SLF001

# Weights of language models have whole multiples of this many rows.
ROWS = 32
# Triangles are multiplied in this many parts, none narrower than so many columns: a shape more is a kernel more.
PARTS = 4
PART_COLUMNS = 512
ALIGNED = 64
_RATE_WIDTH = 1024
_RATE_TRIES = 7


def times_transposed(left_OI: torch.Tensor, right_JI: torch.Tensor, work: Work) -> torch.Tensor:
    """Returns left · rightᵀ [O, J] and counts its operations; a symmetric right side is its own transpose."""
    operations = 2.0 * left_OI.numel() * right_JI.shape[0]
    count(work, operations=operations, dtype=str(left_OI.dtype).removeprefix("torch."))
    return _product(left_OI, right_JI)


def _product(left_OI: torch.Tensor, right_JI: torch.Tensor) -> torch.Tensor:
    usual = left_OI.device.type == "cpu" and left_OI.dtype is torch.float32 and left_OI.shape[0] % ROWS == 0
    if _LINEAR is None or not usual or not left_OI.numel() or not right_JI.numel():
        return left_OI @ right_JI.T
    product_OJ: torch.Tensor = _LINEAR(left_OI.contiguous(), right_JI.contiguous(), None, "none", [], "")
    return product_OJ


def parts_of(width: int) -> list[slice]:
    """Returns the parts in which a triangle of this width is multiplied, so that little of its other half is."""
    columns = max(PART_COLUMNS, -(-width // (PARTS * ALIGNED)) * ALIGNED)
    return [slice(start, min(start + columns, width)) for start in range(0, width, columns)]


def times_lower_transposed(left_OI: torch.Tensor, lower_II: torch.Tensor, work: Work) -> torch.Tensor:
    """Returns left · lowerᵀ [O, I]; of a lower triangle only what lies below its diagonal takes part."""
    product_OI = left_OI.new_empty(left_OI.shape)
    for part in parts_of(lower_II.shape[0]):
        until = slice(part.stop)
        product_OI[:, part] = times_transposed(left_OI[:, until], lower_II[part, until], work)
    return product_OI


def times_elementwise(left_OI: torch.Tensor, right_OI: torch.Tensor) -> float:
    """Returns the sum of the products of what lies at the same places; float32 or wider."""
    return float(torch.dot(left_OI.reshape(-1), right_OI.reshape(-1)))


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
    float(_product(left, right)[0, 0])  # waits where the device computes on its own
    return 2.0 * _RATE_WIDTH**3 / (time.perf_counter() - started)


def linears_at_full_rate() -> AbstractContextManager[Any]:
    """Returns a context in which this thread's linears multiply float32 on the CPU by the faster library.

    For passes that keep to few numbers of rows, see above.
    """
    return nullcontext() if _LINEAR is None else _FullRate()


class _FullRate(TorchFunctionMode):
    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - whatever the function returns
        if func is torch.nn.functional.linear and not kwargs:
            X, W_OI, *bias = args
            if X.dtype is W_OI.dtype is torch.float32 and X.device.type == "cpu" and X.numel():
                return _LINEAR(X, W_OI, bias[0] if bias else None, "none", [], "")
        return func(*args, **(kwargs or {}))

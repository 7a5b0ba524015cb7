"""Float32 products on the CPU by the faster of torch's two libraries: where there are no kernels, in a model's linears.

torch hands float32 products to a library that on processors of some makers runs at half their vector width; the other
one that it brings does not, and is called here. Both sum in float32; the order of the sums, and so the last digits,
differ. Other devices and dtypes take torch's own product. The library keeps a kernel of its own, about 1 MB, for every
shape that it has met: numbers of rows that are any take torch's product too.

Legend: O rows of the left side, J rows of the right, I columns of both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

# Absent where torch was built without the library; torch's own compiler calls it too.
_LINEAR: Any = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch._C._has_mkldnn else None  # noqa: SLF001

# Weights of language models have whole multiples of this many rows.
ROWS = 32


def product(left_OI: torch.Tensor, right_JI: torch.Tensor) -> torch.Tensor:
    """Returns left · rightᵀ [O, J]."""
    usual = left_OI.device.type == "cpu" and left_OI.dtype is torch.float32 and left_OI.shape[0] % ROWS == 0
    if _LINEAR is None or not usual or not left_OI.numel() or not right_JI.numel():
        return left_OI @ right_JI.T
    product_OJ: torch.Tensor = _LINEAR(left_OI.contiguous(), right_JI.contiguous(), None, "none", [], "")
    return product_OJ


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

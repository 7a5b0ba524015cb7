"""Whether the kernels that Numba compiles for the CPU can be used in this process, and why not where they cannot."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch

from core.environment import match_kernel_threads
from core.kernels.installed import take_over_installed

_TROUBLE = (
    "The compiled kernels cannot be used ({reason}): plain torch solves instead, with the same results in many times "
    "the time. Install numba, or let NUMBA_CACHE_DIR name a folder that can be written."
)
_WIDTH = 16
# What a processor must have for the kernels that multiply, as LLVM calls it.
_FEATURES = {torch.bfloat16: "avx512bf16", torch.float32: "avx512f"}


@cache  # asked by every solve; what can be imported and compiled stays so for a process's life
def trouble() -> str | None:
    """Returns None where the kernels run here, else a sentence for the user; tries them on a few numbers."""
    try:
        from core.kernels import numba_solver  # noqa: PLC0415 - may be missing, which is the question
    except (ImportError, OSError, RuntimeError) as error:
        return _TROUBLE.format(reason=error)
    looked_in = numba_solver._solve_columns.stats.cache_path  # noqa: SLF001 - asked of any kernel, all lie together
    if looked_in is not None:
        take_over_installed(Path(numba_solver.__file__).parent / "__pycache__", Path(looked_in))
    from numba.core.errors import NumbaError  # noqa: PLC0415 - it is there if the kernels are

    match_kernel_threads()
    square = torch.eye(_WIDTH)
    ones = torch.ones(_WIDTH, _WIDTH)
    try:
        numba_solver.solve_columns(square.clone(), square, ones, ones, 1)
    except (NumbaError, RuntimeError, OSError) as error:
        return _TROUBLE.format(reason=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
    return None


def multiplies(X: torch.Tensor, dtype: torch.dtype) -> bool:
    """Whether X has that dtype, float32 or bfloat16, and the kernels that multiply such tensors run here."""
    if X.dtype is not dtype or X.device.type != "cpu" or trouble() is not None:
        return False
    from core.kernels.vectors import has_feature  # noqa: PLC0415 - Numba may be missing

    return has_feature(_FEATURES[dtype])

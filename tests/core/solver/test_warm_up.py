from __future__ import annotations

from core.solver import bfloat16_kernels, numba_kernels, warm_up


def test_the_kernels_of_a_run_are_compiled_afterwards() -> None:
    """What the default options call has a compiled form, the dot-product instruction's sums where there is one."""
    warm_up.warm_up()
    kernels = [
        numba_kernels._solve_columns,
        numba_kernels._best_candidate,
        numba_kernels._best_scale_and_zero,
        numba_kernels._refine_codes,
    ]
    if bfloat16_kernels.is_available():
        kernels += [bfloat16_kernels._pack, bfloat16_kernels._add_products]
    assert all(kernel.signatures for kernel in kernels)

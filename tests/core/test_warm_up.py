from __future__ import annotations

from core import warm_up
from core.kernels import (
    numba_attention,
    numba_float32,
    numba_gate,
    numba_norm,
    numba_products,
    numba_refine,
    numba_rotary,
    numba_rounded,
    numba_solver,
)
from core.kernels.vectors import has_feature


def test_the_kernels_of_a_run_are_compiled_afterwards() -> None:
    """What the default options call has a compiled form, the dot-product instruction's sums where there is one."""
    warm_up.warm_up()
    kernels = [
        numba_solver._solve_columns,
        numba_solver._best_candidate,
        numba_solver._best_scale_and_zero,
        numba_refine._step_scales,
        numba_refine._refine_codes,
        numba_norm._norm_rows,
        numba_gate._gate,
        numba_rotary._rotate,
    ]
    if has_feature("avx512bf16"):
        kernels += [numba_products._pack, numba_products._add_products, numba_attention._attend]
        kernels += [numba_rounded._multiply, numba_rounded._quadratic_form]
    if has_feature("avx512f"):
        kernels.append(numba_float32._multiply)
    assert all(kernel.signatures for kernel in kernels)

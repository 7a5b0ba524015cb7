"""Compiles the CPU's kernels into Numba's cache, so that no run waits for it: `python -m core.warm_up`.

Run when the package is installed and when an image is built. On another kind of processor the first run compiles anew.
"""

from __future__ import annotations

import torch

from core.configs import GPTQConfig
from core.kernels.compiled import trouble
from core.model.attention import attention
from core.solver.gptq import prepare_set, solve
from core.solver.hessian import HessianAccumulator
from core.solver.loss import quadratic_loss
from core.solver.refine import refine

WIDTH = 32


def warm_up() -> None:
    """Solves a tiny problem once in every form in which a run does."""
    generator = torch.Generator().manual_seed(0)
    X_NI, W_OI = (torch.randn(2 * WIDTH, WIDTH, generator=generator) for _ in range(2))
    statistics = HessianAccumulator(WIDTH, X_NI.device)
    statistics.add(X_NI)
    HessianAccumulator(WIDTH, X_NI.device).add(X_NI.bfloat16())
    if trouble() is None:
        from core.kernels import numba_gate, numba_norm, numba_rotary  # noqa: PLC0415 - Numba may be missing

        rows_NI = X_NI.bfloat16()
        numba_norm.norm_rows(rows_NI, torch.ones(WIDTH).bfloat16(), 1e-5)
        numba_gate.gate(rows_NI.clone(), rows_NI, numba_gate.every_number())
        heads = rows_NI.view(1, 1, *X_NI.shape)
        numba_rotary.rotate(heads, heads[0], heads[0])
        attention(torch.nn.Module(), heads, heads, heads, None)
    H_II = statistics.finish().hessian_II
    quadratic_loss(W_OI, H_II)
    for sym in (True, False):
        config = GPTQConfig(bits=4, group_size=WIDTH, sym=sym)
        weight = solve(W_OI, prepare_set(H_II, config), config).weight
        refine(weight, W_OI, H_II, damp=0.01, rounds=1)


if __name__ == "__main__":
    warm_up()

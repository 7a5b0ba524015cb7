"""Seeded weights and correlated inputs for the solver's tests."""

from __future__ import annotations

import pytest
import torch

from core.solver.hessian import HessianAccumulator


def correlated_inputs(tokens: int, width: int, seed: int = 0) -> torch.Tensor:
    """Returns [tokens, width] inputs with strong correlations and uneven scales, as activations have them."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(width, width, generator=generator) / width**0.5
    spread = torch.rand(width, generator=generator) * 3 + 0.05
    return (torch.randn(tokens, width, generator=generator) @ mix) * spread


def random_weight(rows: int, width: int, seed: int = 1) -> torch.Tensor:
    """Returns a weight [rows, width] with a few outliers."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, width, generator=generator) * 0.05
    weight[::7, ::11] *= 4
    return weight


def hessian_of(X: torch.Tensor) -> torch.Tensor:
    """Returns the mean of x xᵀ as the engine computes it."""
    accumulator = HessianAccumulator(X.shape[-1], X.device)
    accumulator.add(X)
    return accumulator.finish().hessian_II


def exact_loss(D_OI: torch.Tensor, H_II: torch.Tensor) -> float:
    """Returns tr(D H Dᵀ) without rounding."""
    return float((D_OI.double() @ H_II.double()).mul_(D_OI).sum())


def relative_distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Returns ‖found - expected‖ / ‖expected‖."""
    return float((found.double() - expected).norm() / expected.double().norm())


def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets torch multiply, and small triangles in parts as large ones."""
    monkeypatch.setattr("core.solver.multiplication.multiplies", lambda *_: False)
    monkeypatch.setattr("core.solver.multiplication.PART_COLUMNS", 8)
    monkeypatch.setattr("core.solver.multiplication.ALIGNED", 8)


def exact_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounds no side of any product: what rounding makes of the last digits of sums hides in no comparison then."""
    for module in ("multiplication", "division", "refine", "target"):
        monkeypatch.setattr(f"core.solver.{module}.rounded", lambda left_OI: left_OI)

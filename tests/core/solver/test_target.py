from __future__ import annotations

import pytest
import torch

from core.configs import GPTQConfig
from core.solver.gptq import prepare_set, solve
from core.solver.hessian import Mismatch
from core.solver.target import mismatch_target
from tests.core.solver.problems import correlated_inputs, hessian_of, random_weight, relative_distance


def _paths(tokens: int = 900, width: int = 48) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns float-path inputs and what earlier rounding made of them."""
    X0_NI = correlated_inputs(tokens, width)
    disturbance = torch.randn(width, width, generator=torch.Generator().manual_seed(4)) * 0.03
    return X0_NI, X0_NI + X0_NI @ disturbance


def _mismatch(X0_NI: torch.Tensor, X_NI: torch.Tensor, drift_NO: torch.Tensor | None = None) -> Mismatch:
    tokens = len(X_NI)
    return Mismatch(
        difference_II=X_NI.T @ (X0_NI - X_NI) / tokens,
        hessian_II=X_NI.T @ X_NI / tokens,
        drift_OI=None if drift_NO is None else drift_NO.T @ X_NI / tokens,
    )


def _target(W_OI: torch.Tensor, mismatch: Mismatch, alpha: float, damp: float, beta: float = 0.0) -> torch.Tensor:
    target = mismatch_target(mismatch, alpha=alpha, beta=beta, damp=damp)
    assert target is not None
    return target.of(W_OI)


def test_equal_paths_leave_the_weights_alone() -> None:
    """Where nothing was rounded before, G = H and the target is the weight itself."""
    X_NI, _ = _paths()
    W_OI = random_weight(12, 48)
    torch.testing.assert_close(_target(W_OI, _mismatch(X_NI, X_NI), 1.0, 0.01), W_OI, rtol=1e-3, atol=1e-3)


def test_the_full_target_is_the_least_squares_answer() -> None:
    """With alpha 1 and hardly any damping, W* x is what least squares gives for W x0, but for bfloat16 rounding.

    That is measured in the outputs' change: the weights may differ where the inputs hardly vary.
    """
    X0_NI, X_NI = _paths()
    W_OI = random_weight(12, 48)
    expected = torch.linalg.lstsq(X_NI.double(), (X0_NI @ W_OI.T).double()).solution.T
    change = _target(W_OI, _mismatch(X0_NI, X_NI), 1.0, 1e-6) - W_OI
    assert relative_distance(X_NI @ change.T, X_NI.double() @ (expected - W_OI).T) < 0.05


@pytest.mark.parametrize("rows", [12, 60])
@pytest.mark.parametrize("damp", [0.01, 0.3])
def test_the_damped_target_is_its_formula(damp: float, rows: int) -> None:
    """W + alpha W (G-H) (H+λI)⁻¹, by way of the rows or of the inputs; rounding costs a hundredth of the change."""
    X0_NI, X_NI = _paths()
    W_OI, mismatch = random_weight(rows, 48), _mismatch(X0_NI, X_NI)
    H_II = (X_NI.T @ X_NI / len(X_NI)).double()
    damped_II = H_II + damp * H_II.diagonal().mean() * torch.eye(48)
    expected = 0.5 * W_OI.double() @ mismatch.difference_II.double().T @ torch.linalg.inv(damped_II)
    change = _target(W_OI, mismatch, 0.5, damp) - W_OI
    assert relative_distance(X_NI @ change.T, X_NI.double() @ expected.T) < 0.01


def test_the_stream_is_made_up_for_by_least_squares() -> None:
    """With beta 1 as well, W* is what least squares gives for W x0 + (r0 - r) ≈ W* x."""
    X0_NI, X_NI = _paths()
    W_OI = random_weight(12, 48)
    drift_NO = 0.1 * torch.randn(len(X_NI), 12, generator=torch.Generator().manual_seed(9)) + 0.2 * X_NI[:, :12]
    wanted = (X0_NI @ W_OI.T + drift_NO).double()
    expected = torch.linalg.lstsq(X_NI.double(), wanted).solution.T
    mismatch = _mismatch(X0_NI, X_NI, drift_NO)
    target_OI = _target(W_OI, mismatch, 1.0, 1e-6, beta=1.0)
    outputs = X_NI @ target_OI.T
    assert relative_distance(X_NI @ (target_OI - W_OI).T, X_NI.double() @ (expected - W_OI).T) < 0.05
    assert float((outputs - wanted).square().sum()) < 0.5 * float((X0_NI @ W_OI.T - wanted).square().sum())
    without = _mismatch(X0_NI, X_NI)
    assert torch.equal(_target(W_OI, mismatch, 1.0, 1e-6, beta=0.0), _target(W_OI, without, 1.0, 1e-6, beta=1.0))


def test_alpha_goes_from_the_weights_to_the_target() -> None:
    """W* is linear in alpha and begins at W."""
    W_OI, mismatch = random_weight(12, 48), _mismatch(*_paths())
    targets = [_target(W_OI, mismatch, alpha, 0.05) for alpha in (0.0, 0.5, 1.0)]
    assert torch.equal(targets[0], W_OI)
    torch.testing.assert_close(targets[1], (targets[0] + targets[2]) / 2)


def test_rounding_towards_the_target_reproduces_the_float_outputs_better() -> None:
    """What counts is ‖W x0 - Ŵ x‖: solving for W* makes it smaller than solving for W, at equal bits."""
    X0_NI, X_NI = _paths()
    W_OI, mismatch = random_weight(40, 48), _mismatch(X0_NI, X_NI)
    config = GPTQConfig(bits=4, group_size=16)
    prepared = prepare_set(hessian_of(X_NI), config)
    targets = (W_OI, _target(W_OI, mismatch, 1.0, 0.05))
    plain, corrected = (solve(target, prepared, config).weight.dequantize() for target in targets)
    distances = [float((X0_NI @ W_OI.T - X_NI @ W_hat.T).square().sum()) for W_hat in (plain, corrected)]
    assert distances[1] < 0.8 * distances[0]


def test_a_hessian_without_a_factor_gives_no_target() -> None:
    """Where H + λI is not positive definite there is no target, and the caller keeps the weights."""
    mismatch = Mismatch(difference_II=torch.eye(2), hessian_II=torch.diag(torch.tensor([1.0, -3.0])))
    assert mismatch_target(mismatch, alpha=0.5, beta=0.0, damp=0.1) is None


def test_a_hessian_is_factorized_under_one_damping() -> None:
    """Its memory is the factor's from then on; another damping is refused, the same one finds the factor again."""
    mismatch = _mismatch(*_paths())
    first = mismatch.divisor(0.05)
    assert first is not None
    assert mismatch.divisor(0.05) is first
    with pytest.raises(ValueError, match=r"0\.05"):
        mismatch.divisor(0.1)

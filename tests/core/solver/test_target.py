from __future__ import annotations

import torch

from core.configs import GPTQConfig
from core.solver.gptq import prepare_set, solve
from core.solver.target import mismatch_map
from tests.core.solver.problems import correlated_inputs, random_weight


def _paths(tokens: int = 900, width: int = 48) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns float-path inputs and what earlier rounding made of them."""
    X0_NI = correlated_inputs(tokens, width)
    disturbance = torch.randn(width, width, generator=torch.Generator().manual_seed(4)) * 0.03
    return X0_NI, X0_NI + X0_NI @ disturbance


def _means(X0_NI: torch.Tensor, X_NI: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return X_NI.T @ X_NI / len(X_NI), X0_NI.T @ X_NI / len(X_NI)


def test_equal_paths_leave_the_weights_alone() -> None:
    """Where nothing was rounded before, G = H and the target is the weight itself."""
    X_NI, _ = _paths()
    H_II, G_II = _means(X_NI, X_NI)
    map_II = mismatch_map(H_II, G_II, alpha=1.0, damp=0.01)
    assert map_II is not None
    torch.testing.assert_close(map_II, torch.eye(48), rtol=1e-3, atol=1e-3)


def test_the_full_target_is_the_least_squares_answer() -> None:
    """With alpha 1 and hardly any damping, W* is what least squares gives for W x0 ≈ W* x."""
    X0_NI, X_NI = _paths()
    W_OI = random_weight(12, 48)
    map_II = mismatch_map(*_means(X0_NI, X_NI), alpha=1.0, damp=1e-6)
    assert map_II is not None
    expected = torch.linalg.lstsq(X_NI.double(), (X0_NI @ W_OI.T).double()).solution.T.float()
    torch.testing.assert_close(W_OI @ map_II, expected, rtol=1e-2, atol=1e-3)


def test_alpha_goes_from_the_weights_to_the_target() -> None:
    """W* is linear in alpha and begins at W."""
    H_II, G_II = _means(*_paths())
    maps = [mismatch_map(H_II, G_II, alpha, damp=0.05) for alpha in (0.0, 0.5, 1.0)]
    assert torch.equal(maps[0], torch.eye(48))
    torch.testing.assert_close(maps[1], (maps[0] + maps[2]) / 2)


def test_rounding_towards_the_target_reproduces_the_float_outputs_better() -> None:
    """What counts is ‖W x0 - Ŵ x‖: solving for W* makes it smaller than solving for W, at equal bits."""
    X0_NI, X_NI = _paths()
    W_OI = random_weight(40, 48)
    H_II, G_II = _means(X0_NI, X_NI)
    config = GPTQConfig(bits=4, group_size=16)
    prepared = prepare_set(H_II, config)
    map_II = mismatch_map(H_II, G_II, alpha=1.0, damp=0.05 * float(H_II.diagonal().mean()))
    assert map_II is not None
    plain, corrected = (solve(target, prepared, config).weight.dequantize() for target in (W_OI, W_OI @ map_II))
    distances = [float((X0_NI @ W_OI.T - X_NI @ W_hat.T).square().sum()) for W_hat in (plain, corrected)]
    assert distances[1] < 0.8 * distances[0]


def test_a_hessian_without_a_factor_gives_no_target() -> None:
    """Where H + λI is not positive definite there is no target, and the caller keeps the weights."""
    assert mismatch_map(torch.diag(torch.tensor([1.0, -3.0])), torch.eye(2), alpha=0.5, damp=0.1) is None

"""Decoding on packed weights: the kernel computes what the expanded weights do, or is not used at all."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from core.evaluation.packed import KERNEL, PackedLinear, fits_kernel
from core.evaluation.sample import sample_both
from core.weights import QuantizedWeight
from tests.core.evaluation.models import quantize_by_hand, save_model

ROWS, INPUTS, GROUP_SIZE = 48, 128, 32


def random_weight(*, shuffled: bool = False, **changes: int) -> QuantizedWeight:
    """Returns a weight with scales of both signs; shuffled: its groups are spread over the inputs."""
    generator = torch.Generator().manual_seed(5)
    groups = INPUTS // GROUP_SIZE
    g_idx_I = torch.arange(INPUTS, dtype=torch.int32) // GROUP_SIZE
    if shuffled:
        g_idx_I = g_idx_I[torch.randperm(INPUTS, generator=generator)]
    scales_OG = (torch.rand(ROWS, groups, generator=generator) * 0.1 + 0.01).half()
    scales_OG[::3] *= -1
    shape = {"bits": 4, "group_size": GROUP_SIZE, **changes}
    return QuantizedWeight(
        codes_OI=torch.randint(0, 16, (ROWS, INPUTS), generator=generator, dtype=torch.uint8),
        scales_OG=scales_OG,
        zeros_OG=torch.randint(0, 16, (ROWS, groups), generator=generator, dtype=torch.uint8),
        g_idx_I=g_idx_I,
        sym=False,
        **shape,
    )


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float16, 2e-3), (torch.bfloat16, 2e-2)])
def test_it_multiplies_by_the_weight_that_the_codes_stand_for(shuffled: bool, dtype: torch.dtype, tolerance: float):
    """With zeros, negative scales, a bias, and groups in any order of the inputs."""
    weight = random_weight(shuffled=shuffled)
    assert fits_kernel(weight)
    bias_O, x = torch.randn(ROWS), torch.randn(2, 3, INPUTS)
    found = PackedLinear(weight, bias_O, dtype)(x.to(dtype)).float()
    expected = x @ weight.dequantize().T + bias_O
    assert found.shape == (2, 3, ROWS)
    assert (found - expected).norm() / expected.norm() < tolerance


@pytest.mark.parametrize("changes", [{"bits": 3}, {"bits": 8}, {"group_size": -1}, {"group_size": 16}])
def test_what_the_kernel_does_not_take_is_known_before(changes: dict[str, int]):
    """Other widths, a scale per row, small groups."""
    assert not fits_kernel(random_weight(**changes))


def test_a_model_of_four_bits_decodes_packed_and_smaller(tmp_path: Path):
    """The rate is that of the packed model, whose tensors take less room than the float one's."""
    save_model(tmp_path / "float", dtype=torch.float32)
    quantize_by_hand(tmp_path / "float", tmp_path / "four", bits=4, sym=True)
    packed = sample_both(tmp_path / "float", tmp_path / "four", torch.float32).packed
    assert packed is not None
    assert packed.kernel == KERNEL
    assert packed.tokens_per_second > 0
    assert 0 < packed.resident_bytes < (tmp_path / "float" / "model.safetensors").stat().st_size


def test_a_model_of_other_widths_is_not_measured_packed(tmp_path: Path):
    """None, so that its rate is told as that of expanded weights."""
    save_model(tmp_path / "float")
    quantize_by_hand(tmp_path / "float", tmp_path / "eight", bits=8, sym=True)
    assert sample_both(tmp_path / "float", tmp_path / "eight", torch.float32).packed is None

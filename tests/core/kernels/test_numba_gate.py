from __future__ import annotations

import pytest
import torch
from torch import nn

from core.kernels.numba_gate import PART_NUMBERS, STEP_NUMBERS, every_number, gate


@pytest.mark.parametrize("activation", [nn.SiLU(), nn.GELU(approximate="tanh"), nn.ReLU()])
@pytest.mark.parametrize("numbers", [1, STEP_NUMBERS + 1, PART_NUMBERS, 2 * PART_NUMBERS + STEP_NUMBERS + 3])
def test_gates_are_bit_by_bit_what_torch_makes_in_two_passes(activation: nn.Module, numbers: int) -> None:
    """Whatever the function is, of whole and partial steps and turns; only the gate's memory is written to."""
    generator = torch.Generator().manual_seed(numbers)
    inner, up = (5 * torch.randn(2, numbers, generator=generator)).bfloat16()
    expected, untouched = activation(inner) * up, up.clone()
    gate(inner, up, activation(every_number()))
    assert torch.equal(inner, expected)
    assert torch.equal(up, untouched)


def test_every_number_lies_at_its_own_bits() -> None:
    """So that a table by these places is one of the function; a NaN's bits are kept too."""
    bits = every_number().view(torch.int16).int() & 0xFFFF
    assert torch.equal(bits, torch.arange(1 << 16, dtype=torch.int32))


def test_what_is_not_finite_stays_where_it_is() -> None:
    """NaN stays NaN, and an infinity times zero becomes one."""
    inner = torch.tensor([1.0, torch.nan, torch.inf, 2.0]).bfloat16()
    up = torch.tensor([torch.nan, 1.0, 0.0, torch.inf]).bfloat16()
    gate(inner, up, every_number().relu())
    assert inner.isnan().tolist() == [True, True, True, False]
    assert inner[3].isinf()

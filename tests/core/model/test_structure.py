from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from core.errors import ModelRefusedError
from core.model.experts import fused_modules, split_experts
from core.model.structure import find_blocks, find_linears, linear_weight, set_linear_weight
from tests.core.tiny import FAMILIES, tiny_model


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_found_by_structure(family: str) -> None:
    """Blocks are the repeated list, and every matrix inside them but the routers' belongs to a linear that is found."""
    model = tiny_model(family)
    split_experts(model, fused_modules(model))
    blocks = find_blocks(model)
    assert len(blocks.modules) == 3
    for block in blocks.modules:
        linears = find_linears(block)
        matrices = {name for name, parameter in block.named_parameters() if parameter.dim() > 1}
        routers = {
            name for name in matrices if name.endswith(("mlp.gate.weight", "router.weight", "expert_gate.weight"))
        }
        assert matrices - routers == {f"{name}.weight" for name in linears}
        assert bool(routers) == any(".experts." in name for name in linears)


def test_a_model_without_blocks_is_refused() -> None:
    """A model without a list of equal blocks is an error that says so, not an empty run."""
    with pytest.raises(ModelRefusedError, match="no list of equal blocks"):
        find_blocks(nn.Sequential(nn.Linear(4, 4), nn.ReLU()))


def test_conv1d_is_seen_and_written_as_out_by_in() -> None:
    """GPT-2's Conv1D stores [in, out]; reading and writing through the common view round-trips."""
    module = Conv1D(6, 4)
    weight = torch.randn(6, 4)
    set_linear_weight(module, weight)
    assert torch.equal(linear_weight(module), weight)
    x = torch.randn(3, 4)
    torch.testing.assert_close(module(x), x @ weight.T + module.bias)

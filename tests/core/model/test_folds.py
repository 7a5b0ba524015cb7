"""What stands in front of a linear and can take over a scale of each of its inputs is found by trying, and is exact."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from core.model.capture import capture
from core.model.folds import Folds, discover_folds, scale_rows
from core.model.input_sets import discover_input_sets
from core.model.structure import find_blocks, find_linears, linear_weight
from tests.core.tiny import random_tokens, tiny_model

NORM_FIRST = {"q_proj": "input_layernorm", "gate_proj": "post_attention_layernorm"}
LINEAR_FIRST = {"o_proj": "self_attn.v_proj", "down_proj": "mlp.up_proj"}
EXPECTED = {
    "llama": NORM_FIRST | LINEAR_FIRST,
    "qwen3": NORM_FIRST | LINEAR_FIRST,
    # v_proj has a bias.
    "qwen2": NORM_FIRST | {"down_proj": "mlp.up_proj"},
    # Its norms multiply by 1 + weight.
    "gemma2": LINEAR_FIRST,
    # One matrix for q, k and v, and one for gate and up, only a part of which is multiplied into what follows.
    "phi3": {"qkv_proj": "input_layernorm", "gate_up_proj": "post_attention_layernorm"},
    "opt": {"q_proj": "self_attn_layer_norm", "fc1": "final_layer_norm"},
    "gpt2": {"c_attn": "ln_1", "c_fc": "ln_2"},
}


def _block(family: str, dtype: torch.dtype) -> tuple[nn.Module, Callable[[], torch.Tensor]]:
    model = tiny_model(family).to(dtype)
    blocks = find_blocks(model).modules
    captured, hidden = capture(model, blocks, [((), {"input_ids": random_tokens(4, 32)})], lambda _: None)
    return blocks[1], lambda: captured[0].arguments[1].call(blocks[1], hidden[0])


def _found(block: nn.Module, run: Callable[[], torch.Tensor]) -> Folds:
    linears = find_linears(block)
    return discover_folds(block, linears, discover_input_sets(linears, run), run)


@pytest.mark.parametrize("family", EXPECTED)
def test_what_can_take_scales_over_is_found(family: str) -> None:
    """Norms before their linears, v before o and up before down where nothing stands in the way; the block stays."""
    block, run = _block(family, torch.float32)
    before = {name: value.clone() for name, value in block.state_dict().items()}
    with torch.no_grad():
        folds = _found(block, run)
    found = {names[0].rpartition(".")[2]: fold.producer for names, fold in folds.items()}
    assert found == EXPECTED[family]
    assert all(torch.equal(value, before[name]) for name, value in block.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_fold_changes_no_bit(dtype: torch.dtype) -> None:
    """With all folds of a block in use at once, grouped heads among them, its output is the same to the last bit."""
    block, run = _block("llama", dtype)
    with torch.no_grad():
        expected = run()
        for seed, (names, fold) in enumerate(_found(block, run).items()):
            producer = block.get_submodule(fold.producer)
            rows = next(producer.parameters(recurse=False)).shape[0]
            exponents_R = torch.randint(-3, 4, (rows,), generator=torch.Generator().manual_seed(seed))
            scale_rows(producer, exponents_R)
            for name in names:
                weight = linear_weight(block.get_submodule(name))
                weight.copy_(torch.ldexp(weight, -exponents_R[fold.rows_I]))
        assert torch.equal(run(), expected)


def test_an_output_that_others_read_is_left_alone() -> None:
    """A norm whose output goes past the linears too cannot be divided for them."""

    class Leaking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.linear = nn.LayerNorm(16), nn.Linear(16, 16, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            normed = self.norm(x)
            return self.linear(normed) + normed

    torch.manual_seed(0)
    block, x = Leaking(), torch.randn(8, 16)
    with torch.no_grad():
        assert not _found(block, lambda: block(x))

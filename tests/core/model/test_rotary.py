from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from transformers.models.deepseek_v2 import modeling_deepseek_v2
from transformers.models.glm4 import modeling_glm4
from transformers.models.llama import modeling_llama

from core.model import rotary
from core.model.intermediates import sparing_intermediates
from tests.core.tiny import DENSE_FAMILIES, EXPERT_FAMILIES, tiny_model

TOKENS = 12
ROTATED = ["gemma", "gemma2", "gemma3", "llama", "mistral", "mixtral", "olmoe", "phi3", "phimoe", "qwen2", "qwen3"]


@pytest.fixture
def rotations(monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    """Returns the shapes of the queries that the kernel has rotated since."""
    seen: list[torch.Size] = []
    own = rotary._by_kernel

    def note(query: torch.Tensor, *others: torch.Tensor) -> rotary.Pair:
        seen.append(query.shape)
        return own(query, *others)

    monkeypatch.setattr(rotary, "_by_kernel", note)
    return seen


def _rotating_alone(model: nn.Module) -> nn.Module:
    """Returns a copy whose rotations are ours and everything else its own."""
    ours = copy.deepcopy(model)
    for module in ours.modules():
        forward = rotary.rotating_forward(type(module).forward)
        if forward is not None:
            module.forward = forward.__get__(module)
    return ours


def _logits(model: nn.Module, **arguments: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.arange(2 * TOKENS).view(2, TOKENS), use_cache=False, **arguments).logits  # type: ignore[no-any-return]


@pytest.mark.parametrize("family", sorted(DENSE_FAMILIES | EXPERT_FAMILIES))
def test_every_family_computes_the_same_bytes(family: str) -> None:
    """Whether it rotates all of a head, a part of it, neighbours, or nothing at all."""
    model = tiny_model(family).bfloat16()
    assert torch.equal(_logits(_rotating_alone(model)), _logits(model))


@pytest.mark.parametrize("family", ROTATED)
def test_plain_rotations_are_the_compiled_one(family: str, rotations: list[torch.Size]) -> None:
    """Once per block, with what the run installs, where the function of the family's file is the plain one."""
    model = tiny_model(family).bfloat16()
    rotary._is_plain.cache_clear()
    with sparing_intermediates(model):
        _logits(model)
    assert rotations.count(torch.Size((2, 4, TOKENS, 16))) == len(model.model.layers)


@pytest.mark.parametrize("positions", [torch.arange(7, 7 + TOKENS)[None], torch.arange(2 * TOKENS).view(2, -1)])
def test_positions_may_begin_anywhere(positions: torch.Tensor, rotations: list[torch.Size]) -> None:
    """The same for all sequences, or each its own."""
    model = tiny_model("llama").bfloat16()
    assert torch.equal(_logits(_rotating_alone(model), position_ids=positions), _logits(model, position_ids=positions))
    assert rotations


@pytest.mark.parametrize("other", [modeling_glm4.apply_rotary_pos_emb, modeling_deepseek_v2.apply_rotary_emb])
def test_another_formula_is_left_to_its_own_function(other: rotary.Rotation) -> None:
    """One that rotates neighbours, and one that takes complex numbers."""
    assert not rotary._is_plain(other)


def test_what_the_kernel_does_not_know_goes_to_the_models_function(rotations: list[torch.Size]) -> None:
    """Other dtypes, options, axes and numbers of positions, and passes with gradients."""
    rotary._is_plain(modeling_llama.apply_rotary_pos_emb)
    rotations.clear()
    q, k = torch.randn(2, 1, 4, 3, 8).bfloat16()
    cos, sin = torch.randn(2, 1, 3, 8).bfloat16()
    own = modeling_llama.apply_rotary_pos_emb
    rotary._rotated(own, q, k, cos, sin)
    with torch.no_grad():
        rotary._rotated(own, q.float(), k.float(), cos.float(), sin.float())
        rotary._rotated(own, q.transpose(1, 2), k.transpose(1, 2), cos, sin, unsqueeze_dim=2)  # type: ignore[arg-type]
        rotary._rotated(own, q, k, cos[:, :1], sin[:, :1])
    assert not rotations


def test_a_forward_that_rotates_nothing_is_left_alone() -> None:
    """Only a function that names the rotation among its globals gets another one."""
    assert rotary.rotating_forward(modeling_llama.LlamaMLP.forward) is None
    assert rotary.rotating_forward(nn.Linear.forward) is None


def test_gradients_still_flow() -> None:
    """The model's own function runs where they are wanted."""
    model = _rotating_alone(tiny_model("llama").bfloat16())
    model(torch.arange(8)[None]).logits.float().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())

"""Split experts compute what transformers' fused ones compute, and tell which tokens reached whom."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from core.model.experts import (
    Feed,
    SplitExperts,
    aligned_inputs,
    each_expert_reached,
    fused_modules,
    is_fused,
    set_feed,
    split_experts,
)
from core.model.input_sets import discover_input_sets
from core.model.passes import BatchRun
from core.model.structure import find_linears
from core.solver.hessian import HessianAccumulator
from tests.core.model.passes import suspended
from tests.core.tiny import EXPERT_FAMILIES, random_tokens, tiny_model

HIDDEN = 64


@pytest.fixture(autouse=True)
def _no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield


def split_model(family: str) -> nn.Module:
    """Returns a tiny model whose experts are split."""
    model = tiny_model(family)
    split_experts(model, fused_modules(model))
    return model


def first_experts(seed: int = 0) -> SplitExperts:
    """Returns the experts of Mixtral's first block."""
    experts = split_model("mixtral").get_submodule("model.layers.0.mlp.experts")
    assert isinstance(experts, SplitExperts)
    torch.manual_seed(seed)
    return experts


def routing(tokens: int, experts: int = 4, used: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns hidden states and a random choice of experts with its weights."""
    index = torch.stack([torch.randperm(experts)[:used] for _ in range(tokens)])
    return torch.randn(tokens, HIDDEN), index, torch.rand(tokens, used)


@pytest.mark.parametrize("family", EXPERT_FAMILIES)
def test_split_experts_give_the_logits_of_the_fused_ones(family: str) -> None:
    """The whole model computes the same after its experts were split, in every family that is split."""
    tokens = random_tokens(3, 24)
    expected = tiny_model(family)(tokens).logits
    model = split_model(family)
    assert not fused_modules(model)
    assert any(isinstance(module, SplitExperts) for module in model.modules())
    torch.testing.assert_close(model(tokens).logits, expected, rtol=1e-5, atol=1e-5)


def test_splitting_copies_no_weight() -> None:
    """The linears are views of the stacked parameters: a model in memory does not grow."""
    model = tiny_model("mixtral")
    fused = model.get_submodule("model.layers.0.mlp.experts")
    storage = fused.get_parameter("gate_up_proj").untyped_storage().data_ptr()
    split_experts(model, fused_modules(model))
    linear = model.get_submodule("model.layers.0.mlp.experts.3.up_proj")
    assert linear.get_parameter("weight").untyped_storage().data_ptr() == storage


@pytest.mark.parametrize(
    ("attribute", "value"), [("has_bias", True), ("is_transposed", True), ("is_concatenated", False)]
)
def test_experts_of_another_form_are_left_alone(attribute: str, value: bool) -> None:
    """Biases, transposed or interleaved weights are no plain gated experts."""
    fused = tiny_model("mixtral").get_submodule("model.layers.0.mlp.experts")
    assert is_fused(fused)
    setattr(fused, attribute, value)
    assert not is_fused(fused)


def test_feeding_all_experts_keeps_the_native_routing() -> None:
    """Every expert sees every token, and what leaves the block is what the router chose."""
    model = split_model("qwen3_moe")
    tokens = random_tokens(3, 24)
    expected = model(tokens).logits
    seen = []
    up = model.get_submodule("model.layers.0.mlp.experts.1.up_proj")
    up.register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
    set_feed(model, Feed.ALL)
    torch.testing.assert_close(model(tokens).logits, expected, rtol=1e-5, atol=1e-5)
    assert [x.shape[0] for x in seen] == [72]


def test_every_expert_is_an_input_set_even_if_the_probe_misses_it() -> None:
    """Sets follow the order of the experts, though the probing batch reaches one expert only."""
    experts = first_experts()
    hidden, index, weights = routing(5)
    linears = find_linears(experts)
    with each_expert_reached(experts):
        sets = discover_input_sets(linears, lambda: experts(hidden, torch.full_like(index, 2), weights))
    assert sets == tuple(names for e in range(4) for names in ((f"{e}.gate_proj", f"{e}.up_proj"), (f"{e}.down_proj",)))
    set_feed(experts, Feed.ALL)
    with each_expert_reached(experts):
        together = discover_input_sets(linears, lambda: experts(hidden, index, weights))
    assert set(together[0]) == {name for name in linears if "down" not in name}


def test_each_expert_gets_the_statistics_of_its_own_tokens() -> None:
    """Over several batches with different routes, every set's Hessian is that of the tokens routed there, unpadded."""
    experts = first_experts()
    batches = [routing(tokens) for tokens in (7, 1, 12)]
    mask = torch.arange(12) < 9
    linears = find_linears(experts)
    with each_expert_reached(experts):
        sets = discover_input_sets(linears, lambda: experts(*batches[1]))
    runs = [
        BatchRun(run=lambda b=batch: experts(*b), token_mask=mask if len(batch[0]) == 12 else None) for batch in batches
    ]
    unpadded = [*batches[:2], tuple(part[mask] for part in batches[2])]
    found: dict[str, HessianAccumulator | None] = {}
    outputs = suspended(linears, sets, lambda names, c: found.update({names[0]: c}), runs)
    for output, batch in zip(outputs, batches, strict=True):
        assert torch.equal(output.quantized, experts(*batch))
    for number in range(4):
        X = torch.cat([hidden[(index == number).any(1)] for hidden, index, _ in unpadded])
        collector = found[f"{number}.gate_proj"]
        assert collector is not None
        statistics = collector.finish()
        assert statistics.tokens == len(X)
        torch.testing.assert_close(statistics.hessian_II, X.T @ X / len(X))


def test_the_float_path_is_paired_token_by_token() -> None:
    """Where the float model routes otherwise, an expert's inputs meet the float inputs of the same tokens only."""
    experts = first_experts()
    hidden, index, weights = routing(40)
    float_hidden, float_index, _ = routing(40)
    linears = find_linears(experts)
    with each_expert_reached(experts):
        sets = discover_input_sets(linears, lambda: experts(hidden, index, weights))
    run = BatchRun(
        run=lambda: experts(hidden, index, weights),
        token_mask=None,
        run_float=lambda: experts(float_hidden, float_index, weights),
    )
    found: dict[str, HessianAccumulator | None] = {}
    output = suspended(linears, sets, lambda names, c: found.update({names[0]: c}), [run])
    assert output[0].float_path is not None
    assert torch.equal(output[0].float_path, experts(float_hidden, float_index, weights))
    for number in range(4):
        here, there = (index == number).any(1), (float_index == number).any(1)
        both = here & there
        collector = found[f"{number}.gate_proj"]
        assert collector is not None
        statistics = collector.finish()
        assert statistics.tokens == int(here.sum())
        assert statistics.mismatch is not None
        between = hidden[both].T @ (float_hidden[both] - hidden[both]) / int(both.sum())
        torch.testing.assert_close(statistics.mismatch.difference_II, between)


def test_tokens_that_only_one_path_sends_have_no_partner() -> None:
    """With no token in common there is no pair, and no token is lost."""
    experts = first_experts()
    seen: list[torch.Tensor] = []
    experts.get_submodule("0.up_proj").register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
    hidden, index, weights = torch.randn(4, HIDDEN), torch.zeros(4, 1, dtype=torch.long), torch.ones(4, 1)
    index[:2] = 1
    experts(hidden, index, weights)
    experts(hidden, 1 - index, weights)
    ((X, mask, beside),) = aligned_inputs(seen[0], torch.tensor([True, True, True, False]), seen[1])
    assert torch.equal(X, hidden[2:])
    assert mask is not None
    assert mask.tolist() == [True, False]
    assert beside is None

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest
import torch

from core.model.capture import capture
from core.model.input_sets import discover_input_sets
from core.model.passes import BatchRun
from core.model.residual import discover_streams
from core.model.structure import find_blocks, find_linears, set_linear_weight
from tests.core.model.passes import suspended
from tests.core.tiny import random_tokens, tiny_model


def _block(family: str) -> tuple[torch.nn.Module, partial[torch.Tensor]]:
    """Returns a block and a run of it on what the model hands to it."""
    model = tiny_model(family)
    blocks = find_blocks(model).modules
    captured, hidden = capture(model, blocks, [((), {"input_ids": random_tokens(2, 8)})], lambda _: None)
    return blocks[0], partial(captured[0].arguments[0].call, blocks[0], hidden[0])


@pytest.fixture(autouse=True)
def _without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma"])
def test_linears_that_write_into_the_stream_are_found(family: str) -> None:
    """The attention's and the MLP's last linears write into it; what the next norm before them reads is the stream."""
    block, run = _block(family)
    assert discover_streams(block, find_linears(block), run) == {
        "self_attn.o_proj": "input_layernorm",
        "mlp.down_proj": "post_attention_layernorm",
    }


def test_an_output_that_is_normalized_before_the_sum_is_not_one_of_them() -> None:
    """Gemma 2 normalizes what its last linears return: no linear's own output is added to the stream."""
    block, run = _block("gemma2")
    assert discover_streams(block, find_linears(block), run) == {}


def test_the_collector_gets_how_far_the_stream_has_drifted() -> None:
    """Equal streams enter the block; with o_proj zeroed, the second stream lacks just what o_proj gave in float."""
    block, run = _block("llama")
    linears = find_linears(block)
    sets = discover_input_sets(linears, run)
    streams = {name: block.get_submodule(path) for name, path in discover_streams(block, linears, run).items()}
    given: list[torch.Tensor] = []
    handle = linears["self_attn.o_proj"].register_forward_hook(lambda _module, _args, output: given.append(output))
    run()
    handle.remove()

    class Drifts:
        def __init__(self, _in_features: int, _device: torch.device) -> None:
            self.drift: torch.Tensor | None = None

        def of_batch(self, _number: int) -> Drifts:
            return self

        def take(self, other: Drifts) -> None:
            raise AssertionError(other)

        def add(
            self,
            X: torch.Tensor,
            token_mask: torch.Tensor | None = None,  # noqa: ARG002 - the collector's contract
            float_X: torch.Tensor | None = None,
            drift: torch.Tensor | None = None,
        ) -> None:
            assert float_X is not None
            assert float_X.shape == X.shape
            self.drift = drift

    found: dict[tuple[str, ...], torch.Tensor | None] = {}

    def zero_output(names: tuple[str, ...], collector: Drifts | None) -> None:
        assert collector is not None
        found[names] = collector.drift
        if names == ("self_attn.o_proj",):
            set_linear_weight(linears["self_attn.o_proj"], torch.zeros(64, 64))

    batch = BatchRun(run=run, token_mask=None, run_float=run)
    suspended(linears, sets, zero_output, [batch], streams=streams, make_collector=Drifts)
    assert {names for names, drift in found.items() if drift is None} == {
        ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        ("mlp.gate_proj", "mlp.up_proj"),
    }
    first, second = found["self_attn.o_proj",], found["mlp.down_proj",]
    assert first is not None
    assert second is not None
    assert not bool(first.any())
    torch.testing.assert_close(second, given[0])

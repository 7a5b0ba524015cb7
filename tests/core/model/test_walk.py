"""Skeleton, names, capture and suspended forward together, on every family."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch

from core.checkpoint.reader import CheckpointReader
from core.errors import ModelRefusedError
from core.model.capture import capture
from core.model.input_sets import InputSets, discover, discover_input_sets
from core.model.passes import BatchRun
from core.model.skeleton import Skeleton
from core.model.structure import find_linears
from core.model.suspend import Conduct
from core.solver.hessian import HessianAccumulator
from tests.core.model.passes import suspended
from tests.core.tiny import FAMILIES, random_tokens, tiny_model, write_tiny_model


@pytest.fixture(autouse=True)
def _no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.mark.parametrize("family", FAMILIES)
def test_blocks_run_alone_reproduce_the_model(family: str, tmp_path: Path) -> None:
    """Loading one block at a time and running it suspended gives the hidden states of the whole model's forward."""
    source = write_tiny_model(tmp_path / "model", family)
    tokens = random_tokens(6, 24).split(2)
    expected = [tiny_model(family)(batch, output_hidden_states=True).hidden_states for batch in tokens]
    with CheckpointReader(source) as reader:
        skeleton = Skeleton.open(source, reader)
        skeleton.load(reader, skeleton.embedding_targets())
        calls = [((), {"input_ids": batch}) for batch in tokens]
        captured, hidden = capture(skeleton.model, skeleton.blocks.modules, calls, lambda _: None)
        skeleton.drop(skeleton.embedding_targets())
        for index, block in enumerate(skeleton.blocks.modules[:-1]):
            skeleton.load(reader, skeleton.block_targets(index))
            linears = find_linears(block)
            runs = [
                BatchRun(
                    run=lambda batch=batch, states=states, i=index, b=block: batch.arguments[i].call(b, states),
                    token_mask=None,
                )
                for batch, states in zip(captured, hidden, strict=True)
            ]
            sets = discover_input_sets(linears, runs[0].run)
            outputs = suspended(linears, sets, lambda _names, _collector: None, runs)
            hidden = [output.quantized for output in outputs]
            skeleton.drop(skeleton.block_targets(index))
            for states, layers in zip(hidden, expected, strict=True):
                torch.testing.assert_close(states, layers[index + 1], rtol=1e-4, atol=1e-4)


def test_nothing_of_a_dropped_part_stays_in_memory(tmp_path: Path) -> None:
    """After a drop every parameter is back on the meta device: the whole model is never in memory."""
    source = write_tiny_model(tmp_path / "model", "gemma")
    with CheckpointReader(source) as reader:
        skeleton = Skeleton.open(source, reader)
        assert all(parameter.is_meta for parameter in skeleton.model.parameters())
        skeleton.load(reader, skeleton.block_targets(1))
        real = {name for name, parameter in skeleton.model.named_parameters() if not parameter.is_meta}
        assert real == set(skeleton.block_targets(1))
        skeleton.drop(skeleton.block_targets(1))
        assert all(parameter.is_meta for parameter in skeleton.model.parameters())


EXPECTED_SETS: dict[str, InputSets] = {
    "llama": (
        ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        ("self_attn.o_proj",),
        ("mlp.gate_proj", "mlp.up_proj"),
        ("mlp.down_proj",),
    ),
    "phi3": (("self_attn.qkv_proj",), ("self_attn.o_proj",), ("mlp.gate_up_proj",), ("mlp.down_proj",)),
    "gpt2": (("attn.c_attn",), ("attn.c_proj",), ("mlp.c_fc",), ("mlp.c_proj",)),
    "opt": (
        ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        ("self_attn.out_proj",),
        ("fc1",),
        ("fc2",),
    ),
}


@pytest.mark.parametrize("family", EXPECTED_SETS)
def test_input_sets_are_discovered(family: str) -> None:
    """Linears fed by the very same tensor form one set, in the order of the forward."""
    model = tiny_model(family)
    captured, hidden = capture(model, _blocks(model), [((), {"input_ids": random_tokens(1, 8)})], lambda _: None)
    block = _blocks(model)[0]
    sets = discover_input_sets(find_linears(block), lambda: captured[0].arguments[0].call(block, hidden[0]))
    assert sets == EXPECTED_SETS[family]


def test_each_set_sees_inputs_that_carry_the_sets_before_it() -> None:
    """True sequential order in one pass: zeroing a set when it is solved is seen by the next set's collector."""
    model = tiny_model("llama")
    block = _blocks(model)[0]
    captured, hidden = capture(model, _blocks(model), [((), {"input_ids": random_tokens(2, 8)})], lambda _: None)
    linears = find_linears(block)
    traces: dict[tuple[str, ...], float] = {}

    def zero_and_note(names: tuple[str, ...], collector: HessianAccumulator | None) -> None:
        assert collector is not None
        traces[names] = float(collector.finish().hessian_II.trace())
        for name in names:
            linears[name].weight.zero_()

    runs = [BatchRun(run=lambda: captured[0].arguments[0].call(block, hidden[0]), token_mask=None)]
    outputs = suspended(linears, EXPECTED_SETS["llama"], zero_and_note, runs)
    assert traces["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"] > 0
    assert traces["self_attn.o_proj",] == 0  # v is zero
    assert traces["mlp.down_proj",] == 0  # gate and up are zero
    torch.testing.assert_close(outputs[0].quantized, hidden[0])  # only the residual path is left


def test_masks_and_positions_are_shared_between_batches() -> None:
    """Equal masks and position embeddings of many batches are kept once, not once per batch and block."""
    model = tiny_model("llama")
    calls = [((), {"input_ids": batch}) for batch in random_tokens(8, 16).split(2)]
    captured, _ = capture(model, _blocks(model), calls, lambda _: None)
    embeddings = {id(a.kwargs["position_embeddings"][0]) for batch in captured for a in batch.arguments}
    assert len(embeddings) == 1


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    """A checkpoint without a tensor that the model needs is refused, and the tensor is named."""
    source = write_tiny_model(tmp_path / "model", "llama")
    with CheckpointReader(source) as reader:
        names = tuple(name for name in reader.names() if "layers.1.mlp.up_proj" not in name)

        class Incomplete:
            def names(self) -> tuple[str, ...]:
                return names

            def tensor(self, name: str) -> torch.Tensor:
                return reader.tensor(name)

        with pytest.raises(ModelRefusedError, match=r"layers\.1\.mlp\.up_proj"):
            Skeleton.open(source, Incomplete())


def _blocks(model: torch.nn.Module) -> tuple[torch.nn.Module, ...]:
    from core.model.structure import find_blocks  # noqa: PLC0415 - keeps the tests above readable top-down

    return find_blocks(model).modules


def test_the_float_path_is_untouched_by_what_is_solved() -> None:
    """The float path passes each set before its weights change: it leaves the block as if nothing were quantized."""
    model = tiny_model("llama")
    block = _blocks(model)[0]
    captured, hidden = capture(
        model, _blocks(model), [((), {"input_ids": batch}) for batch in random_tokens(4, 8).split(2)], lambda _: None
    )
    linears = find_linears(block)
    runs = [partial(batch.arguments[0].call, block, states) for batch, states in zip(captured, hidden, strict=True)]
    expected = [run() for run in runs]
    crossed: list[bool] = []

    class Pairs(HessianAccumulator):
        def add(
            self,
            X: torch.Tensor,
            token_mask: torch.Tensor | None = None,
            float_X: torch.Tensor | None = None,
            drift: torch.Tensor | None = None,
        ) -> None:
            crossed.append(float_X is not None and float_X.shape == X.shape)
            super().add(X, token_mask, float_X, drift)

    def zero(names: tuple[str, ...], _collector: HessianAccumulator | None) -> None:
        for name in names:
            linears[name].weight.zero_()

    batches = [BatchRun(run=run, token_mask=None, run_float=run) for run in runs]
    outputs = suspended(linears, EXPECTED_SETS["llama"], zero, batches, make_collector=Pairs)
    assert crossed == [True] * 8
    for output, states, unchanged in zip(outputs, hidden, expected, strict=True):
        torch.testing.assert_close(output.float_path, unchanged)
        torch.testing.assert_close(output.quantized, states)


class SideBySide(torch.nn.Module):
    """A block whose attention and feed-forward read the same tensor."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.query, self.out, self.up, self.down = (torch.nn.Linear(8, 8, bias=False) for _ in range(4))

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        normed = states / 2
        attended = self.out(torch.tanh(self.query(normed)))
        return states + attended + self.down(torch.tanh(self.up(normed)))


def test_the_float_path_passes_a_set_before_it_is_solved() -> None:
    """Also where another set comes between its members: what leaves on the float path is the float block's."""
    block, states = SideBySide(), torch.randn(2, 4, 8, generator=torch.Generator().manual_seed(1))
    expected = block(states)
    linears = find_linears(block)
    run = partial(block, states)
    assert discover_input_sets(linears, run) == (("query", "up"), ("out",), ("down",))
    sets = discover_input_sets(linears, run, unbroken=True)
    assert sets == (("query",), ("out",), ("up",), ("down",))

    def spoil(names: tuple[str, ...], _collector: HessianAccumulator | None) -> None:
        for name in names:
            linears[name].weight.mul_(0.5)

    batch = BatchRun(run=run, token_mask=None, run_float=run)
    (left,) = suspended(linears, sets, spoil, [batch])
    assert left.float_path is not None
    torch.testing.assert_close(left.float_path, expected, rtol=0, atol=0)
    assert not torch.equal(left.quantized, expected)


def test_parts_of_a_broken_set_share_one_collector() -> None:
    """The inputs of a set that is split for the float path are added up once; both parts are solved from the sums."""
    block, states = SideBySide(), torch.randn(2, 4, 8, generator=torch.Generator().manual_seed(1))
    linears = find_linears(block)
    run = partial(block, states)
    discovery = discover(linears, run, unbroken=True)
    assert discovery.shared == {2: 0}
    solved: dict[tuple[str, ...], HessianAccumulator | None] = {}
    batch = BatchRun(run=run, token_mask=None, run_float=run)
    suspended(linears, discovery.sets, solved.__setitem__, [batch], conduct=Conduct(shared=discovery.shared))
    first, shared = solved["query",], solved["up",]
    assert first is not None
    assert shared is first
    assert shared.finish() is first.finish()
    assert first.finish().tokens == 8


def test_outputs_that_nobody_needs_are_not_computed() -> None:
    """Where every set is solved the batches go no further, and what is behind the last set never runs."""
    block, states = SideBySide(), torch.randn(2, 4, 8, generator=torch.Generator().manual_seed(1))
    linears, finished = find_linears(block), []

    def run() -> torch.Tensor:
        left = block(states)
        finished.append(left)
        return left

    sets = discover_input_sets(linears, run)
    for outputs in (True, False):
        finished.clear()
        batches = [BatchRun(run=run, token_mask=None)] * 3
        left = suspended(linears, sets, lambda _names, _collector: None, batches, conduct=Conduct(outputs=outputs))
        assert len(left) == len(finished) == (3 if outputs else 0)

"""What a suspended batch holds, and that nothing but memory changes when it lets go of what is spent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import pytest
import torch
from torch import nn

from core.model.capture import capture
from core.model.experts import each_expert_reached, fused_modules, split_experts
from core.model.holding import ENTERING, Fed, discover_spent, held_bytes
from core.model.input_sets import InputSets, discover
from core.model.passes import BatchRun
from core.model.structure import find_blocks, find_linears
from core.model.suspend import Conduct
from core.solver.hessian import HessianAccumulator
from tests.core.model.passes import suspended
from tests.core.tiny import FAMILIES, random_tokens, tiny_model

Run = Callable[[], torch.Tensor]


@pytest.fixture(autouse=True)
def _no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield


def _block(family: str) -> tuple[nn.Module, InputSets, list[Run]]:
    """Returns a block, its input sets, and a run of it for each of three batches; experts are reached by few tokens."""
    model = tiny_model(family)
    split_experts(model, fused_modules(model))
    blocks = find_blocks(model).modules
    calls = [((), {"input_ids": tokens}) for tokens in random_tokens(3, 8).split(1)]
    captured, hidden = capture(model, blocks, calls, lambda _: None)
    runs: list[Run] = [
        lambda batch=batch, states=states: batch.arguments[0].call(blocks[0], states.clone())  # type: ignore[misc]
        for batch, states in zip(captured, hidden, strict=True)
    ]
    with each_expert_reached(blocks[0]):
        sets = discover(find_linears(blocks[0]), runs[0], unbroken=True).sets
    return blocks[0], sets, runs


@pytest.mark.parametrize("family", FAMILIES)
def test_letting_go_changes_no_result(family: str) -> None:
    """Sums and outputs of both paths are the same numbers, whatever the family reads twice."""
    found = {}
    for lets_go in (False, True):
        block, sets, runs = _block(family)
        linears = find_linears(block)
        with each_expert_reached(block):
            spent = discover_spent(block, linears, sets, runs[0]) if lets_go else {}
        sums: dict[tuple[str, ...], torch.Tensor] = {}

        def halve(
            names: tuple[str, ...],
            collector: HessianAccumulator | None,
            sums: dict[tuple[str, ...], torch.Tensor] = sums,
            linears: dict[str, nn.Module] = linears,
        ) -> None:
            if collector is not None:
                sums[names] = collector.finish().hessian_II
            for name in names:
                linears[name].weight.mul_(0.5)  # type: ignore[operator,union-attr]  # modules are untyped

        batches = [BatchRun(run=run, run_float=run, token_mask=None, number=n) for n, run in enumerate(runs)]
        left = suspended(linears, sets, halve, batches, conduct=Conduct(spent=spent), block=block)
        found[lets_go] = sums, [(states.quantized, states.float_states()) for states in left]
    torch.testing.assert_close(found[True], found[False], rtol=0, atol=0)


def test_what_is_spent_is_seen() -> None:
    """A decoder reads what entered it until the attention is added, and each norm's output until the next set."""
    block, sets, runs = _block("llama")
    assert discover_spent(block, find_linears(block), sets, runs[0]) == {
        ENTERING: set(),
        0: set(),
        1: {0},
        2: {ENTERING, 0, 1},
        3: {ENTERING, 0, 1, 2},
    }


class SideBySide(nn.Module):
    """A block whose attention and feed-forward read the same tensor, and which keeps one that every call reads."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.query, self.place, self.out, self.up, self.down = (nn.Linear(8, 8, bias=False) for _ in range(5))
        self.places = torch.ones(4, 8)
        self.peeks = False

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        normed = states / 2
        attended = self.out(torch.tanh(self.query(normed) + self.place(self.places)))
        widened = torch.tanh(self.up(normed))
        left = self.down(widened) + attended + states
        return left + normed if self.peeks else left


SETS: InputSets = (("query",), ("place",), ("out",), ("up",), ("down",))
STATES = torch.randn(2, 4, 8, generator=torch.Generator().manual_seed(1))


def test_nothing_is_spent_that_is_read_again_or_is_not_the_blocks_own() -> None:
    """A norm's output that a second branch reads, states that are added at the end, and tensors of the module."""
    block = SideBySide()
    spent = discover_spent(block, find_linears(block), SETS, partial(block, STATES))
    assert spent == {ENTERING: set(), 0: set(), 1: set(), 2: set(), 3: {2}, 4: {0, 2, 3}}


def test_whoever_reads_what_was_let_go_stops() -> None:
    """A block that computes for a later batch what it did not for the first: an error, never another result."""
    block = SideBySide()
    linears = find_linears(block)
    conduct = Conduct(spent=discover_spent(block, linears, SETS, partial(block, STATES)))
    block.peeks = True
    batch = BatchRun(run=lambda: block(STATES / 1), token_mask=None)
    with pytest.raises(RuntimeError, match="size"):
        suspended(linears, SETS, lambda _names, _collector: None, [batch], conduct=conduct, block=block)


@pytest.mark.parametrize("is_view", [False, True])
def test_what_is_spent_takes_no_memory(is_view: bool) -> None:
    """Also where it is a view, which by itself would keep what it was made of."""
    whole = torch.ones(4, 8)
    inputs, memory = whole.view(2, 2, 8) if is_view else whole, whole.untyped_storage()
    fed = Fed({1: {0}})
    fed.arrive(0, inputs)
    assert inputs.numel()
    fed.arrive(1, torch.ones(1))
    assert not inputs.numel()
    assert not whole.numel()
    assert memory.nbytes()  # only this name holds it now


def test_what_a_suspended_batch_holds_is_measured() -> None:
    """In front of each set: the tensors that the block made and still needs there, none that are gone, no weight."""
    block = SideBySide()
    linears, run, one = find_linears(block), partial(block, STATES), STATES.nbytes
    # normed; query as well; tanh(query and place); attended; tanh(up) as well.
    held = held_bytes(linears, SETS, run, {})
    assert held == (one, 2 * one, 2 * one, 2 * one, 3 * one)
    spent = held_bytes(linears, SETS, run, discover_spent(block, linears, SETS, run))
    assert spent == (one, 2 * one, 2 * one, 2 * one, 2 * one)
